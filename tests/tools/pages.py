"""What the tools share that write pages from specs.

With --check nothing is written, and a tool ends with 1 when a page differs from what it would write.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def outdated(wanted: Mapping[Path, str]) -> dict[Path, str]:
    """Pages that are not there or differ, with the text they should have."""
    return {path: text for path, text in wanted.items() if not path.exists() or path.read_text() != text}


def write(wanted: Mapping[Path, str]) -> int:
    """Write the pages that differ, or only name them; the exit status of the tool."""
    checking = "--check" in sys.argv[1:]
    files = outdated(wanted)
    for path, text in files.items():
        print(f"{'differs' if checking else 'written'}: {path.relative_to(ROOT)}")
        if not checking:
            path.write_text(text)
    return 1 if checking and files else 0
