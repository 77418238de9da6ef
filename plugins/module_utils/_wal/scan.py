# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read WAL backwards, stretch by stretch, and keep what the search needs of it."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Callable, Optional, TypeVar

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._wal.lsn import format_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._wal.record import Damaged, Record, checked
from ansible_collections.dbre.recovery.plugins.module_utils._wal.source import WalSource
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import (
    Commit,
    CommitLog,
    Line,
    Running,
    changed_filenodes,
    count_rows,
    parse_lines,
    parse_running,
)

Relation = tuple[int, int, int]
Result = TypeVar("Result")
LOCAL_BYTES = 1 << 30  # of pg_wal at a time, newest first
ALWAYS = ("Transaction", "Database", "RelMap", "Standby")
SPECIAL = re.compile(rb"^rmgr: (?:Database|RelMap|Standby) .*(?:DROP|CREATE|UPDATE|RUNNING_XACTS) .*$", re.MULTILINE)
ARCHIVE_SEGMENTS = (8, 16, 32, 64)  # fetched at a time, the last number again and again


@dataclass
class Stretch:
    """What was read of segments ``first`` to before ``after``; ``start`` and ``end`` are where records begin."""

    first: int
    after: int
    start: int
    end: int
    commits: CommitLog = field(default_factory=CommitLog)
    catalog: dict[Relation, list[Record]] = field(default_factory=dict)
    special: list[Line] = field(default_factory=list)
    rows: dict[Relation, Counter[tuple[int, str]]] = field(default_factory=dict)


class Scan:
    """WAL from ``start`` to ``end``, read so far. ``catalogs`` are the relations whose records are read whole."""

    def __init__(self, source: WalSource, end: int, catalogs: Iterable[Relation], floor: int) -> None:
        self.source = source
        self.end = end
        self.start = end
        self.floor = floor
        self.catalogs = list(catalogs)
        self.stretches: list[Stretch] = []
        self._first = (end - 1) // source.segment_size + 1

    @property
    def at_floor(self) -> bool:
        """Whether there is no older WAL to read."""
        return self._first <= self.floor

    @property
    def segments(self) -> int:
        """Number of segments read so far."""
        return (self.end - 1) // self.source.segment_size + 1 - self._first

    def extend(self) -> None:
        """Read the next older stretch: what pg_wal has of it, else what the archive has."""
        first = self._next_first()
        after = self._first
        stretch = self._read(first, after)
        self.stretches.insert(0, stretch)
        self.start, self._first = stretch.start, first
        # What may be asked again lies in the newest of the fetched stretches; the rest would only fill the disk.
        for old in self.stretches[2:]:
            self.source.release(range(old.first, old.after))

    def _next_first(self) -> int:
        after = self._first
        first = after
        while first > self.floor and (after - first) * self.source.segment_size < LOCAL_BYTES:
            if not self.source.is_local(first - 1):
                break
            first -= 1
        if first == after:
            fetched = sum(1 for stretch in self.stretches if not self.source.is_local(stretch.first))
            first = max(self.floor, after - ARCHIVE_SEGMENTS[min(fetched, len(ARCHIVE_SEGMENTS) - 1)])
        return first

    def _read(self, first: int, after: int) -> Stretch:
        end = self.stretches[0].start if self.stretches else self.end
        return self._steady(first, end, lambda: self._read_stretch(first, after, end))

    def _steady(self, first: int, end: int, read: Callable[[], Result]) -> Result:
        """What ``read`` makes of the WAL from segment ``first`` to ``end``; again if the server took a file."""
        while True:
            # The last record may go on in the next segment.
            self.source.provide(range(first, (end - 1) // self.source.segment_size + 1))
            try:
                result = read()
            except RecoveryError:
                if not self.source.refetch_recycled():
                    raise
                continue
            if not self.source.refetch_recycled():
                return result

    def rows(self, relations: Iterable[Relation]) -> Counter[tuple[int, int, str]]:
        """Rows deleted and updated in these files in all WAL read, by (filenode, transaction, kind)."""
        total: Counter[tuple[int, int, str]] = Counter()
        for relation in relations:
            for stretch in self.stretches:
                if relation not in stretch.rows:
                    stretch.rows[relation] = self._steady(
                        stretch.first, stretch.end, functools.partial(self._count_rows, stretch, relation)
                    )
                for (xid, kind), count in stretch.rows[relation].items():
                    total[relation[2], xid, kind] += count
        return total

    def _count_rows(self, stretch: Stretch, relation: Relation) -> Counter[tuple[int, str]]:
        rows: Counter[tuple[int, str]] = Counter()
        option = "--relation={}/{}/{}".format(*relation)
        for piece in self.source.waldump(stretch.start, stretch.end, option, "--rmgr=Heap"):
            count_rows(piece, rows)
        return rows

    def touched(self, commit: Commit) -> set[int]:
        """Filenodes of the relations of which a transaction, its subtransactions included, changed rows."""
        found: set[int] = set()
        for stretch in self.stretches:
            if stretch.start > commit.lsn:
                continue
            for xid in (commit.xid, *commit.subxacts):
                found |= self._steady(stretch.first, stretch.end, functools.partial(self._touched, stretch, xid))
        return found

    def _touched(self, stretch: Stretch, xid: int) -> set[int]:
        options = (f"--xid={xid}", "--rmgr=Heap", "--rmgr=Heap2")
        return {
            filenode
            for piece in self.source.waldump(stretch.start, stretch.end, *options)
            for filenode in changed_filenodes(piece)
        }

    def _read_stretch(self, first: int, after: int, end: int) -> Stretch:
        try:
            start = min(self.source.reader.first_record(first), end)
        except (Damaged, FileNotFoundError) as error:
            raise RecoveryError(f"WAL segment {self.source.name(first)} cannot be read: {error}") from error
        stretch = Stretch(first, after, start, end)
        with ThreadPoolExecutor(1 + len(self.catalogs)) as pool:
            lines = [pool.submit(self._catalog_lines, stretch, relation) for relation in self.catalogs]
            self._transactions(stretch)
            for relation, task in zip(self.catalogs, lines):
                stretch.catalog[relation] = [self.record(line) for line in task.result()]
        return stretch

    def add_catalog(self, relation: Relation) -> list[Record]:
        """Read the records of one more relation whole, in all WAL read and in what will be; returns what there is."""
        self.catalogs.append(relation)
        for stretch in self.stretches:
            read = functools.partial(self._catalog_records, stretch, relation)
            stretch.catalog[relation] = self._steady(stretch.first, stretch.end, read)
        return self.catalog([relation])

    def _transactions(self, stretch: Stretch) -> None:
        for piece in self.source.waldump(stretch.start, stretch.end, *(f"--rmgr={name}" for name in ALWAYS)):
            stretch.commits.add(piece)
            stretch.special += parse_lines(b"\n".join(SPECIAL.findall(piece)))

    def _catalog_lines(self, stretch: Stretch, relation: Relation) -> list[Line]:
        option = "--relation={}/{}/{}".format(*relation)
        return [
            line for piece in self.source.waldump(stretch.start, stretch.end, option) for line in parse_lines(piece)
        ]

    def _catalog_records(self, stretch: Stretch, relation: Relation) -> list[Record]:
        return [self.record(line) for line in self._catalog_lines(stretch, relation)]

    def record(self, line: Line) -> Record:
        """The record that pg_waldump printed as ``line``, read whole."""
        try:
            return checked(self.source.reader.record(line.lsn), line.lsn, line.total, line.xid)
        except (Damaged, FileNotFoundError) as error:
            raise RecoveryError(
                f"the WAL record at {format_lsn(line.lsn)} cannot be read: {error}. Nothing was changed."
            ) from error

    @property
    def commits(self) -> CommitLog:
        """All commits read so far."""
        log = CommitLog()
        for stretch in reversed(self.stretches):
            log.prepend(stretch.commits)
        return log

    def catalog(self, relations: Iterable[Relation]) -> list[Record]:
        """All records of some of the catalogues read so far, in the order of WAL."""
        chosen = list(relations)
        return sorted(
            (record for stretch in self.stretches for relation in chosen for record in stretch.catalog[relation]),
            key=lambda record: record.lsn,
        )

    @property
    def special(self) -> list[Line]:
        """All records that make and drop databases, move mapped catalogues, or list transactions, read so far."""
        return [line for stretch in self.stretches for line in stretch.special]

    @property
    def running(self) -> Optional[Running]:
        """The oldest list of running transactions read."""
        return next((parse_running(line) for line in self.special if line.operation == "RUNNING_XACTS"), None)
