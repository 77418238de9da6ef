"""What was committed after a target, out of the history from it on."""

from __future__ import annotations

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._wal.later import NOT_TOLD, later_transactions


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
    found = later_transactions({"transactions": [DAMAGE, *later]}, 7 + 2**32)
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
    assert later_transactions({"transactions": [DAMAGE]})["count"] == 1


def test_where_nothing_came_later_it_says_so_and_what_it_cannot_tell() -> None:
    found = later_transactions({"transactions": [DAMAGE], "scanned": {"unread": "segment X"}}, 7)
    assert (found["count"], found["tables"]) == (0, [])
    assert found["lines"][0].startswith("no transaction changed anything")
    assert "not read: segment X" in found["lines"]


def test_many_tables_are_shown_in_part_and_listed_whole() -> None:
    later = [transaction(8, *(change("deleted", f"t{number:02}", number, 1) for number in range(20)))]
    found = later_transactions({"transactions": later})
    assert len(found["tables"]) == 20
    assert "and 8 more tables" in found["lines"]
