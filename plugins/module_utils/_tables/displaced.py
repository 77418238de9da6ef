# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables that give their places to others, with what hangs on them: what it is, and how it is moved.

ALTER TABLE ... SET SCHEMA takes indexes, constraints, triggers and owned sequences along. Views and functions know a
table by its OID, so they are moved as well; foreign keys between them and tables that stay are dropped, for a table
that nobody writes must hold nobody up. The columns of a key say what it was; SQL is never kept and run again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Optional, TypedDict

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import Lock
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.references import ENDS
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables import closure as closures

# Of the OIDs and the names of tables (and views) those that are there, with all partitions below them.
ROOTS = """
WITH asked AS (
  SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND (c.oid = ANY(%(oids)s::oid[]) OR (n.nspname, c.relname) IN (
    SELECT * FROM ROWS FROM (unnest(%(schemas)s::text[]), unnest(%(names)s::text[]))))
)
SELECT oid::int8 AS oid FROM asked
UNION SELECT tree.relid::int8 FROM asked CROSS JOIN LATERAL pg_catalog.pg_partition_tree(asked.oid) AS tree
"""
# What may not be moved for reasons that are not in pg_depend; owned sequences go with their tables.
ABOUT = """
SELECT c.oid::int8 AS oid, c.relkind AS kind, n.nspname AS schema, c.relname AS name,
       (SELECT p.inhparent::int8 FROM pg_catalog.pg_inherits p WHERE p.inhrelid = c.oid LIMIT 1) AS parent,
       (SELECT pg_catalog.quote_ident(rn.nspname) || '.' || pg_catalog.quote_ident(r.relname)
        FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
        WHERE c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid)) AS root,
       EXISTS (SELECT FROM pg_catalog.pg_subscription_rel s WHERE s.srrelid = c.oid) AS subscribed,
       EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid
               AND c.relkind = 'S' AND d.deptype IN ('a', 'i')) AS owned,
       EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid
               AND d.deptype = 'e') AS member
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY(%s::oid[]) ORDER BY c.oid
"""
KEYS = (
    """
SELECT k.oid::int8 AS oid, k.conname AS name, k.conrelid::int8 AS relation, k.confrelid::int8 AS other_relation,
       n.nspname AS schema, c.relname AS table, c.relkind AS kind,
       rn.nspname AS other_schema, rc.relname AS other_table,
       k.confupdtype AS on_update, k.confdeltype AS on_delete, k.condeferrable AS deferrable, k.condeferred AS deferred,
       k.convalidated AS validated, pg_catalog.pg_get_constraintdef(k.oid) AS definition,
       -- Columns that ON DELETE SET NULL is limited to are of 15.
       ARRAY(SELECT a.attname FROM pg_catalog.jsonb_array_elements_text(
               CASE pg_catalog.jsonb_typeof(pg_catalog.to_jsonb(k) -> 'confdelsetcols')
               WHEN 'array' THEN pg_catalog.to_jsonb(k) -> 'confdelsetcols' ELSE '[]' END) AS number
             JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = number::int2) AS set_columns,
       """
    + ENDS
    + """
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class rc ON rc.oid = k.confrelid JOIN pg_catalog.pg_namespace rn ON rn.oid = rc.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0
  AND (k.conrelid = ANY(%(oids)s::oid[])) <> (k.confrelid = ANY(%(oids)s::oid[]))
ORDER BY k.oid
"""
)
PUBLISHED = """
SELECT p.pubname AS publication, r.prrelid::int8 AS relation FROM pg_catalog.pg_publication_rel r
JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = ANY(%s::oid[]) ORDER BY 1, 2
"""
IDENTITIES = """
SELECT given.oid, id.type, id.identity, id.schema
FROM unnest(%(classes)s::int8[], %(objects)s::int8[]) WITH ORDINALITY AS given(class, oid, n)
CROSS JOIN LATERAL pg_catalog.pg_identify_object(given.class::oid, given.oid::oid, 0) AS id ORDER BY given.n
"""
MOVED_BY = {"pg_class": "TABLE", "pg_proc": "ROUTINE", "pg_statistic_ext": "STATISTICS"}
# src/include/catalog/pg_constraint.h
ACTIONS = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
# Parts of tables that go where these go.
PARTS = ("pg_constraint", "pg_trigger", "pg_policy", "pg_rewrite", "pg_attrdef", "pg_statistic_ext")


class Holding(TypedDict):
    """``roots`` (OIDs), what ``moves`` with them, ``keys`` and ``publications`` that are taken off, in plain values.

    ``shown`` is what moves beside the roots, ``stays`` are views and functions that have no counterpart: they stay
    where they are, and hold on to what is moved. ``refused`` says what cannot be handled.
    """

    roots: list[int]
    moves: list[dict[str, Any]]
    keys: list[dict[str, Any]]
    publications: list[dict[str, Any]]
    shown: list[dict[str, Any]]
    stays: list[dict[str, Any]]
    refused: list[str]


def find_roots(connection: Any, oids: Iterable[int], names: Iterable[tuple[str, str]]) -> list[int]:
    """OIDs of the relations that are there, under another name or made anew under theirs, with their partitions."""
    pairs = sorted(set(names))
    asked = {"oids": list(oids), "schemas": [one[0] for one in pairs], "names": [one[1] for one in pairs]}
    return sorted(row["oid"] for row in rows(connection, ROOTS, asked))


def find_holding(
    connection: Any, roots: Sequence[int], counterparts: Optional[Collection[tuple[Any, Any]]] = None
) -> Holding:
    """What hangs on ``roots``, found as DROP ... CASCADE finds it; nothing is changed.

    ``counterparts`` are type and identity of what comes in their place, or the addresses (catalog and OID) of what it
    takes; where that is not known, it is all views and functions.
    """
    about = rows(connection, ABOUT, (list(roots),))
    items = closures.closure(connection, roots, [])
    return {
        "roots": list(roots),
        "keys": rows(connection, KEYS, {"oids": list(roots)}),
        "publications": rows(connection, PUBLISHED, (list(roots),)),
        **sort_out(about, items, counterparts),  # type: ignore[typeddict-item]
    }


def counterparts_of(objects: Iterable[Mapping[str, Any]]) -> set[tuple[Any, Any]]:
    """What may be in the way of objects of a closure: what is called so, and what they are today. Pure."""
    objects = list(objects)
    by_name: set[tuple[Any, Any]] = {(item["type"], item["identity"]) for item in objects}
    return by_name | {(item["classid"], item["objid"]) for item in objects}


def place_of(item: Mapping[str, Any]) -> dict[str, str]:
    """The real ``schema`` and ``name`` of an object of a closure that stands in a schema. Pure."""
    return dict(zip(("schema", "name"), item["names"]))


def refuse_holding(holding: Holding) -> None:
    """Raise RecoveryError where something hangs on tables that cannot be led to others."""
    if holding["refused"]:
        raise RecoveryError(
            f"tables on {host_name()} cannot give their places to what they were: {'; '.join(holding['refused'])}. "
            "Nothing was changed. Take that off them first, name other tables (dr_tables), or bring back the whole "
            "database (dr_strategy=database)."
        )


def sort_out(
    about: Sequence[Mapping[str, Any]],
    items: Sequence[Mapping[str, Any]],
    counterparts: Optional[Collection[tuple[Any, Any]]],
) -> dict[str, Any]:
    """``moves``, ``shown``, ``stays`` and ``refused`` of a closure (see closure.py) whose roots are ``about``. Pure."""
    roots = {item["oid"]: item for item in about}
    refused = [
        f"{display_name(item['schema'], item['name'])} {why}"
        for item in about
        for why, is_so in (
            (
                f"is a partition of {item['root']}, which would stay: name that one"
                if item["root"]
                else "is a child of a table that stays",
                item["parent"] and item["parent"] not in roots,
            ),
            ("is filled by a subscription", item["subscribed"]),
            ("belongs to an extension", item["member"]),
        )
        if is_so
    ]
    owned = {oid for oid, item in roots.items() if item["owned"]}
    moving: list[Mapping[str, Any]] = []
    stays: list[Mapping[str, Any]] = []
    for item in items:
        if item["objsubid"] or item["objid"] in owned:
            continue
        view = item["catalog"] == "pg_class" and item["kind"] in ("v", "m")
        free = (view or item["catalog"] == "pg_proc") and item["objid"] not in roots
        known = counterparts is None or not {
            (item["type"], item["identity"]),
            (item["classid"], item["objid"]),
        }.isdisjoint(counterparts)
        if free and known and not item["member"]:
            moving.append(item)
        elif free:
            stays.append(item)
        elif item["catalog"] == "pg_class" and item["objid"] in roots:
            moving.append(item)
    tables = {item["objid"] for item in [*moving, *stays] if item["catalog"] == "pg_class"}
    apart = {(item["classid"], item["objid"]) for item in [*moving, *stays]}
    for item in items:
        if item["catalog"] == "pg_statistic_ext" and item["relation"] in tables:
            moving.append(item)
        elif not _goes_along(item, tables, apart, owned):
            refused.append(f"{item['type']} {item['identity']} hangs on them, and cannot be led to others")
    named = ("type", "identity")
    return {
        "moves": [
            # Beside these, names are as they are written in SQL.
            {**{key: item[key] for key in ("classid", "objid", "catalog", *named)}, **place_of(item)}
            for item in moving
        ],
        "shown": [{key: item[key] for key in named} for item in moving if item["objid"] not in roots],
        "stays": [{key: item[key] for key in named} for item in stays],
        "refused": refused,
    }


def _goes_along(
    item: Mapping[str, Any], tables: Collection[int], apart: Collection[tuple[int, int]], owned: Collection[int]
) -> bool:
    """Whether a thing of the closure is moved, or is part of what is, or is seen to elsewhere."""
    if item["objsubid"]:
        return item["objid"] in tables
    if (item["classid"], item["objid"]) in apart or item["implied"]:
        return True
    if item["catalog"] == "pg_class":
        # Sequences are there since a column of a table owns them.
        return item["kind"] == "S" or item["objid"] in owned or item["index_of"] in tables
    if item["catalog"] == "pg_constraint" and item["contype"] == "f":
        return True
    return item["catalog"] == "pg_publication_rel" or (item["catalog"] in PARTS and item["relation"] in tables)


def locks_of(holding: Holding, names: Mapping[int, str]) -> list[Lock]:
    """The locks under which that is moved; ``names`` (SQL) are of all relations by OID."""
    tables = {*holding["roots"]}
    for key in holding["keys"]:
        tables |= {key["relation"], key["other_relation"]}
    return [Lock(names[oid], "ACCESS EXCLUSIVE") for oid in sorted(tables) if oid in names]


def names_of_relations(connection: Any, oids: Iterable[int]) -> dict[int, str]:
    """SQL names of relations by OID, as they are now."""
    return {row["oid"]: quote_name(row["schema"], row["name"]) for row in rows(connection, ABOUT, (list(oids),))}


def move(connection: Any, moves: Sequence[Mapping[str, Any]], schemas: Mapping[str, str]) -> None:
    """Put each into the schema that ``schemas`` has for its own, in the caller's transaction.

    What something is called is asked when its turn comes: a function is called by the types of its arguments.
    """
    for item in moves:
        (found,) = rows(connection, IDENTITIES, {"classes": [item["classid"]], "objects": [item["objid"]]})
        what = MOVED_BY[item["catalog"]]
        target = quote_ident(schemas[item["schema"]])
        execute(connection, f"ALTER {what} {found['identity']} SET SCHEMA {target}")


def take_off(connection: Any, holding: Holding) -> None:
    """Drop the keys between what moves and what stays, and take it out of publications, in the caller's transaction."""
    for key in holding["keys"]:
        table = quote_name(key["schema"], key["table"])
        execute(connection, f"ALTER TABLE {table} DROP CONSTRAINT {quote_ident(key['name'])}")
    names = names_of_relations(connection, [item["relation"] for item in holding["publications"]])
    for item in holding["publications"]:
        publication = quote_ident(item["publication"])
        execute(connection, f"ALTER PUBLICATION {publication} DROP TABLE ONLY {names[item['relation']]}")


def key_statement(key: Mapping[str, Any], table: str, other: str) -> str:
    """The statement that makes a foreign key of ``table`` to ``other`` (SQL) as it was, for new rows. Pure."""
    text = (
        f"ALTER TABLE {table} ADD CONSTRAINT {quote_ident(key['name'])} FOREIGN KEY ({_list(key['columns'])}) "
        f"REFERENCES {other} ({_list(key['other_columns'])}){' MATCH FULL' if key['match_full'] else ''} "
        f"ON UPDATE {ACTIONS[key['on_update']]} ON DELETE {ACTIONS[key['on_delete']]}"
    )
    text += f" ({_list(key['set_columns'])})" if key["set_columns"] else ""
    text += " DEFERRABLE" if key["deferrable"] else ""
    text += " INITIALLY DEFERRED" if key["deferred"] else ""
    # A partitioned table takes none that is NOT VALID before PostgreSQL 18.
    return text if key["kind"] == "p" else f"{text} NOT VALID"


def _list(names: Iterable[str]) -> str:
    return ", ".join(quote_ident(name) for name in names)


def kept_schemas(what: str, incident: str, holding: Holding) -> dict[str, str]:
    """The schema in which each schema's part of what is moved is kept: ``damaged`` by the recovery, else ``replaced``.

    Pure.
    """
    schemas = sorted({item["schema"] for item in holding["moves"]})
    return {schema: f"{what}_{incident}" + (f"_{number}" if number else "") for number, schema in enumerate(schemas)}


def make_schemas(connection: Any, names: Iterable[str]) -> None:
    """Make them, in the caller's transaction."""
    for name in names:
        execute(connection, f"CREATE SCHEMA {quote_ident(name)}")


def drop_command(schemas: Iterable[str]) -> str:
    """The command that removes what is kept. Pure."""
    return f"DROP SCHEMA {', '.join(map(quote_ident, schemas))} CASCADE;"


def holding_lines(holding: Mapping[str, Any], incident: str) -> list[str]:
    """What hangs on the tables and becomes of it, for people. Pure."""
    lines = [
        f"foreign key {key['name']} on {display_name(key['schema'], key['table'])}: made anew, to or from the table as "
        f"it was; both tables are locked for it, and rows that do not fit are listed"
        for key in holding["keys"]
    ]
    lines += [f"publication {item['publication']}: has the table as it was" for item in holding["publications"]]
    lines += [
        f"{item['type']} {item['identity']}: stays, and goes on reading the table that is kept in damaged_{incident}"
        for item in holding["stays"]
    ]
    return lines + [
        f"{item['type']} {item['identity']}: comes back as it was, and the one of now is kept in damaged_{incident}"
        for item in holding["shown"]
    ]
