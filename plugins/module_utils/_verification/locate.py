# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a running server is corrupt. It is only read, and nobody waits for it.

Collations come first, for an index that is sorted by another order is no damage; then each page on disk, then amcheck.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._core.spans import blocks_text
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login, is_superuser
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.event_triggers import silence_event_triggers
from ansible_collections.dbre.recovery.plugins.module_utils._verification.amcheck import Amcheck, Fault, Given
from ansible_collections.dbre.recovery.plugins.module_utils._verification.collations import (
    changed_collations,
    sorted_by,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.damages import (
    FIRST_NORMAL,
    Damage,
    Place,
    place_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.data_files import (
    LAYOUT,
    UNREADABLE,
    BadPage,
    Layout,
    bad_pages,
    data_files,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.entering import enter
from ansible_collections.dbre.recovery.plugins.module_utils._verification.filenode_maps import (
    filenode_maps,
    map_is_damaged,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import Omission
from ansible_collections.dbre.recovery.plugins.module_utils._verification.missing_blocks import (
    blocks_of_zeros,
    counts_are_its_own,
    short_relations,
)

DATABASES = """
SELECT oid::int8 AS oid, datname AS name, datallowconn AS open FROM pg_catalog.pg_database
WHERE %(names)s::text[] IS NULL OR datname = ANY(%(names)s::text[]) ORDER BY 2
"""
FAILURES = """
SELECT coalesce(datname, 'shared') AS database, checksum_failures AS failures, checksum_last_failure::text AS last
FROM pg_catalog.pg_stat_database WHERE checksum_failures > 0 ORDER BY 1
"""
NAMES = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, m.amname AS method,
       c.relpersistence::text AS persistence, pg_catalog.pg_relation_filepath(c.oid) AS path,
       coalesce(o.oid, i.indrelid, c.oid)::int8 AS owner, i.indisexclusion AS exclusion,
       (SELECT t.oid FROM pg_catalog.pg_class t WHERE t.reltoastrelid = i.indrelid)::int8 AS toasted
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
LEFT JOIN pg_catalog.pg_class o ON o.reltoastrelid = c.oid
WHERE c.relkind IN ('r', 'm', 't', 'i', 'S')
  AND (c.oid = ANY(%(oids)s::oid[]) OR pg_catalog.pg_relation_filepath(c.oid) = ANY(%(paths)s))
"""
SHOWN = """
SELECT n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s
"""
CONTROL = "SELECT pg_control_version FROM pg_catalog.pg_control_system()"
POSITION = """
SELECT CASE WHEN here.replayed THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END AS lsn,
       here.replayed
FROM (SELECT pg_catalog.pg_is_in_recovery() AS replayed) AS here
"""
FOLLOWING = "SELECT pg_catalog.pg_logical_emit_message(true, 'dbre.recovery position', 'all pages were looked at')"
CONTROL_LOOKS, INTERNAL_ERROR = 3, "XX000"
BETWEEN = 0.5  # seconds until a file that is missing is looked for again
REFUSED = "a page that the server refuses"
NOT_GIVEN = "the disk does not give a page of it, so that what follows may not have been read"
AT_ONCE = 1000  # damaged pages of one relation that are told one by one


class Locator:
    """One look at a cluster. Raises RecoveryError where it cannot even begin."""

    def __init__(self, login: Login, names: Optional[Sequence[str]], progress: Progress) -> None:
        """``names`` of the databases to look at; None: all."""
        self._login = login
        self._names = list(names) if names else None
        self._progress = progress
        self.damages: dict[str, Damage] = {}
        self.collations: list[dict[str, Any]] = []
        self.omitted: list[Omission] = []
        self.facts: dict[str, Any] = {}
        self._layout: Optional[Layout] = None  # where files can be read
        self._zeros: dict[str, list[int]] = {}
        self._strays: set[str] = set()

    def omit(self, what: str, why: str) -> None:
        self.omitted.append({"what": what, "why": why})

    def connect(self, database: Optional[str] = None, what: str = "locating corruption") -> Any:
        """A session that waits for nobody."""
        return enter(self._login, database, what)

    def run(self) -> None:
        """Look at everything."""
        session = self.connect()
        try:
            if not is_superuser(session):
                raise RecoveryError(f"{self._login.get('login_user')} on {host_name()} is no superuser (login_user).")
            layout = Layout(**rows(session, LAYOUT)[0])
            databases = rows(session, DATABASES, {"names": self._names})
            missing = set(self._names or []) - {one["name"] for one in databases}
            if missing:
                raise RecoveryError(f"there is no database {', '.join(sorted(missing))} on {host_name()}.")
            failures = rows(session, FAILURES)
            session.rollback()
            self._control(session)
        finally:
            session.close()
        self.facts = {"checksums": layout.checksums, "checksum_failures": failures}
        if not layout.checksums:
            self.omit("contents of pages", "data checksums are off, so that only what breaks their structure is seen")
        pages = self._pages(layout, [one["oid"] for one in databases])
        if self._layout is not None:
            self._maps(layout, {one["oid"]: one["name"] for one in databases})
        for one in databases:
            own = [page for page in pages if _database_of(page.path) in (one["oid"], 0)]
            self._database(one, own)
        self.facts["lsn"] = self._position()
        self._unnamed(
            [page for page in pages if page.path not in self.damages and page.path not in self._strays],
            {one["oid"]: one["name"] for one in databases},
        )

    def _position(self) -> str:
        """Where WAL ends, with a transaction after it, since one can be recovered to what was before a transaction."""
        session = self.connect()
        try:
            row = rows(session, POSITION)[0]
            if not row["replayed"]:
                execute(session, "SET LOCAL synchronous_commit = local")
                execute(session, FOLLOWING)
                session.commit()
            return str(row["lsn"])
        finally:
            session.close()

    def _unnamed(self, pages: Sequence[BadPage], databases: Mapping[int, str]) -> None:
        """Note pages whose database told no name. Its own catalogue has the same numbers everywhere."""
        if not pages:
            return
        numbers = sorted({_number(page.path) for page in pages if _number(page.path) < FIRST_NORMAL})
        session = self.connect()
        try:
            found = self._tried("names of the catalogue", lambda: rows(session, NAMES, {"oids": numbers, "paths": []}))
        finally:
            session.close()
        places = {row["oid"]: place_of(row) for row in found or []}
        for page in pages:
            database = databases.get(_database_of(page.path))
            self._add(database, places.get(_number(page.path)), page.path, page.block, page.fault, _said(page.fault))

    def _pages(self, layout: Layout, databases: list[int]) -> list[BadPage]:
        if not os.access(layout.data, os.R_OK | os.X_OK):
            self.omit("pages on disk", f"{layout.data} cannot be read on this host by the user that this runs as")
            return []
        self._layout = layout
        files = list(data_files(layout, None if self._names is None else databases))
        total = sum(_size(file.file) for file in files)
        done, found = 0, []

        def count(size: int) -> None:
            nonlocal done
            done += size
            self._progress.say("reading pages", done, total, "bytes")

        for file in files:
            found += list(bad_pages(layout, file, count, functools.partial(self._zero, file.path)))
        self.facts["bytes_read"] = done
        return found

    def _zero(self, path: str, block: int) -> None:
        blocks = self._zeros.setdefault(path, [])
        if len(blocks) < AT_ONCE:
            blocks.append(block)

    def _maps(self, layout: Layout, databases: Mapping[int, str]) -> None:
        """Note files that have a checksum of their own and are no pages, which nobody reads until a session begins."""
        for path, oid in filenode_maps(layout, databases.keys()):
            if map_is_damaged(layout, path):
                said = "its checksum is wrong, so that no new session can find the catalogue"
                self._add(databases.get(oid), None, path, None, "structure", said)

    def _control(self, session: Any) -> None:
        """Note a pg_control that the server would not start from."""
        for look in range(CONTROL_LOOKS):
            try:
                rows(session, CONTROL)
                session.rollback()
                return
            except Exception as error:
                session.rollback()
                if getattr(error, "pgcode", None) != INTERNAL_ERROR:
                    raise
                said = str(error).strip().splitlines()[0]
            if look + 1 < CONTROL_LOOKS:
                time.sleep(BETWEEN)  # until who writes it has done so
        advice = "CHECKPOINT writes it anew, and the server does not start again without that"
        self._add(None, None, "global/pg_control", None, "structure", f"{said}; {advice}")

    def _database(self, database: dict[str, Any], pages: Sequence[BadPage]) -> None:
        name = database["name"]
        if not database["open"]:
            self.omit(f"structure of database {name}", "it lets nobody in")
            return
        try:
            session = self.connect(name)
        except RecoveryError as error:
            self.omit(f"structure of database {name}", error.msg)
            return
        try:
            with_other_order = self._tried(f"collations of {name}", lambda: self._collations(session, name)) or set()
            self._name(session, name, [(page.path, page.block, page.fault) for page in pages])
            self._tried(f"files of no relation in {name}", lambda: self._stray(session, database, pages))
            self._tried(f"blocks of zeros in {name}", lambda: self._empty(session, database))
            self._tried(f"files of database {name}", lambda: self._files(session, name))
            self._tried(f"structure of database {name}", lambda: self._structure(session, name, with_other_order))
        finally:
            session.close()

    def _tried(self, what: str, look: Callable[[], Any]) -> Any:
        """A look that may itself come upon what is damaged."""
        try:
            return look()
        except Exception as error:
            if not hasattr(error, "pgcode"):
                raise
            self.omit(what, str(error).strip().splitlines()[0])
            return None

    def _collations(self, session: Any, name: str) -> set[int]:
        found: set[int] = set()
        for one in changed_collations(session):
            indexes, partitioned = sorted_by(session, one)
            found |= {item["oid"] for item in indexes}
            self.collations.append(
                {
                    "database": name,
                    "what": one.what,
                    "recorded": one.recorded,
                    "actual": one.actual,
                    "indexes": indexes,
                    "partitioned": partitioned,
                    "refresh": one.refresh(name),
                }
            )
        session.rollback()
        return found

    def _name(self, session: Any, database: str, pages: Sequence[tuple[str, Optional[int], str]]) -> None:
        """Note damaged pages under the names of their relations, as far as the catalogue still tells them."""
        if not pages:
            return
        asked = {"paths": sorted({path for path, _block, _fault in pages}), "oids": []}
        found = self._tried(f"names of files in {database}", lambda: rows(session, NAMES, asked))
        places = {row["path"]: place_of(row) for row in found or []}
        session.rollback()
        for path, block, fault in pages:
            place = places.get(path)
            if place is not None:
                self._add(database, self._owner(session, place), path, block, fault, _said(fault))

    def _stray(self, session: Any, database: Mapping[str, Any], pages: Sequence[BadPage]) -> None:
        """Leave what no relation has, where the catalogue can be believed: nothing is lost with it."""
        own = {page.path for page in pages if _database_of(page.path) == database["oid"]} - self.damages.keys()
        own = {path for path in own if _number(path) >= FIRST_NORMAL}
        harmed = (one["place"] for one in self.damages.values() if one["database"] == database["name"])
        if not own or any(place is None or place["name"].startswith("pg_class") for place in harmed):
            return
        found = {row["path"] for row in rows(session, NAMES, {"paths": sorted(own), "oids": []})}
        session.rollback()
        for path in sorted(own - found):
            self._strays.add(path)
            why = (
                "no relation has it; a crash leaves such files, and so does a table that is being made, or was dropped"
            )
            self.omit(f"file {path} of database {database['name']}", why)

    def _empty(self, session: Any, database: Mapping[str, Any]) -> None:
        """Tell of blocks of zeros. The server takes them for new ones, and whether they held rows nobody knows."""
        own = {path: blocks for path, blocks in self._zeros.items() if _database_of(path) == database["oid"]}
        for schema, name, blocks in blocks_of_zeros(session, own) if own else ():
            self.omit(
                f"whether rows are missing in block {blocks_text(blocks)} of {display_name(schema, name)} in "
                f"{database['name']}",
                "nothing but zeros are there: a crash while the table grew leaves such blocks, and so does a disk that "
                "lost them. dr-table-drop with dr_load=beside and dr_target_time brings the rows of then to compare",
            )

    def _files(self, session: Any, database: str) -> None:
        """Note relations whose file is missing or too short, in which nothing that is left looks damaged."""
        if self._layout is None:
            return
        short = [row["oid"] for row in short_relations(session, self._layout, None)]
        if short:
            time.sleep(BETWEEN)  # until whoever drops, rewrites or cuts one at this moment has said so
        for row in short_relations(session, self._layout, short) if short else []:
            named = rows(session, NAMES, {"oids": [row["oid"]], "paths": []})
            session.rollback()
            if not named:
                continue
            place = self._owner(session, place_of(named[0]))
            if row["certain"] or counts_are_its_own(session):
                self._add(database, place, row["path"], None, "missing", row["why"])
            else:
                why = f"{row['why']}, which replay of WAL or a dump may have brought along without these blocks"
                self.omit(f"whether blocks of {place['schema']}.{place['name']} in {database} are missing", why)

    def _owner(self, session: Any, place: Place) -> Place:
        """With the name of the table that it is of."""
        found = self._tried("name of a table", lambda: rows(session, SHOWN, (place["owner"],))) or []
        session.rollback()
        return {**place, "table": display_name(found[0]["schema"], found[0]["name"]) if found else place["table"]}

    def _structure(self, session: Any, name: str, other_order: set[int]) -> None:
        triggers = silence_event_triggers(session)
        firing = [one["name"] for one in triggers if one["fires"]]
        checks = Amcheck(session, lambda what: self.connect(name, what))
        if firing and checks.would_make:
            self.omit(
                f"structure of database {name}", f"amcheck is missing, and event triggers fire: {', '.join(firing)}"
            )
            return
        relations = checks.relations()
        unknown: dict[str, int] = {}
        with checks.yielding():
            for number, one in enumerate(relations):
                self._progress.say(f"checking database {name}", number, len(relations), "relations")
                what = f"{one['schema']}.{one['name']} in {name}"
                if not checks.looks_into(one):
                    unknown[one["method"]] = unknown.get(one["method"], 0) + 1
                elif one["kind"] == "i" and not one["usable"]:
                    self.omit(f"index {what}", "it is not valid: a rebuild of it was broken off")
                elif one["oid"] in other_order:
                    self.omit(f"index {what}", "its collation changed, so that it would look corrupt; rebuild it first")
                else:
                    self._look_into(session, checks, name, one, what)
        for method, number in sorted(unknown.items()):
            self.omit(
                f"structure of {number} {method} relations in {name}", "amcheck of this server does not know them"
            )

    def _look_into(self, session: Any, checks: Amcheck, name: str, one: dict[str, Any], what: str) -> None:
        faults: list[Fault] = []
        try:
            faults = list(checks.index(one) if one["kind"] == "i" else checks.table(one["oid"]))
            if one["kind"] == "i" and one["expressions"]:
                self.omit(
                    f"whether each row of {one['table']} is in {one['name']} in {name}",
                    "its expressions are code of users",
                )
        except Given as error:
            if not checks.is_gone(one["oid"]):
                self.omit(what, str(error))
        if not faults:
            return
        named = [(fault.path, fault.block, "checksum") for fault in faults if fault.path is not None]
        known = {(path, block) for path, damage in self.damages.items() for block in damage["blocks"]}
        self._name(session, name, [page for page in named if page[:2] not in known])
        own = [fault for fault in faults if fault.path is None]
        if own:
            named_so = rows(session, NAMES, {"oids": [one["oid"]], "paths": []})
            session.rollback()
            for row in named_so[:1]:  # none, where it was dropped meanwhile
                place = self._owner(session, place_of(row))
                for fault in own:
                    self._add(name, place, row["path"], fault.block, "structure", fault.message)

    def _add(
        self, database: Optional[str], place: Optional[Place], path: str, block: Optional[int], fault: str, message: str
    ) -> None:
        new: Damage = {
            "database": database,
            "place": place,
            "path": path,
            "blocks": [],
            "more": 0,
            "faults": [],
            "messages": [],
        }
        damage = self.damages.setdefault(path, new)
        if block is not None and block not in damage["blocks"]:
            if len(damage["blocks"]) < AT_ONCE:
                damage["blocks"].append(block)
            else:
                damage["more"] += 1
        if fault not in damage["faults"]:
            damage["faults"].append(fault)
        if message not in damage["messages"] and len(damage["messages"]) < 5:
            damage["messages"].append(message)


def _database_of(path: str) -> int:
    """OID of the database that a file belongs to; 0 for what all share."""
    return 0 if path.startswith("global/") else int(path.split("/")[-2])


def _said(fault: str) -> str:
    return NOT_GIVEN if fault == UNREADABLE else REFUSED


def _number(path: str) -> int:
    return int(path.rsplit("/", 1)[-1])


def _size(file: Any) -> int:
    try:
        return int(file.stat().st_size)
    except FileNotFoundError:
        return 0
