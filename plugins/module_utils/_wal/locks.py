# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a hot standby can be read: the ACCESS EXCLUSIVE locks that WAL carries to it.

A transaction that drops a table has it locked before its COMMIT, and the standby holds that lock as well: paused just
before the COMMIT it shows nobody the table. The format is that of pg_waldump (PostgreSQL 15 to 18:
src/backend/access/rmgrdesc/standbydesc.c and xactdesc.c).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Optional

from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import Commit, CommitLog

RMGRS = ("Standby", "Transaction")
_LOCK = b"desc: LOCK "
# desc: LOCK xid 726 db 5 rel 16384
_LOCKED = re.compile(rb"xid (\d+) db (\d+) rel (\d+)")
_LSN = re.compile(rb", lsn: ([0-9A-F]+)/([0-9A-F]+),")
# tx: 725, lsn: ..., desc: COMMIT 2026-...; subxacts: 726   and   tx: 0, ..., desc: ABORT_PREPARED 729: 2026-...
_ENDED = re.compile(rb"tx: +(\d+), .*, desc: (?:COMMIT|ABORT)(?:_PREPARED (\d+):)? ")
_SUBXACTS = re.compile(rb"; subxacts: ([\d ]+)")
FIRST_USER_OID = 16384
_RUNNING = re.compile(rb"desc: RUNNING_XACTS nextXid (\d+) .*oldestRunningXid (\d+)")


@dataclass(frozen=True)
class Readable:
    """The last position before an end at which nothing that can be seen in the database is locked.

    ``locked`` is {OID of a relation: where it was locked} of what is still locked at the end; ``commits`` are those
    between the two positions.
    """

    lsn: int
    locked: Mapping[int, int] = field(default_factory=dict)
    commits: tuple[Commit, ...] = ()


class LockLog:
    """Follows the locks of a database (its OID; None: of all) through pg_waldump's text of the resource managers RMGRS.

    ``known`` are OIDs of the relations that are there at the beginning. A transaction that makes a relation, such as a
    temporary one, has it locked as well, but as nobody else sees it before the COMMIT, nobody has to wait for it.
    Transactions from ``next_xid`` on have surely begun in the WAL that was followed; None when it does not tell.
    """

    def __init__(self, database: Optional[int], known: Collection[int] = ()) -> None:
        self.next_xid: Optional[int] = None
        self._database = database
        self._known = set(known)
        self._made: dict[int, set[int]] = {}
        self._open: dict[int, dict[int, int]] = {}
        self._since = 0
        self._commits = CommitLog()

    def add(self, text: bytes) -> None:
        """Take up whole lines, in the order of WAL."""
        running = _RUNNING.search(text) if self.next_xid is None else None
        if running is not None:
            self.next_xid = int(running.group(1))
        # Hardly any piece of WAL holds a lock, so most of it need not be looked at line by line.
        if not self._open and not self._made and _LOCK not in text:
            return
        for line in text.splitlines():
            if _LOCK in line:
                self._lock(line)
            elif self._open or self._made:
                self._end(line)

    def _lock(self, line: bytes) -> None:
        match = _LSN.search(line)
        if match is None:
            return
        lsn = int(match.group(1), 16) << 32 | int(match.group(2), 16)
        for xid, database, relation in (map(int, found) for found in _LOCKED.findall(line)):
            if self._database is not None and database not in (0, self._database):
                continue
            if relation >= FIRST_USER_OID and relation not in self._known:
                self._made.setdefault(xid, set()).add(relation)
                continue
            if not self._open:
                self._since = lsn
                self._commits = CommitLog()
            # Now and then the server repeats the locks that are held: the first time counts.
            self._open.setdefault(xid, {}).setdefault(relation, lsn)

    def _end(self, line: bytes) -> None:
        match = _ENDED.search(line)
        if match is not None:
            if self._open:
                self._commits.add(line)
            subxacts = _SUBXACTS.search(line)
            ended = {int(match.group(2) or match.group(1)), *map(int, subxacts.group(1).split() if subxacts else ())}
            self._forget(ended)
            return
        running = _RUNNING.search(line)
        if running is not None:
            # After a crash of the primary nothing else tells that a transaction has ended.
            oldest = int(running.group(2))
            self._forget({xid for xid in (*self._open, *self._made) if precedes(xid, oldest)})

    def _forget(self, ended: set[int]) -> None:
        for xid in ended & self._open.keys():
            del self._open[xid]
        for xid in ended & self._made.keys():
            self._known |= self._made.pop(xid)

    def readable(self, end: int) -> Readable:
        """The last position up to ``end`` at which a hot standby shows all of the database."""
        if not self._open:
            return Readable(end)
        locked: dict[int, int] = {}
        for relations in self._open.values():
            for relation, lsn in relations.items():
                locked[relation] = min(lsn, locked.get(relation, lsn))
        commits = tuple(self._commits.get(index) for index in range(len(self._commits)))
        return Readable(self._since, locked, commits)


def precedes(xid: int, other: int) -> bool:
    """Whether a transaction is older than another; the numbers go round (TransactionIdPrecedes in transam.c)."""
    return (xid - other) & 0xFFFFFFFF > 0x7FFFFFFF


def unsafe_commits(found: Readable, relation: int, end: int) -> tuple[Commit, ...]:
    """Commits that may have changed a relation after the readable position: before it was locked, if it was.

    A lock is granted when whoever wrote to the relation has ended, so what comes after it concerns others.
    """
    until = found.locked.get(relation, end)
    return tuple(commit for commit in found.commits if commit.lsn < until)


def xids_of(commits: Iterable[Commit]) -> set[int]:
    """Numbers of the transactions and of their subtransactions."""
    return {xid for commit in commits for xid in (commit.xid, *commit.subxacts)}
