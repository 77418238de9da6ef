# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import (
    is_superuser,
    needs_of,
    needs_of_database,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.lookup import (
    find_relations,
    find_schemas,
    require_known,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.references import firing_triggers
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server, host_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables import closure as closures
from ansible_collections.dbre.recovery.plugins.module_utils._tables.actions import SWAP, action_of
from ansible_collections.dbre.recovery.plugins.module_utils._tables.displaced import (
    counterparts_of,
    find_holding,
    find_roots,
    refuse_holding,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.event_triggers import (
    refuse_event_triggers,
    silence_event_triggers,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.exchange import require_exchangeable
from ansible_collections.dbre.recovery.plugins.module_utils._tables.journal import read_journal, require_own
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left
from ansible_collections.dbre.recovery.plugins.module_utils._tables.lost_columns import (
    find_lost_columns,
    tables_with_lost_columns,
    went_with_columns,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.lost_large_objects import (
    every_large_object,
    large_objects_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.no_longer_there import no_longer_there
from ansible_collections.dbre.recovery.plugins.module_utils._tables.privileges import (
    lost_policies,
    lost_privileges,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.replication import replication_of
from ansible_collections.dbre.recovery.plugins.module_utils._tables.tablespaces import moved
from ansible_collections.dbre.recovery.plugins.module_utils._tables.unique_keys import unique_keys
from ansible_collections.dbre.recovery.plugins.module_utils._tables.with_secrets import dropped_with_secrets

# Kinds of relations with definitions of their own in a plan: tables, partitioned and foreign tables.
TABLES = ("r", "p", "f")
SUFFIX_ROOM = 4
# What a plan keeps of each object of the closure.
OBJECT_KEYS = [
    "classid",
    "objid",
    "objsubid",
    "catalog",
    "type",
    "schema",
    "name",
    "identity",
    "names",
    "args",
    "state",
    "kind",
    "relation",
    "index_of",
    "contype",
    "copied",
    "implied",
]

SIZES = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind, c.relpersistence AS persistence,
       CASE WHEN c.relkind IN ('r', 'm') THEN pg_catalog.pg_table_size(c.oid) ELSE 0 END::int8 AS bytes,
       greatest(c.reltuples, 0)::int8 AS rows_estimate,
       ARRAY(SELECT up.relid::int8 FROM pg_catalog.pg_partition_ancestors(c.oid) AS up WHERE up.relid <> c.oid)
         AS ancestors
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY(%s::oid[])
ORDER BY n.nspname, c.relname
"""

ROLES = """
SELECT r.rolname, r.rolcanlogin, bool_or(s.deptype = 'o') AS owns
FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_roles r ON r.oid = s.refobjid
WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass
  AND s.dbid IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
  AND (s.classid::int8, s.objid::int8) IN (SELECT * FROM unnest(%(classes)s::int8[], %(objects)s::int8[]))
GROUP BY 1, 2 ORDER BY 1
"""

TABLESPACES = """
SELECT DISTINCT t.spcname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_tablespace t ON t.oid = c.reltablespace
WHERE c.oid = ANY(%s::oid[]) ORDER BY 1
"""
DATABASE_TABLESPACES = """
SELECT spcname FROM pg_catalog.pg_tablespace
WHERE oid IN (SELECT reltablespace FROM pg_catalog.pg_class)
  OR oid = (SELECT dattablespace FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
ORDER BY 1
"""

PARTITIONS = """
SELECT DISTINCT tree.relid::int8 AS oid
FROM unnest(%(oids)s::oid[]) AS asked(oid)
JOIN pg_catalog.pg_class c ON c.oid = asked.oid AND c.relkind = 'p'
CROSS JOIN LATERAL pg_catalog.pg_partition_tree(asked.oid) AS tree
WHERE NOT tree.relid = ANY (%(oids)s::oid[])
"""

# Partitioned tables some of whose rows are on other servers.
PARTLY_FOREIGN = """
SELECT asked.oid::int8 AS oid FROM unnest(%s::oid[]) AS asked(oid) WHERE EXISTS (
  SELECT FROM pg_catalog.pg_partition_tree(asked.oid) AS tree
  JOIN pg_catalog.pg_class c ON c.oid = tree.relid AND c.relkind = 'f')
"""

DATABASE_OBJECTS = """
WITH here AS (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
SELECT DISTINCT s.classid::int8 AS classid, s.objid::int8 AS objid
FROM pg_catalog.pg_shdepend s, here
WHERE s.dbid = here.oid OR (s.dbid = 0 AND s.classid = 'pg_catalog.pg_database'::regclass AND s.objid = here.oid)
"""

DATABASE_TABLES = """
SELECT c.oid::int8 AS oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  -- Of an extension's tables only those whose rows belong to the user (pg_extension_config_dump).
  AND (NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass
                   AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e')
       OR EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE c.oid = ANY (e.extconfig)))
"""

MEMBER_TABLES = """
SELECT objid::int8 AS oid FROM pg_catalog.pg_depend
WHERE classid = 'pg_catalog.pg_class'::regclass AND objid = ANY(%s::oid[]) AND objsubid = 0 AND deptype = 'e'
"""


def staging_name(incident: str) -> str:
    """Schema (or database) of one incident. Raises RecoveryError when the name would be cut."""
    name = f"recovered_{incident}"
    if not incident or len(name.encode()) > 63 - SUFFIX_ROOM:
        raise RecoveryError(
            f"the incident id {incident!r} cannot be used in a schema name: it must have 1 to "
            f"{63 - SUFFIX_ROOM - len('recovered_')} bytes. Nothing was changed. Set dr_incident_id to a shorter one."
        )
    return name


def left_without_rows(relation: Mapping[str, Any], state: str) -> dict[str, Any]:
    """The entry of ``left_to_do`` for an unlogged table out of a physical copy."""
    estimate = relation["rows_estimate"] or None
    reason = "unlogged: its rows are in no backup and no WAL, so that 0 rows "
    reason += "came back" if state == "missing" else "can come back; what production has in it was left as it is"
    reason += f". There were about {estimate}" if estimate else ". How many there were is not known"
    return left("table", display_name(relation["schema"], relation["name"]), reason, lost=True, rows=estimate)


def left_on_another_server(relation: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of ``left_to_do`` for a foreign table that production has."""
    reason = "its rows are on another server: what became of them there is in no WAL and no backup of this one, and "
    reason += "none was brought back or changed. Look there"
    return left("foreign table", display_name(relation["schema"], relation["name"]), reason, lost=True)


def missing_names(production: Any, catalog: str, column: str, wanted: Sequence[str]) -> list[str]:
    """Those of ``wanted`` that are not in a shared catalogue of production."""
    found = rows(
        production, f"SELECT {column} AS name FROM pg_catalog.{catalog} WHERE {column} = ANY(%s)", (list(wanted),)
    )
    return sorted(set(wanted) - {row["name"] for row in found})


class Planner:
    """Finds out what one incident took from one database, from the recovered instance, and what is to be done."""

    def __init__(
        self,
        production: Server,
        side: Server,
        database: str,
        incident: str,
        load: str,
        same_lineage: bool = True,
        xids: Sequence[int] = (),
        unless_same: Sequence[Mapping[str, Any]] = (),
        damaged_pages: Sequence[Mapping[str, Any]] = (),
        reached: Mapping[str, Any] | None = None,
    ) -> None:
        self.production = production
        self.side = side
        self.database = database
        self.incident = incident
        self.load = load
        self.staging = staging_name(incident)
        # A dump restored elsewhere has OIDs of its own; a physical copy shares production's.
        self.same_lineage = same_lineage
        # The transaction that did the damage and its subtransactions, where they are known.
        self.xids = xids
        # Relations that are exchanged only where they are not defined as they were.
        self.unless_same = unless_same
        # The moment of the recovered instance.
        self.reached = reached
        # Of relations whose pages production cannot read: only the rows of these go back.
        self.damaged_pages = {int(item["oid"]): item for item in damaged_pages}

    def plan(self, relations: Sequence[Mapping[str, Any]], schemas: Sequence[str]) -> dict[str, Any]:
        """The load plan; the very plan of an earlier run of the same incident that has begun to carry it out."""
        admin = self.production.connect()
        try:
            names = [self.database, self.staging]
            query = "SELECT datname FROM pg_catalog.pg_database WHERE datname = ANY(%s)"
            databases = {row["datname"] for row in rows(admin, query, (names,))}
        finally:
            admin.close()
        for database in sorted(databases, reverse=True):
            begun = self._begun(database)
            if begun is not None:
                return begun
        if self.load == SWAP and not relations:
            return self._plan_damaged_database(schemas)
        if self.database not in databases:
            if relations or schemas:
                raise RecoveryError(
                    f"database {display_name(None, self.database)} does not exist on {host_name()}. "
                    "Nothing was changed. To bring the whole database back, name neither tables nor schemas "
                    "(dr_tables, dr_schemas)."
                )
            return self._plan_database()
        if not relations and not schemas:
            raise RecoveryError(
                f"database {display_name(None, self.database)} exists on {host_name()}, and no table and no schema was "
                "named. Nothing was changed. Say what was lost: dr_tables=schema.table or dr_schemas=schema."
            )
        production, side = self.production.connect(self.database), self.side.connect(self.database)
        try:
            return self._plan_objects(production, side, relations, schemas)
        finally:
            production.close()
            side.close()

    def _plan_damaged_database(self, schemas: Sequence[str]) -> dict[str, Any]:
        if schemas:
            raise RecoveryError(
                "tables are exchanged, or a whole database, and schemas were named. Nothing was changed. Name tables "
                "(relations), or nothing."
            )
        admin = self.production.connect()
        try:
            kept = require_exchangeable(admin, self.database, self.incident)
        finally:
            admin.close()
        return {**self._plan_database(), "kept_database": kept}

    def _begun(self, database: str) -> dict[str, Any] | None:
        connection = self.production.connect(database)
        try:
            plans = read_journal(connection, self.staging).get("plan", [])
        finally:
            connection.close()
        if not plans:
            return None
        require_own(plans[0], self.reached)
        return plans[0]

    def _base(self) -> dict[str, Any]:
        return {
            "incident": self.incident,
            "database": self.database,
            "load": self.load,
            "xids": list(self.xids),
            "reached": self.reached,
            "staging_schema": self.staging,
            "staging_database": None,
        }

    def _plan_objects(
        self, production: Any, side: Any, relations: Sequence[Mapping[str, Any]], schemas: Sequence[str]
    ) -> dict[str, Any]:
        triggers = silence_event_triggers(production)
        refuse_event_triggers(production, triggers)
        if self.load == SWAP:
            self._require_may_exchange(production)
        named = find_relations(side, relations)
        if self.load == SWAP:
            named = self._without_same(production, side, named)
        wanted = [(item["schema"], item["name"]) for item in relations if item not in self.unless_same]
        require_known(named, wanted, "relation", side)
        found_schemas = find_schemas(side, schemas)
        require_known(found_schemas, schemas, "schema", side)
        alive_schemas = find_schemas(production, schemas)

        # A schema that is still there is asked for all it held, but is no root: it was not dropped.
        inside = [
            item["oid"]
            for item in rows(
                side,
                "SELECT oid::int8 FROM pg_catalog.pg_class WHERE relnamespace = ANY(%s::oid[]) "
                "AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')",
                ([found_schemas[name] for name in schemas if name in alive_schemas],),
            )
        ]
        gone_schemas = [found_schemas[name] for name in schemas if name not in alive_schemas]
        asked = sorted({*inside, *(item["oid"] for item in named.values())})
        asked += [row["oid"] for row in rows(side, PARTITIONS, {"oids": asked})]

        everything = closures.closure(side, asked, gone_schemas)
        closures.compare(production, everything, self.same_lineage)
        if self.load == SWAP:
            return {**self._plan_exchange(production, side, asked, everything), "event_triggers": triggers}
        states = {
            item["objid"]: item["state"]
            for item in everything
            if item["catalog"] == "pg_class" and not item["objsubid"]
        }
        # Only what is missing was dropped. What hangs on a relation that somebody made anew is left to people.
        gone = [oid for oid in asked if states[oid] == "missing"]
        columns, types = self._lost_columns(production, side, asked, states)
        lost = closures.closure(side, gone, gone_schemas, columns, types)
        closures.compare(production, lost, self.same_lineage)
        went = went_with_columns(production, side, everything, lost, {oid for oid, unused in columns})
        if went:
            lost = closures.closure(side, gone, gone_schemas, columns, types, went)
            closures.compare(production, lost, self.same_lineage)
        recreated = [
            item["objid"]
            for item in lost
            if item["state"] == "recreated" and item["catalog"] == "pg_class" and not item["objsubid"]
        ]
        recreated += [oid for oid in asked if states[oid] == "recreated"]
        on_recreated = closures.closure(side, recreated, [])
        closures.compare(production, on_recreated, self.same_lineage)
        hanging = {(item["classid"], item["objid"]) for item in on_recreated}
        objects = [
            item
            for item in lost
            if item["state"] == "missing"
            and not item["objsubid"]
            and not item["member"]
            and (item["classid"], item["objid"]) not in hanging
        ]
        mappings = [item["objid"] for item in objects if item["type"] == "user mapping"]
        objects = self._schemas_of(production, side, objects) + [
            item for item in objects if item["type"] != "user mapping"
        ]
        taken = {(item["classid"], item["objid"]) for item in objects}
        asked_ones = set(asked)
        planned = [item["objid"] for item in objects if item["type"] == "server"]
        xids = self.xids if self.same_lineage else ()
        secret = dropped_with_secrets(production, side, xids, mappings, planned)
        columns_of = tables_with_lost_columns(production, side, lost) if self.same_lineage else {}
        states.update(dict.fromkeys(columns_of, "present"))
        named_ones = [item for item in everything if item["objid"] in asked_ones and not item["objsubid"]]
        shown = [item for item in [*lost, *named_ones, *on_recreated] if not item["implied"]]
        shown = [item for item in shown if item["type"] != "user mapping"]
        whole_relations = [item for item in lost if item["catalog"] == "pg_class" and not item["objsubid"]]
        relations_of_objects = [item["objid"] for item in objects if item["catalog"] == "pg_class"]
        plan = self._finish(
            production,
            side,
            objects=objects,
            table_states={**states, **{item["objid"]: item["state"] for item in whole_relations}},
            tables=sorted({*asked, *relations_of_objects, *recreated, *columns_of}),
            left_to_do=[
                *self._left(shown, taken, self.load, columns_of),
                *(left(**entry) for entry in self._no_longer_there(side, everything, [*lost, *on_recreated])),
                *self._privileges(production, side, [*everything, *lost, *on_recreated]),
                *(left(**entry) for entry in secret),
            ],
            columns=columns_of,
        )
        return {**plan, "event_triggers": triggers}

    def _require_may_exchange(self, production: Any) -> None:
        if not self.same_lineage or not is_superuser(production):
            why = (
                "the recovered instance is no physical copy" if is_superuser(production) else "our role is no superuser"
            )
            raise RecoveryError(
                f"tables cannot be exchanged for those of then: {why}. Nothing was changed. Bring back the whole "
                "database (load=swap, no relations), or the rows (load=replace)."
            )

    def _without_same(
        self, production: Any, side: Any, named: Mapping[tuple[str, str], dict[str, Any]]
    ) -> dict[tuple[str, str], dict[str, Any]]:
        """Without those that stay, since but for foreign keys to the others they are defined as they were."""
        doubtful = {(item["schema"], item["name"]) for item in self.unless_same}
        oids = [item["oid"] for place, item in named.items() if place in doubtful]
        others = closures.closure(side, [item["oid"] for place, item in named.items() if place not in doubtful], [])
        keys = [item["identity"] for item in others if item["catalog"] == "pg_constraint"]
        recovered, present = (fingerprint.definitions(connection, oids) for connection in (side, production))
        changed = {item["relation"] for item in fingerprint.difference(recovered, present, keys)}
        found = {
            place: item for place, item in named.items() if place not in doubtful or display_name(*place) in changed
        }
        if not found:
            raise RecoveryError(
                f"{', '.join(display_name(*place) for place in named)} on {host_name()}: nothing of the definition is "
                "other than it was. Nothing was changed. Name the tables that come back in any case (dr_tables)."
            )
        return found

    def _plan_exchange(
        self, production: Any, side: Any, asked: Sequence[int], everything: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        """The plan as if all that was asked for had been dropped, for what is there is moved away."""
        objects = [
            {**item, "state": "missing"}
            for item in everything
            if not item["objsubid"] and not item["member"] and item["type"] != "user mapping"
        ]
        relations = [item for item in objects if item["catalog"] == "pg_class"]
        places = [item for item in relations if not item["index_of"] and item["names"]]
        names = [(item["names"][0], item["names"][-1]) for item in places]
        roots = find_roots(production, [item["objid"] for item in places], names)
        holding = find_holding(production, roots, counterparts_of(objects))
        refuse_holding(holding)
        plan = self._finish(
            production,
            side,
            objects=self._schemas_of(production, side, objects) + objects,
            table_states={item["objid"]: "missing" for item in relations},
            tables=sorted({*asked, *(item["objid"] for item in relations)}),
            left_to_do=[],
            columns={},
        )
        return {**plan, "holding": holding}

    def _no_longer_there(
        self, side: Any, everything: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """What hung on tables that stay, of which rows come back without it."""
        if not self.same_lineage or self.load not in ("beside", "merge", "replace"):
            return []
        told = {(item["classid"], item["objid"]) for item in known}
        return no_longer_there(side, [item for item in everything if (item["classid"], item["objid"]) not in told])

    def _privileges(self, production: Any, side: Any, objects: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        if not self.same_lineage:
            return []
        policies = [item for item in objects if item["catalog"] == "pg_policy" and item["state"] != "present"]
        told = {(item["relation"], item["names"][-1]) for item in policies}
        return [
            *(left("acl", **entry) for entry in lost_privileges(production, side, self.xids)),
            *(left("policy", **entry) for entry in lost_policies(production, side, self.xids, told)),
        ]

    def _schemas_of(self, production: Any, side: Any, objects: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Schemas of lost objects that are gone, too, without what else they held."""
        have = {item["objid"] for item in objects if item["catalog"] == "pg_namespace"}
        names = sorted({item["schema"] for item in objects if item["schema"]})
        gone = sorted(set(names) - set(find_schemas(production, names)))
        wanted = set(find_schemas(side, gone).values()) - have
        found = [item for item in closures.closure(side, [], sorted(wanted)) if item["catalog"] == "pg_namespace"]
        return [{**item, "state": "missing"} for item in found if item["objid"] in wanted]

    def _lost_columns(
        self, production: Any, side: Any, asked: Sequence[int], states: Mapping[int, str]
    ) -> tuple[list[tuple[int, int]], list[int]]:
        if not self.same_lineage:
            return [], []
        return find_lost_columns(production, side, [oid for oid in asked if states[oid] == "present"])

    @staticmethod
    def _left(
        objects: Sequence[Mapping[str, Any]],
        taken: set[tuple[int, int]],
        load: str,
        columns: Mapping[int, Mapping[str, Any]],
    ) -> list[dict[str, Any]]:
        lost_tables = {item["objid"] for item in objects if item["catalog"] == "pg_class" and not item["objsubid"]}
        # What of these is other than it was is told when their rows are back.
        anew = {
            item["objid"]
            for item in objects
            if item["state"] == "recreated" and item["kind"] in ("r", "p") and load != "beside"
        }
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for item in objects:
            if item["member"]:
                continue
            name, kind = item["identity"], item["type"]
            entry = None
            if item["objsubid"]:
                if item["objid"] not in lost_tables and item["state"] == "missing" and item["objid"] not in columns:
                    reason = "the column went, and cannot be put back there; add it again and fill it by hand"
                    entry = left(kind, name, reason, lost=True, needs_side_instance=True)
            elif item["state"] == "recreated" and {item["index_of"], item["relation"]} & anew:
                continue
            elif item["state"] == "recreated":
                entry = left(kind, name, "somebody made it anew after the incident; it was left as it is")
            elif item["state"] == "renamed":
                entry = left(kind, name, "it lives on under another name; it was left as it is")
            elif item["state"] == "missing" and (item["classid"], item["objid"]) not in taken:
                reason = "it belonged to something that was made anew after the incident; make it there"
                entry = left(kind, name, reason, lost=True)
            if entry is not None:
                found.setdefault((kind, name), entry)
        return list(found.values())

    def _finish(
        self,
        production: Any,
        side: Any,
        *,
        objects: list[dict[str, Any]],
        table_states: Mapping[int, str],
        tables: Sequence[int],
        left_to_do: list[dict[str, Any]],
        columns: Mapping[int, Mapping[str, Any]],
    ) -> dict[str, Any]:
        sizes = [item for item in rows(side, SIZES, (list(tables),)) if item["kind"] in TABLES]
        missing = [item for item in sizes if table_states[item["oid"]] == "missing"]
        parted = {oid for item in missing for oid in item["ancestors"]}
        here = find_relations(production, sizes)
        partly_foreign = self._partly_foreign(production, side, sizes, here)
        # Of those that are there in part elsewhere, each local partition is seen to for itself.
        alive = {item["oid"] for item in sizes} - {item["oid"] for item in missing} - partly_foreign
        relations = []
        for item in sizes:
            state = {"present": "exists", "renamed": "exists"}.get(table_states[item["oid"]], table_states[item["oid"]])
            action = action_of(state, item["kind"], self.load)
            above = set(item.pop("ancestors"))
            if action == self.load and (above & alive or item["oid"] in parted | partly_foreign):
                # A partition goes with its tree; a tree that lost partitions gets those back and is else left alone.
                action = "none"
            known = here.get((item["schema"], item["name"]))
            if state != "missing" and known is not None and known["kind"] == "f":
                # One that took the place of a table would be written to there.
                action = "none"
                left_to_do.append(left_on_another_server(item))
            if item["persistence"] == "u" and self.same_lineage:
                # There is nothing to copy, and nothing must take the place of rows that production has.
                action = "none" if action == self.load else action
                left_to_do.append(left_without_rows(item, state))
            if item["oid"] in columns:
                action = "columns" if columns[item["oid"]]["key"] else "beside"
                item = {**item, **columns[item["oid"]]}
                left_to_do += [] if action == "columns" else self._without_key(item)
            if action == "merge" and item["oid"] in self.damaged_pages:
                pages = self.damaged_pages[item["oid"]]
                item = {**item, "damaged_pages": {key: pages[key] for key in ("blocks", "path", "lsn")}}
            relations.append({**item, "state": state, "action": action})
        for item, (triggers, keys) in zip(relations, self._holding_up(production, relations)):
            item["silenced_triggers"], item["late_keys"] = triggers, keys
        staged = sorted({item["schema"] for item in relations if item["action"] != "none"})
        schemas = {schema: self.staging + (f"_{number}" if number else "") for number, schema in enumerate(staged)}
        oids = [item["objid"] for item in objects if item["catalog"] == "pg_class"]
        touched = [item["oid"] for item in relations if item["action"] in ("merge", "replace")]
        kept = [{key: item[key] for key in OBJECT_KEYS} for item in objects]
        needs = needs_of(production, side, objects, relations)
        # What we cannot become in production we cannot read in its copy either.
        sequences = []
        if not needs["missing_memberships"]:
            sequences = fingerprint.sequences_of(side, oids) + fingerprint.sequences_numbering(side, touched)
        read = [] if needs["missing_memberships"] else relations
        large_objects = large_objects_of(production, side, read, self.xids if self.same_lineage else ())
        spaces = [row["spcname"] for row in rows(side, TABLESPACES, (oids,))]
        missing_globals = self._missing_globals(production, side, objects, spaces)
        return {
            **self._base(),
            "staging_schemas": schemas,
            "relations": relations,
            "objects": kept,
            "sequences": sequences,
            "left_to_do": left_to_do + self._moved(side, oids, missing_globals["missing_tablespaces"]),
            "large_objects": large_objects,
            "bytes": sum(item["bytes"] for item in relations if item["action"] != "none")
            + (large_objects["bytes"] or 0),
            "replication": replication_of(production, relations),
            **missing_globals,
            **needs,
        }

    @staticmethod
    def _partly_foreign(
        production: Any,
        side: Any,
        sizes: Sequence[Mapping[str, Any]],
        here: Mapping[tuple[str, str], Mapping[str, Any]],
    ) -> set[int]:
        """Those of ``sizes`` of which a partition was or is a foreign table: what writes to all of it writes there."""
        then = {(item["schema"], item["name"]): item["oid"] for item in sizes}
        now = {known["oid"]: then[place] for place, known in here.items()}
        found = {row["oid"] for row in rows(side, PARTLY_FOREIGN, ([item["oid"] for item in sizes],))}
        return found | {now[row["oid"]] for row in rows(production, PARTLY_FOREIGN, (list(now),))}

    @staticmethod
    def _moved(side: Any, oids: Sequence[int] | None, gone: Sequence[str]) -> list[dict[str, Any]]:
        return [left("tablespace", **entry) for entry in moved(side, oids, gone)]

    @staticmethod
    def _holding_up(production: Any, relations: Sequence[Mapping[str, Any]]) -> list[tuple[list[str], list[str]]]:
        """What of each relation holds up writers while its rows go back: triggers to disable, and deferrable keys."""
        found: list[tuple[list[str], list[str]]] = []
        here = find_relations(production, [item for item in relations if item["action"] in ("merge", "replace")])
        for item in relations:
            known = here.get((item["schema"], item["name"]))
            triggers = [] if known is None else firing_triggers(production, [known["oid"]])
            keys = [] if known is None else unique_keys(production, known["oid"])
            found.append(
                (
                    [
                        f"{trigger['name']} on {display_name(trigger['schema'], trigger['table'])}"
                        for trigger in triggers
                    ],
                    [key.shown for key in keys if key.deferrable],
                )
            )
        return found

    def _without_key(self, item: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Lost columns of a table whose rows cannot be told apart: a copy of it is kept beside."""
        shown = display_name(item["schema"], item["name"])
        reason = (
            f"the column went, and {shown} has no key to fill it by; the whole table as it was is kept in the schema "
            f"{display_name(None, self.staging)}. Add the column and fill it from there"
        )
        return [
            left("table column", f"{name} on {shown}", reason, lost=True, rows=item["rows_estimate"] or None)
            for name in item["columns"]
        ]

    def _missing_globals(
        self, production: Any, side: Any, objects: Sequence[Mapping[str, Any]], spaces: Sequence[str]
    ) -> dict[str, Any]:
        found = rows(
            side,
            ROLES,
            {"classes": [item["classid"] for item in objects], "objects": [item["objid"] for item in objects]},
        )
        # Without its owner nothing can be as safe as it was; a grant to a role that is gone is left to do.
        login = {row["rolname"]: row["rolcanlogin"] for row in found if row["owns"]}
        missing = missing_names(production, "pg_roles", "rolname", list(login))
        return {
            "missing_roles": [
                {
                    "name": name,
                    "command": f"CREATE ROLE {quote_ident(name)} {'LOGIN' if login[name] else 'NOLOGIN'};",
                }
                for name in missing
            ],
            "missing_tablespaces": missing_names(production, "pg_tablespace", "spcname", spaces),
        }

    def _plan_database(self) -> dict[str, Any]:
        side, admin = self.side.connect(self.database), self.production.connect()
        try:
            objects = rows(
                side,
                DATABASE_OBJECTS,
            )
            tables = [row["oid"] for row in rows(side, DATABASE_TABLES)]
            members = [] if is_superuser(admin) else [row["oid"] for row in rows(side, MEMBER_TABLES, (tables,))]
            found = [{key: item[key] for key in item if key != "ancestors"} for item in rows(side, SIZES, (tables,))]
            sizes = [item for item in found if item["oid"] not in members]
            lost = [
                left(
                    "table",
                    display_name(item["schema"], item["name"]),
                    "it belongs to an extension, and only a superuser may fill it; it has the rows of a new extension",
                )
                for item in found
                if item["oid"] in members
            ]
            lost += [
                left_without_rows(item, "missing") for item in sizes if item["persistence"] == "u" and self.same_lineage
            ]
            spaces = [row["spcname"] for row in rows(side, DATABASE_TABLESPACES)]
            missing_globals = self._missing_globals(admin, side, objects, spaces)
            large_objects = every_large_object(side)
            return {
                **self._base(),
                "staging_database": self.staging,
                "staging_schemas": {},
                "relations": [{**item, "state": "missing", "action": "place"} for item in sizes],
                "objects": [],
                "sequences": [],
                "left_to_do": lost + self._moved(side, None, missing_globals["missing_tablespaces"]),
                "large_objects": large_objects,
                "bytes": sum(item["bytes"] for item in sizes) + (large_objects["bytes"] or 0),
                **missing_globals,
                **needs_of_database(admin, side),
            }
        finally:
            side.close()
            admin.close()
