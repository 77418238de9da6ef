# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The search as a whole: facts from the server, WAL stretch by stretch, and the result the module returns."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import repository_message
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    parse_relation_list,
    parse_schema_list,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal import locate, server
from ansible_collections.dbre.recovery.plugins.module_utils._wal.catalog import (
    Catalog,
    Change,
    ClassRow,
    class_row,
    database_row,
    namespace_row,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.explicit import explicit_target
from ansible_collections.dbre.recovery.plugins.module_utils._wal.history import History
from ansible_collections.dbre.recovery.plugins.module_utils._wal.locate import Candidate, Evidence, MoreWal, Request
from ansible_collections.dbre.recovery.plugins.module_utils._wal.lsn import format_lsn, parse_segment_name
from ansible_collections.dbre.recovery.plugins.module_utils._wal.record import (
    RM_HEAP,
    RM_HEAP2,
    RM_XLOG,
    mapped_filenode,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.scan import Relation, Scan
from ansible_collections.dbre.recovery.plugins.module_utils._wal.source import (
    Archive,
    WalSource,
    oldest_backup,
    read_timelines,
    run,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import Commit, format_time, parse_time

GLOBAL_TABLESPACE = 1664
TARGETS = ("target_lsn", "target_time", "target_xid")
PATIENCE = 15  # seconds to wait for a repository
PG_CLASS, PG_NAMESPACE = 1259, 2615
STATISTICS = ("pg_statistic", "pg_statistic_ext_data")


class Search:
    """One search on the primary. ``spool`` is an empty directory of its own, removed by the caller."""

    def __init__(self, params: Mapping[str, Any], spool: str) -> None:
        self.params = params
        self.began = time.monotonic()
        self.request = make_request(params)
        explicit = [name for name in TARGETS if params.get(name)]
        if len(explicit) > 1:
            raise RecoveryError(f"{' and '.join(explicit)} exclude each other. Nothing was changed. Give one.")
        self.explicit = explicit[0] if explicit else None
        self._connection = server.open_connection(params, params["database"])
        self.server = server.server_facts(self._connection)
        self._next_xid = self.server.pop("next_xid")
        if self.explicit is None:
            server.require_searchable(self.server)
        self.bin_dir = find_bin_dir(self.server["major"], params.get("bin_dir"))
        self.server["bin_dir"] = self.bin_dir
        self.database = self._database()
        pgbackrest = PgBackRest(
            run,
            stanza=params["stanza"],
            config=params.get("config"),
            executable=params.get("executable") or "pgbackrest",
            repo=params.get("repo"),
        )
        archive = Archive(pgbackrest, run, params.get("parallel") or os.cpu_count() or 1)
        pg_wal = os.path.join(self.server["data_directory"], "pg_wal")
        self.backup_info, lost = pgbackrest.settle(PATIENCE)
        self.repository = {
            "repo": pgbackrest.repo,
            "lost": [
                {"repo": repo["key"], "message": repository_message(repo["status"].get("message"))} for repo in lost
            ],
        }
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
        self.backup = oldest_backup(self.backup_info, self.server, self.source.timelines)
        floor = parse_segment_name(self.backup["archive"]["start"], self.source.segment_size)[1]
        self.files = self._catalogs()
        self._mapped: set[int] = set()
        self.scan = Scan(self.source, self.end, [file for files in self.files.values() for file in files], floor)

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
        inside = server.open_database(self.params, name)
        try:
            server.fill_database(inside, found)
        finally:
            inside.close()
        return found

    def _unknown_database(self, advice: str, dropped: Optional[list[str]] = None) -> RecoveryError:
        names = [row["name"] for row in self.server["databases"]]
        similar = get_close_matches(self.request.database, names + (dropped or []), 5, 0.5)
        return RecoveryError(
            f"the server on {socket.gethostname()}, port {self.params.get('login_port') or 5432}, has no database "
            f"{self.request.database!r}. "
            + (f"Similar: {', '.join(similar)}. " if similar else "")
            + f"It has: {', '.join(names)}. Nothing was changed. {advice}"
        )

    @property
    def _whole_database(self) -> bool:
        return not self.request.relations and not self.request.schemas

    def _catalogs(self) -> dict[str, list[Relation]]:
        """Files of the catalogues to follow, as far as they are known: those of now."""
        if self._whole_database or self.database is None:
            return {"pg_database": [(GLOBAL_TABLESPACE, 0, server.database_catalog(self._connection))]}
        at = (self.database.tablespace, self.database.oid)
        return {name: [(*at, self.database.catalogs[name])] for name in ("pg_class", "pg_namespace")}

    def _changes(self, name: str) -> list[Change]:
        """Changes of a catalogue's rows in all WAL read, whatever files it was in."""
        catalog = Catalog(self.files[name])
        return [change for record in self.scan.catalog(self.files[name]) for change in catalog.apply(record)]

    def _follow_pg_class(self) -> bool:
        """Take up files that pg_class had before it was rewritten (VACUUM FULL pg_class); whether there were any.

        The map of such catalogues is in WAL, in full, with every change of it. What the first change in the WAL read
        replaced is among the files that its transaction removed.
        """
        at = self.files["pg_class"][0][:2]
        updates = [line for line in self.scan.special if line.rmgr == "RelMap" and line.operation == "UPDATE"]
        updates = [line for line in updates if f"database {at[1]} " in line.text]
        commits = self.scan.commits.by_transaction(line.xid for line in updates)
        found = False
        for line in updates:
            if line.xid not in commits or line.lsn in self._mapped:
                continue
            self._mapped.add(line.lsn)
            now = (*at, mapped_filenode(self.scan.record(line), PG_CLASS) or 0)
            found |= self._take_up(now)
            rewritten = any(one.xid == line.xid and one.rmid == RM_XLOG for one in self.scan.catalog([now]))
            removed = commits[line.xid].files if rewritten else frozenset()
            for database, filenode in sorted(removed):
                found |= database == at[1] and self._take_up((*at, filenode))
        return found

    def _take_up(self, relation: Relation) -> bool:
        """Follow one more file of pg_class, unless it is followed already or is none of a table."""
        if relation in self.scan.catalogs:
            return False
        records = self.scan.add_catalog(relation)
        if any(record.rmid in (RM_HEAP, RM_HEAP2) for record in records):
            self.files["pg_class"].append(relation)
            return True
        return False

    def _follow_pg_namespace(self, classes: History[ClassRow]) -> None:
        """Take up files that pg_namespace had before it was rewritten; its row in pg_class names them."""
        at = self.files["pg_class"][0][:2]
        for step in classes.steps.get(PG_NAMESPACE, []):
            for row in (step.old, step.new):
                if row is not None and (*at, row.filenode) not in self.scan.catalogs:
                    self.scan.add_catalog((*at, row.filenode))
                    self.files["pg_namespace"].append((*at, row.filenode))

    # Searching

    def find(self) -> dict[str, Any]:
        """The module's result."""
        if self.explicit is not None:
            return self._explicit(self.explicit)
        while True:
            self.scan.extend()
            try:
                verdict = self._dropped_database() if self._whole_database else self._damage()
            except MoreWal:
                continue
            except RecoveryError as error:
                error.details.setdefault("scanned", self._scanned())
                error.details.setdefault("server", self.server)
                raise
            return self._result(verdict.incident, verdict.reason, verdict.candidates)

    def _explicit(self, option: str) -> dict[str, Any]:
        self.scan.catalogs = []
        candidate, reason = explicit_target(
            option, str(self.params[option]), self.scan, self.backup, self.request, self._next_xid
        )
        return self._result(candidate, reason, [])

    def _complete(self) -> bool:
        since = self.request.since
        times = self.scan.commits.times
        return self.scan.at_floor or (since is not None and len(times) > 0 and times[0] < since)

    def _damage(self) -> locate.Verdict:
        if self.database is None:
            raise RecoveryError("there is no database to look in")
        while self._follow_pg_class():
            pass
        log = self.scan.commits
        major = self.server["major"]
        classes = History(*self._committed("pg_class"), lambda row: class_row(row, major), lambda row: row.oid)
        self._follow_pg_namespace(classes)
        evidence = Evidence(
            commits=log,
            start=self.scan.start,
            end=self.scan.end,
            complete=self._complete(),
            classes=classes,
            namespaces=History(*self._committed("pg_namespace"), namespace_row, lambda row: row[0]),
            database=self.database,
        )
        self._read_rows(evidence)
        return locate.decide(evidence, self.request)

    def _committed(self, name: str) -> tuple[list[Change], dict[int, Commit]]:
        """Changes of a catalogue, and the commits of those of their transactions that committed."""
        changes = self._changes(name)
        return changes, self.scan.commits.by_transaction({change.xid for change in changes})

    def _read_rows(self, evidence: Evidence) -> None:
        """Count the rows that transactions changed in the relations that are still there."""
        known = [evidence.database.relation(schema, name) for schema, name in self.request.relations]
        members = [member for one in known if one is not None for member in locate.family(evidence.database, one)]
        if not members:
            return
        if self.request.wants("delete", True) or self.request.wants("update", True):
            evidence.rows = self.scan.rows(sorted(locate.filenodes(evidence, members)))
            evidence.row_commits = evidence.commits.by_transaction({xid for _file, xid, _kind in evidence.rows})
            evidence.running = self.scan.running
        if self.request.wants("ddl", False):
            evidence.maintenance = self._maintenance(evidence, {member.oid for member in members})

    def _maintenance(self, evidence: Evidence, oids: set[int]) -> frozenset[int]:
        """Commits that sent messages for the relations and yet changed nothing but statistics: ANALYZE and VACUUM."""
        statistics = {evidence.database.catalogs[name] for name in STATISTICS}
        return frozenset(
            commit.lsn
            for commit in evidence.commits.with_messages()
            if commit.relcache & oids and self.scan.touched(commit) <= statistics
        )

    def _dropped_database(self) -> locate.Verdict:
        changes, commits = self._committed("pg_database")
        rows = History(changes, commits, database_row, lambda row: row[0])
        name = self.request.database.encode()
        removals = [one for one in rows.removals() if self.request.in_window(one.commit)]
        found = [
            Candidate("drop_database", one.commit, self._first_harm(one.oid, one.commit.xid, changes))
            for one in removals
            if one.row[1] == name
        ]
        newest = found[-1].commit.lsn if found else 0
        undecided = [
            commit for commit, change in rows.undecided if change.operation == "DELETE" and commit.lsn > newest
        ]
        if (undecided or not found) and not self._complete():
            raise MoreWal
        if undecided:
            raise RecoveryError(
                f"cannot tell whether database {self.request.database!r} was dropped by transaction "
                f"{', '.join(str(commit.xid) for commit in undecided)}: {rows.undecided[0][1].unknown}. Nothing was "
                "changed. Choose one with target_lsn (dr_target_lsn)."
            )
        if not found:
            window = f"{format_lsn(self.scan.start)} to {format_lsn(self.scan.end)}"
            if self.database is not None:
                raise RecoveryError(
                    f"database {self.request.database!r} exists and was not dropped in the WAL from {window}. "
                    "Nothing was changed. Name what was lost in it: tables (dr_tables) or schemas (dr_schemas)."
                )
            dropped = [one.row[1].decode(errors="replace") for one in removals]
            seen = f" Databases dropped there: {', '.join(dropped)}." if dropped else ""
            raise self._unknown_database(
                f"Nor was one of that name dropped in the WAL from {window}.{seen} Check the name (dr_database).",
                dropped,
            )
        reason = f"just before DROP DATABASE of transaction {found[-1].commit.xid} began to take the database apart"
        return locate.Verdict(found[-1], reason, found)

    def _first_harm(self, oid: int, xid: int, changes: list[Change]) -> int:
        """LSN of the first record of a DROP DATABASE that harms the database.

        Its files go before its commit (record Database DROP), and newer versions first mark the row, in place and for
        good, with connection limit -2 (PostgreSQL: dropdb in src/backend/commands/dbcommands.c).
        """
        row = next(change for change in reversed(changes) if change.xid == xid and change.operation == "DELETE")
        lsns = [row.lsn]
        marks = [
            change
            for change in changes
            if change.operation == "INPLACE"
            and change.lsn < row.lsn
            and (change.block, change.offset) == (row.block, row.offset)
            and change.new is not None
        ]
        lsns += [
            mark.lsn
            for mark in marks
            if database_row(mark.new or b"")[0] == oid and database_row(mark.new or b"")[2] == -2
        ][-1:]
        lsns += [
            line.lsn
            for line in self.scan.special
            if line.rmgr == "Database" and line.xid == xid and line.operation == "DROP"
        ]
        return min(lsns)

    # Results

    def _scanned(self) -> dict[str, Any]:
        return {
            "from_lsn": format_lsn(self.scan.start),
            "to_lsn": format_lsn(self.scan.end),
            "segments": self.scan.segments,
            "from_primary": len(self.source.from_primary),
            "from_archive": len(self.source.from_archive),
            "seconds": round(time.monotonic() - self.began, 3),
        }

    def _result(self, incident: Candidate, reason: str, candidates: list[Candidate]) -> dict[str, Any]:
        log = self.scan.commits
        last = log.last_before(incident.lsn)
        timeline = self.source.timelines.at(incident.lsn)
        facts = incident.as_dict(self.request.database)
        facts["timeline"] = timeline
        count = log.after(incident.commit.lsn)
        seconds = (parse_time(self.server["host_time"], "host_time") - incident.commit.time) / 1e6
        return {
            "incident": facts,
            "target": {
                "type": "lsn",
                "value": format_lsn(incident.lsn),
                "exclusive": True,
                # The timeline to follow: the server's own, on which all of its ancestors up to the target lie.
                "timeline": self.source.timelines.current,
                "xid": incident.commit.xid,
                "commit_time": incident.commit.commit_time,
                "reason": reason,
                "segment": self.source.name(incident.lsn // self.source.segment_size),
            },
            "candidates": [one.as_dict(self.request.database) for one in candidates[-locate.LISTED :]],
            "scanned": self._scanned(),
            "last_commit": None
            if last is None
            else {"lsn": format_lsn(last.lsn), "time": last.commit_time, "xid": last.xid},
            "transactions_after": {"count": count, "seconds": max(0.0, round(seconds, 3))},
            "server": self.server,
            "repository": self.repository,
        }


def make_request(params: Mapping[str, Any]) -> Request:
    """What the user asked for, checked as far as it can be without a server."""
    relations = tuple((one["schema"], one["name"]) for one in parse_relation_list(params.get("relations")))
    schemas = tuple(parse_schema_list(params.get("schemas")))
    kinds = tuple(kind for kind in params.get("kinds") or [] if kind != "auto")
    if not params["database"]:
        raise RecoveryError("no database is named. Nothing was changed. Set database (dr_database).")
    since = parse_time(params["since"], "since") if params.get("since") else None
    until = parse_time(params["until"], "until") if params.get("until") else None
    if since is not None and until is not None and since > until:
        raise RecoveryError(f"since ({format_time(since)}) is later than until ({format_time(until)})")
    if params.get("target_time"):
        parse_time(params["target_time"], "target_time")
    return Request(params["database"], relations, schemas, kinds, since, until, params.get("min_rows") or 1)
