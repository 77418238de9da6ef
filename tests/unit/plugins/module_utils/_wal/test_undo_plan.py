"""What it takes to undo transactions, out of the history from the first one on."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._wal.undo_plan import undo_plan
from histories import history as history_of


def change(what: str, name: str | None, oid: int, rows: int | None = None, kind: str = "r") -> dict[str, Any]:
    return {"what": what, "schema": "public", "name": name, "kind": kind, "oid": oid, "rows": rows}


def history(*transactions: tuple[int, list[dict[str, Any]]], told: int | None = None) -> dict[str, Any]:
    return history_of(*({"xid": xid, "changes": changes} for xid, changes in transactions), told=told)


def named(*numbers: int) -> list[dict[str, Any]]:
    return [{"xid": number, "lsn": f"0/{number:X}00", "subxacts": [number + 1000]} for number in numbers]


ROWS = [change("updated", "prices", 100, 30), change("deleted", "prices", 100, 2), change("inserted", "log", 101, 5)]


def test_all_tables_that_it_changed_rows_of_and_who_changed_them_later() -> None:
    later = [(8, [change("updated", "prices", 100, 1)]), (9, [change("inserted", "other", 102, 1)])]
    found = undo_plan(history((7, ROWS), *later), named(7))
    assert (found["oids"], found["names"], found["rows"]) == ([100, 101], ["public.log", "public.prices"], 37)
    assert [(item["name"], item["damage"], item["rows"]) for item in found["relations"]] == [
        ("prices", "update", 30),
        ("prices", "delete", 2),
        ("log", "insert", 5),
    ]
    assert found["later"] == [
        "1 later transaction changed the same tables; rows they changed, too, stay as they are",
        "they are 8",
        "1 later transaction changed other tables only, and what they read is not told",
    ]


def test_later_ones_that_are_not_told_one_by_one_are_counted_by_table() -> None:
    later = [(number, [change("updated", "prices", 100, 1)]) for number in range(8, 60)]
    later += [(number, [change("inserted", "other", 102, 1)]) for number in range(60, 70)]
    assert undo_plan(history((7, ROWS), *later, told=2), named(7))["later"] == [
        "52 later transactions changed the same tables; rows they changed, too, stay as they are",
        "they are 8 and 51 more",
        "10 later transactions changed other tables only, and what they read is not told",
    ]


def test_where_they_may_have_changed_several_of_these_tables_it_says_between_what() -> None:
    both = [change("updated", "prices", 100, 1), change("inserted", "log", 101, 1)]
    found = undo_plan(history((7, ROWS), (8, both), (9, both), (10, both), told=2), named(7))
    assert found["later"][0].startswith("3 later transactions")
    several = [(8, both[:1]), (9, both[1:]), (10, both)]
    found = undo_plan(history((7, ROWS), *several, told=1), named(7))
    assert found["later"][0].startswith("between 2 and 3 later transactions")


def test_a_table_defined_anew_since_is_told_before_the_restore() -> None:
    later = [
        (8, [change("definition changed", "prices", 100)]),
        (9, [change("definition changed", "other", 102)]),
        (10, ROWS),
    ]
    (line,) = [one for one in undo_plan(history((7, ROWS), *later), named(7))["later"] if one.startswith("NOT SURE")]
    assert "transaction 8 changed a definition since (public.prices definition changed); where the columns" in line


def test_unlogged_tables_are_told_as_what_nobody_knows_of_unless_others_were_named() -> None:
    one = {**history((7, ROWS)), "unlogged": ["public.sessions"]}
    (left,) = undo_plan(one, named(7))["left_to_do"]
    assert (left["type"], left["object"], left["lost"]) == ("unlogged table", "public.sessions", False)
    assert undo_plan(one, named(7))["later"][-1].startswith("NOT KNOWN: unlogged table public.sessions: their rows")
    assert undo_plan(one, named(7), "public.prices")["left_to_do"] == []
    many = {**history((7, ROWS)), "unlogged": [f"public.u{number}" for number in range(12)]}
    assert undo_plan(many, named(7))["left_to_do"][0]["object"].endswith("public.u9 and 2 more")


def test_foreign_tables_are_told_as_what_nobody_knows_of() -> None:
    one = {**history((7, ROWS)), "foreign": ["public.far"]}
    (left,) = undo_plan(one, named(7))["left_to_do"]
    assert (left["type"], left["object"], left["lost"]) == ("foreign table", "public.far", False)
    assert "on other servers" in left["reason"]


def test_large_objects_that_it_changed_and_views_that_it_refreshed_are_left_to_people() -> None:
    changed = {**change("changed or removed", "large objects", 0, kind="L"), "schema": None, "loses": True}
    made = {**change("made", "large objects", 0, kind="L"), "schema": None, "loses": False}
    refreshed = change("deleted", "sums", 103, 3, kind="m")
    found = undo_plan(history((7, [*ROWS, changed, refreshed])), named(7))
    assert found["oids"] == [100, 101]
    assert [(item["type"], item["object"], item["lost"]) for item in found["left_to_do"]] == [
        ("large objects", "of transaction 7", True),
        ("materialized view", "public.sums", False),
    ]
    assert found["left_to_do"][1]["command"] == 'REFRESH MATERIALIZED VIEW "public"."sums";'
    assert any(line.startswith("NOT UNDONE: large objects of transaction 7") for line in found["later"])
    assert undo_plan(history((7, [*ROWS, made])), named(7))["left_to_do"] == []
    with pytest.raises(RecoveryError, match="changed no rows of tables"):
        undo_plan(history((7, [changed])), named(7))


def test_functions_and_roles_that_it_changed_beside_rows_are_told_as_not_undone() -> None:
    other = {
        "xid": 7,
        "lsn": "0/700",
        "commit_time": "",
        "what": ["functions", "types"],
        "shared": ["roles"],
        "told": True,
    }
    one = {**history((7, ROWS), (8, ROWS)), "other_changes": [other, {**other, "xid": 8}]}
    found = undo_plan(one, named(7))
    assert [(item["type"], item["object"], item["lost"]) for item in found["left_to_do"]] == [
        ("functions, types", "of transaction 7", True),
        ("roles", "of transaction 7", True),
    ]
    assert "dr_strategy=cluster_swap" in found["left_to_do"][1]["reason"]
    assert any(line.startswith("NOT UNDONE: functions, types of transaction 7: ") for line in found["later"])


def test_several_are_one_plan_with_the_tables_of_each() -> None:
    other = [change("updated", "prices", 100, 3), change("deleted", "other", 102, 1)]
    between = (8, [change("updated", "prices", 100, 1)])
    found = undo_plan(history((7, ROWS), between, (9, other), (10, ROWS)), named(7, 9))
    assert found["transactions"] == [
        {"lsn": "0/700", "xids": [7, 1007], "relations": [100, 101]},
        {"lsn": "0/900", "xids": [9, 1009], "relations": [100, 102]},
    ]
    assert (found["oids"], found["rows"]) == ([100, 101, 102], 41)
    assert [(item["name"], item["damage"], item["rows"]) for item in found["relations"]] == [
        ("prices", "update", 33),
        ("prices", "delete", 2),
        ("log", "insert", 5),
        ("other", "delete", 1),
    ]
    assert found["later"][0].startswith("2 later transactions changed the same tables")
    with pytest.raises(RecoveryError, match="transaction 9 changed no rows of the tables that were named"):
        undo_plan(history((7, ROWS), (9, other)), named(7, 9), "public.log")
    with pytest.raises(RecoveryError, match="transaction 8 did not only change rows"):
        undo_plan(history((7, ROWS), (8, [change("truncated", "old", 103)])), named(7, 8))


def test_only_the_tables_that_were_named() -> None:
    assert undo_plan(history((7, ROWS)), named(7), "public.log")["oids"] == [101]


@pytest.mark.parametrize(
    ("changes", "asked", "said"),
    [
        (None, None, "transaction 7 changed no rows"),
        ([*ROWS, change("truncated", "old", 103)], None, "did not only change rows: public.old truncated"),
        ([*ROWS, change("dropped", None, 103)], None, "did not only change rows: OID 103 dropped"),
        (ROWS, "public.pricse", "did not change rows of public.pricse. Changed were public.log, public.prices"),
    ],
)
def test_what_undoing_rows_would_not_undo_is_refused(changes: Any, asked: Any, said: str) -> None:
    with pytest.raises(RecoveryError) as refused:
        undo_plan(history(*([(7, changes)] if changes else [])), named(7), asked)
    assert said in refused.value.msg
    assert "Nothing was changed" in refused.value.msg
