# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read WAL backwards, stretch by stretch, and keep what the search needs of it."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Callable, Optional, TypeVar

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._wal.catalog import Change, Trace
from ansible_collections.dbre.recovery.plugins.module_utils._wal.index import Index
from ansible_collections.dbre.recovery.plugins.module_utils._wal.locks import precedes
from ansible_collections.dbre.recovery.plugins.module_utils._wal.record import Damaged, Record, checked
from ansible_collections.dbre.recovery.plugins.module_utils._wal.source import WalSource
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import (
    Commit,
    CommitLog,
    Line,
    Running,
    marks,
    parse_lines,
    parse_running,
)

Relation = tuple[int, int, int]
Result = TypeVar("Result")
LOCAL_BYTES = 1 << 28  # of pg_wal at a time, newest first
TRANSACTIONS = ("Transaction",)
ALWAYS = (*TRANSACTIONS, "Database", "RelMap", "Standby", "LogicalMessage")
SPECIAL = re.compile(rb"^rmgr: (?:Database|RelMap|Standby) .*(?:DROP|CREATE\w*|UPDATE|RUNNING_XACTS) .*$", re.MULTILINE)
ARCHIVE_SEGMENTS = (8, 16, 32)  # fetched at a time, the last number again and again


@dataclass
class Catalogue:
    """A catalogue whose rows are followed: the files that it has and had, and which records change it."""

    name: str
    operations: frozenset[str]
    keep: Callable[[Change], bool]
    traces: dict[Relation, Trace] = field(default_factory=dict)

    def changes(self) -> list[Change]:
        """All that is kept of the changes read so far."""
        return [change for trace in self.traces.values() for change in trace.kept.values()]


@dataclass(eq=False)
class Stretch:
    """What was read of segments ``first`` to before ``after``; ``start`` and ``end`` are where records begin."""

    first: int
    after: int
    start: int
    end: int
    commits: CommitLog
    special: list[Line] = field(default_factory=list)
    rows: dict[Relation, Counter[tuple[int, str]]] = field(default_factory=dict)

    @property
    def running(self) -> Optional[Running]:
        """The oldest list of running transactions in it."""
        return next((parse_running(line) for line in self.special if line.operation == "RUNNING_XACTS"), None)


class Scan:
    """WAL from ``start`` to ``end``, read so far.

    ``rmgrs`` are the resource managers of which all is read, ``keep_rest`` what is kept of commits (see CommitLog).
    """

    def __init__(
        self,
        source: WalSource,
        end: int,
        floor: int,
        *,
        rmgrs: Iterable[str] = ALWAYS,
        keep_rest: Optional[Callable[[int, bytes], bool]] = None,
    ) -> None:
        self.source = source
        self.end = end
        self.start = end
        self.floor = floor
        self.catalogues: list[Catalogue] = []
        self.stretches: list[Stretch] = []
        self.marks: dict[int, str] = {}
        self._rmgrs = [f"--rmgr={name}" for name in rmgrs]
        self.keep_rest = keep_rest
        self._first = (end - 1) // source.segment_size + 1

    @property
    def at_floor(self) -> bool:
        """Whether there is no older WAL to read."""
        return self._first <= self.floor

    @property
    def segments(self) -> int:
        """Number of segments read so far."""
        return (self.end - 1) // self.source.segment_size + 1 - self._first

    @property
    def next_segment(self) -> int:
        """Number of the segment before all that was read."""
        return self._first - 1

    def extend(self) -> None:
        """Read the next older stretch: what pg_wal has of it, else what the archive has."""
        first = self._next_first()
        after = self._first
        stretch = self._read(first, after)
        self.stretches.insert(0, stretch)
        self.start, self._first = stretch.start, first
        for catalogue in self.catalogues:
            for relation in list(catalogue.traces):
                self._follow(stretch, catalogue, relation)
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
            batch = ARCHIVE_SEGMENTS[min(fetched, len(ARCHIVE_SEGMENTS) - 1)]
            first = max(self.floor, after - self.source.fitting(batch))
        return first

    def _read(self, first: int, after: int) -> Stretch:
        end = self.stretches[0].start if self.stretches else self.end
        return self.steady(first, end, lambda: self._read_stretch(first, after, end))

    def steady(self, first: int, end: int, read: Callable[[], Result]) -> Result:
        """What ``read`` makes of the WAL from segment ``first`` to ``end``; again if the server took a file."""
        while True:
            # The last record may go on in the next segment.
            self.source.provide(range(first, (end - 1) // self.source.segment_size + 1))
            try:
                result = read()
            # A link to a file that the server gave another name leads nowhere.
            except (RecoveryError, Damaged, FileNotFoundError) as error:
                if self.source.refetch_recycled():
                    continue
                if isinstance(error, RecoveryError):
                    raise
                raise RecoveryError(
                    f"WAL from segment {self.source.name(first)} on cannot be read: {error}. Nothing was changed."
                ) from error
            if not self.source.refetch_recycled():
                return result

    def _read_stretch(self, first: int, after: int, end: int) -> Stretch:
        start = min(self.source.reader.first_record(first), end)
        stretch = Stretch(first, after, start, end, CommitLog(self.keep_rest))
        for piece in self.source.waldump(start, end, *self._rmgrs):
            stretch.commits.add(piece)
            stretch.special += parse_lines(b"\n".join(SPECIAL.findall(piece)))
            self.marks.update(marks(piece))
        return stretch

    # Catalogues

    def follow(self, catalogue: Catalogue, relation: Relation, until: Optional[int] = None) -> Trace:
        """Follow a catalogue in one more file, in the WAL read, up to ``until``, and in what will be."""
        trace = catalogue.traces[relation] = Trace(relation, catalogue.keep)
        for stretch in reversed(self.stretches):
            if until is None or stretch.start <= until:
                self._follow(stretch, catalogue, relation)
        return trace

    def _follow(self, stretch: Stretch, catalogue: Catalogue, relation: Relation) -> None:
        index = self.steady(stretch.first, stretch.end, functools.partial(self._index, stretch, relation))
        committed = self.positions(index.transactions(catalogue.operations), stretch)
        trace = catalogue.traces[relation]
        self.steady(stretch.first, stretch.end, lambda: self._trace(trace, index, catalogue.operations, committed))

    def _index(self, stretch: Stretch, relation: Relation) -> Index:
        index = Index(relation)
        for piece in self.source.waldump(stretch.start, stretch.end, "--relation={}/{}/{}".format(*relation)):
            index.add(piece)
        return index

    def _trace(self, trace: Trace, index: Index, operations: frozenset[str], committed: Mapping[int, int]) -> None:
        for entry in index.backwards():
            # An update in place stays, whatever becomes of the transaction.
            in_place = entry.operation == "INPLACE"
            wanted = entry.operation in operations and (in_place or entry.xid in committed)
            if wanted or (entry.tells and trace.needs(entry.blocks)):
                trace.apply(self._record(entry.lsn, entry.total, entry.xid), wanted)

    def _record(self, lsn: int, total: int, xid: int) -> Record:
        try:
            return checked(self.source.reader.record(lsn), lsn, total, xid)
        except (Damaged, FileNotFoundError) as error:
            raise RecoveryError(
                f"the WAL record at {format_lsn(lsn)} cannot be read: {error}. Nothing was changed."
            ) from error

    def record(self, line: Line) -> Record:
        """The record that pg_waldump printed as ``line``, read whole."""
        number = line.lsn // self.source.segment_size
        # A record may go on in the next segment.
        segments = range(number, (line.lsn + line.total - 1) // self.source.segment_size + 1)
        self.source.provide(segments)
        try:
            return self._record(line.lsn, line.total, line.xid)
        except RecoveryError:
            if not self.source.refetch_recycled():
                raise
        return self._record(line.lsn, line.total, line.xid)

    def first_next_xid(self, segment: int) -> Optional[int]:
        """Number of the next transaction where a segment begins; None where no list of running ones tells."""
        end = (segment + 2) * self.source.segment_size
        return self.steady(segment, end, functools.partial(self.source.first_next_xid, segment))

    def wrote_pages(self, relation: Relation, line: Line) -> bool:
        """Whether the transaction of a record wrote whole pages of a file before it, as a rewrite does."""
        for stretch in reversed(self.stretches):
            if stretch.start <= line.lsn:
                options = (only(relation), f"--xid={line.xid}", "--rmgr=XLOG", "--limit=1")
                read = functools.partial(self._prints, stretch, options)
                if self.steady(stretch.first, stretch.end, read):
                    return True
        return False

    def _prints(self, stretch: Stretch, options: tuple[str, ...]) -> bool:
        return any(self.source.waldump(stretch.start, stretch.end, *options))

    # Transactions

    @property
    def commits(self) -> CommitLog:
        """All commits read so far."""
        log = CommitLog()
        for stretch in reversed(self.stretches):
            log.prepend(stretch.commits)
        return log

    def commit_at(self, lsn: int) -> Commit:
        """The commit whose record is at ``lsn``, in the WAL read so far."""
        for stretch in self.stretches:
            if stretch.commits.has(lsn):
                return stretch.commits.at(lsn)
        raise KeyError(lsn)

    def positions(self, xids: Iterable[int], stretch: Optional[Stretch] = None) -> dict[int, int]:
        """{transaction: position of its commit} of those that committed, in ``stretch`` or what is newer."""
        found: dict[int, int] = {}
        missing = set(xids)
        at = self.stretches.index(stretch) if stretch is not None else 0
        for newer in self.stretches[at:]:
            found.update(newer.commits.positions(missing))
            missing.difference_update(found)
        return found

    @property
    def special(self) -> list[Line]:
        """All records that make and drop databases, move mapped catalogues, or list transactions, read so far."""
        return [line for stretch in self.stretches for line in stretch.special]

    @property
    def running(self) -> Optional[Running]:
        """The oldest list of running transactions read."""
        return next((stretch.running for stretch in self.stretches if stretch.running is not None), None)

    def span(self, commit: Commit) -> list[Stretch]:
        """The stretches read in which a transaction can have written."""
        found = []
        for stretch in reversed(self.stretches):
            if stretch.start <= commit.lsn:
                found.append(stretch)
                running = stretch.running
                # The transaction had not begun when the first list in the stretch was made.
                if running is not None and running.lsn < commit.lsn and not precedes(commit.xid, running.next_xid):
                    break
        return found


def only(relation: Relation) -> str:
    return "--relation={}/{}/{}".format(*relation)
