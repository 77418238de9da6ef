"""Writes docs/metrics.md from the table that the collector exports by. Needs the collection to be importable.

With --check it writes nothing and ends with 1 when the page differs from what it would write.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from pages import ROOT, write

TABLE = "ansible_collections.dbre.recovery.plugins.module_utils._monitoring.metrics"


def wanted(root: Path = ROOT) -> dict[Path, str]:
    """docs/metrics.md as the table says it."""
    return {root / "docs" / "metrics.md": str(importlib.import_module(TABLE).page())}


if __name__ == "__main__":
    sys.exit(write(wanted()))
