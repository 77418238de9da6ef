# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which tables get back the rows of their damaged pages, and what the others are told."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._verification.page_plan import page_plan

LSN = "0/3008940"


def damage(name: str, **others: Any) -> dict[str, Any]:
    place = {"oid": len(name), "schema": "public", "name": name, "kind": "table", "table": f"public.{name}"}
    found: dict[str, Any] = {
        "database": "shop",
        "place": {**place, "unlogged": False, **others.pop("place", {})},
        "path": f"base/5/{name}",
        "blocks": [7, 3],
        "more": 0,
        "faults": ["checksum"],
        "messages": ["a page that the server refuses"],
        "means": "rows",
        "backups": {"clean": backup("F2", "2026-11-24"), "damaged": [], "unknown": []},
    }
    return {**found, **others}


def backup(label: str, day: str) -> dict[str, Any]:
    return {"label": label, "repo": 2, "type": "full", "stop_time": f"{day}T20:00:09+00:00", "stop_lsn": "0/1"}


def located(*damages: dict[str, Any]) -> dict[str, Any]:
    return {"damages": list(damages), "facts": {"lsn": LSN}, "text": ["what was located"]}


def test_pages_of_tables_are_planned_and_what_stays_damaged_is_said() -> None:
    index = damage("orders_pkey", means="rebuild", place={"kind": "index", "table": "public.orders"})
    elsewhere = damage("orders", database="other")
    plan = page_plan(located(damage("orders"), damage("Odd Name"), index, elsewhere), "shop")
    assert plan["names"] == ['"public"."orders"', '"public"."Odd Name"']
    assert plan["relations"][0] == {
        **{"oid": 6, "schema": "public", "name": "orders"},
        **{"blocks": [3, 7], "path": "base/5/orders", "lsn": LSN},
    }
    assert plan["incident"]["relations"][0]["blocks"] == [3, 7]
    assert [line.partition(":")[0] for line in plan["lines"]] == [
        *("public.orders", 'public."Odd Name"'),
        *("STAYS DAMAGED", "STAYS DAMAGED"),
    ]
    assert page_plan(located(damage("orders"), damage("lines")), "shop", "lines, orders")["names"] == plan["names"][
        :1
    ] + ['"public"."lines"']


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        ([], [], None),
        (["D1"], [], {"label": "F1", "repo": 2}),
        ([], ["D1"], {"label": "F2", "repo": 2}),
        (["D1"], ["D1"], {"label": "F1", "repo": 2}),
    ],
)
def test_a_backup_is_named_where_newer_ones_have_the_damage(first: list[str], second: list[str], chosen: Any) -> None:
    ones = [
        damage("orders", backups={"clean": backup("F1", "2026-11-23"), "damaged": first, "unknown": []}),
        damage("lines", backups={"clean": backup("F2", "2026-11-24"), "damaged": second, "unknown": []}),
    ]
    assert page_plan(located(*ones), "shop")["backup"] == chosen
    # Nothing is known of backups where checksums are off.
    assert page_plan(located(damage("orders", backups=None)), "shop")["backup"] is None


@pytest.mark.parametrize(
    ("found", "asked", "said"),
    [
        ([], None, "no page of a table is damaged in database shop. No damage was found at all"),
        ([damage("orders")], "lines", "damaged in public.lines. What was found: what was located"),
        ([damage("orders_pkey", means="rebuild")], None, "What was found: what was located"),
        ([damage("orders", more=5)], None, "more than 2 of its pages"),
        ([damage("orders", faults=["checksum", "structure"], messages=["xmin"])], None, r"or not only \(xmin\)"),
        (
            [damage("orders", faults=["unreadable"])],
            None,
            "dr_strategy=tables -e dr_target_lsn=0/3008940 -e dr_tables=",
        ),
        ([damage("pg_toast_6", place={"kind": "toast", "table": "public.orders"})], None, "dr_tables=public.orders"),
        (
            [damage("orders", backups={"clean": None, "damaged": ["F2"], "unknown": ["F1"]})],
            *(None, r"no backup is known to be without .*\(F2, F1\)"),
        ),
    ],
)
def test_what_no_page_brings_back_is_refused_with_the_way_that_does(found: Any, asked: Any, said: str) -> None:
    with pytest.raises(RecoveryError, match=said) as raised:
        page_plan(located(*found), "shop", asked)
    assert "Nothing was touched" in str(raised.value)
