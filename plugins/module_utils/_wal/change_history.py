# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read from WAL what each transaction of a window changed in one database."""

from __future__ import annotations

import functools
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.ages import parse_age
from ansible_collections.dbre.recovery.plugins.module_utils._core.archive import Archive
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import sync_directory
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn, parse_lsn, parse_segment_name
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name
from ansible_collections.dbre.recovery.plugins.module_utils._wal import server
from ansible_collections.dbre.recovery.plugins.module_utils._wal.catalog import BEFORE_RANGE
from ansible_collections.dbre.recovery.plugins.module_utils._wal.catalogues import Catalogues
from ansible_collections.dbre.recovery.plugins.module_utils._wal.changes import (
    KINDS,
    Relation,
    Traces,
    Transaction,
    lines_by_table,
    rows_by_table,
    told_one_by_one,
    transactions,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.evidence import Request
from ansible_collections.dbre.recovery.plugins.module_utils._wal.locks import precedes
from ansible_collections.dbre.recovery.plugins.module_utils._wal.other_changes import (
    OTHERS,
    OtherChange,
    lines_of,
    other_changes,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.scan import Scan, Stretch
from ansible_collections.dbre.recovery.plugins.module_utils._wal.search import GLOBAL_TABLESPACE, Search
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import (
    Line,
    count_changes,
    files_emptied,
    files_made,
    format_time,
    parse_time,
    relcache_of,
    wal_levels,
)

# Catalogues whose rows say what a relation is, with what a change of them is that is more than a relation made or gone.
DEFINING = {
    "pg_attribute": frozenset(("update",)),
    "pg_attrdef": frozenset(("insert", "update", "delete")),
    "pg_constraint": frozenset(("insert", "update", "delete")),
    "pg_inherits": frozenset(("insert", "update", "delete")),
    "pg_policy": frozenset(("insert", "update", "delete")),
    "pg_rewrite": frozenset(("insert", "update", "delete")),
    "pg_trigger": frozenset(("insert", "update", "delete")),
}
EVERYWHERE = (GLOBAL_TABLESPACE, 0)
# Catalogues whose rows are large objects.
LARGE_OBJECTS = ("pg_largeobject", "pg_largeobject_metadata")
FILES = """
SELECT c.relname AS name, pg_catalog.pg_relation_filenode(c.oid)::bigint AS filenode, c.relisshared AS shared
FROM pg_catalog.pg_class c
WHERE c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace AND c.relname = ANY(%s)
"""
# What a table has of such a type goes with an attribute of it.
TYPES = f"""
SELECT c.oid::bigint AS oid, c.relnamespace::bigint AS namespace, {server.raw("c.relname")} AS name
FROM pg_catalog.pg_class c WHERE c.relkind = 'c' AND c.oid >= {server.FIRST_USER_OID}
"""


def window_of(since: str, until: Optional[str]) -> dict[str, Any]:
    """What make_request() takes for a window, out of what a person writes.

    It begins at a time, an age (``24h``) before now, a position in WAL, or with ``all`` there is; it ends at a time or
    a position.
    """
    window: dict[str, Any] = {"until_lsn": parse_lsn(until)} if until and "/" in until else {"until": until}
    if "/" in since:
        return {**window, "since_lsn": parse_lsn(since)}
    if since.strip().lower() in ("all", "backup"):
        return window
    try:
        age = parse_age(since)
    except RecoveryError:
        return {**window, "since": since}
    return {**window, "since": (datetime.now(timezone.utc) - timedelta(seconds=age)).isoformat()}


class ChangeHistory(Search):
    """What happened in a database: all of its relations are followed, and of all rows those that many went of."""

    def __init__(
        self,
        login: Login,
        request: Request,
        spool: str,
        archive: Archive,
        *,
        bin_dir: Optional[str] = None,
        since_backup: bool = False,
    ) -> None:
        """``since_backup``: the window begins where the newest backup was complete."""
        self._archive, self._since_backup = archive, since_backup
        super().__init__(login, request, spool, archive, bin_dir=bin_dir)

    def _begin(self) -> None:
        server.require_searchable(self.server)
        if self.database is None:
            raise self._unknown_database("")
        self._here = self.database
        if self._since_backup:
            self.request = replace(self.request, since_lsn=self._newest_backup())
        self.databases = None
        self._watched = frozenset()
        self.scan = Scan(self.source, self.end, self.floor, keep_rest=self._keep_rest)
        self.catalogues = catalogues = Catalogues(self.scan, self._here, self.server["major"], KINDS)
        self._take_up_rewritten = catalogues.take_up_rewritten
        self._temporary = catalogues.temporary
        self._followed = (catalogues.classes, catalogues.namespaces, catalogues.attributes)
        self._names = self._catalogue_files()
        self._defining = {file: DEFINING[name] for file, name in self._names.items() if name in DEFINING}
        self._large_objects = {file for file, name in self._names.items() if name in LARGE_OBJECTS}
        self._others = {file: name for file, name in self._names.items() if name in OTHERS}
        self._rows: dict[int, Counter[tuple[Relation, str]]] = defaultdict(Counter)
        self._open: Counter[tuple[Relation, int, str]] = Counter()
        self._altering: set[int] = set()
        self._anew: dict[Relation, int] = {}
        self._cut: set[tuple[int, int, int, int]] = set()
        self._levels: dict[int, str] = {}

    def _catalogue_files(self) -> dict[Relation, str]:
        """Files of the catalogues that are told of; composite types are noted beside the relations."""
        inside = server.session(self.login, self.request.database)
        try:
            with inside.cursor() as cursor:
                cursor.execute(FILES, ([*DEFINING, *LARGE_OBJECTS, *OTHERS],))
                found = {
                    (*(EVERYWHERE if shared else (self._here.tablespace, self._here.oid)), int(filenode)): name
                    for name, filenode, shared in cursor.fetchall()
                }
                cursor.execute(TYPES)
                for oid, namespace, name in cursor.fetchall():
                    known = server.Known(
                        oid,
                        self._here.namespaces.get(namespace, "?"),
                        self._here.text(bytes(name)),
                        "c",
                        namespace=namespace,
                    )
                    self._here.relations[oid] = known
        finally:
            inside.close()
        return found

    def _newest_backup(self) -> int:
        """Where the newest backup was complete: all that committed later is not in it without replay."""
        backup = self._archive.newest_backup(
            str(self.server["system_identifier"]), self.source.segment_size, self.source.timelines
        )
        if backup.stop_lsn:
            return parse_lsn(backup.stop_lsn)
        return parse_segment_name(backup.first_segment, self.source.segment_size)[1] * self.source.segment_size

    def read(self, max_changes: int, list_path: Optional[str] = None, xids: Sequence[int] = ()) -> dict[str, Any]:
        """The module's result.

        Transactions are in it with at most ``max_changes`` changes together, and ``xids`` (see told_one_by_one()); all
        of them go to a file of their own in the directory ``list_path``, where one is given.
        """
        # What the first changes of the window found may be in WAL that is older than the window.
        while not self._complete() or (not self.scan.at_floor and self._undecided(BEFORE_RANGE)):
            before = len(self.scan.stretches)
            self._extend()
            for stretch in self.scan.stretches[: len(self.scan.stretches) - before]:
                self._count(stretch)
            if self.gap is not None and self.scan.at_floor:
                break
        found = self._transactions()
        told = told_one_by_one(found, max_changes, xids)
        others = self._other_changes({one.commit.lsn for one in found})
        return {
            "count": len(found),
            "other_changes": others,
            "transactions": [one.as_dict(self.request.database) for one in told],
            "tables": rows_by_table(found),
            "databases": self._databases(),
            "text": self._text(found, told, others),
            "listed_in": self._list(found, others, Path(list_path)) if list_path else None,
            "scanned": self._scanned(),
            "blind": self._blind() or None,
            "unlogged": self._unlogged(),
            "foreign": self._foreign(),
            "roots": self._roots({change.oid for one in found for change in one.changes}),
            "server": self.server,
            "repository": self.repository,
        }

    def _databases(self) -> list[dict[str, Any]]:
        """Databases of the server that were made, and those dropped that were there before, as ``{what, oid, name}``.

        The name of one that is gone is not known. One that was made and dropped meanwhile is neither.
        """
        lines = [line for line in self.scan.special if line.rmgr == "Database" and self._is_in_window(line)]
        made, gone = (
            {oid for line in lines if line.operation.startswith(start) for oid in _last_oid(line.text)}
            for start in ("CREATE", "DROP")
        )
        there = {int(row["oid"]): row["name"] for row in self.server["databases"]}
        # One that got another tablespace is copied and removed, too.
        came = [{"what": "created", "oid": oid, "name": there[oid]} for oid in sorted((made - gone) & there.keys())]
        return came + [{"what": "dropped", "oid": oid, "name": None} for oid in sorted(gone - made - there.keys())]

    def _unlogged(self) -> list[str]:
        known = self._here.relations.values()
        return sorted(display_name(one.schema, one.name) for one in known if one.unlogged and one.kind == "r")

    def _foreign(self) -> list[str]:
        known = self._here.relations.values()
        return sorted(display_name(one.schema, one.name) for one in known if one.kind == "f")

    def _roots(self, changed: Iterable[int]) -> dict[str, dict[str, Any]]:
        """{OID of a partition: the partitioned table that it is of in the end}, by what is there now."""
        relations, roots = self._here.relations, {}
        for oid in changed:
            root = known = relations.get(oid)
            while root is not None and root.parents:
                root = relations.get(root.parents[0])
            if root is not None and root is not known and root.kind == "p":
                roots[str(oid)] = {"schema": root.schema, "name": root.name, "oid": root.oid, "kind": root.kind}
        return roots

    def _other_changes(self, told: Collection[int]) -> list[OtherChange]:
        """What the transactions of the window changed beside relations; ``told`` are positions of those in the list."""
        touched = (lsn for lsn, counts in self._rows.items() if any(file in self._others for file, _kind in counts))
        commits = {commit.lsn: commit for commit in map(self.scan.commit_at, touched) if self.request.in_window(commit)}
        positions = self.scan.positions({xid for xid, *_place in self._temporary})
        temporary = Counter(positions[xid] for xid, *_place in self._temporary if xid in positions)
        return other_changes(self._rows, self._others, commits, told, temporary)

    def _list(self, found: Sequence[Transaction], others: Sequence[OtherChange], directory: Path) -> str:
        """Write all transactions as lines of JSON: a file for each database and begin of a window, written anew."""
        begin = self._scanned()["from_lsn"] if self.request.since_lsn is None else format_lsn(self.request.since_lsn)
        path = directory / f"transactions-{self._here.oid}-{begin.replace('/', '-')}.jsonl"
        beside = path.with_suffix(".new")
        try:
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                for one in found:
                    file.write(json.dumps(one.as_dict(self.request.database)) + "\n")
                for other in others:
                    if not other["told"]:
                        database = self.request.database if other["what"] else None
                        file.write(json.dumps({"database": database, **other}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
            sync_directory(str(directory))
        except OSError as error:
            raise RecoveryError(f"the list of transactions cannot be written to {path} (list_path): {error}") from error
        return str(path)

    def _text(self, found: list[Transaction], told: list[Transaction], others: Sequence[OtherChange]) -> list[str]:
        scanned, asked = self._scanned(), self.request
        what = f"changed a definition, a file or at least {asked.min_rows} rows in database {asked.database}"
        read = f"WAL from {scanned['from_lsn']} ({scanned['from_time']}) to {scanned['to_lsn']} ({scanned['to_time']})"
        head = (
            f"{len(found) or 'No'} transaction{'' if len(found) == 1 else 's'} {what}{self._window()}, in the {read}."
        )
        end = [*self._beyond(), f"Not read: {scanned['unread']}."]
        blind = self._blind()
        if blind:
            end.append(
                f"Not told: changes of definitions committed before {blind['before_lsn']}, and whether a table that "
                f"was rewritten before it has the same values: {', '.join(blind['catalogues'])} got another file there."
            )
        for first, until in self._minimal():
            end.append(
                f"Not told: changes of definitions, and rows of tables that were new, from {format_lsn(first)} to "
                f"{format_lsn(until)}, since wal_level was minimal. No recovery can go through that."
            )
        unlogged = self._unlogged()
        if unlogged:
            end.append(f"Rows of unlogged tables are not in WAL, and nothing is told of them: {', '.join(unlogged)}.")
        if any(one.loses is not False for one in found):
            end.append("To be just before one of them, give dr-table-drop its number: -e dr_target_xid=NUMBER.")
        tables = lines_by_table(rows_by_table(found))
        if tables:
            which = "" if asked.min_rows == 1 else ", of the transactions above (of all, with dr_min_rows=1)"
            tables = [f"Rows by table{which}:", *tables]
        lines = [line for one in told for line in one.lines()]
        if len(told) < len(found):
            lines.append(
                f"and {counted(len(found) - len(told), 'more transaction')}, which are counted below. Told are those "
                "that did more than change rows, then those that changed most. See the others in a smaller window: "
                "dr_from and dr_to take positions."
            )
        whole = [
            f"Database {one['what']}: {'one' if one['name'] is None else display_name(None, one['name'])} with OID "
            f"{one['oid']}{', with all that was in it' if one['what'] == 'dropped' else ''}."
            for one in self._databases()
        ]
        return [head, *lines, *lines_of(others), *tables, *whole, *end]

    def _window(self) -> str:
        """The window that was asked for, in words."""
        asked = self.request
        since = (
            format_lsn(asked.since_lsn)
            if asked.since_lsn is not None
            else (format_time(asked.since) if asked.since is not None else "")
        )
        until = (
            format_lsn(asked.until_lsn)
            if asked.until_lsn is not None
            else (format_time(asked.until) if asked.until is not None else "")
        )
        first, last = f" from {since} on" if since else "", f" until {until}" if until else ""
        return f"{first}{last}"

    def _beyond(self) -> list[str]:
        """Where the window lies outside of what was read, so that no transaction says nothing."""
        asked, times = self.request, self.scan.commits.times
        if (asked.until is not None and (not len(times) or asked.until < times[0])) or (
            asked.until_lsn is not None and asked.until_lsn <= self.scan.start
        ):
            return ["That is before all commits that were read: nothing is known of it."]
        now = parse_time(self.server["host_time"], "host_time")
        if (asked.since is not None and asked.since > now) or (
            asked.since_lsn is not None and asked.since_lsn > self.scan.end
        ):
            return ["That is after all that was written: nothing is known of it yet."]
        return []

    def _transactions(self) -> list[Transaction]:
        self._settle(None)
        evidence = self._evidence()
        undecided = self._undecided()
        altered = self._altered(self._altering | undecided)
        return transactions(
            evidence,
            self.request,
            Traces(
                self._rows,
                {lsn: oids for lsn, oids in altered.items() if lsn in self._altering},
                max((lsn for file, lsn in self._anew.items() if file in self._defining), default=0),
                self._large_objects,
                {lsn: oids for lsn, oids in altered.items() if lsn in undecided},
                self._emptied(),
                self._minimal(),
            ),
        )

    def _undecided(self, why: str = "") -> set[int]:
        """Positions of commits in the window that changed a row of which no WAL read so far tells what it was.

        Those of all, or where it is for that reason: older WAL may tell what it was BEFORE_RANGE.
        """
        self._take_up_rewritten()
        unknown = [change for one in self._followed for change in one.changes() if change.unknown]
        xids = {change.xid for change in unknown if not why or change.unknown == why}
        return {
            commit.lsn for commit in self.scan.commits.by_transaction(xids).values() if self.request.in_window(commit)
        }

    def _emptied(self) -> dict[int, set[Relation]]:
        """{position of a commit: files that it cut to nothing}."""
        found: dict[int, set[Relation]] = defaultdict(set)
        positions = self.scan.positions({xid for xid, *_file in self._cut})
        for xid, tablespace, database, filenode in self._cut:
            if xid in positions:
                found[positions[xid]].add((tablespace or self._here.tablespace, database, filenode))
        return found

    def _minimal(self) -> list[tuple[int, int]]:
        """Stretches of the WAL read that were written with wal_level=minimal, from one position to another."""
        found: list[tuple[int, int]] = []
        changes = sorted(self._levels.items())
        ends = [lsn for lsn, _level in changes[1:]] + [self.scan.end]
        for (lsn, level), end in zip(changes, ends):
            if level == "minimal" and found and found[-1][1] == lsn:
                found[-1] = found[-1][0], end
            elif level == "minimal":
                found.append((lsn, end))
        return found

    def _blind(self) -> dict[str, Any]:
        """Catalogues that were rewritten in the window, and up to where what was in their old files is not told."""
        names = sorted(self._names[file] for file, lsn in self._anew.items() if not self._is_older(lsn))
        latest = max(self._anew.values(), default=0)
        return {"catalogues": names, "before_lsn": format_lsn(latest)} if names else {}

    def _is_in_window(self, line: Line) -> bool:
        """Whether a record is of a transaction that committed in the window, or would have where it was written."""
        commit = self.scan.commits.by_transaction([line.xid]).get(line.xid) if line.xid else None
        commit = commit or self.scan.commits.first_from(line.lsn)
        return commit is None or self.request.in_window(commit)

    def _is_older(self, lsn: int) -> bool:
        """Whether a position is before all commits of the window."""
        first = self.scan.commits.first_from(lsn)
        return first is not None and self.request.is_older(first)

    # Rows

    def _count(self, stretch: Stretch) -> None:
        """Count what changed in one stretch, as soon as it was read: what came from the archive is at hand now only."""
        counts, made = self.scan.steady(stretch.first, stretch.end, functools.partial(self._count_changes, stretch))
        self._anew = {**made, **self._anew}
        positions = self.scan.positions({xid for _file, xid, _kind in counts}, stretch)
        for file, xid, kind in counts:
            if kind in self._defining.get(file, ()) and xid in positions:
                self._altering.add(positions[xid])
        self._open.update({key: n for key, n in counts.items() if key[1] in positions and key[0] not in self._defining})
        self._settle(stretch)

    def _count_changes(self, stretch: Stretch) -> tuple[Counter[tuple[Relation, int, str]], dict[Relation, int]]:
        rows: Counter[tuple[Relation, int, str]] = Counter()
        made: dict[Relation, int] = {}
        rmgrs = ("--rmgr=Heap", "--rmgr=Heap2", "--rmgr=Storage", "--rmgr=XLOG")
        for piece in self.scan.source.waldump(stretch.start, stretch.end, *rmgrs):
            files = files_made(piece)
            made.update({one: files[one[1:]] for one in self._names if one[1:] in files})
            self._cut |= {one for one in files_emptied(piece) if one[2] == self._here.oid}
            self._levels.update(wal_levels(piece))
            found: Counter[tuple[Relation, int, str]] = Counter()
            count_changes(piece, found)
            rows.update({key: count for key, count in found.items() if self._matters(key[0])})
        return rows, made

    def _matters(self, file: Relation) -> bool:
        return file in self._names or (file[1] == self._here.oid and file[2] >= server.FIRST_USER_OID)

    def _settle(self, stretch: Stretch | None) -> None:
        """Take what is complete of the rows counted, and forget transactions that changed few.

        What counts is what committed together, subtransactions included: a loop with an exception handler has one for
        each turn. A transaction that was running when the stretch began may have changed more in older WAL.
        """
        running = stretch.running if stretch is not None else None
        positions = self.scan.positions({xid for _file, xid, _kind in self._open})
        defined = {change.xid for one in self._followed for change in one.changes()}
        kept = {*self._altering, *self.scan.positions(defined).values()} if self._open else set()
        totals: Counter[tuple[int, str]] = Counter()
        for (file, xid, kind), count in self._open.items():
            totals[positions[xid], kind] += count if file not in self._others else 0
        begun = {
            lsn: running is None or precedes(self.scan.commit_at(lsn).xid, running.next_xid)
            for lsn in set(positions.values())
        }
        for key in list(self._open):
            file, xid, kind = key
            position = positions[xid]
            if stretch is not None and begun[position]:
                continue
            count = self._open.pop(key)
            if totals[position, kind] >= self.request.min_rows or position in kept or file in self._others:
                self._rows[position][file, kind] += count

    # Definitions

    def _altered(self, commits: Collection[int]) -> Mapping[int, frozenset[int]]:
        """{position of a commit: OIDs of relations of which it changed what they are}, of those at ``commits``."""
        evidence = self._evidence()
        known = (
            self._here.relations.keys() | evidence.classes.steps.keys() | set().union(*evidence.unaccounted.values())
        )
        found: dict[int, frozenset[int]] = {}
        for stretch in self.scan.stretches:
            wanted = {lsn for lsn in commits if stretch.start <= lsn < stretch.end}
            if wanted:
                read = functools.partial(self._messages, stretch, wanted)
                for lsn, oids in self.scan.steady(stretch.first, stretch.end, read).items():
                    found[lsn] = frozenset(oids & known)
        return found

    def _messages(self, stretch: Stretch, wanted: set[int]) -> dict[int, frozenset[int]]:
        found: dict[int, frozenset[int]] = {}
        for piece in self.scan.source.waldump(stretch.start, stretch.end, "--rmgr=Transaction"):
            found.update(relcache_of(piece, wanted))
        return found


def _last_oid(text: str) -> list[int]:
    """OID of the database that a record made or dropped: of the last directory in it (dbasedesc.c)."""
    return [int(oid) for oid in re.findall(r"\d+/(\d+)", text)[-1:]]
