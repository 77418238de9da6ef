"""Writes docs/metrics.md and the dashboards from their tables. Needs the collection to be importable.

With --check it writes nothing and ends with 1 when the page differs from what it would write.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from pages import ROOT, write

ROOM = "ansible_collections.dbre.recovery.plugins.module_utils._monitoring"


def wanted(root: Path = ROOT) -> dict[Path, str]:
    """docs/metrics.md and the dashboards as the tables say them."""
    dashboards = importlib.import_module(f"{ROOM}.dashboards").pages()
    return {
        root / "docs" / "metrics.md": str(importlib.import_module(f"{ROOM}.metrics").page()),
        **{root / "roles" / "backup_monitoring" / "files" / name: str(text) for name, text in dashboards.items()},
    }


if __name__ == "__main__":
    sys.exit(write(wanted()))
