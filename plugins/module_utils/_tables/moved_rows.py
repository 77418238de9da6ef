# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows that a transaction moved from one partition to another, where they cannot go back.

There such a row is one that was deleted in one table and one that was made in another. Where the first cannot be put
back, the second is all that there is of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows
from ansible_collections.dbre.recovery.plugins.module_utils._tables.reversal import MOVED, Reversal
from ansible_collections.dbre.recovery.plugins.module_utils._tables.same_rows import comparable

# Partitions with what tells to which of them a row goes, of all levels.
TREES = """
SELECT p.oid::int8 AS oid, pg_catalog.pg_partition_root(p.oid)::oid::int8 AS root, ARRAY(
  SELECT DISTINCT a.attname::text FROM pg_catalog.pg_partition_ancestors(p.oid) AS above
  JOIN pg_catalog.pg_partitioned_table t ON t.partrelid = above.relid
  JOIN pg_catalog.pg_attribute a ON a.attrelid = t.partrelid AND a.attnum = ANY(t.partattrs::int2[]) AND a.attnum > 0
) AS by FROM unnest(%s::oid[]) AS p(oid) WHERE pg_catalog.pg_partition_root(p.oid) IS NOT NULL
"""


def keep_moved_between_partitions(connection: Any, reversals: Sequence[Reversal]) -> None:
    """Leave what the transaction made in another partition where that may be all there is of a row that cannot go back.

    It has the same key but for what tells the partition, or the same values but for the key.
    """
    by_oid = {one.table.oid: one for one in reversals}
    trees: dict[int, list[tuple[Reversal, Sequence[str]]]] = defaultdict(list)
    for row in rows(connection, TREES, (list(by_oid),)):
        trees[row["root"]].append((by_oid[row["oid"]], row["by"]))
    for members in trees.values():
        if len(members) > 1:
            _keep(connection, members)


def _keep(connection: Any, members: Sequence[tuple[Reversal, Sequence[str]]]) -> None:
    gone = " UNION ALL ".join(
        _rows_of(one, by, one.found, f"u.{one.operation} = 'DELETE' AND u.{one.conflict} IS NOT NULL")
        for one, by in members
    )
    if not rows(connection, f"SELECT 1 AS found FROM ({gone}) AS gone LIMIT 1"):
        return
    # What was kept already stands for one that went, too.
    made = " UNION ALL ".join(
        _rows_of(
            one,
            by,
            one.after,
            f"u.{one.inverse} = 'DELETE' AND (u.{one.conflict} IS NULL OR u.{one.conflict} = '{MOVED}')",
        )
        for one, by in members
    )
    numbered = "row_number() OVER (PARTITION BY {0} ORDER BY kept DESC, oid, seq)"
    query = f"""
WITH gone AS MATERIALIZED ({gone}), made AS MATERIALIZED ({made}),
by_key AS (
  SELECT m.oid, m.seq, m.kept FROM (SELECT *, {numbered.format("key")} AS number FROM made WHERE key IS NOT NULL) AS m
  JOIN (SELECT key, count(*) AS count FROM gone GROUP BY key) AS g ON g.key = m.key AND m.number <= g.count
), by_values AS (
  SELECT m.oid, m.seq, m.kept FROM (SELECT *, {numbered.format("content")} AS number FROM made) AS m
  JOIN (SELECT content, count(*) AS count FROM gone WHERE key IS NULL OR key NOT IN
          (SELECT key FROM made WHERE key IS NOT NULL) GROUP BY content) AS g
    ON g.content = m.content AND m.number <= g.count
)
SELECT oid, seq FROM by_key WHERE NOT kept UNION SELECT oid, seq FROM by_values WHERE NOT kept
"""
    kept: dict[int, dict[int, str]] = defaultdict(dict)
    for row in rows(connection, query):
        kept[row["oid"]][row["seq"]] = MOVED
    for one, _by in members:
        one.set_apart(kept[one.table.oid])


def _rows_of(one: Reversal, by: Sequence[str], image: str, condition: str) -> str:
    """Query: rows of an image with their number in the preview, and what a row that was moved keeps, each as one text.

    The tables are ours, and their types run nothing of users; by what operators others compare them is not asked.
    """
    columns = {column["name"]: column for column in one.table.stored}
    key = [columns[name] for name in one.table.key]
    same = " AND ".join(f"{_value(column, 'u')} = {_value(column, 's')}" for column in key)
    rest = [column for column in key if column["name"] not in by]
    others = [column for name, column in sorted(columns.items()) if name not in one.table.key]
    return (
        f"SELECT {one.table.oid}::int8 AS oid, u.{one.seq} AS seq, u.{one.conflict} IS NOT NULL AS kept, "
        f"{_text(rest) if rest else 'NULL::text'} AS key, {_text(others)} AS content "
        f"FROM {one.preview} u JOIN {image} s ON {same} WHERE {condition}"
    )


def _value(column: Mapping[str, Any], row: str) -> str:
    return comparable(column, f"{row}.{quote_ident(column['name'])}")


def _text(columns: Iterable[Mapping[str, Any]]) -> str:
    """SQL: values as one text, the same for the same values only."""
    values = ", ".join(_value(column, "s") for column in columns)
    return f"pg_catalog.md5(ROW({values})::text)"
