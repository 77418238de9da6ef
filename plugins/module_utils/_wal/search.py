# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The search as a whole: facts from the server, WAL stretch by stretch, and the result the module returns."""

from __future__ import annotations

import functools
import os
import re
import socket
import time
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.archive import Archive
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn, parse_segment_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login
from ansible_collections.dbre.recovery.plugins.module_utils._wal import damage, locate, nothing, server
from ansible_collections.dbre.recovery.plugins.module_utils._wal.catalogues import Catalogues
from ansible_collections.dbre.recovery.plugins.module_utils._wal.dropped_database import Databases
from ansible_collections.dbre.recovery.plugins.module_utils._wal.evidence import Candidate, Evidence, MoreWal, Request
from ansible_collections.dbre.recovery.plugins.module_utils._wal.explicit import explicit_target
from ansible_collections.dbre.recovery.plugins.module_utils._wal.locks import precedes
from ansible_collections.dbre.recovery.plugins.module_utils._wal.result import result
from ansible_collections.dbre.recovery.plugins.module_utils._wal.row_counts import RowCounts
from ansible_collections.dbre.recovery.plugins.module_utils._wal.scan import ALWAYS, TRANSACTIONS, Scan
from ansible_collections.dbre.recovery.plugins.module_utils._wal.source import WalSource, read_timelines
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import format_time

GLOBAL_TABLESPACE = 1664
STATISTICS = ("pg_statistic", "pg_statistic_ext_data")


class Search:
    """One search on the primary. ``spool`` is an empty directory of its own, removed by the caller."""

    def __init__(
        self, login: Login, request: Request, spool: str, archive: Archive, *, bin_dir: Optional[str] = None
    ) -> None:
        self.login = login
        self.request = request
        self.began = time.monotonic()
        self._connection = server.session(login)
        self.server = server.server_facts(self._connection)
        self._next_xid = self.server.pop("next_xid")
        if self.request.target is None:
            server.require_searchable(self.server)
        self.bin_dir = find_bin_dir(self.server["major"], bin_dir)
        self.server["bin_dir"] = self.bin_dir
        self.database = self._database()
        pg_wal = os.path.join(self.server["data_directory"], "pg_wal")
        self.repository = archive.settle()
        self.end, timeline = server.wal_end(self._connection)
        self.server["timeline"] = timeline
        self.source = WalSource(
            pg_wal=pg_wal,
            spool=spool,
            archive=archive,
            timelines=read_timelines(timeline, pg_wal, archive, spool),
            segment_size=self.server["wal_segment_size"],
            system_identifier=int(self.server["system_identifier"]),
            waldump=os.path.join(self.bin_dir, "pg_waldump"),
        )
        self.backup = archive.oldest_backup(
            str(self.server["system_identifier"]), self.source.segment_size, self.source.timelines
        )
        self.floor = parse_segment_name(self.backup.first_segment, self.source.segment_size)[1]
        self.gap: Optional[RecoveryError] = None
        self._begin()

    def _begin(self) -> None:
        """What to read of WAL: the catalogues, where the server's version has them named in it."""
        searchable = self.server["major"] >= server.OLDEST_MAJOR
        self.scan = Scan(
            self.source, self.end, self.floor, rmgrs=ALWAYS if searchable else TRANSACTIONS, keep_rest=self._keep_rest
        )
        self.catalogues: Optional[Catalogues] = None
        self.databases: Optional[Databases] = None
        if self.request.target is None and (self._whole_database or self.database is None):
            file = (GLOBAL_TABLESPACE, 0, server.database_catalog(self._connection))
            self.databases = Databases(self.scan, file)
        elif searchable and not self._whole_database and self.database is not None:
            self.catalogues = Catalogues(self.scan, self.database, self.server["major"])
            self._watched = (
                {member.oid for member in self._members()} if self.request.wants("ddl", False) else frozenset()
            )

    def close(self) -> None:
        """End the connection and close files."""
        self.source.reader.close()
        self._connection.close()

    # What to read

    def _database(self) -> Optional[server.Database]:
        """The database asked about; None when there is none of that name, which only a dropped one may be."""
        name = self.request.database
        found = server.database_row_of(self._connection, name)
        if found is None:
            if self.request.relations or self.request.schemas:
                raise self._unknown_database(
                    "If it was dropped as a whole, name the database alone (no dr_tables, no dr_schemas)."
                )
            return None
        inside = server.session(self.login, name)
        try:
            server.fill_database(inside, found)
        finally:
            inside.close()
        return found

    def _unknown_database(self, advice: str, dropped: Optional[list[str]] = None) -> RecoveryError:
        names = [row["name"] for row in self.server["databases"]]
        similar = get_close_matches(self.request.database, names + (dropped or []), 5, 0.5)
        return RecoveryError(
            f"the server on {socket.gethostname()}, port {self.login.get('login_port') or 5432}, has no database "
            f"{self.request.database!r}. "
            + (f"Similar: {', '.join(similar)}. " if similar else "")
            + f"It has: {', '.join(names)}. Nothing was changed. {advice}"
        )

    @property
    def _whole_database(self) -> bool:
        return not self.request.relations and not self.request.schemas

    def _members(self) -> list[server.Known]:
        """The relations asked for that are there, with their partitions and children."""
        if self.database is None:
            return []
        known = [self.database.relation(schema, name) for schema, name in self.request.relations]
        return [member for one in known if one is not None for member in damage.family(self.database, one)]

    def _keep_rest(self, lsn: int, rest: bytes) -> bool:
        if self.catalogues is None:
            return False
        kept = self.catalogues.keep_rest(lsn, rest)
        return kept or any(b" relcache %d" % oid in rest for oid in self._watched)

    def _extend(self) -> None:
        """Read the next older stretch; where a segment of it is nowhere, up to there, and no further."""
        try:
            self.scan.extend()
        except RecoveryError as error:
            if "missing_segments" not in error.details:
                raise
            self.gap = error
            newest = parse_segment_name(max(error.details["missing_segments"]), self.source.segment_size)[1]
            self.scan.floor = newest + 1
            if not self.scan.at_floor:
                self._extend()

    # Searching

    def find(self) -> dict[str, Any]:
        """The module's result."""
        if self.request.target is not None:
            return self._explicit(*self.request.target)
        while True:
            if not self.scan.at_floor:
                self._extend()
            try:
                verdict = self._decide()
            except MoreWal:
                if self.gap is not None and self.scan.at_floor:
                    raise self.gap from None
                continue
            except RecoveryError as error:
                if self.gap is not None and not error.details.get("candidates"):
                    error = self.gap
                elif self.gap is not None:
                    error = RecoveryError(f"{error.msg} Not read: {self._unread()}.", **error.details)
                error.details.setdefault("candidates", [])
                error.details.setdefault("scanned", self._scanned())
                error.details.setdefault("server", self.server)
                raise error from None
            incident = self._whole(verdict.incident)
            return self._result(incident, verdict.reason, verdict.candidates)

    def _explicit(self, option: str, value: str) -> dict[str, Any]:
        candidate, reason = explicit_target(option, value, self.scan, self.backup, self.request, self._next_xid)
        return self._result(self._explained(candidate), reason, [])

    def _explained(self, candidate: Candidate) -> Candidate:
        """The transaction of a target that was given, with all that it damaged where it damaged what was asked for."""
        if self.catalogues is None:
            return candidate
        evidence = self._evidence()
        while not self._complete() and any(
            commit.lsn == candidate.commit.lsn for commit, _change in evidence.classes.undecided
        ):
            self._extend()
            evidence = self._evidence()
        every = self._whole(Candidate("explicit", candidate.commit, candidate.commit.lsn)).others
        asked = set(self.request.relations)
        members = {member.oid for member in self._members()}
        hit = tuple(
            harm
            for harm in every
            if (harm.schema, harm.name) in asked or harm.oid in members or harm.schema in self.request.schemas
        )
        if not hit:
            if not self._was_made_after(candidate.lsn):
                nothing.refuse_unknown(evidence, self.request, candidate.lsn)
            return candidate
        named = {(harm.schema, harm.name) for harm in hit}
        rest = tuple(harm for harm in candidate.asked if (harm.schema, harm.name) not in named)
        others = tuple(harm for harm in every if harm not in hit)
        ours = evidence.ours.get(candidate.commit.lsn)
        return replace(candidate, asked=hit + rest, others=others, ours=ours)

    def _was_made_after(self, lsn: int) -> bool:
        """Whether the database of that name may be another one than at ``lsn``, whose relations nobody here knows."""
        made = re.compile(rf"/{self.database.oid}\b") if self.database is not None else None
        return made is not None and any(
            line.rmgr == "Database"
            and line.operation.startswith("CREATE")
            and line.lsn >= lsn
            and made.search(line.text)
            for line in self.scan.special
        )

    def _complete(self) -> bool:
        """Whether all was read that there is, or that may matter since the moment the user named."""
        if self.scan.at_floor:
            return True
        commits = self.scan.commits
        if not len(commits) or not self.request.is_older(commits.get(0)):
            return False
        running = self.scan.running
        return running is not None and all(
            self.request.is_older(commits.at(lsn)) for lsn in commits.positions(running.xids).values()
        )

    def _predates(self, xid: Optional[int]) -> bool:
        """Whether a transaction is surely older than all WAL there is."""
        first = self._first_xid
        return xid is not None and first is not None and (xid < 3 or precedes(xid, first))

    @functools.cached_property
    def _first_xid(self) -> Optional[int]:
        """Number of the next transaction where the WAL of the oldest backup begins; None where it does not tell."""
        try:
            return self.scan.first_next_xid(self.floor)
        except RecoveryError:
            return None

    def _decide(self) -> locate.Verdict:
        if self.databases is not None:
            return self.databases.decide(
                self.request,
                exists=self.database is not None,
                complete=self._complete(),
                predates=self._predates,
                unknown=self._unknown_database,
            )
        return locate.decide(self._evidence(), self.request)

    def _evidence(self) -> Evidence:
        if self.database is None or self.catalogues is None:
            raise RecoveryError("there is no database to look in")
        self.catalogues.take_up_rewritten()
        evidence = Evidence(
            commits=self.scan.commits,
            start=self.scan.start,
            end=self.scan.end,
            complete=self._complete(),
            classes=self.catalogues.class_history(),
            namespaces=self.catalogues.namespace_history(),
            database=self.database,
            unaccounted=self.catalogues.undecided(),
            ours=self._ours(),
            predates=self._predates,
            rows_held=RowCounts(self.scan).rows_held,
        )
        evidence.columns = [
            (commit, oid, self.database.text(name)) for commit, oid, name in self.catalogues.dropped_columns()
        ]
        if self.request.target is None:
            self._read_rows(evidence)
        return evidence

    def _ours(self) -> dict[int, str]:
        """{position of a commit: incident} of transactions that carry the mark of this collection."""
        positions = self.scan.positions(self.scan.marks)
        return {positions[xid]: incident for xid, incident in self.scan.marks.items() if xid in positions}

    def _read_rows(self, evidence: Evidence) -> None:
        """Count the rows that transactions changed in the relations that are still there."""
        members = self._members()
        if members and (self.request.wants("delete") or self.request.wants("update")):
            files = {file: until for file, (_known, until) in damage.files_of(evidence, members).items()}
            evidence.rows = RowCounts(self.scan).rows(files, self.request.min_rows)
        if members and self.request.wants("ddl", False):
            evidence.maintenance = self._maintenance(evidence, {member.oid for member in members})

    def _maintenance(self, evidence: Evidence, oids: set[int]) -> frozenset[int]:
        """Commits that sent messages for the relations and yet changed nothing but statistics: ANALYZE and VACUUM."""
        statistics = {evidence.database.catalogs[name] for name in STATISTICS}
        return frozenset(
            commit.lsn
            for commit in evidence.commits.with_messages()
            if commit.relcache & oids and RowCounts(self.scan).touched(commit) <= statistics
        )

    def _whole(self, candidate: Candidate) -> Candidate:
        """The candidate with all that its transaction damaged."""
        if self.catalogues is None:
            return candidate
        evidence = self._evidence()
        files = {
            file: known
            for file, (known, _until) in damage.files_of(evidence, evidence.database.relations.values()).items()
        }
        rows = damage.changed_rows(evidence, RowCounts(self.scan).rows_of(candidate.commit), files)
        return locate.whole(evidence, self.request, candidate, {candidate.commit.lsn: rows})

    # Results

    def _scanned(self) -> dict[str, Any]:
        times = self.scan.commits.times
        return {
            "from_lsn": format_lsn(self.scan.start),
            "to_lsn": format_lsn(self.scan.end),
            "from_time": format_time(times[0]) if len(times) else None,
            "to_time": format_time(times[-1]) if len(times) else None,
            "segments": self.scan.segments,
            "from_primary": len(self.source.from_primary),
            "from_archive": len(self.source.from_archive),
            "complete": self.scan.at_floor and self.gap is None,
            "unread": self._unread(),
            "seconds": round(time.monotonic() - self.began, 3),
        }

    def _unread(self) -> str:
        """Which WAL was not read, and why."""
        if self.gap is not None:
            missing = ", ".join(self.gap.details["missing_segments"])
            return f"what is older than WAL segment {missing}, which is neither in pg_wal nor in the archive"
        if self.scan.at_floor:
            return f"what is older than backup {self.backup.label}, the oldest: no recovery can begin before it"
        if self.request.target is None and self.request.since is not None and self._complete():
            return f"what is older than {format_time(self.request.since)}, as dr_since says"
        if self.request.since_lsn is not None and self._complete():
            return f"what is older than {format_lsn(self.request.since_lsn)}, as dr_from says"
        return "what is older, since it cannot change the answer"

    def _result(self, incident: Candidate, reason: str, candidates: list[Candidate]) -> dict[str, Any]:
        facts = {"scanned": self._scanned(), "server": self.server, "repository": self.repository}
        return {**result(incident, reason, candidates, self.request.database, self.scan, self.server), **facts}
