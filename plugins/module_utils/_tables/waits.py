# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long production waits for what a recovery does under a lock, as far as the size of a table tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows

WEIGHTS = """
SELECT root::int8 AS oid, n.nspname AS schema, r.relname AS name, r.relkind = 'p' OR r.relispartition AS in_tree,
       coalesce(sum(pg_catalog.pg_relation_size(c.oid)), 0)::int8 AS bytes,
       coalesce(sum(greatest(c.reltuples, 0)), 0)::int8 AS rows
FROM unnest(%s::oid[]) AS root
JOIN pg_catalog.pg_class r ON r.oid = root JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
CROSS JOIN LATERAL (SELECT root AS oid UNION SELECT relid::oid FROM pg_catalog.pg_partition_tree(root)) AS tree
JOIN pg_catalog.pg_class c ON c.oid = tree.oid WHERE c.relkind = 'r'
GROUP BY root, n.nspname, r.relname, r.relkind, r.relispartition
"""
# What a slow server does in a second: bytes gone through, rows written with their indexes, rows of one index built.
BYTES = 100_000_000
ROWS = 20_000
INDEXED = 100_000
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
    only_in_trees: bool = False
    """Whether it is done CONCURRENTLY on a table that is neither partitioned nor a partition."""


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


def built(objects: Iterable[Mapping[str, Any]]) -> list[Wait]:
    """Indexes of a closure's missing ``objects`` that come back on tables which were not lost."""
    objects = list(objects)
    lost = {item["objid"] for item in objects if item["catalog"] == "pg_class"}
    keys = [item for item in objects if item["catalog"] == "pg_constraint" and item["contype"] in ("p", "u", "x")]
    behind = {(item["relation"], *(item["names"] or [])[-1:]) for item in keys}
    indexes = [
        item for item in objects if item["index_of"] and (item["index_of"], *(item["names"] or [])[-1:]) not in behind
    ]
    waits = [
        Wait(item["index_of"], "writers", f"to build index {item['identity']}", INDEXED, only_in_trees=True)
        for item in indexes
    ]
    waits += [Wait(item["relation"], "readers and writers", f"to build {item['identity']}", INDEXED) for item in keys]
    return [wait for wait in waits if wait.table not in lost]


def waits_of(
    side: Any, relations: Iterable[Mapping[str, Any]], objects: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Which tables others may wait for longer than a second during a load plan, who, why and how long."""
    waits = [*exchanged(relations), *built(objects)]
    weights = {row["oid"]: row for row in rows(side, WEIGHTS, ([wait.table for wait in waits],))} if waits else {}
    found = []
    for wait in waits:
        weight = weights.get(wait.table)
        least, most = seconds_of(wait, weight["bytes"], weight["rows"]) if weight else (0.0, 0.0)
        if weight and most > SHORT and (weight["in_tree"] or not wait.only_in_trees):
            name = display_name(weight["schema"], weight["name"])
            spent = {"least_seconds": least, "most_seconds": most}
            found.append({"object": name, "whom": wait.whom, "why": wait.why, **spent})
    return found
