"""Which tables one transaction damaged, and what came later in them, out of the history from it on."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._wal.damaged_tables import damaged_tables, later_in_tables


def change(what: str, name: str | None, oid: int, rows: int | None = None, **more: Any) -> dict[str, Any]:
    known = {"what": what, "schema": "public", "name": name, "kind": "r", "oid": oid, "rows": rows, "detail": ""}
    return {**known, **more}


def one(xid: int, *changes: dict[str, Any], ours: str | None = None) -> dict[str, Any]:
    return {"xid": xid, "lsn": f"0/{xid}", "commit_time": "t", "changes": list(changes), "ours": ours}


MIGRATION = one(
    7,
    change("column dropped", "orders", 100, detail=": what"),
    change("deleted", "orders", 100, 5),
    change("rewritten by a change of its definition", "lines", 101),
    change("definition changed", "people", 102),
    change("definition changed", "prices", 103, detail=", 1 column added"),
    change("dropped", "sums", 104, kind="v"),
    change("created", "copied", 105),
    change("inserted", "copied", 105, 5),
    change("dropped", "orders_what_idx", 106, kind="i"),
)


def test_each_table_that_was_there_comes_back_once_with_the_worst_that_was_done_to_it() -> None:
    found = damaged_tables({"transactions": [MIGRATION]}, (1 << 32) + 7)
    assert found["names"] == ["public.lines", "public.orders", "public.people", "public.prices", "public.sums"]
    assert {item["name"]: item["damage"] for item in found["relations"]} == {
        "lines": "ddl",
        "orders": "column",
        "people": "ddl",
        "prices": "ddl",
        "sums": "drop",
    }
    # Of the others WAL tells more than that.
    assert found["maybe"] == ["public.people"]
    assert found["stays"] == ["public.copied created", "public.copied inserted (5 rows)"]


def test_large_objects_come_back_with_no_table() -> None:
    changed = change("changed or removed", "large objects", 0, kind="L", schema=None, loses=True)
    found = damaged_tables({"transactions": [one(7, change("deleted", "orders", 100, 5), changed)]}, 7)
    assert found["names"] == ["public.orders"]
    assert found["stays"] == ["large objects changed or removed"]
    assert [(item["object"], item["lost"]) for item in found["left_to_do"]] == [("of transaction 7", True)]
    assert damaged_tables({"transactions": [MIGRATION]}, 7)["left_to_do"] == []


def test_those_that_were_not_named_are_known_as_damaged_and_do_not_come_back() -> None:
    found = damaged_tables({"transactions": [MIGRATION]}, 7, ["people", "public.orders"])
    assert (found["names"], found["oids"]) == (["public.orders", "public.people"], [100, 102])
    assert [item["name"] for item in found["relations"] if not item["asked"]] == ["lines", "prices", "sums"]
    # Who names it means it.
    assert found["maybe"] == []


@pytest.mark.parametrize(
    ("xid", "asked", "said"),
    [
        (7, "public.order", "did not change public.order. It changed public.lines, public.orders"),
        (8, None, "transaction 8 did not change tables that could come back"),
        (None, None, "Name the transaction"),
    ],
)
def test_what_cannot_be_meant_is_refused(xid: int | None, asked: str | None, said: str) -> None:
    with pytest.raises(RecoveryError, match=said):
        damaged_tables({"transactions": [MIGRATION]}, xid, asked)


def test_of_a_moment_the_named_tables_are_taken() -> None:
    assert damaged_tables({"transactions": []}, None, "orders")["names"] == ["public.orders"]


def totals(name: str, oid: int, inserted: int, transactions: int, deleted: int = 0) -> dict[str, Any]:
    counts = {"inserted": inserted, "updated": 0, "deleted": deleted, "transactions": transactions}
    return {"schema": "public", "name": name, "oid": oid, **counts}


def test_later_is_what_others_did_to_these_tables_and_neither_the_damage_nor_our_own_work() -> None:
    later = [
        one(8, change("inserted", "orders", 100, 2), change("inserted", "visits", 120, 1)),
        one(9, change("inserted", "visits", 120, 1)),
        one(10, change("definition changed", "orders", 100, detail=", 1 column added")),
        one(11, change("moved to another schema", "orders", 100), ours="moved"),
    ]
    tables = [totals("orders", 100, 2, 2, 5), totals("visits", 120, 2, 2)]
    history = {"count": 5, "transactions": [MIGRATION, *later], "tables": tables}
    found = later_in_tables(history, 7, [100])
    assert (found["count"], found["rows"]) == (2, 2)
    assert found["tables"] == [{"table": "public.orders", "inserted": 2, "updated": 0, "deleted": 0}]
    assert found["lines"] == [
        "2 transactions changed these tables after the target",
        "public.orders: 2 inserted",
        "transaction 10: public.orders definition changed, 1 column added",
    ]


def test_one_that_was_made_anew_is_known_by_its_name() -> None:
    made = one(8, change("inserted", "orders", 300, 2))
    history = {"count": 1, "transactions": [made], "tables": [totals("orders", 300, 2, 1)]}
    assert later_in_tables(history, 7, [100], ["public.orders"])["count"] == 1
    assert later_in_tables(history, 7, [100])["count"] == 0


def test_of_a_long_history_at_least_so_many_are_told() -> None:
    tables = [totals("orders", 100, 900, 901, 5), totals("lines", 101, 70, 70)]
    history = {"count": 5000, "transactions": [MIGRATION], "tables": tables}
    found = later_in_tables(history, 7, [100, 101])
    assert (found["count"], found["rows"], found["at_least"]) == (900, 970, True)
    assert found["lines"][0] == "at least 900 transactions changed these tables after the target"


def test_of_one_table_all_are_counted_however_long_the_history_is() -> None:
    altered = one(10, change("definition changed", "orders", 100, detail=", 1 column added"))
    both = one(11, change("renamed", "orders", 100), change("inserted", "orders", 100, 3))
    tables = [totals("orders", 100, 900, 901, 5), totals("visits", 120, 7000, 4000)]
    found = later_in_tables({"count": 5000, "transactions": [MIGRATION, altered, both], "tables": tables}, 7, [100])
    assert (found["count"], found["at_least"]) == (901, False)


def test_what_was_done_to_partitions_was_done_to_the_table_where_that_is_named() -> None:
    root = {"schema": "public", "name": "readings", "oid": 200, "kind": "p"}
    history = {
        "transactions": [
            one(7, change("truncated", "readings_1", 201, 5), change("truncated", "readings_2", 202, 6)),
            one(8, change("inserted", "readings_3", 203, 1)),
        ],
        "tables": [{"schema": "public", "name": "readings_3", "oid": 203, "inserted": 1, "updated": 0, "deleted": 0}],
        "count": 2,
        "roots": {"201": root, "202": root, "203": root},
    }
    history["tables"][0]["transactions"] = 1  # type: ignore[index]
    found = damaged_tables(history, 7, "public.readings")
    assert (found["names"], found["oids"]) == (["public.readings"], [200])
    assert [(item["kind"], item["damage"], item["rows"]) for item in found["relations"]] == [("p", "truncate", 11)]
    assert later_in_tables({**history, "scanned": {"unread": None}}, 7, found["oids"])["rows"] == 1
    assert damaged_tables(history, 7)["names"] == ["public.readings_1", "public.readings_2"]
