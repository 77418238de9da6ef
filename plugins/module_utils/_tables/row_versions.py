# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions of rows of a table: how they are told apart, and compared with recovered rows."""

from __future__ import annotations

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows
from ansible_collections.dbre.recovery.plugins.module_utils._tables.existing import ExistingTable
from ansible_collections.dbre.recovery.plugins.module_utils._tables.same_rows import comparable, primary_key, same_row

# Columns that rows of a table may not have in common, none (NULL) where that hangs on more than stored columns; and
# those that cannot be updated.
FIXED = """
WITH tree AS (
  SELECT %(oid)s::oid AS oid UNION SELECT relid::oid FROM pg_catalog.pg_partition_tree(%(oid)s::oid)
)
SELECT DISTINCT CASE WHEN i.indexprs IS NULL AND i.indpred IS NULL AND NOT i.indisexclusion AND a.attgenerated = ''
                THEN a.attname END AS name
FROM tree JOIN pg_catalog.pg_index i ON i.indrelid = tree.oid AND (i.indisunique OR i.indisexclusion)
CROSS JOIN LATERAL unnest(i.indkey::int2[]) AS key(number)
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = key.number
UNION
SELECT attname FROM pg_catalog.pg_attribute
WHERE attrelid = %(oid)s::oid AND attnum > 0 AND NOT attisdropped AND attidentity = 'a'
"""
IDENTITY = ("leaf", "place", "version")
IDENTITY_TYPES = ("oid", "tid", "xid")
NAMES = (*IDENTITY, "bucket", "hash", "partner", "fate", "match", "number", "gone", "count")
BUCKETS = 16384


class RowVersions:
    """Columns of ours beside those of a table, which have other names, and SQL on them."""

    def __init__(self, table: ExistingTable) -> None:
        self._table = table
        word = "dbre"
        while any(column["name"].startswith(word) for column in table.columns):
            word += "_"
        self.named = {name: f"{word}_{name}" for name in NAMES}
        self.identity = [self.named[name] for name in IDENTITY]
        self.types = [f"{name} {kind}" for name, kind in zip(self.identity, IDENTITY_TYPES)]

    def same(self, one: str, other: str) -> str:
        """Condition: the same version of a row; ``p`` is one of production's own."""
        own = dict(zip(self.identity, ("tableoid", "ctid", "xmin")))
        sides = [[f"{row}.{own[name] if row == 'p' else name}" for name in self.identity] for row in (one, other)]
        return " AND ".join(f"{mine} = {theirs}" for mine, theirs in zip(*sides))

    @staticmethod
    def hash(connection: Any, leaf: str, place: str) -> str:
        """SQL expression: a 64-bit number for the place of a row."""
        if connection.server_version < 140000:
            return f"pg_catalog.hashtextextended({place}::text, {leaf}::int8)"
        return f"pg_catalog.hashtidextended({place}, {leaf}::int8)"

    def bucket(self, connection: Any, place: str) -> str:
        return f"({self.hash(connection, '0', place)} & {BUCKETS - 1})::int4"

    def compared(self, connection: Any, aside: str, copy: str, boundary: str) -> tuple[str, list[str]]:
        """Query: each row put aside, its hash, its like among the recovered ones, and what is to become of it.

        It stays (s), gets other values (u), or has to go (d). Each recovered row is the like of one at most.
        With the query come the columns (SQL) whose values may differ in rows that get others.
        """
        table, named = self._table, self.named
        oid, version_num = table.oid(connection), connection.server_version
        values = f"*, {fingerprint.row_hash(table.copied_columns, version_num)} AS {named['hash']}"
        theirs = f"*, ctid AS {named['place']}"
        updated: list[str] = []
        same = same_row(table.stored, "r", "s") if table.stored else "true"
        if table.key and sorted(primary_key(connection, oid)) == sorted(table.key):
            match = table.on_key("r", "s")
            changed, updated = self._may_update(connection, oid)
        else:
            # Of equal rows, the first is the like of the first.
            pairs = (f"r.{named[name]} = s.{named[name]}" for name in ("match", "number"))
            match, changed = f"{' AND '.join(pairs)} AND {same}", ""
            equal = ", ".join(comparable(column, quote_ident(column["name"])) for column in table.stored)
            numbered = (
                f", {fingerprint.row_hash(table.stored, version_num)}::int8 AS {named['match']}, "
                f"row_number() OVER ({'PARTITION BY ' + equal if equal else ''}) AS {named['number']}"
            )
            values, theirs = values + numbered, theirs + numbered
        update = f"WHEN {changed} THEN 'u' " if changed else ""
        old = f"pg_catalog.age(r.{named['version']}) > pg_catalog.age('{boundary}'::xid)"
        query = (
            f"SELECT {', '.join(f'r.{name}' for name in self.identity)}, "
            f"CASE WHEN {old} THEN {self.bucket(connection, 'r.' + named['place'])} END, "
            f"r.{named['hash']}, s.{named['place']}, "
            f"CASE WHEN s.{named['place']} IS NULL THEN 'd' WHEN {same} THEN 's' {update}ELSE 'd' END "
            f"FROM (SELECT {values} FROM {aside}) AS r LEFT JOIN (SELECT {theirs} FROM {copy}) AS s ON {match}"
        )
        return query, updated

    def _may_update(self, connection: Any, oid: int) -> tuple[str, list[str]]:
        """Condition: row ``r`` can become ``s`` while others still have their values; empty where none can."""
        fixed = {row["name"] for row in rows(connection, FIXED, {"oid": oid})}
        kept = [column for column in self._table.stored if column["name"] in fixed]
        updated = [quote_ident(column["name"]) for column in self._table.stored if column["name"] not in fixed]
        return (same_row(kept, "r", "s") if updated and None not in fixed else ""), updated
