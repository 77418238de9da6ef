# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables that are there, and damaged: as they were, they are loaded beside, proved, and get their places.

They are brought back as if they had been dropped. For the moment in which that makes them, and for good when it
publishes them, those of now are moved out of the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import Lock, Locks, patiently
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.lookup import find_relations
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import Attempt
from ansible_collections.dbre.recovery.plugins.module_utils._tables.displaced import (
    Holding,
    counterparts_of,
    drop_command,
    find_holding,
    find_roots,
    kept_schemas,
    locks_of,
    make_schemas,
    move,
    names_of_relations,
    refuse_holding,
    take_off,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import Context, TableLoad
from ansible_collections.dbre.recovery.plugins.module_utils._tables.publish import Steps
from ansible_collections.dbre.recovery.plugins.module_utils._tables.recover import TableRecovery
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import SchemaDump
from ansible_collections.dbre.recovery.plugins.module_utils._tables.views import refresh_views

# What the journal calls what was moved away, and what stands in its place.
DISPLACED = "displaced"
PLACED = "placed"
# Kinds of relations that have a place.
RELATIONS = ("r", "p", "f", "v", "m", "S")
EMPTY = """
SELECT name FROM unnest(%s::text[]) AS name JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(name)
WHERE NOT c.relispopulated
"""


class DamagedTables(TableRecovery):
    """As dropped tables are brought back; what has their names meanwhile is kept beside, as it is."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._incident: str = self.plan["incident"]
        self._counterparts = counterparts_of(self.plan["objects"])
        self._away: Optional[Holding] = None
        self._kept: dict[str, str] = {}
        self._made: Optional[Steps] = None

    def _steps(self, dump: SchemaDump) -> Steps:
        self._made = super()._steps(dump)
        return self._made

    def _find(self, connection: Any) -> Holding:
        """What has to go now. Raises RecoveryError where something came meanwhile that cannot be handled."""
        relations = [
            item for item in self.plan["objects"] if item["catalog"] == "pg_class" and item["kind"] in RELATIONS
        ]
        oids = [item["objid"] for item in relations]
        names = [(item["names"][0], item["names"][-1]) for item in relations]
        holding = find_holding(connection, find_roots(connection, oids, names), self._counterparts)
        refuse_holding(holding)
        return holding

    def _lock(self, connection: Any, locks: Locks, known: Sequence[Lock], keys: bool) -> Holding:
        """What has to go, when nobody can change it any more."""
        holding = self._find(connection)
        oids = {*holding["roots"]}
        if keys:
            oids |= {key[end] for key in holding["keys"] for end in ("relation", "other_relation")}
        names = names_of_relations(connection, oids)
        locks.take([*locks_of(holding, names), *known])
        return self._find(connection)

    def _prepare_early(self, dump: SchemaDump, steps: Steps) -> None:
        # Others wait while these are made; their scripts are at hand then.
        connection = self.context.session()
        try:
            schemas = [entry for entry in steps.early if entry.description == "SCHEMA"]
            rest = [entry for entry in steps.early if entry.description != "SCHEMA"]
            Attempt(connection, dump).prepare([schemas, rest, *steps.indexes.values()])
        finally:
            connection.close()

    def _free_places(self, main: Any, locks: Locks) -> None:
        self._away = self._lock(main, locks, (), keys=False)
        self._kept = kept_schemas("damaged", self._incident, self._away)
        make_schemas(main, self._kept.values())
        move(main, self._away["moves"], self._kept)

    def _complete_early(self, main: Any, dump: SchemaDump, steps: Steps) -> None:
        # Their definitions name the table at its place, which is free in this transaction and in the last one only.
        for item in self.loaded:
            if item["oid"] not in self.unmade:
                self._make_indexes(dump, steps, item, main)

    def _give_places_back(self, main: Any) -> None:
        if self._away is None:
            raise AssertionError("no place was freed")
        move(main, self._away["moves"], {schema: schema for schema in self._kept})
        for name in self._kept.values():
            execute(main, f"DROP SCHEMA {quote_ident(name)}")

    def _load_table(self, item: Mapping[str, Any], encoding: str, make_indexes: Callable[[Any], None]) -> None:
        TableLoad(self.context, item, encoding, staged=True).run()

    def _take_places(
        self, main: Any, locks: Locks, known: Sequence[Lock], attempt: Attempt, steps: Steps
    ) -> list[dict[str, Any]]:
        attempt.prepare([steps.own])
        self._away = self._lock(main, locks, known, keys=True)
        self._kept = kept_schemas("damaged", self._incident, self._away)
        take_off(main, self._away)
        make_schemas(main, self._kept.values())
        move(main, self._away["moves"], self._kept)
        self.context.journal(main, DISPLACED, {"kept": self._kept, "holding": self._away})
        for entry in self._keeping(self._away):
            self.context.journal(main, "kept", entry)
        return self._held(self._away)

    def _keeping(self, away: Holding) -> list[dict[str, Any]]:
        """The damaged tables for people, of which the first stands for all in what is removed one day."""
        tables = [item for item in away["moves"] if item["objid"] in away["roots"]]
        if not tables:
            return []
        return [
            {
                "type": "tables",
                "object": f"{', '.join(self._kept.values())} ({', '.join(item['identity'] for item in tables)})",
                "reason": "the damaged tables, as they were when they lost their places, with all that was committed",
                "command": drop_command(self._kept.values()),
                "schema": self._kept[tables[0]["schema"]],
                "name": tables[0]["name"],
            }
        ]

    def _held(self, away: Holding) -> list[dict[str, Any]]:
        """What was led to the damaged tables since the target, and has no counterpart."""
        coming = {item["identity"] for item in self.plan["objects"] if item["catalog"] == "pg_constraint"}
        found = []
        for key in away["keys"]:
            identity = f"{display_name(None, key['name'])} on {display_name(key['schema'], key['table'])}"
            if key["relation"] not in away["roots"] and identity not in coming:
                table = quote_name(key["schema"], key["table"])
                command = f"ALTER TABLE {table} ADD CONSTRAINT {quote_ident(key['name'])} {key['definition']};"
                reason = "it was made after the target, and led to the table that is kept; make it anew"
                found.append(left("foreign key", identity, reason, command))
        for item in away["stays"]:
            reason = "it was made after the target, and reads what is kept; to read what came back, make it anew"
            found.append(left(item["type"], item["identity"], reason))
        return found

    def _move_back(self, main: Any, dump: SchemaDump, steps: Steps, attempt: Attempt) -> list[dict[str, Any]]:
        left_to_do = super()._move_back(main, dump, steps, attempt)
        lacking = [item for item in attempt.refused if item.entry.description in ("TABLE", "FOREIGN TABLE")]
        if lacking:
            raise RecoveryError(
                f"{lacking[0].name} cannot take its place on {host_name()}: {lacking[0].reason}. All tables are as "
                "they were. Free the place, then run again with the same incident id."
            )
        return left_to_do

    def _refresh(self, main: Any, views: Sequence[str]) -> list[dict[str, Any]]:
        # Not while readers of their tables wait; see _appear().
        return []

    def _note_places(self, main: Any) -> None:
        roots = [item["oid"] for item in find_relations(main, self.placed).values()]
        moves = find_holding(main, roots, {(item["type"], item["identity"]) for item in self.plan["objects"]})["moves"]
        placed = [{key: item[key] for key in ("classid", "objid")} for item in moves]
        self.context.journal(main, PLACED, {"roots": roots, "objects": placed})

    def _appear(self, admin: Any, main: Any, dump: SchemaDump) -> Any:
        """Materialized views are filled when nobody waits for the tables any more."""
        if self._made is None:
            raise AssertionError("nothing was made")
        views = rows(main, EMPTY, (self._populated_views(self._made),))
        main.rollback()
        if views:

            def fill() -> None:
                mark(main, self._incident)
                left_to_do = refresh_views(main, [item["name"] for item in views])
                self.context.journal(main, "published", {"left_to_do": left_to_do})

            patiently(main, fill)
        return main
