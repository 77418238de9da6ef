"""What was committed after a target, out of the history from it on."""

from __future__ import annotations

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._wal.later import NOT_TOLD, later_transactions
from histories import history


def change(what: str, name: str | None, oid: int, rows: int | None = None) -> dict[str, Any]:
    return {"what": what, "schema": "public", "name": name, "kind": "r", "oid": oid, "rows": rows, "detail": ""}


def transaction(xid: int, *changes: dict[str, Any]) -> dict[str, Any]:
    return {"xid": xid, "lsn": f"0/{xid}", "commit_time": "2026-11-29 18:00:00+00:00", "changes": list(changes)}


DAMAGE = transaction(7, change("column dropped", "orders", 100), change("deleted", "orders", 100, 3000))


def test_every_transaction_counts_but_the_one_that_did_the_damage() -> None:
    later = [
        transaction(8, change("inserted", "orders", 100, 2), change("updated", "lines", 101, 1)),
        transaction(9, change("inserted", "orders", 100, 3), change("created", "fresh", 102)),
    ]
    found = later_transactions(history(DAMAGE, *later), [7 + 2**32])
    assert (found["count"], found["rows"]) == (2, 6)
    assert found["tables"] == [
        {"table": "public.lines", "inserted": 0, "updated": 1, "deleted": 0},
        {"table": "public.orders", "inserted": 5, "updated": 0, "deleted": 0},
    ]
    assert found["transactions"][1] == {
        "xid": 9,
        "lsn": "0/9",
        "commit_time": "2026-11-29 18:00:00+00:00",
        "changes": ["public.orders inserted (3 rows)", "public.fresh created"],
    }
    assert found["lines"] == [
        "2 transactions changed something in this database after the target",
        "public.lines: 1 updated",
        "public.orders: 5 inserted",
        "transaction 9: public.fresh created",
        NOT_TOLD,
    ]


def test_of_a_moment_that_was_named_all_that_follows_is_later() -> None:
    assert later_transactions(history(DAMAGE))["count"] == 1


def test_where_nothing_came_later_it_says_so_and_what_it_cannot_tell() -> None:
    found = later_transactions(history(DAMAGE, scanned={"unread": "segment X"}), [7])
    assert (found["count"], found["tables"]) == (0, [])
    assert found["lines"][0].startswith("no transaction changed anything")
    assert "not read: segment X" in found["lines"]


def test_many_tables_are_shown_in_part_and_listed_whole() -> None:
    later = [transaction(8, *(change("deleted", f"t{number:02}", number, 1) for number in range(20)))]
    found = later_transactions(history(*later))
    assert len(found["tables"]) == 20
    assert "and 8 more tables" in found["lines"]


def test_those_that_are_not_told_one_by_one_count_all_the_same() -> None:
    later = [transaction(number, change("inserted", "orders", 100, 2)) for number in range(8, 208)]
    found = later_transactions(history(DAMAGE, *later, told=3, listed_in="/evidence/transactions-5-0-7.jsonl"), [7])
    assert (found["count"], found["rows"], len(found["transactions"])) == (200, 400, 2)
    assert found["tables"] == [{"table": "public.orders", "inserted": 400, "updated": 0, "deleted": 0}]
    assert "each transaction is a line of /evidence/transactions-5-0-7.jsonl on the database's host" in found["lines"]


def test_what_the_damage_did_to_a_table_that_others_changed_too_is_not_later() -> None:
    found = later_transactions(history(DAMAGE, transaction(8, change("deleted", "orders", 100, 1))), [7])
    assert found["tables"] == [{"table": "public.orders", "inserted": 0, "updated": 0, "deleted": 1}]


def test_who_changed_a_function_only_counts_and_who_changed_a_role_does_not() -> None:
    one = {"lsn": "0/8", "commit_time": "2026-11-29 18:00:00+00:00", "shared": [], "told": False}
    others = [
        {**one, "xid": 7, "what": ["types"]},
        {**one, "xid": 8, "what": ["functions"]},
        {**one, "xid": 9, "what": [], "shared": ["roles"]},
    ]
    asked = {"unread": "what is older than 0/7, as dr_from says"}
    found = later_transactions(history(DAMAGE, other_changes=others, scanned=asked), [7])
    assert found["count"] == 1
    assert found["lines"] == [
        "1 transaction changed something in this database after the target",
        "functions changed by 1 transaction",
        NOT_TOLD,
    ]
