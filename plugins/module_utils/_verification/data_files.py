# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages of a running server, as they are on its disk.

What the server has in memory hides what has become of the same page on disk, and pg_checksums takes no running server.
Here files are only read, as a backup reads them: no lock, no session, nobody's code. A page that is just being written
looks damaged for a moment, so it counts as damaged only when it stays as it is.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.page_checks import page_fault

# A file of a relation: its number, its fork, its segment. Free space and visibility maps are made anew by the server
# when it finds them damaged; files of temporary relations (t3_16384) end with their session.
_FILE = re.compile(r"(\d+)(_init)?(?:\.(\d+))?")
_PAGES = 128  # read at a time
_LOOKS, _BETWEEN = 5, 0.2  # how often, and seconds


class Layout(NamedTuple):
    """What must be known of a cluster to read its files."""

    data: str
    major: int
    block_size: int
    segment_blocks: int
    """Blocks in one file of a relation."""
    checksums: bool


class BadPage(NamedTuple):
    """``path`` as pg_relation_filepath() says it; ``fault`` as of page_fault."""

    path: str
    block: int
    fault: str


class DataFile(NamedTuple):
    """One segment of a relation's file."""

    file: Path
    path: str
    first: int
    """The number of its first block."""


def data_files(layout: Layout, databases: Optional[Collection[int]] = None) -> Iterator[DataFile]:
    """Files of relations, those that all databases share and those of ``databases`` (OIDs; None: of all)."""
    data = Path(layout.data)
    spaces = [data / "base", *sorted(data.glob(f"pg_tblspc/*/PG_{layout.major}_*"))]
    folders = [data / "global"]
    for space in spaces:
        for folder in sorted(space.iterdir()):
            if folder.name.isdigit() and (databases is None or int(folder.name) in databases):
                folders.append(folder)
    for folder in folders:
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:  # a database that was dropped
            continue
        for name in names:
            match = _FILE.fullmatch(name)
            if match:
                path = str((folder / match[1]).relative_to(data))
                yield DataFile(folder / name, path, int(match[3] or 0) * layout.segment_blocks)


def bad_pages(layout: Layout, file: DataFile, read: Callable[[int], None] = lambda _bytes: None) -> Iterator[BadPage]:
    """Pages of a file that the server would refuse. ``read`` is told how many bytes were read."""
    size = layout.block_size
    try:
        opened = file.file.open("rb", buffering=0)
    except FileNotFoundError:  # of a relation that was dropped
        return
    with opened:
        number = file.first
        while True:
            chunk = opened.read(size * _PAGES)
            read(len(chunk))
            # A file that ends within a page is being extended.
            for at in range(0, len(chunk) - size + 1, size):
                fault = page_fault(chunk[at : at + size], number, layout.checksums)
                if fault and _stays(layout, opened.fileno(), file.first, number, chunk[at : at + size]):
                    yield BadPage(file.path, number, fault)
                number += 1
            if len(chunk) < size * _PAGES:
                return


def _stays(layout: Layout, descriptor: int, first: int, number: int, page: bytes) -> bool:
    """Whether a page is as damaged when it is read again."""
    same = 0
    for _look in range(_LOOKS):
        time.sleep(_BETWEEN)
        again = os.pread(descriptor, layout.block_size, (number - first) * layout.block_size)
        if len(again) < layout.block_size or not page_fault(again, number, layout.checksums):
            return False
        same, page = (same + 1 if again == page else 0), again
        if same == 2:
            return True
    return same > 0
