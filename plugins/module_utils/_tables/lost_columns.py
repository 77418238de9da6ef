# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which columns went from tables that are still there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.lookup import find_relations
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows
from ansible_collections.dbre.recovery.plugins.module_utils._tables import closure as closures

# Columns and their types; of an array, the type of its elements.
COLUMNS = """
SELECT a.attrelid::int8 AS oid, a.attnum::int AS number, a.attname::text AS name,
       coalesce(e.oid, t.oid)::int8 AS type, n.nspname::text AS type_schema,
       coalesce(e.typname, t.typname)::text AS type_name
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
JOIN pg_catalog.pg_namespace n ON n.oid = coalesce(e.typnamespace, t.typnamespace)
WHERE a.attrelid = ANY(%s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY 1, 2
"""
# The number of a column stays when it is renamed, and its row stays when it is dropped.
DROPPED = """
SELECT a.attrelid::int8 AS oid, a.attnum::int AS number FROM pg_catalog.pg_attribute a
WHERE a.attrelid = ANY(%s::oid[]) AND a.attnum > 0 AND a.attisdropped
"""
NUMBERS = """
SELECT a.attname::text AS name, a.attnum::int AS number, a.attisdropped AS dropped FROM pg_catalog.pg_attribute a
WHERE a.attrelid = %s::oid AND a.attnum > 0
"""
# By the catalogue: to_regtype() fails for schemas that we may not look into.
KNOWN_TYPES = """
SELECT n.nspname::text AS schema, t.typname::text AS name
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE t.typname = ANY(%s) AND n.nspname = ANY(%s)
"""
TABLES = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind,
       ARRAY(SELECT up.relid::oid::int8 FROM pg_catalog.pg_partition_ancestors(c.oid) AS up WHERE up.relid <> c.oid)
         AS above
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY(%s::oid[]) AND c.relkind IN ('r', 'p') ORDER BY 2, 3
"""
# Unique over columns that are never null: such an index tells rows apart.
KEYS = """
SELECT ARRAY(SELECT a.attname::text FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS key(number, n)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = key.number
             WHERE key.n <= x.indnkeyatts ORDER BY a.attname) AS columns
FROM pg_catalog.pg_index x
WHERE x.indrelid = %s::oid AND x.indisunique AND x.indisvalid AND x.indimmediate AND x.indpred IS NULL
  AND x.indexprs IS NULL
  AND NOT EXISTS (SELECT FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS key(number, n)
                  JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = key.number
                  WHERE key.n <= x.indnkeyatts AND NOT a.attnotnull)
ORDER BY x.indisprimary DESC, x.indexrelid
"""


def key_of(production: Any, side: Any, here: int, there: int) -> list[str]:
    """Columns by which the rows of a table can be told apart on both ends; empty when there are none."""
    have = [row["columns"] for row in rows(production, KEYS, (here,))]
    return next((row["columns"] for row in rows(side, KEYS, (there,)) if row["columns"] in have), [])


def find_lost_columns(production: Any, side: Any, oids: Sequence[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """Columns that these living tables lost, as pairs of OID and number, and the types of theirs that are gone, too."""
    dropped = {(row["oid"], row["number"]) for row in rows(production, DROPPED, (list(oids),))}
    lost = [row for row in rows(side, COLUMNS, (list(oids),)) if (row["oid"], row["number"]) in dropped]
    types = {(row["type_schema"], row["type_name"]): row["type"] for row in lost}
    schemas, names = [[name[part] for name in types] for part in (0, 1)]
    known = {(row["schema"], row["name"]) for row in rows(production, KNOWN_TYPES, (names, schemas))}
    return [(row["oid"], row["number"]) for row in lost], sorted({types[name] for name in types if name not in known})


def made_again(production: Any, side: Any, here: int, there: int) -> list[str]:
    """Columns of a living table that were dropped and made again under their names, without what was in them."""
    if here != there:
        return []
    now = rows(production, NUMBERS, (here,))
    dropped = {row["number"] for row in now if row["dropped"]}
    names = {row["name"] for row in now if not row["dropped"]}
    before = rows(side, NUMBERS, (there,))
    return sorted(row["name"] for row in before if row["number"] in dropped and row["name"] in names)


def went_with_columns(
    production: Any,
    side: Any,
    of_tables: Sequence[Mapping[str, Any]],
    lost: Sequence[Mapping[str, Any]],
    tables: Collection[int],
) -> list[tuple[int, int]]:
    """What else ``tables`` (OIDs) lost than columns, and what columns and that need and is gone, too.

    DROP FUNCTION, DROP EXTENSION ... CASCADE take columns, and of the same table an index, a check or a policy that has
    nothing to do with the columns. ``of_tables`` and ``lost`` are closures with their states. Returns the catalogue and
    the OID of each.
    """
    if not tables:
        return []
    parts = [
        item
        for item in of_tables
        if item["state"] == "missing"
        and not item["objsubid"]
        and (item["index_of"] if item["catalog"] == "pg_class" else item["relation"]) in tables
        and item["contype"] != "n"  # NOT NULL comes with its column
    ]
    needed = closures.needed_by(side, [*parts, *(item for item in lost if item["state"] == "missing")])
    closures.compare(production, needed)
    return [(item["classid"], item["objid"]) for item in [*parts, *needed] if _is_gone(item)]


def _is_gone(item: Mapping[str, Any]) -> bool:
    return item["state"] == "missing" and not item["objsubid"] and not item["implied"]


def tables_with_lost_columns(
    production: Any, side: Any, lost: Sequence[Mapping[str, Any]]
) -> dict[int, dict[str, Any]]:
    """Living tables by OID that lost columns: their names, the columns, and the key to fill them by, or an empty one.

    ``lost`` are the objects of a closure with their states. Partitions go with their tree.
    """
    whole = {item["objid"] for item in lost if not item["objsubid"] and item["state"] == "missing"}
    numbers: dict[int, list[int]] = {}
    for item in lost:
        if item["catalog"] == "pg_class" and item["objsubid"] and item["state"] == "missing":
            numbers.setdefault(item["objid"], []).append(item["objsubid"])
    names = {(row["oid"], row["number"]): row["name"] for row in rows(side, COLUMNS, (sorted(numbers),))}
    found: dict[int, dict[str, Any]] = {}
    tables = rows(side, TABLES, (sorted(numbers),))
    found_here = find_relations(production, tables)
    for row in tables:
        here = found_here.get((row["schema"], row["name"]))
        if here is not None and row["oid"] not in whole and not set(row["above"]) & set(numbers):
            columns = [names[row["oid"], number] for number in sorted(numbers[row["oid"]])]
            found[row["oid"]] = {"columns": columns, "key": key_of(production, side, here["oid"], row["oid"])}
    return found
