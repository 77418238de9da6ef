# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where two tables differ: both are counted and hashed by ranges of their key, each in one scan.

So of a table that lost few rows only those of the ranges that differ travel, however large it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident, quote_literal

# Types whose values are of one size: width_bucket() finds its place among those without walking over all of them.
# Integers of different sizes are compared as the largest.
TYPES = {
    "int2": "int8",
    "int4": "int8",
    "int8": "int8",
    "uuid": "uuid",
    "date": "date",
    "timestamp": "timestamp",
    "timestamptz": "timestamptz",
}
# At most so many ranges, of at least so many of the keys that were looked at.
RANGES = 4096
KEYS = 16

# From random pages of a large table; a page has many keys.
BOUNDS = """
WITH sampled AS (SELECT DISTINCT {key} AS key FROM {table} TABLESAMPLE SYSTEM ({percent})),
numbered AS (SELECT key, row_number() OVER (ORDER BY key) AS n, count(*) OVER () AS of FROM sampled)
SELECT pg_catalog.array_agg(key ORDER BY key)::text AS bounds FROM numbered
WHERE n % greatest({keys}, of / {ranges}) = 0
"""
PAGES = """
SELECT coalesce(sum(pg_catalog.pg_relation_size(relid)), 0) / current_setting('block_size')::int8 AS pages
FROM (SELECT %(oid)s::oid AS relid UNION SELECT relid::oid FROM pg_catalog.pg_partition_tree(%(oid)s::oid)) AS tree
"""


class Division(NamedTuple):
    """A key (SQL of a column) and the bounds of its ranges (SQL of an array)."""

    key: str
    bounds: str

    def query(self, table: str, columns: Sequence[Mapping[str, Any]], version_num: int) -> str:
        """Query for the rows and the sum of their hashes of each ``range`` of ``table`` (SQL) that has rows."""
        return (
            f"SELECT {self._range()} AS range, count(*) AS rows, "
            f"coalesce(sum({fingerprint.row_hash(columns, version_num)}), 0)::text AS hash FROM {table} GROUP BY 1"
        )

    def within(self, ranges: Iterable[int]) -> str:
        """SQL condition: a row lies in one of the ranges."""
        return f"{self._range()} = ANY ('{{{','.join(map(str, sorted(ranges)))}}}'::int4[])"

    def _range(self) -> str:
        return f"pg_catalog.width_bucket({self.key}, {self.bounds})"


class Difference(NamedTuple):
    """What two tables are by ranges: ``compared`` of them, ``differing`` of them.

    ``whole`` and ``inside`` are rows and checksum of the first table, whole and within the ranges that differ.
    """

    division: Division
    compared: int
    differing: Sequence[int]
    whole: Mapping[str, Any]
    inside: Mapping[str, Any]

    @property
    def condition(self) -> str:
        """SQL condition: a row lies in a range that differs."""
        return self.division.within(self.differing)


def key_of(columns: Sequence[Mapping[str, Any]], names: Iterable[str]) -> Optional[str]:
    """SQL of the first of a key's columns, or None where rows cannot be divided by it."""
    first = next(iter(names), None)
    kind = next((TYPES.get(column["base_name"]) for column in columns if column["name"] == first), None)
    return f"{quote_ident(str(first))}::pg_catalog.{kind}" if kind else None


def bounds_query(key: str, table: str, pages: int) -> str:
    """Query for the ``bounds`` of ranges of a table with about so many pages; NULL where it has too few keys."""
    percent = 100 if pages <= RANGES else max(100 * RANGES / pages, 0.0001)
    return BOUNDS.format(key=key, table=table, percent=f"{percent:.4f}", keys=KEYS, ranges=RANGES)


def division(key: str, bounds: str) -> Division:
    """By the ``bounds`` that :func:`bounds_query` found."""
    return Division(key, f"{quote_literal(bounds)}::pg_catalog.{key.rpartition('.')[2]}[]")


def compare(
    by: Division, recovered: Sequence[Mapping[str, Any]], production: Sequence[Mapping[str, Any]]
) -> Difference:
    """What differs between the rows of two :meth:`Division.query`."""
    mine, theirs = ({row["range"]: (row["rows"], row["hash"]) for row in side} for side in (recovered, production))
    differing = sorted(number for number in {*mine, *theirs} if mine.get(number) != theirs.get(number))
    return Difference(
        by,
        len({*mine, *theirs}),
        differing,
        _content(mine.values()),
        _content(mine[number] for number in differing if number in mine),
    )


def _content(ranges: Iterable[tuple[int, str]]) -> dict[str, Any]:
    """As fingerprint.content() gives it."""
    found = list(ranges)
    checksum = sum(int(hashes) for _count, hashes in found)
    return {"rows": sum(count for count, _hashes in found), "checksum": f"{fingerprint.CHECKSUM_VERSION}:{checksum}"}
