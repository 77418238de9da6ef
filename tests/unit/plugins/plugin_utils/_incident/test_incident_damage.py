# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.damage import (
    deleted_since,
    hit_text,
    stays_lost,
    to_recover,
    what_happened,
)
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.plan import plan_text
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.verdict import missing


def damaged(name: str, asked: bool, rows: Any = None, **more: Any) -> dict[str, Any]:
    return {"schema": "public", "name": name, "kind": "r", "damage": "truncate", "rows": rows, "asked": asked, **more}


INCIDENT: dict[str, Any] = {
    "kind": "truncate",
    "database": "shop",
    "xid": 9,
    "lsn": "0/9",
    "relations": [
        damaged("customers", True, 5000),
        damaged("orders", False, 0),
        damaged("Order Lines", False),
        damaged("orders_pkey", False, kind="i"),
    ],
}


def test_all_that_one_transaction_damaged_comes_back() -> None:
    assert to_recover(INCIDENT, "customers", None, "shop", "transaction", "replace") == [
        "public.customers",
        "public.orders",
        'public."Order Lines"',
    ]


@pytest.mark.parametrize(
    ("asked", "schemas", "database", "scope", "back"),
    [
        ("customers", None, "shop", "named", ["public.customers"]),
        ("customers", None, "crm", "transaction", ["public.customers"]),
        (None, "public", "shop", "transaction", []),
        (None, None, "shop", "transaction", []),
    ],
)
def test_nothing_is_added_that_is_not_wanted_or_comes_back_anyhow(
    asked: Any, schemas: Any, database: str, scope: str, back: list[str]
) -> None:
    assert to_recover(INCIDENT, asked, schemas, database, scope, "merge") == back


def test_rows_of_now_are_not_replaced_where_nobody_asked_for_the_table() -> None:
    locks = damaged("locks", False, 1, damage="delete")
    incident = {**INCIDENT, "relations": [damaged("customers", True, 5000, damage="delete"), locks]}
    asked = {"database": "shop", "tables": "customers"}
    assert to_recover(incident, "customers", None, "shop", "transaction", "replace") == ["public.customers"]
    assert to_recover(incident, "customers", None, "shop", "transaction", "merge")[1:] == ["public.locks"]
    assert stays_lost(incident, {**asked, "load": "replace"}) == [locks]
    assert stays_lost(incident, {**asked, "load": "merge"}) == []


def test_what_the_same_transaction_took_and_nobody_asked_for_is_missing() -> None:
    lines = damaged("lines", False, 8000)
    incident = {**INCIDENT, "relations": [*INCIDENT["relations"], lines, damaged("v", False, kind="v", damage="drop")]}
    plan = {"objects": [{"identity": "public.v"}]}
    named = {"database": "shop", "tables": "customers", "scope": "named"}
    lacks = missing({"incident": incident, "load_plan": plan}, named)
    assert [item["what"] for item in lacks] == ['public."Order Lines"', "8,000 rows of public.lines"]
    assert missing({"incident": incident, "load_plan": plan}, {**named, "scope": "transaction"}) == []


def plan_of(**parameters: Any) -> str:
    older = {**INCIDENT, "lsn": "0/5", "xid": 5, "commit_time": "2026-11-23T20:00:00+00:00", "ours": True}
    data = {
        "incident": INCIDENT,
        "candidates": [older, INCIDENT],
        "scanned": {"from_lsn": "0/3", "to_lsn": "0/A", "segments": 2},
    }
    given = {"database": "shop", "tables": "customers", **parameters}
    record = {"id": "a", "scenario": "table-drop", "parameters": given, "data": data}
    return " ".join(plan_text(record, "2026-11-23T21:00:00+00:00").split())


def test_the_plan_shows_all_that_was_damaged_with_its_rows_and_all_candidates() -> None:
    text = plan_of()
    assert "public.customers: truncate, 5,000 rows" in text
    assert "public.orders: truncate, 0 rows; not asked for, but the same transaction did it" in text
    assert 'public."Order Lines": truncate, rows unknown' in text
    assert "transaction 5, LSN 0/5" in text
    assert "(done by this collection)" in text
    assert "<- this one" in text
    assert "2 segments, LSN 0/3 to 0/A" in text


@pytest.mark.parametrize(
    ("incident", "sentence"),
    [
        ({"kind": "truncate", "relations": [damaged("a", True)]}, "TRUNCATE emptied public.a in database shop"),
        ({"kind": "drop_database", "relations": []}, "DROP DATABASE took database shop"),
        ({"kind": "explicit", "relations": [damaged("a", True, damage="delete")]}, "DELETE took rows of public.a in"),
        (
            {"kind": "explicit", "relations": [{"schema": "public", "name": "a", "damage": None}]},
            "Damage to public.a in database shop after the moment that was given",
        ),
        (
            {"kind": "explicit", "relations": [], "found_by": "a search by restores"},
            "Whatever was done in database shop after the moment that a search by restores found",
        ),
        ({"relations": []}, "Damage to what was lost in database shop"),
    ],
)
def test_what_happened_is_a_sentence_also_where_only_the_moment_is_known(
    incident: dict[str, Any], sentence: str
) -> None:
    assert what_happened({"database": "shop", **incident}).startswith(sentence)


def test_rows_that_nobody_knows_have_their_reason() -> None:
    assert hit_text(damaged("a", True, kind="p")) == "truncate, rows unknown: they are in its partitions"
    assert hit_text(damaged("a", True)) == "truncate, rows unknown until it is restored: no ANALYZE had counted them"
    assert hit_text(damaged("v", True, kind="v", damage="drop")) == "drop, a view"


def test_the_plan_says_what_stays_lost_when_only_named_tables_are_wanted() -> None:
    text = plan_of(scope="named")
    assert "public.orders: truncate, 0 rows; NOT ASKED FOR, stays lost" in text
    assert "public.customers: truncate, 5,000 rows;" not in text


def test_a_plan_made_anew_says_instead_of_what() -> None:
    data = {
        "target": {"type": "lsn", "value": "0/9", "exclusive": True},
        "planned_at": "2026-11-23T21:00:00+00:00",
        "instead_of": {"planned_at": "2026-11-23T20:00:00+00:00", "target": {"type": "lsn", "value": "0/1"}},
    }
    text = plan_text({"id": "a", "scenario": "table-drop", "plan": data}, "2026-11-23T21:00:00+00:00")
    assert "INSTEAD OF LSN 0/1" in text


def test_rows_that_others_deleted_after_the_incident_are_named_before_they_are_merged_back() -> None:
    def done(xid: int, *relations: Any, **more: Any) -> dict[str, Any]:
        return {"xid": xid, "lsn": f"0/{xid}", "commit_time": f"T{xid}", "relations": [*relations], **more}

    customers = damaged("customers", True, 20, damage="delete")
    incident = done(9, {**customers, "rows": 5000}, damaged("orders", False, 7, damage="delete"))
    data = {
        "incident": incident,
        "candidates": [
            done(8, customers),
            incident,
            done(10, customers, damaged("elsewhere", True, 9)),
            done(11, damaged("orders", False)),
            done(12, customers, ours=True),
            done(13, {**customers, "damage": "update"}),
        ],
        "transactions_after": {"count": 4, "seconds": 5},
    }
    told = deleted_since(data, {"load": "merge"})
    assert [item["object"] for item in told] == ["public.customers", "public.orders"]
    assert "transaction 10 took 20 rows from it at T10, after the incident" in told[0]["reason"]
    assert "transaction 11 took rows unknown" not in told[1]["reason"]
    assert deleted_since(data, {"load": "replace"}) == []
    shown = plan_text({"data": data, "parameters": {"load": "merge"}}, "2026-11-28T09:00:00+00:00", width=400)
    assert "public.customers: transaction 10 took 20 rows" in shown
