# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unique keys and exclusion constraints of a table: which rows would meet others there.

One that is DEFERRABLE is looked at twice by the server: INSERT ... ON CONFLICT refuses the whole table, and the second
look is a trigger, which does not fire in a session that is a replica. Such a session must look itself, and must let
nobody write to the table from before it looks to its commit: a row that another transaction has not committed yet is
seen by nobody, and its own second look was over before ours came.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional, Protocol

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import Lock
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import is_given, quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows

# Of a partitioned table those that its partitions have for themselves, too: their rows are those that belong there.
# pg_get_indexdef of one column knows neither its collation nor its operator.
KEYS = """
SELECT c.relname AS name, i.indisexclusion AS exclusion, NOT i.indimmediate AS deferrable,
  i.indrelid <> %(oid)s::oid AS of_partition,
  pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(t.relname) AS "table",
  ARRAY(SELECT pg_catalog.pg_get_indexdef(i.indexrelid, key.n::int, true) || CASE WHEN l.oid IS NOT NULL THEN
          pg_catalog.format(' COLLATE %%I.%%I', ln.nspname, l.collname) ELSE '' END
        FROM unnest(i.indcollation::oid[]) WITH ORDINALITY AS key(known, n)
        LEFT JOIN pg_catalog.pg_collation l ON l.oid = key.known
        LEFT JOIN pg_catalog.pg_namespace ln ON ln.oid = l.collnamespace
        WHERE key.n <= i.indnkeyatts ORDER BY key.n) AS parts,
  ARRAY(SELECT (SELECT pg_catalog.format('OPERATOR(%%I.%%s)', son.nspname, o.oprname)
                FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace son ON son.oid = o.oprnamespace
                WHERE o.oid = coalesce(
                  k.conexclop[key.n],
                  (SELECT op.amopopr FROM pg_catalog.pg_opclass oc JOIN pg_catalog.pg_amop op
                   ON op.amopfamily = oc.opcfamily AND op.amopstrategy = 3
                   AND op.amoplefttype = oc.opcintype AND op.amoprighttype = oc.opcintype
                   WHERE oc.oid = key.class)))
        FROM unnest(i.indclass::oid[]) WITH ORDINALITY AS key(class, n)
        WHERE key.n <= i.indnkeyatts ORDER BY key.n) AS operators,
  ARRAY(SELECT a.attname FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = i.indrelid AND a.attnum > 0 AND (a.attnum = ANY(i.indkey::int2[]) OR EXISTS (
          SELECT FROM pg_catalog.pg_depend d
          WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = i.indexrelid
          AND d.refclassid = d.classid AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum))) AS columns,
  coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false) AS nulls_are_values,
  nullif(pg_catalog.concat_ws(' AND ', '(' || pg_catalog.pg_get_expr(i.indpred, i.indrelid, true) || ')',
    CASE WHEN i.indrelid <> %(oid)s::oid THEN pg_catalog.pg_get_partition_constraintdef(i.indrelid) END), '')
    AS condition
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.contype = 'x'
WHERE (i.indisunique OR i.indisexclusion) AND (i.indrelid = %(oid)s::oid OR NOT c.relispartition AND i.indrelid IN
  (SELECT relid FROM pg_catalog.pg_partition_tree(%(oid)s::oid)))
ORDER BY i.indisexclusion, i.indexprs IS NOT NULL, 1
"""


class Keyed(Protocol):
    """A table with a primary key; ``keys``, its columns, and ``own``, its rows, in SQL."""

    @property
    def keys(self) -> str: ...

    @property
    def own(self) -> str: ...

    def on_key(self, one: str, other: str) -> str:
        """SQL condition: two rows have the same primary key."""


class UniqueKey(NamedTuple):
    """A unique index or exclusion constraint, its parts as SQL of the table's ``columns``, each with its operator."""

    name: str
    exclusion: bool
    deferrable: bool
    of_partition: bool
    table: str
    parts: Sequence[str]
    operators: Sequence[str]
    columns: Sequence[str]
    nulls_are_values: bool
    condition: Optional[str]

    @property
    def shown(self) -> str:
        """What it is called, for people."""
        return f"{'exclusion constraint' if self.exclusion else 'unique index'} {self.name}"

    def meets(self, table: Keyed, row: str, rows_of: str) -> str:
        """SQL condition: the row, one of ``rows_of`` by its primary key, meets one that the table has."""
        mine, theirs = self._of(rows_of, table.keys), self._of(self._own(table))
        return f"EXISTS ({self._met(mine, theirs, table.on_key('m', row))})"

    def doubled(self, table: Keyed, row: str) -> str:
        """SQL condition: the row, one of the table's by its primary key, meets another one of the table."""
        place = 'tableoid AS "dbre table", ctid AS "dbre place"'
        mine, theirs = self._of(self._own(table), f"{table.keys}, {place}"), self._of(self._own(table), place)
        other = '(m."dbre table", m."dbre place") <> (t."dbre table", t."dbre place")'
        return f"EXISTS ({self._met(mine, theirs, table.on_key('m', row), other)})"

    def _own(self, table: Keyed) -> str:
        return self.table if self.of_partition else table.own

    def _of(self, source: str, more: str = "") -> str:
        """Values of the parts of those rows that belong in here, and ``more`` columns of them."""
        fields = [f"{part} AS {name}" for part, name in zip(self.parts, self._names())]
        where = f" WHERE {self.condition}" if self.condition else ""
        return f"(SELECT {', '.join([*filter(None, [more]), *fields])} FROM {source}{where})"

    def _met(self, mine: str, theirs: str, *more: str) -> str:
        pairs = [self._same(f"m.{name}", f"t.{name}", sign) for name, sign in zip(self._names(), self.operators)]
        return f"SELECT FROM {mine} AS m JOIN {theirs} AS t ON {' AND '.join(pairs)} WHERE {' AND '.join(more)}"

    def _names(self) -> list[str]:
        return [quote_ident(f"dbre part {number}") for number in range(len(self.parts))]

    def _same(self, one: str, other: str, operator: str) -> str:
        same = f"{one} {operator} {other}"
        return f"({same} OR NOT ({is_given(one)} OR {is_given(other)}))" if self.nulls_are_values else same


def unique_keys(connection: Any, oid: int) -> list[UniqueKey]:
    """Those of a table, by columns first; the primary key is one of them."""
    return [UniqueKey(**row) for row in rows(connection, KEYS, {"oid": oid})]


def locks_for_deferrable(connection: Any, tables: Iterable[tuple[int, str]]) -> list[Lock]:
    """The locks under which rows may be put into tables (OID, SQL name) that have deferrable keys."""
    return [
        Lock(name, "SHARE ROW EXCLUSIVE", tree=True)
        for oid, name in tables
        if any(key.deferrable for key in unique_keys(connection, oid))
    ]


def computable(keys: Sequence[UniqueKey], columns: Sequence[Mapping[str, Any]]) -> list[UniqueKey]:
    """Those whose values can be had from rows with these columns."""
    names = {column["name"] for column in columns}
    return [key for key in keys if names.issuperset(key.columns)]


def passing_over(keys: Sequence[UniqueKey], table: Keyed, rows_of: str) -> str:
    """The end of an INSERT of rows ``s``, for people, that passes over those that meet others: SQL.

    ``rows_of`` are the same rows with the table's own types.
    """
    if not any(key.deferrable for key in keys):
        return "ON CONFLICT DO NOTHING"
    return "WHERE " + " AND ".join(f"NOT {key.meets(table, 's', rows_of)}" for key in keys)
