# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long production waits for what a recovery does under a lock, as far as the size of a table tells."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server
from ansible_collections.dbre.recovery.plugins.module_utils._tables.index_groups import find_builds
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import Context
from ansible_collections.dbre.recovery.plugins.module_utils._tables.publish import steps_of
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import SchemaDump

WEIGHTS = """
SELECT root::int8 AS oid, n.nspname AS schema, r.relname AS name,
       coalesce(sum(pg_catalog.pg_relation_size(c.oid)), 0)::int8 AS bytes,
       coalesce(sum(greatest(c.reltuples, 0)), 0)::int8 AS rows
FROM unnest(%s::oid[]) AS root
JOIN pg_catalog.pg_class r ON r.oid = root JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
CROSS JOIN LATERAL (SELECT root AS oid UNION SELECT relid::oid FROM pg_catalog.pg_partition_tree(root)) AS tree
JOIN pg_catalog.pg_class c ON c.oid = tree.oid WHERE c.relkind IN ('r', 'm')
GROUP BY root, n.nspname, r.relname
"""
# Foreign keys between partitioned tables.
OF_TREES = """
SELECT k.oid::int8 AS oid, k.conrelid::int8 AS relation, k.confrelid::int8 AS other FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid AND c.relkind = 'p'
JOIN pg_catalog.pg_class o ON o.oid = k.confrelid AND o.relkind = 'p'
WHERE k.oid = ANY(%s::oid[]) AND k.contype = 'f' AND k.convalidated
"""
# What a slow server does in a second: bytes gone through, rows written with their indexes, rows of one index built,
# rows looked up in another table.
BYTES = 100_000_000
ROWS = 20_000
INDEXED = 100_000
LOOKED_UP = 500_000
# Seconds that are not worth a word.
SHORT = 1.0


class Wait(NamedTuple):
    """Something done under a lock on a table: its OID, who waits, why, and rows in a second where all are concerned."""

    table: int
    whom: str
    why: str
    rate: int
    least: bool = False
    """Whether it may concern few rows."""
    size_of: Optional[int] = None
    """The table whose rows are concerned, where it is another one."""
    of: Optional[tuple[int, int]] = None
    """The index or key (catalog OID, OID) that is built."""


def seconds_of(wait: Wait, size: int, count: int) -> tuple[float, float]:
    """The least and the most seconds that a table of ``size`` bytes and ``count`` rows takes."""
    through = size / BYTES
    most = through + count / wait.rate
    return round(through if wait.least else most, 1), round(most, 1)


def exchanged(relations: Iterable[Mapping[str, Any]]) -> list[Wait]:
    """Tables whose rows are put back under a lock that writers wait for."""
    found = []
    for item in relations:
        if item["action"] == "replace":
            found.append(Wait(item["oid"], "writers", "to exchange rows that are not as they were", ROWS, True))
        elif item["action"] == "merge" and item["silenced_triggers"]:
            found.append(Wait(item["oid"], "writers", "while triggers that always fire are silent", ROWS, True))
        elif item["action"] == "merge" and item["late_keys"]:
            found.append(
                Wait(item["oid"], "writers", "while nobody may take a value of its deferrable keys", ROWS, True)
            )
    return found


def built(objects: Iterable[Mapping[str, Any]]) -> list[Wait]:
    """Indexes and keys of a closure's missing ``objects`` on tables which were not lost, as if locked meanwhile."""
    objects = list(objects)
    lost = _lost(objects)
    keys = [item for item in objects if item["catalog"] == "pg_constraint" and item["contype"] in ("p", "u", "x")]
    behind = {(item["relation"], *(item["names"] or [])[-1:]) for item in keys}
    indexes = [
        item for item in objects if item["index_of"] and (item["index_of"], *(item["names"] or [])[-1:]) not in behind
    ]
    waits = [
        Wait(item["index_of"], "writers", f"to build index {item['identity']}", INDEXED, of=_address(item))
        for item in indexes
    ]
    waits += [
        Wait(item["relation"], "readers and writers", f"to build {item['identity']}", INDEXED, of=_address(item))
        for item in keys
    ]
    return [wait for wait in waits if wait.table not in lost]


def checked(objects: Iterable[Mapping[str, Any]], of_trees: Iterable[Mapping[str, Any]]) -> list[Wait]:
    """Tables that were not lost, whose writers wait until all rows of a foreign key are looked at."""
    objects = list(objects)
    lost = _lost(objects)
    names = {item["objid"]: item["identity"] for item in objects if item["contype"] == "f"}
    return [
        Wait(table, "writers", f"to check {names[key['oid']]}", LOOKED_UP, size_of=key["relation"])
        for key in of_trees
        for table in sorted({key["relation"], key["other"]} - lost)
    ]


def _address(item: Mapping[str, Any]) -> tuple[int, int]:
    return item["classid"], item["objid"]


def _lost(objects: Iterable[Mapping[str, Any]]) -> set[int]:
    return {item["objid"] for item in objects if item["catalog"] == "pg_class"}


def built_beside(production: Server, side: Server, plan: Mapping[str, Any]) -> set[tuple[int, int]]:
    """Indexes and keys (catalog OID, OID) of a load plan that are built while production writes."""
    context = Context(production, side, plan)
    loaded = [item["oid"] for item in plan["relations"] if item["action"] == "place" and item["kind"] == "r"]
    with tempfile.TemporaryDirectory(prefix="dbre-recovery-") as directory:
        dump = SchemaDump(side, context.side_database, directory)
        groups = find_builds(context, dump, steps_of(context, dump.entries, loaded))[0]
    return {(entry.catalog, entry.oid) for group in groups for entry in group.members}


def waits_of(production: Server, side: Server, plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Which tables others may wait for longer than a second during a load plan, who, why and how long."""
    constraints = [item["objid"] for item in plan["objects"] if item["catalog"] == "pg_constraint"]
    session = side.connect(plan["database"])
    try:
        waits = [*exchanged(plan["relations"]), *built(plan["objects"])]
        waits += checked(plan["objects"], rows(session, OF_TREES, (constraints,)))
        wanted = [table for wait in waits for table in (wait.table, wait.size_of) if table]
        weights = {row["oid"]: row for row in rows(session, WEIGHTS, (wanted,))} if waits else {}
    finally:
        session.close()
    found: list[tuple[Wait, dict[str, Any]]] = []
    for wait in waits:
        weight, size = weights.get(wait.table), weights.get(wait.size_of or wait.table)
        least, most = seconds_of(wait, size["bytes"], size["rows"]) if size else (0.0, 0.0)
        if weight and most > SHORT:
            name = display_name(weight["schema"], weight["name"])
            spent = {"least_seconds": least, "most_seconds": most}
            found.append((wait, {"object": name, "whom": wait.whom, "why": wait.why, **spent}))
    beside = {wait.of for wait, _shown in found if wait.of}
    # A database that we may not read yet has no dump; nothing is done in it before we may.
    if beside and not plan["missing_memberships"]:
        beside = {*built_beside(production, side, plan)}
    return [shown for wait, shown in found if wait.of not in beside]
