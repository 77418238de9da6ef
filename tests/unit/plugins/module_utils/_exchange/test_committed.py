# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._exchange.committed import MOST, NOT_TOLD, committed_after
from histories import history


def history_from(
    database: str, end: str, *transactions: tuple[int, str, str, int], told: int | None = None
) -> dict[str, Any]:
    changes = [
        {
            "database": database,
            "xid": xid,
            "lsn": lsn,
            "commit_time": "2026-11-23T22:01:56+00:00",
            "changes": [{"what": what, "schema": "public", "name": "t", "kind": "r", "oid": 16385, "rows": rows}],
        }
        for xid, lsn, what, rows in transactions
    ]
    return history(*changes, told=told, item=database, scanned={"to_lsn": end})


def test_all_databases_are_put_together_and_each_goes_on_where_it_was_read_last() -> None:
    first = committed_after(
        [
            history_from("shop", "0/F00000", (740, "0/E00000", "inserted", 3), (741, "0/E80000", "deleted", 9)),
            history_from("stock", "0/1000000", (742, "0/E90000", "inserted", 5)),
        ],
        xid=(1 << 32) + 741,
    )
    assert first["until"] == {"shop": "0/F00000", "stock": "0/1000000"}
    again = committed_after(
        [
            history_from("shop", "0/2000000", (744, "0/1100000", "updated", 2)),
            history_from("stock", "0/3000000", (745, "0/1200000", "dropped", 1)),
        ],
        first,
        kept_as="/kept",
    )
    assert [one["xid"] for one in again["transactions"]] == [740, 742, 744, 745]
    assert again["tables"] == [
        {"database": "shop", "table": "public.t", "inserted": 3, "updated": 2, "deleted": 0},
        {"database": "stock", "table": "public.t", "inserted": 5, "updated": 0, "deleted": 0},
    ]
    assert (again["count"], again["rows"], again["kept_as"]) == (4, 10, "/kept")
    assert again["until"] == {"shop": "0/2000000", "stock": "0/3000000"}
    assert again["lines"] == [
        "4 transactions changed something in 2 databases after the target",
        "shop: public.t: 3 inserted, 2 updated",
        "stock: public.t: 5 inserted",
        "stock: transaction 745: public.t dropped",
        NOT_TOLD,
    ]


def test_a_database_that_was_made_or_dropped_after_the_target_is_told_and_counts() -> None:
    dropped, created = ({"what": "dropped", "oid": 5, "name": None}, {"what": "created", "oid": 9, "name": "fresh"})
    # Each history reads the same records.
    first = [history_from(name, "0/F00000") | {"databases": [dropped, created]} for name in ("shop", "stock")]
    everybody = [
        {"name": "shop", "open": True, "prepared": []},
        {"name": "stock", "open": True, "prepared": []},
        {"name": "quiet", "open": False, "prepared": ["order 17"]},
    ]
    found = committed_after(first, databases=everybody)
    assert found["count"] == 2
    assert found["lines"][1:3] == [
        "the database with OID 5 was dropped after the target, and what was committed to it in between is not told",
        "fresh: the database was created after the target",
    ]
    assert found["unread"] == [
        "quiet: not read: it lets nobody in (ALLOW_CONNECTIONS)",
        "quiet: order 17 is prepared and not decided; if that was after the target, it is lost",
    ]
    later = history_from("shop", "0/F10000") | {"databases": [{"what": "dropped", "oid": 9, "name": None}]}
    assert committed_after([later], found)["databases"] == [dropped]


def test_a_database_that_nobody_wrote_to_is_said() -> None:
    found = committed_after([history_from("shop", "0/F00000", (741, "0/E80000", "deleted", 9))], xid=741)
    assert found["count"] == 0
    assert "no other transaction" in found["lines"][0]


def test_what_one_look_could_not_tell_is_said_after_the_next_one_too() -> None:
    first = history_from("shop", "0/F00000", (740, "0/E00000", "inserted", 3))
    first |= {"blind": {"before_lsn": "0/E10000", "catalogues": ["pg_class"]}}
    first["scanned"]["unread"] = "segment X, which is lost"
    found = committed_after([first])
    untold = ["shop: not read: segment X, which is lost", "shop: not told: changes of definitions before 0/E10000"]
    assert found["unread"] == untold
    again = committed_after([history_from("shop", "0/2000000")], found)
    assert again["lines"][-3:] == [*untold, NOT_TOLD]


def test_of_many_the_record_keeps_those_that_did_more_than_change_rows_and_counts_all() -> None:
    many = [(number, f"0/{number:X}", "inserted", 1) for number in range(1000, 1000 + MOST)]
    looks = [
        history_from("shop", "0/F00000", *many) | {"listed_in": "/evidence/transactions-5-0-1.jsonl"},
        history_from("stock", "0/F00000", (9000, "0/E00000", "dropped", 5), *many, told=1),
    ]
    found = committed_after(looks)
    assert (found["count"], found["rows"]) == (2 * MOST + 1, 2 * MOST)
    assert len(found["transactions"]) == MOST
    assert found["transactions"][-1]["xid"] == 9000
    assert found["lines"][0] == "4,001 transactions changed something in 2 databases after the target"
    assert "each transaction is a line of /evidence/transactions-5-0-1.jsonl on the database's host" in found["lines"]


def other(xid: int, *what: str, shared: tuple[str, ...] = (), told: bool = False) -> dict[str, Any]:
    times = {"lsn": f"0/E{xid:05X}", "commit_time": "2026-11-23T22:01:56+00:00"}
    return {"xid": xid, **times, "what": list(what), "shared": list(shared), "told": told}


def test_who_changed_no_row_is_counted_too_and_what_databases_share_once() -> None:
    role = other(742, shared=("roles",))
    looks = [
        history_from("shop", "0/F00000") | {"other_changes": [other(740, "functions"), other(741, "types"), role]},
        history_from("stock", "0/F00000") | {"other_changes": [role]},
    ]
    first = committed_after(looks, xid=741)
    assert first["count"] == 2
    assert first["lines"][:3] == [
        "2 transactions changed something in 1 database after the target",
        "shop: functions changed by 1 transaction",
        "roles changed by 1 transaction",
    ]
    # What the next look reads again of all databases is no other, and one that changed rows, too, counts already.
    more = other(743, "functions", shared=("roles",), told=True)
    again = committed_after(
        [
            history_from("stock", "0/F10000", (743, "0/E002E7", "inserted", 1)) | {"other_changes": [role, more]},
            history_from("shop", "0/F10000") | {"other_changes": [other(743, shared=("roles",))]},
        ],
        first,
    )
    assert again["count"] == 3
    assert again["lines"][2:5] == [
        "shop: functions changed by 1 transaction",
        "stock: functions changed by 1 transaction",
        "roles changed by 2 transactions",
    ]
    empty = committed_after([history_from("shop", "0/F00000") | {"unlogged": ["public.sessions"]}])
    assert committed_after([], empty)["unlogged"] == ["shop: public.sessions"]
    assert "shop: public.sessions is unlogged, and comes back empty" in empty["lines"]
    alone = committed_after([history_from("shop", "0/F00000") | {"other_changes": [role]}])
    assert alone["lines"][0] == "1 transaction changed something in what all databases share after the target"


def test_a_database_that_was_dropped_before_it_was_read_is_told_by_the_others() -> None:
    dropped = {"what": "dropped", "oid": 16400, "name": None}
    read = history_from("shop", "0/5000", (741, "0/4000", "insert", 3)) | {"databases": [dropped]}
    found = committed_after([read, {"item": "gone", "failed": True, "msg": "no database", "gone": True}])
    assert found["until"] == {"shop": "0/5000"}
    assert [item["oid"] for item in found["databases"]] == [16400]
