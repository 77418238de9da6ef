# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where two tables differ: both are counted and hashed by ranges of their key, each in one scan.

Ranges that differ are split, where they are few, and counted and hashed once more. So of a table that lost few rows
only those of small ranges travel, however large it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.spans import spans
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
# Into so many each range that differs is split, and into so many all together; not where more than one row of so many
# lies in those that differ, for then it is mostly a stretch of rows that was damaged, and travels in any case.
PARTS, ALL_PARTS = 64, 16384
FEW = 4
# Of so many stretches a row is compared with both ends, which an index can do; of more its range is looked up.
STRETCHES = 64

# From random pages of a large table; a page has many keys.
BOUNDS = """
WITH sampled AS (SELECT DISTINCT {key} AS key FROM {table} TABLESAMPLE SYSTEM ({percent})),
numbered AS (SELECT key, row_number() OVER (ORDER BY key) AS n, count(*) OVER () AS of FROM sampled)
SELECT pg_catalog.array_agg(key::text ORDER BY key) AS bounds FROM numbered
WHERE n % greatest({keys}, of / {ranges}) = 0
"""
# Those that the ranges have, and within them.
FINER = """
WITH inside AS (SELECT DISTINCT {key} AS key FROM {table} WHERE {condition}),
numbered AS (SELECT key, row_number() OVER (ORDER BY key) AS n, count(*) OVER () AS of FROM inside)
SELECT pg_catalog.array_agg(key::text ORDER BY key) AS bounds FROM (
  SELECT key FROM numbered WHERE n % greatest({keys}, of / {parts}) = 0
  UNION SELECT pg_catalog.unnest({bounds})) AS found
"""
PAGES = """
SELECT coalesce(sum(pg_catalog.pg_relation_size(relid)), 0) / current_setting('block_size')::int8 AS pages
FROM (SELECT %(oid)s::oid AS relid UNION SELECT relid::oid FROM pg_catalog.pg_partition_tree(%(oid)s::oid)) AS tree
"""


class Key(NamedTuple):
    """The column (SQL) by which a table is divided, and the type as which its values are compared."""

    column: str
    type: str

    @property
    def value(self) -> str:
        """SQL of a row's value."""
        return f"{self.column}::pg_catalog.{self.type}"


class Division(NamedTuple):
    """A key, and the bounds of its ranges as text, in order; each bound is in the range that it begins."""

    key: Key
    bounds: Sequence[str]

    def query(
        self, table: str, columns: Sequence[Mapping[str, Any]], version_num: int, condition: Optional[str] = None
    ) -> str:
        """Query for the rows and the sum of their hashes of each ``range`` of ``table`` (SQL) that has rows.

        ``condition`` (SQL) is for those of them that are counted.
        """
        return (
            f"SELECT {self._range()} AS range, count(*) AS rows, "
            f"coalesce(sum({fingerprint.row_hash(columns, version_num)}), 0)::text AS hash FROM {table} "
            f"{f'WHERE {condition} ' if condition else ''}GROUP BY 1"
        )

    def within(self, ranges: Iterable[int]) -> str:
        """SQL condition: a row lies in one of the ranges."""
        numbers = sorted(ranges)
        stretches = spans(numbers)
        if len(stretches) > STRETCHES:
            return f"{self._range()} = ANY ('{{{','.join(map(str, numbers))}}}'::int4[])"
        return f"({' OR '.join(self._between(first, last) for first, last in stretches) or 'false'})"

    def finer_query(self, table: str, ranges: Sequence[int]) -> str:
        """Query for the ``bounds`` with which those ranges are split by the rows of ``table`` (SQL) that they have."""
        return FINER.format(
            key=self.key.value,
            table=table,
            condition=self.within(ranges),
            keys=KEYS,
            parts=min(PARTS * len(ranges), ALL_PARTS),
            bounds=self._array(),
        )

    def _between(self, first: int, last: int) -> str:
        """A row lies in one of the ranges from the first to the last; the outermost ones have one bound."""
        ends = [(">=", first - 1)] if first > 0 else []
        ends += [("<", last)] if last < len(self.bounds) else []
        literals = ((how, f"{quote_literal(self.bounds[at])}::pg_catalog.{self.key.type}") for how, at in ends)
        # Not the value of another type, which has no index.
        return " AND ".join(f"{self.key.column} OPERATOR(pg_catalog.{how}) {one}" for how, one in literals) or "true"

    def _range(self) -> str:
        return f"pg_catalog.width_bucket({self.key.value}, {self._array()})"

    def _array(self) -> str:
        quoted = ",".join(f'"{bound}"' for bound in self.bounds)
        return f"{quote_literal(f'{{{quoted}}}')}::pg_catalog.{self.key.type}[]"


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

    @property
    def worth_splitting(self) -> bool:
        """Whether few rows lie in the ranges that differ, and more of them than a range is made of."""
        return KEYS * len(self.differing) < self.inside["rows"] <= self.whole["rows"] / FEW

    def split(
        self, by: Division, recovered: Sequence[Mapping[str, Any]], production: Sequence[Mapping[str, Any]]
    ) -> Difference:
        """The same after those ranges alone were divided anew, by the rows of the two queries of that division."""
        finer = compare(by, recovered, production)
        return finer._replace(compared=self.compared + finer.compared - len(self.differing), whole=self.whole)


def key_of(columns: Sequence[Mapping[str, Any]], names: Iterable[str]) -> Optional[Key]:
    """The first of a key's columns, or None where rows cannot be divided by it."""
    first = next(iter(names), None)
    kind = next((TYPES.get(column["base_name"]) for column in columns if column["name"] == first), None)
    return Key(quote_ident(str(first)), kind) if kind else None


def bounds_query(key: Key, table: str, pages: int) -> str:
    """Query for the ``bounds`` of ranges of a table with about so many pages; NULL where it has too few keys."""
    percent = 100 if pages <= RANGES else max(100 * RANGES / pages, 0.0001)
    return BOUNDS.format(key=key.value, table=table, percent=f"{percent:.4f}", keys=KEYS, ranges=RANGES)


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
