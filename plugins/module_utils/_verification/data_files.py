# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages of a running server, as they are on its disk.

What the server has in memory hides what has become of the same page on disk, and pg_checksums takes no running server.
Here files are only read, as a backup reads them: no lock, no session, nobody's code. A page that is just being written
looks damaged for a moment, so it counts as damaged only when it stays as it is.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.page_checks import is_new, page_fault

# A file of a relation: its number, its fork, its segment. Free space and visibility maps are made anew by the server
# when it finds them damaged; files of temporary relations (t3_16384) end with their session.
_FILE = re.compile(r"(\d+)(_init)?(?:\.(\d+))?")
_PAGES = 128  # read at a time
UNREADABLE = "unreadable"  # the fault of a page that the disk does not give
_REFUSED = 100  # such pages of a file, after which the rest of it is left: each may take seconds
_LOOKS, _BETWEEN = 5, 0.2  # how often, and seconds
LAYOUT = """
SELECT current_setting('data_directory') AS data, current_setting('server_version_num')::int / 10000 AS major,
       current_setting('block_size')::int AS block_size,
       (SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'segment_size') AS segment_blocks,
       current_setting('data_checksums') = 'on' AS checksums
"""


class Layout(NamedTuple):
    """What must be known of a cluster to read its files."""

    data: str
    major: int
    block_size: int
    segment_blocks: int
    """Blocks in one file of a relation."""
    checksums: bool


class BadPage(NamedTuple):
    """``path`` as pg_relation_filepath() says it; ``fault`` as of page_fault, or UNREADABLE."""

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


def bad_pages(
    layout: Layout,
    file: DataFile,
    read: Callable[[int], None] = lambda _bytes: None,
    zeros: Callable[[int], None] = lambda _block: None,
) -> Iterator[BadPage]:
    """Pages of a file that the server would refuse, or the disk does not give.

    ``read`` is told how many bytes came, ``zeros`` of each page that holds nothing else.
    """
    size = layout.block_size
    try:
        opened = file.file.open("rb", buffering=0)
    except FileNotFoundError:  # of a relation that was dropped
        return
    except OSError:
        yield BadPage(file.path, file.first, UNREADABLE)
        return
    refused = 0
    with opened:
        number = file.first
        # A read ends early before a sector that the disk does not give: only one that brings nothing is the end. A file
        # that ends within a page is being extended.
        while pages := _read(opened.fileno(), (number - file.first) * size, size):
            read(sum(len(page) for page in pages if page is not None))
            for page in pages:
                if page is None:
                    refused += 1
                    yield BadPage(file.path, number, UNREADABLE)
                else:
                    fault = page_fault(page, number, layout.checksums)
                    if not fault and is_new(page):
                        zeros(number)
                    if fault and _stays(layout, opened.fileno(), file.first, number, page):
                        yield BadPage(file.path, number, fault)
                number += 1
            if refused >= _REFUSED:
                return


def _read(descriptor: int, at: int, size: int) -> list[Optional[bytes]]:
    """Whole pages of a file from there; None for one that the disk does not give. Empty at its end."""
    with contextlib.suppress(OSError):
        chunk = os.pread(descriptor, size * _PAGES, at)
        if len(chunk) >= size or not chunk:
            return [chunk[begin : begin + size] for begin in range(0, len(chunk) - size + 1, size)]
    pages: list[Optional[bytes]] = []
    for begin in range(at, at + size * _PAGES, size):
        try:
            page = os.pread(descriptor, size, begin)
        except OSError:
            pages.append(None)
            continue
        if len(page) < size:
            # Within a page the file ends, or what the disk gives.
            if begin + size > os.fstat(descriptor).st_size:
                break
            pages.append(None)
        else:
            pages.append(page)
    return pages


class Listing:
    """Sizes of the segments of relations, as each directory is when it is first asked for."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._folders: dict[str, dict[str, dict[int, int]]] = {}

    def _segments(self, path: str) -> dict[int, int]:
        folder, _slash, name = path.rpartition("/")
        if folder not in self._folders:
            found: dict[str, dict[int, int]] = {}
            with contextlib.suppress(FileNotFoundError), os.scandir(os.path.join(self._layout.data, folder)) as entries:
                for entry in entries:
                    base, _dot, segment = entry.name.partition(".")
                    if segment.isdigit() or not segment:
                        with contextlib.suppress(FileNotFoundError):  # of a relation that was dropped
                            found.setdefault(base, {})[int(segment or 0)] = entry.stat().st_size
            self._folders[folder] = found
        return self._folders[folder].get(name, {})

    def blocks(self, path: str) -> Optional[tuple[int, bool]]:
        """How many blocks of a relation the server reaches, and whether more lie behind a segment that is too short.

        ``path`` as pg_relation_filepath() says it; None where its first file is missing. The server takes the first
        segment that is not full for the last (PostgreSQL: src/backend/storage/smgr/md.c, mdnblocks).
        """
        segments = self._segments(path)
        if 0 not in segments:
            return None
        blocks = 0
        for segment in itertools.count():
            size = segments.get(segment, 0)
            blocks += size // self._layout.block_size
            if size < self._layout.segment_blocks * self._layout.block_size:
                break
        return blocks, any(one > segment and size for one, size in segments.items())


def _stays(layout: Layout, descriptor: int, first: int, number: int, page: bytes) -> bool:
    """Whether a page is as damaged when it is read again."""
    same = 0
    for _look in range(_LOOKS):
        time.sleep(_BETWEEN)
        try:
            again = os.pread(descriptor, layout.block_size, (number - first) * layout.block_size)
        except OSError:
            return True
        if len(again) < layout.block_size or not page_fault(again, number, layout.checksums):
            return False
        same, page = (same + 1 if again == page else 0), again
        if same == 2:
            return True
    return same > 0
