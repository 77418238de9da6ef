# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._tables.ranges import (
    STRETCHES,
    Division,
    Key,
    bounds_query,
    compare,
    key_of,
)

BY = Division(Key('"id"', "int8"), ["10", "20"])


def column(name: str, base_name: str) -> dict[str, Any]:
    return {"name": name, "base_name": base_name, "type": base_name, "generated": ""}


def ranges(*found: tuple[int, int, str]) -> list[dict[str, Any]]:
    return [{"range": number, "rows": count, "hash": hashes} for number, count, hashes in found]


@pytest.mark.parametrize(
    ("recovered", "production", "differing"),
    [
        (ranges((0, 3, "7"), (1, 2, "-8")), ranges((0, 3, "7"), (1, 2, "-8")), []),
        (ranges((0, 3, "7"), (1, 2, "-8")), ranges((0, 3, "7"), (1, 2, "-9")), [1]),
        (ranges((0, 3, "7"), (1, 2, "0")), ranges((0, 3, "7"), (1, 3, "0")), [1]),
        (ranges((0, 3, "7"), (2, 2, "0")), ranges((0, 3, "7")), [2]),
        (ranges((1, 1, "1")), ranges((0, 1, "1"), (1, 1, "1")), [0]),
        ([], ranges((0, 1, "1")), [0]),
        (ranges((0, 1, "1")), [], [0]),
    ],
    ids=["equal", "changed", "another row", "all lost", "only new rows", "was empty", "is empty"],
)
def test_only_ranges_with_the_same_rows_are_passed_over(
    recovered: list[dict[str, Any]], production: list[dict[str, Any]], differing: list[int]
) -> None:
    found = compare(BY, recovered, production)

    assert found.differing == differing
    assert found.whole["rows"] == sum(row["rows"] for row in recovered)
    assert found.inside["rows"] == sum(row["rows"] for row in recovered if row["range"] in differing)


def test_sums_are_as_those_of_a_whole_table() -> None:
    found = compare(BY, ranges((0, 3, "9223372036854775807"), (1, 2, "9223372036854775807")), ranges((0, 3, "1")))

    assert found.whole == {"rows": 5, "checksum": "5:18446744073709551614"}
    assert found.condition == "(\"id\" OPERATOR(pg_catalog.<) '20'::pg_catalog.int8)"


FROM_10 = "\"id\" OPERATOR(pg_catalog.>=) '10'::pg_catalog.int8"
FROM_20 = FROM_10.replace("10", "20")
TO_10, TO_20 = FROM_10.replace(">=", "<"), FROM_20.replace(">=", "<")


@pytest.mark.parametrize(
    ("ranges", "condition"),
    [
        ([], "(false)"),
        ([1], f"({FROM_10} AND {TO_20})"),
        ([2], f"({FROM_20})"),
        ([0, 2], f"({TO_10} OR {FROM_20})"),
        ([0, 1, 2], "(true)"),
    ],
)
def test_rows_of_few_ranges_are_found_by_an_index(ranges: list[int], condition: str) -> None:
    assert BY.within(ranges) == condition


def test_the_range_of_a_row_is_looked_up_where_many_differ() -> None:
    many = Division(BY.key, [str(number) for number in range(4 * STRETCHES)])
    condition = many.within(range(0, 4 * STRETCHES, 2))

    assert condition.startswith('pg_catalog.width_bucket("id"::pg_catalog.int8, \'{"0","1",')
    assert condition.endswith(",252,254}'::int4[])")


@pytest.mark.parametrize(
    ("inside", "whole", "worth"), [(17, 1000, True), (16, 1000, False), (250, 1000, True), (251, 1000, False)]
)
def test_ranges_are_split_where_they_are_more_than_a_few_rows_and_not_most_of_the_table(
    inside: int, whole: int, worth: bool
) -> None:
    found = compare(BY, ranges((0, whole - inside, "1"), (1, inside, "2")), ranges((0, whole - inside, "1")))

    assert found.worth_splitting is worth


def test_what_was_split_is_told_of_the_whole_table_and_of_the_parts_that_differ() -> None:
    found = compare(BY, ranges((0, 900, "1"), (1, 100, "2")), ranges((0, 900, "1"), (1, 99, "1")))
    finer = Division(BY.key, ["10", "15", "20"])

    split = found.split(finer, ranges((1, 40, "1"), (2, 60, "1")), ranges((1, 39, "0"), (2, 60, "1")))

    assert (split.compared, split.differing, split.division) == (3, [1], finer)
    assert (split.whole["rows"], split.inside["rows"]) == (1000, 40)


@pytest.mark.parametrize(
    ("base_name", "key"),
    [
        ("int2", Key('"K"', "int8")),
        ("timestamptz", Key('"K"', "timestamptz")),
        ("uuid", Key('"K"', "uuid")),
        ("text", None),
        ("numeric", None),
        ("", None),
    ],
)
def test_only_keys_whose_place_is_found_at_once_divide_a_table(base_name: str, key: Key | None) -> None:
    assert key_of([column("other", "int8"), column("K", base_name)], ["K", "other"]) == key


def test_a_table_without_a_key_is_not_divided() -> None:
    assert key_of([column("id", "int8")], []) is None


@pytest.mark.parametrize(
    ("pages", "percent"), [(0, "100.0000"), (4096, "100.0000"), (8192, "50.0000"), (10**12, "0.0001")]
)
def test_of_a_large_table_some_pages_are_looked_at(pages: int, percent: str) -> None:
    assert f"SYSTEM ({percent})" in bounds_query(BY.key, "t", pages)
