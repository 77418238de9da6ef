# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long production waits for what a recovery does under a lock, as far as the size of a table tells."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows

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
# Keys that views or functions need, which are made with these.
NEEDED = """
SELECT DISTINCT d.refobjid::int8 AS oid FROM pg_catalog.pg_depend d
WHERE d.refclassid = 'pg_catalog.pg_constraint'::regclass AND d.refobjid = ANY(%s::oid[])
  AND d.classid NOT IN ('pg_catalog.pg_constraint'::regclass, 'pg_catalog.pg_class'::regclass)
"""
# What is on materialized views is not built CONCURRENTLY, nor what is on tables with domains whose checks run functions
# of users, nor indexes that hold constants of types of users, since that is made as their owners.
NOT_BESIDE = """
SELECT c.oid::int8 AS oid FROM pg_catalog.pg_class c WHERE c.oid = ANY(%(oids)s::oid[]) AND c.relkind = 'm'
UNION
SELECT a.attrelid::int8 FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_constraint k ON k.contypid = a.atttypid
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_constraint'::regclass AND d.objid = k.oid
  AND d.refclassid = 'pg_catalog.pg_proc'::regclass AND d.refobjid >= 16384
WHERE a.attrelid = ANY(%(oids)s::oid[]) AND NOT a.attisdropped
UNION
SELECT d.objid::int8 FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind IN ('i', 'I')
JOIN pg_catalog.pg_roles r ON r.oid = c.relowner AND NOT r.rolsuper AND r.rolname <> current_user
WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = ANY(%(oids)s::oid[])
  AND d.refclassid = 'pg_catalog.pg_type'::regclass AND d.refobjid >= 16384
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
    return found


def built(
    objects: Iterable[Mapping[str, Any]], needed: Container[int] = (), not_beside: Container[int] = ()
) -> list[Wait]:
    """Indexes and keys of a closure's missing ``objects`` that come back under a lock on tables which were not lost.

    All others are built while production writes. ``needed`` are OIDs of keys and ``not_beside`` those of tables and
    indexes, see ``NEEDED`` and ``NOT_BESIDE``.
    """
    objects = list(objects)
    lost = _lost(objects)
    keys = [item for item in objects if item["catalog"] == "pg_constraint" and item["contype"] in ("p", "u", "x")]
    behind = {(item["relation"], *(item["names"] or [])[-1:]) for item in keys}
    indexes = [
        item for item in objects if item["index_of"] and (item["index_of"], *(item["names"] or [])[-1:]) not in behind
    ]
    waits = [
        Wait(item["index_of"], "writers", f"to build index {item['identity']}", INDEXED)
        for item in indexes
        if item["index_of"] in not_beside or item["objid"] in not_beside
    ]
    waits += [
        Wait(item["relation"], "readers and writers", f"to build {item['identity']}", INDEXED)
        for item in keys
        if item["contype"] == "x" or item["objid"] in needed or item["relation"] in not_beside
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


def _lost(objects: Iterable[Mapping[str, Any]]) -> set[int]:
    return {item["objid"] for item in objects if item["catalog"] == "pg_class"}


def waits_of(
    side: Any, relations: Iterable[Mapping[str, Any]], objects: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Which tables others may wait for longer than a second during a load plan, who, why and how long."""
    objects = list(objects)
    constraints = [item["objid"] for item in objects if item["catalog"] == "pg_constraint"]
    on = {item["index_of"] or item["relation"] or 0 for item in objects} - {0}
    built_on = {"oids": sorted(on | {item["objid"] for item in objects if item["index_of"]})}
    needed = {row["oid"] for row in rows(side, NEEDED, (constraints,))}
    not_beside = {row["oid"] for row in rows(side, NOT_BESIDE, built_on)}
    waits = [*exchanged(relations), *built(objects, needed, not_beside)]
    waits += checked(objects, rows(side, OF_TREES, (constraints,)))
    wanted = [table for wait in waits for table in (wait.table, wait.size_of) if table]
    weights = {row["oid"]: row for row in rows(side, WEIGHTS, (wanted,))} if waits else {}
    found = []
    for wait in waits:
        weight, size = weights.get(wait.table), weights.get(wait.size_of or wait.table)
        least, most = seconds_of(wait, size["bytes"], size["rows"]) if size else (0.0, 0.0)
        if weight and most > SHORT:
            name = display_name(weight["schema"], weight["name"])
            spent = {"least_seconds": least, "most_seconds": most}
            found.append({"object": name, "whom": wait.whom, "why": wait.why, **spent})
    return found
