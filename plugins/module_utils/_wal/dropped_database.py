# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the DROP DATABASE of a database, out of the rows of pg_database."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Callable, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._wal.catalog import Change
from ansible_collections.dbre.recovery.plugins.module_utils._wal.catalog_rows import database_row
from ansible_collections.dbre.recovery.plugins.module_utils._wal.evidence import Candidate, MoreWal, Request
from ansible_collections.dbre.recovery.plugins.module_utils._wal.history import History, Removal
from ansible_collections.dbre.recovery.plugins.module_utils._wal.locate import Verdict
from ansible_collections.dbre.recovery.plugins.module_utils._wal.scan import Catalogue, Relation, Scan
from ansible_collections.dbre.recovery.plugins.module_utils._wal.server import name_of

OPERATIONS = frozenset(("INSERT", "MULTI_INSERT", "UPDATE", "HOT_UPDATE", "DELETE", "INPLACE"))


@dataclass
class Databases:
    """pg_database, followed in a scan."""

    scan: Scan
    file: Relation

    def __post_init__(self) -> None:
        self.catalogue = Catalogue("pg_database", OPERATIONS, lambda _change: True)
        self.scan.catalogues = [self.catalogue]
        self.scan.follow(self.catalogue, self.file)

    def decide(
        self,
        request: Request,
        *,
        exists: bool,
        complete: bool,
        predates: Callable[[Optional[int]], bool],
        unknown: Callable[[str, list[str]], RecoveryError],
    ) -> Verdict:
        """The drop; ``unknown`` makes the error for a database that neither exists nor was dropped."""
        changes = sorted(self.catalogue.changes(), key=lambda change: change.lsn)
        commits = self.scan.commits.by_transaction({change.xid for change in changes})
        rows = History(
            [(commits[change.xid], change) for change in changes if change.xid in commits],
            database_row,
            lambda row: row[0],
        )
        removals = [one for one in rows.removals() if request.in_window(one.commit)]
        found = [one for one in removals if name_of(one.row[1], "UTF8") == request.database]
        last = found[-1].commit.lsn if found else 0
        undecided = [
            (commit, change)
            for commit, change in rows.undecided
            if change.operation == "DELETE" and commit.lsn > last and request.in_window(commit)
        ]
        if not complete and (undecided or not found or not predates(found[-1].maker)):
            raise MoreWal
        if undecided:
            raise RecoveryError(
                f"cannot tell whether database {request.database!r} was dropped by transaction "
                f"{', '.join(str(commit.xid) for commit, _change in undecided)}: {undecided[0][1].unknown}. Nothing "
                "was changed. Choose one with target_lsn (dr_target_lsn)."
            )
        if not found:
            raise self._not_dropped(request, exists, removals, unknown)
        candidates = [self._candidate(one, changes) for one in found]
        if len(candidates) > 1:
            listed = "; ".join(
                f"DROP DATABASE by transaction {one.commit.xid} at {one.commit.commit_time}: "
                f"-e dr_target_lsn={format_lsn(one.lsn)}"
                for one in candidates
            )
            raise RecoveryError(
                f"database {request.database!r} was dropped, made again and dropped again, {len(candidates)} times in "
                f"the WAL from {self._window()}, the oldest first: {listed}. Nothing was changed. Choose one by its "
                "option, or narrow the time (dr_since, dr_until).",
                candidates=[one.as_dict(request.database) for one in candidates],
            )
        reason = f"just before DROP DATABASE of transaction {candidates[0].commit.xid} began to take the database apart"
        return Verdict(candidates[0], reason, candidates)

    def _window(self) -> str:
        return f"{format_lsn(self.scan.start)} to {format_lsn(self.scan.end)}"

    def _not_dropped(
        self,
        request: Request,
        exists: bool,
        removals: list[Removal[tuple[int, bytes, int]]],
        unknown: Callable[[str, list[str]], RecoveryError],
    ) -> RecoveryError:
        if exists:
            return RecoveryError(
                f"database {request.database!r} exists and was not dropped in the WAL from {self._window()}. "
                "Nothing was changed. Name what was lost in it: tables (dr_tables) or schemas (dr_schemas)."
            )
        dropped = [name_of(one.row[1], "UTF8") for one in removals]
        seen = f" Databases dropped there: {', '.join(dropped)}." if dropped else ""
        return unknown(
            f"Nor was one of that name dropped in the WAL from {self._window()}.{seen} Check the name (dr_database).",
            dropped,
        )

    def _candidate(self, removal: Removal[tuple[int, bytes, int]], changes: list[Change]) -> Candidate:
        lsn = self._first_harm(removal.oid, removal.commit.xid, changes)
        ours = self.scan.marks.get(removal.commit.xid)
        return replace(Candidate("drop_database", removal.commit, lsn), ours=ours)

    def _first_harm(self, oid: int, xid: int, changes: list[Change]) -> int:
        """LSN of the first record of a DROP DATABASE that harms the database.

        Its files go before its commit (record Database DROP), and newer versions first mark the row, in place and for
        good, with connection limit -2 (PostgreSQL: dropdb in src/backend/commands/dbcommands.c).
        """
        row = next(change for change in reversed(changes) if change.xid == xid and change.operation == "DELETE")
        marks = [
            change.lsn
            for change in changes
            if change.operation == "INPLACE"
            and change.lsn < row.lsn
            and (change.block, change.offset) == (row.block, row.offset)
            and change.new is not None
            and change.new.data is not None
            and database_row(change.new.data)[::2] == (oid, -2)
        ]
        files = [
            line.lsn
            for line in self.scan.special
            if line.rmgr == "Database" and line.xid == xid and line.operation == "DROP"
        ]
        return min([row.lsn, *marks[-1:], *files])
