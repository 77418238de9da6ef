# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Understand what pg_waldump prints (PostgreSQL 15 to 18: src/bin/pg_waldump, src/backend/access/rmgrdesc).

The text is expected with LC_ALL=C and TZ=UTC.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Callable, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core import times
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.times import EPOCH, microseconds_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import PREFIX as MARK_PREFIX

# rmgr: Heap        len (rec/tot):     54/    54, tx:        739, lsn: 0/01952760, prev 0/01952728, desc: DELETE off 1
_LINE = re.compile(
    rb"rmgr: (\w+) +len \(rec/tot\): +\d+/ *(\d+), tx: +(\d+), "
    rb"lsn: ([0-9A-F]+)/([0-9A-F]+), prev [0-9A-F/]+, desc: (\S+) ?([^\n]*)"
)
_COMMIT = re.compile(
    rb"tx: +(\d+), lsn: ([0-9A-F]+)/([0-9A-F]+), prev [0-9A-F/]+, desc: "
    rb"COMMIT(?:_PREPARED (\d+):)? (\d{4}-\d\d-\d\d \d\d:\d\d):(\d\d)\.(\d{6}) UTC([^\n]*)"
)


@dataclass(frozen=True)
class Line:
    """One record as pg_waldump prints it; ``total`` is its length in bytes."""

    rmgr: str
    total: int
    xid: int
    lsn: int
    operation: str
    text: str


def parse_lines(text: bytes) -> Iterator[Line]:
    """Records of pg_waldump's text; raises RecoveryError at a line that looks like one and cannot be read."""
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            if line.startswith(b"rmgr:"):
                raise RecoveryError(f"cannot understand this line of pg_waldump: {line.decode(errors='replace')!r}")
            continue
        rmgr, total, xid, high, low, operation, rest = match.groups()
        lsn = int(high, 16) << 32 | int(low, 16)
        yield Line(rmgr.decode(), int(total), int(xid), lsn, operation.decode(), rest.decode(errors="replace"))


@dataclass(frozen=True)
class Commit:
    """A transaction's COMMIT, or COMMIT PREPARED, record. ``time`` is in microseconds since 1970, UTC."""

    lsn: int
    xid: int
    time: int
    prepared: bool = False
    subxacts: tuple[int, ...] = ()
    dropped: frozenset[tuple[int, int]] = frozenset()
    relcache: frozenset[int] = frozenset()
    files: frozenset[tuple[int, int]] = frozenset()

    @property
    def commit_time(self) -> str:
        """The time of the commit, ISO 8601 in UTC."""
        return format_time(self.time)


@dataclass(frozen=True)
class Running:
    """A snapshot of the running transactions that the server logs now and then."""

    lsn: int
    next_xid: int
    xids: frozenset[int]


def parse_running(line: Line) -> Running:
    """Snapshot out of a line of resource manager Standby, operation RUNNING_XACTS.

    ``nextXid 744 latestCompletedXid 742 oldestRunningXid 743; 1 xacts: 743; 1 subxacts: 745``
    """
    found = re.match(r"nextXid (\d+) ", line.text)
    if found is None:
        raise RecoveryError(f"cannot understand this list of running transactions: {line.text!r}")
    xids = re.findall(r"xacts: ([\d ]+)", line.text)
    return Running(line.lsn, int(found.group(1)), frozenset(int(xid) for part in xids for xid in part.split()))


# DELETE's flags say that the row went to another partition (an UPDATE to its user), or was never committed to.
# UPDATE, from PostgreSQL 16 on: old_xmax: 738, old_off: 1, ...; blkref #0: rel 1663/16384/16385 blk 0
_ROWS = re.compile(
    rb"tx: +(\d+), lsn: [0-9A-F/]+, prev [0-9A-F/]+, desc: "
    rb"(?:(DELETE) [^\n]*?flags:? 0x([0-9A-F]{2})|((?:HOT_)?UPDATE)\b)"
)
_ROWS_AND_FILE = re.compile(_ROWS.pattern + rb"[^\n]*?blkref #0: rel (\d+)/(\d+)/(\d+) ")
_INSERTS = re.compile(
    rb"tx: +(\d+), lsn: [0-9A-F/]+, prev [0-9A-F/]+, desc: (?:(INSERT)\b|(MULTI_INSERT)\S* (?:ntuples: )?(\d+))"
)
_DELETE_SUPER, _DELETE_MOVED = 0x08, 0x10


def _row_kind(delete: bytes, flags: bytes) -> str:
    """What happened to a row; empty for one that was never committed to."""
    if not delete:
        return "update"
    if int(flags, 16) & _DELETE_SUPER:
        return ""
    return "update" if int(flags, 16) & _DELETE_MOVED else "delete"


def count_rows(text: bytes, rows: Counter[tuple[int, str]]) -> None:
    """Count rows deleted and updated by transaction, out of whole lines of resource manager Heap."""
    # Millions of lines, few different answers: count the texts first.
    for (xid, delete, flags, _update), count in Counter(_ROWS.findall(text)).items():
        if kind := _row_kind(delete, flags):
            rows[int(xid), kind] += count


def count_rows_of_files(text: bytes, rows: Counter[tuple[tuple[int, int, int], int, str]]) -> None:
    """Count rows deleted and updated by (file, transaction, kind), out of whole lines of resource manager Heap."""
    for found, count in Counter(_ROWS_AND_FILE.findall(text)).items():
        xid, delete, flags, _update, tablespace, database, filenode = found
        if kind := _row_kind(delete, flags):
            rows[(int(tablespace), int(database), int(filenode)), int(xid), kind] += count


def count_inserts(text: bytes, rows: Counter[int]) -> None:
    """Count rows inserted by transaction, out of whole lines of resource managers Heap and Heap2."""
    for (xid, _one, _many, tuples), count in Counter(_INSERTS.findall(text)).items():
        rows[int(xid)] += count * int(tuples or 1)


_CHANGES = re.compile(
    rb"tx: +(\d+), lsn: [0-9A-F/]+, prev [0-9A-F/]+, desc: (?:(DELETE) [^\n]*?flags:? 0x([0-9A-F]{2})|(INSERT)\b|"
    rb"(MULTI_INSERT)\S* (?:ntuples: )?(\d+)|((?:HOT_)?UPDATE)\b)[^\n]*?blkref #0: rel (\d+)/(\d+)/(\d+) "
)


def count_changes(text: bytes, rows: Counter[tuple[tuple[int, int, int], int, str]]) -> None:
    """Count rows inserted, deleted and updated by (file, transaction, kind), out of lines of Heap and Heap2."""
    for found, count in Counter(_CHANGES.findall(text)).items():
        xid, delete, flags, one, many, tuples, _update, tablespace, database, filenode = found
        kind = "insert" if one or many else _row_kind(delete, flags)
        if kind:
            file = int(tablespace), int(database), int(filenode)
            rows[file, int(xid), kind] += count * int(tuples or 1)


# rmgr: Storage     len (rec/tot):     42/    42, tx:        740, lsn: 0/01A5BF98, prev ..., desc: CREATE base/5/16391
_FILES_MADE = re.compile(
    rb"rmgr: Storage [^\n]*lsn: ([0-9A-F]+)/([0-9A-F]+), [^\n]*desc: CREATE \S*?(\d+)/(\d+)(?=\s|$)"
)


def files_made(text: bytes) -> dict[tuple[int, int], int]:
    """{(database, filenode): position} of files that were made, out of whole lines of resource manager Storage."""
    return {
        (int(database), int(filenode)): int(high, 16) << 32 | int(low, 16)
        for high, low, database, filenode in _FILES_MADE.findall(text)
    }


# rmgr: Storage ... tx:        740, lsn: 0/01A5BF98, prev ..., desc: TRUNCATE base/5/16391 to 0 blocks flags 7
_FILES_CUT = re.compile(
    rb"rmgr: Storage [^\n]*tx: +([1-9]\d*), [^\n]*desc: TRUNCATE "
    rb"(?:base|pg_tblspc/(\d+)/[^/ ]+)/(\d+)/(\d+) to 0 blocks"
)


def files_emptied(text: bytes) -> set[tuple[int, int, int, int]]:
    """(transaction, tablespace, database, filenode) of files cut to nothing, out of whole lines of Storage.

    The tablespace is 0 for that which a database is in by default, whatever its OID.
    """
    return {
        (int(xid), int(tablespace or 0), int(database), int(filenode))
        for xid, tablespace, database, filenode in _FILES_CUT.findall(text)
    }


# rmgr: XLOG ... lsn: 0/01A5BF98, prev ..., desc: PARAMETER_CHANGE max_connections=100 ... wal_level=minimal ...
_WAL_LEVEL = re.compile(rb"lsn: ([0-9A-F]+)/([0-9A-F]+), [^\n]*desc: PARAMETER_CHANGE [^\n]*\bwal_level=(\w+)")


def wal_levels(text: bytes) -> dict[int, str]:
    """{position: wal_level from there on} out of whole lines of resource manager XLOG."""
    return {int(high, 16) << 32 | int(low, 16): level.decode() for high, low, level in _WAL_LEVEL.findall(text)}


def relcache_of(text: bytes, wanted: Collection[int]) -> dict[int, frozenset[int]]:
    """{position of a commit: OIDs of its relcache messages} for the commits at ``wanted``, out of whole lines."""
    found = {}
    for match in _COMMIT.finditer(text):
        lsn = int(match.group(2), 16) << 32 | int(match.group(3), 16)
        if lsn in wanted:
            found[lsn] = parse_commit_rest(match.group(8))[2]
    return found


# desc: MESSAGE transactional, prefix "dbre.recovery"; payload (19 bytes): 74 61 62 6C 65
_MARK = re.compile(
    rb"tx: +(\d+), [^\n]*desc: MESSAGE transactional, prefix \"" + re.escape(MARK_PREFIX.encode()) + rb"\"; payload"
    rb" \(\d+ bytes\): ([0-9A-F ]*)"
)


def marks(text: bytes) -> dict[int, str]:
    """{transaction: incident} of those that carry the mark of a recovery of this collection."""
    return {
        int(xid): bytes.fromhex(payload.decode().replace(" ", "")).decode(errors="replace")
        for xid, payload in _MARK.findall(text)
    }


def changed_filenodes(text: bytes) -> set[int]:
    """Filenodes of relations of which rows were inserted, updated or deleted (not updated in place)."""
    found = set()
    for line in text.splitlines():
        if re.search(rb"desc: (?:INSERT|UPDATE|HOT_UPDATE|DELETE|MULTI_INSERT)", line):
            found |= {int(filenode) for filenode in re.findall(rb"rel \d+/\d+/(\d+)", line)}
    return found


def format_time(microseconds: int) -> str:
    """ISO 8601 text with numeric offset of a time in microseconds since 1970."""
    return (EPOCH + timedelta(microseconds=microseconds)).isoformat(timespec="microseconds")


def parse_time(text: str, option: str) -> int:
    """Microseconds since 1970 of a moment that a user wrote."""
    return microseconds_of(times.parse_time(text, option))


class CommitLog:
    """All commits of a stretch of WAL, in its order: positions, transactions and times; the rest as text.

    There may be millions, so each costs 20 bytes, each subtransaction 12, and of the rest only that is kept which
    ``keep`` wants: temporary tables alone have as much of it as all else together.
    """

    def __init__(self, keep: Optional[Callable[[int, bytes], bool]] = None) -> None:
        self.lsns = array("Q")
        self.xids = array("I")
        self.times = array("q")
        self.subxacts = array("I")
        self._sub_lsns = array("Q")
        self._keep = keep
        self._prepared: set[int] = set()
        self._rest: dict[int, bytes] = {}
        self._minutes: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self.lsns)

    def add(self, text: bytes) -> None:
        """Take up whole lines of pg_waldump's text."""
        for match in _COMMIT.finditer(text):
            xid, high, low, prepared, minute, second, fraction, rest = match.groups()
            lsn = int(high, 16) << 32 | int(low, 16)
            self.lsns.append(lsn)
            self.xids.append(int(prepared or xid))
            self.times.append(self._minute(minute) + int(second) * 1_000_000 + int(fraction))
            if prepared:
                self._prepared.add(lsn)
            for child in subxacts_of(rest):
                self.subxacts.append(child)
                self._sub_lsns.append(lsn)
            if rest and (self._keep is None or self._keep(lsn, rest)):
                self._rest[lsn] = rest

    def _minute(self, text: bytes) -> int:
        found = self._minutes.get(text)
        if found is None:
            moment = datetime.strptime(text.decode() + "+0000", "%Y-%m-%d %H:%M%z")
            found = self._minutes[text] = int((moment - EPOCH).total_seconds()) * 1_000_000
        return found

    def prepend(self, older: CommitLog) -> None:
        """Put the commits of an older stretch of WAL before these."""
        self.lsns, self.xids, self.times = older.lsns + self.lsns, older.xids + self.xids, older.times + self.times
        self.subxacts, self._sub_lsns = older.subxacts + self.subxacts, older._sub_lsns + self._sub_lsns
        self._prepared |= older._prepared
        self._rest.update(older._rest)

    def get(self, index: int) -> Commit:
        """The commit at a place in the log."""
        lsn = self.lsns[index]
        subxacts = self.subxacts[bisect_left(self._sub_lsns, lsn) : bisect_right(self._sub_lsns, lsn)]
        rest = parse_commit_rest(self._rest.get(lsn, b""))
        return Commit(lsn, self.xids[index], self.times[index], lsn in self._prepared, tuple(subxacts), *rest[1:])

    def at(self, lsn: int) -> Commit:
        """The commit whose record is at ``lsn``."""
        return self.get(bisect_left(self.lsns, lsn))

    def has(self, lsn: int) -> bool:
        """Whether the record of a commit of this log is at ``lsn``."""
        index = bisect_left(self.lsns, lsn)
        return index < len(self.lsns) and self.lsns[index] == lsn

    def positions(self, xids: Iterable[int]) -> dict[int, int]:
        """{transaction: position of its commit} for those of ``xids`` that committed."""
        wanted = set(xids)
        if not wanted:
            return {}
        found = {xid: lsn for xid, lsn in zip(self.xids, self.lsns) if xid in wanted}
        found.update((xid, lsn) for xid, lsn in zip(self.subxacts, self._sub_lsns) if xid in wanted)
        return found

    def after(self, lsn: int) -> int:
        """Number of commits after ``lsn``."""
        return len(self.lsns) - bisect_right(self.lsns, lsn)

    def last_before(self, lsn: int) -> Optional[Commit]:
        """The last commit before ``lsn``."""
        index = bisect_left(self.lsns, lsn)
        return self.get(index - 1) if index else None

    def first_from(self, lsn: int) -> Optional[Commit]:
        """The first commit at or after ``lsn``."""
        index = bisect_left(self.lsns, lsn)
        return self.get(index) if index < len(self.lsns) else None

    def by_transaction(self, xids: Iterable[int]) -> dict[int, Commit]:
        """{transaction: its commit} for those of ``xids`` that committed, subtransactions by their parent's commit."""
        return {xid: self.at(lsn) for xid, lsn in self.positions(xids).items()}

    def with_dropped(self) -> Iterator[Commit]:
        """Commits of transactions that dropped relations, in the order of WAL."""
        return self._with(b"; dropped stats: ")

    def with_messages(self) -> Iterator[Commit]:
        """Commits of transactions that changed what is known of relations, in the order of WAL."""
        return self._with(b" relcache ")

    def _with(self, word: bytes) -> Iterator[Commit]:
        for lsn in sorted(lsn for lsn, rest in self._rest.items() if word in rest):
            yield self.at(lsn)

    def first_later_than(self, time: int) -> Optional[Commit]:
        """The first commit, in the order of WAL, with a time after ``time``: there replay to that time stops."""
        for index, moment in enumerate(self.times):
            if moment > time:
                return self.get(index)
        return None


_SUBXACTS = re.compile(rb"; subxacts: ([\d ]+)")


def subxacts_of(rest: bytes) -> Iterator[int]:
    """Committed subtransactions, out of what stands after a commit's time."""
    found = _SUBXACTS.search(rest)
    return map(int, found.group(1).split()) if found else iter(())


def parse_commit_rest(
    rest: bytes,
) -> tuple[tuple[int, ...], frozenset[tuple[int, int]], frozenset[int], frozenset[tuple[int, int]]]:
    """What stands after a commit's time.

    Subtransactions, dropped relations as (database, OID), OIDs of relcache messages, removed files as (database,
    filenode); temporary ones, named t<n>_<filenode>, are left out.
    """
    subxacts: tuple[int, ...] = ()
    dropped: set[tuple[int, int]] = set()
    relcache: set[int] = set()
    files: set[tuple[int, int]] = set()
    for part in rest.split(b"; "):
        name, _colon, values = part.partition(b": ")
        if name == b"subxacts":
            subxacts = tuple(int(value) for value in values.split())
        elif name == b"dropped stats":
            for value in values.split():
                kind, database, oid = value.split(b"/")
                if kind == b"2":
                    dropped.add((int(database), int(oid)))
        elif name == b"rels":
            found = re.findall(rb"(?:base|pg_tblspc/\d+/[^/ ]+)/(\d+)/(\d+)(?= |$)", values)
            files = {(int(database), int(filenode)) for database, filenode in found}
        elif name == b"inval msgs":
            relcache = {int(oid) for oid in re.findall(rb"relcache (\d+)", values)}
    return subxacts, frozenset(dropped), frozenset(relcache), frozenset(files)
