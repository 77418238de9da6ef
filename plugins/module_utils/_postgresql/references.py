# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign keys between tables that production has, and what would fire there while we put rows back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import Lock
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    is_given,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows

# Columns of both ends of a foreign key k, in its order, the operators that compare them, and how they must match.
ENDS = """ARRAY(SELECT a.attname FROM unnest(k.conkey) WITH ORDINALITY AS key(number, n)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = key.number ORDER BY key.n)
         AS columns,
       ARRAY(SELECT a.attname FROM unnest(k.confkey) WITH ORDINALITY AS key(number, n)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = key.number ORDER BY key.n)
         AS other_columns,
       ARRAY(SELECT pg_catalog.format('OPERATOR(%%I.%%s)', o_n.nspname, o.oprname)
             FROM unnest(k.conpfeqop) WITH ORDINALITY AS key(operator, n)
             JOIN pg_catalog.pg_operator o ON o.oid = key.operator
             JOIN pg_catalog.pg_namespace o_n ON o_n.oid = o.oprnamespace ORDER BY key.n) AS operators,
       k.confmatchtype = 'f' AS match_full,
       -- PERIOD is of 18.
       coalesce((pg_catalog.to_jsonb(k) ->> 'conperiod')::bool, false) AS of_periods"""
# A key of a partitioned table is also one of each partition, and one on each partition of the table it points to: only
# the topmost counts. ``root`` is the one of the tables asked for that has the rows.
REFERENCES = (
    """
WITH RECURSIVE asked AS (
  SELECT root, root AS member FROM unnest(%(oids)s::oid[]) AS root
  UNION
  SELECT root, tree.relid FROM unnest(%(oids)s::oid[]) AS root
  CROSS JOIN LATERAL pg_catalog.pg_partition_tree(root) AS tree
), climbing AS (
  SELECT k.oid AS start, k.oid, k.conparentid, k.conrelid FROM pg_catalog.pg_constraint k
  JOIN asked a ON a.member = k.{side} WHERE k.contype = 'f'
  UNION ALL
  SELECT c.start, p.oid, p.conparentid, p.conrelid FROM climbing c
  JOIN pg_catalog.pg_constraint p ON p.oid = c.conparentid
  WHERE {climb}
), found AS (
  SELECT DISTINCT c.oid FROM climbing c
  WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_constraint p WHERE p.oid = c.conparentid AND {parent})
)
SELECT DISTINCT ON (k.oid) k.oid::int8 AS oid, k.conname AS name, a.root::int8 AS root,
       n.nspname AS schema, c.relname AS table, c.relkind AS kind, k.conrelid::int8 AS relation,
       rn.nspname AS other_schema, rc.relname AS other_table, rc.relkind AS other_kind,
       k.confrelid::int8 AS other_relation,
       """
    + ENDS
    + """
FROM found f JOIN pg_catalog.pg_constraint k ON k.oid = f.oid
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class rc ON rc.oid = k.confrelid JOIN pg_catalog.pg_namespace rn ON rn.oid = rc.relnamespace
LEFT JOIN asked a ON a.member = k.{side}
WHERE k.convalidated
ORDER BY k.oid
"""
)

# In a session that is a replica, those of the origin do not fire: the others do. Only what fires for rows that come,
# change or go (INSERT 4, DELETE 8, UPDATE 16, TRUNCATE 32; src/include/catalog/pg_trigger.h) counts.
TRIGGERS = """
SELECT n.nspname AS schema, c.relname AS table, t.tgname AS name, t.tgenabled::text AS enabled
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE (t.tgrelid = ANY(%(oids)s::oid[])
       OR t.tgrelid IN (SELECT tree.relid FROM unnest(%(oids)s::oid[]) AS root
                        CROSS JOIN LATERAL pg_catalog.pg_partition_tree(root) AS tree))
  AND t.tgenabled IN ('A', 'R') AND t.tgconstrrelid = 0 AND (t.tgtype & 60) <> 0
ORDER BY 1, 2, 3
"""
STATES = {"A": "ALWAYS", "R": "REPLICA"}

RULES = """
SELECT n.nspname AS schema, c.relname AS table, r.rulename AS name, r.ev_enabled::text AS enabled
FROM pg_catalog.pg_rewrite r
JOIN pg_catalog.pg_class c ON c.oid = r.ev_class JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE r.ev_class = ANY(%s::oid[]) AND r.ev_enabled IN ('A', 'R') AND r.ev_type IN ('3', '4')
ORDER BY 1, 2, 3
"""


def outgoing_keys(connection: Any, oids: Sequence[int]) -> list[dict[str, Any]]:
    """Valid foreign keys of tables, those of their partitions included, each once."""
    same = "p.conrelid IN (SELECT member FROM asked)"
    return rows(connection, REFERENCES.format(side="conrelid", climb=same, parent=same), {"oids": list(oids)})


def incoming_keys(connection: Any, oids: Sequence[int]) -> list[dict[str, Any]]:
    """Valid foreign keys that point to tables, to trees they are partitions of, or to their partitions, each once."""
    return rows(connection, REFERENCES.format(side="confrelid", climb="true", parent="true"), {"oids": list(oids)})


def source_of(key: Mapping[str, Any]) -> str:
    """The rows that have the foreign key, in SQL: an inheritance parent's own ones only."""
    return ("" if key["kind"] == "p" else "ONLY ") + quote_name(key["schema"], key["table"])


def shown_key(key: Mapping[str, Any]) -> str:
    """A foreign key, for people."""
    return f"{key['name']} on {display_name(key['schema'], key['table'])}"


def match(key: Mapping[str, Any]) -> str:
    """Condition: row ``t`` is the one that the foreign key of row ``f`` points to; with a period, one of them."""
    return " AND ".join(
        f"t.{quote_ident(other)} {operator} f.{quote_ident(name)}"
        for name, other, operator in zip(key["columns"], key["other_columns"], key["operators"])
    )


def parent_of(key: Mapping[str, Any]) -> str:
    return ("" if key["other_kind"] == "p" else "ONLY ") + quote_name(key["other_schema"], key["other_table"])


def checked(key: Mapping[str, Any]) -> str:
    """Condition on rows ``f``: they must have a parent. Those of MATCH FULL that are null in part can have none."""
    either = " OR " if key["match_full"] else " AND "
    return f"({either.join(is_given('f.' + quote_ident(name)) for name in key['columns'])})"


def has_parent(key: Mapping[str, Any]) -> str:
    """Condition on rows ``f``: what they point to is there, and where the key has a period, at all times of it."""
    parents = f"FROM {parent_of(key)} t WHERE {match(key)}"
    if not key["of_periods"]:
        return f"EXISTS (SELECT {parents})"
    mine, other = f"f.{quote_ident(key['columns'][-1])}", f"t.{quote_ident(key['other_columns'][-1])}"
    covered = f"{mine} OPERATOR(pg_catalog.<@) (SELECT pg_catalog.range_agg({other}) {parents})"
    return f"coalesce({covered}, false)"


def orphans(key: Mapping[str, Any]) -> str:
    """Condition on rows ``f`` of a table: their foreign key points nowhere."""
    return f"{checked(key)} AND NOT {has_parent(key)}"


def hold_parents(connection: Any, key: Mapping[str, Any], rows_of: str) -> None:
    """Lock the rows that the foreign key of ``rows_of`` points to, so that they stay until our commit."""
    execute(
        connection,
        f"SELECT count(*) FROM (SELECT FROM {parent_of(key)} t "
        f"WHERE EXISTS (SELECT FROM {rows_of} f WHERE {match(key)}) FOR KEY SHARE) AS held",
    )


def linked(oids: Sequence[int], links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """``oids`` in groups, so that no link leads from one group to another; their order is kept."""
    group = {oid: {oid} for oid in oids}
    for one, other in links:
        if one in group and other in group and group[one] is not group[other]:
            joined = group[one] | group[other]
            for oid in joined:
                group[oid] = joined
    found: list[list[int]] = []
    for oid in oids:
        if not any(oid in members for members in found):
            found.append([member for member in oids if member in group[oid]])
    return found


def parents_first(oids: Sequence[int], links: Iterable[tuple[int, int]]) -> list[int]:
    """``oids`` so that what a link ``(child, parent)`` points to comes before; within a circle their order is kept."""
    waiting = list(oids)
    needs = {oid: {parent for child, parent in links if child == oid and parent != oid} for oid in oids}
    ordered: list[int] = []
    while waiting:
        free = [oid for oid in waiting if needs[oid].isdisjoint(waiting)]
        # Of a circle, the one that waits for the fewest goes first.
        chosen = free or [min(waiting, key=lambda oid: len(needs[oid].intersection(waiting)))]
        ordered += chosen
        waiting = [oid for oid in waiting if oid not in chosen]
    return ordered


def firing_triggers(connection: Any, oids: Sequence[int]) -> list[dict[str, Any]]:
    """Triggers of tables and their partitions that fire for rows even in a session that is a replica."""
    return rows(connection, TRIGGERS, {"oids": list(oids)})


def firing_rules(connection: Any, oids: Sequence[int]) -> list[dict[str, Any]]:
    """Rules of tables that rewrite our statements even in a session that is a replica."""
    return rows(connection, RULES, (list(oids),))


def locks_to_silence(triggers: Iterable[Mapping[str, Any]]) -> list[Lock]:
    """The locks under which triggers are kept from firing."""
    tables = sorted({quote_name(trigger["schema"], trigger["table"]) for trigger in triggers})
    return [Lock(table, "SHARE ROW EXCLUSIVE") for table in tables]


def silence(triggers: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Statements that keep triggers from firing, which hold up writers until the commit, and that undo it."""
    off, on = [], []
    for trigger in triggers:
        table = f"ALTER TABLE ONLY {quote_name(trigger['schema'], trigger['table'])}"
        off.append(f"{table} DISABLE TRIGGER {quote_ident(trigger['name'])}")
        on.append(f"{table} ENABLE {STATES[trigger['enabled']]} TRIGGER {quote_ident(trigger['name'])}")
    return off, on
