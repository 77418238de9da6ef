# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._tables.ranges import (
    bounds_query,
    compare,
    division,
    key_of,
)

BY = division('"id"::pg_catalog.int8', "{10,20}")


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
    assert found.condition == (
        "pg_catalog.width_bucket(\"id\"::pg_catalog.int8, '{10,20}'::pg_catalog.int8[]) = ANY ('{0,1}'::int4[])"
    )


@pytest.mark.parametrize(
    ("base_name", "key"),
    [
        ("int2", '"K"::pg_catalog.int8'),
        ("timestamptz", '"K"::pg_catalog.timestamptz'),
        ("uuid", '"K"::pg_catalog.uuid'),
        ("text", None),
        ("numeric", None),
        ("", None),
    ],
)
def test_only_keys_whose_place_is_found_at_once_divide_a_table(base_name: str, key: str | None) -> None:
    assert key_of([column("other", "int8"), column("K", base_name)], ["K", "other"]) == key


def test_a_table_without_a_key_is_not_divided() -> None:
    assert key_of([column("id", "int8")], []) is None


@pytest.mark.parametrize(
    ("pages", "percent"), [(0, "100.0000"), (4096, "100.0000"), (8192, "50.0000"), (10**12, "0.0001")]
)
def test_of_a_large_table_some_pages_are_looked_at(pages: int, percent: str) -> None:
    assert f"SYSTEM ({percent})" in bounds_query("id", "t", pages)
