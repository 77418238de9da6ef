# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._exchange.committed import NOT_TOLD, committed_after


def history(database: str, end: str, *transactions: tuple[int, str, str, int]) -> dict[str, Any]:
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
    return {"transactions": changes, "scanned": {"to_lsn": end}}


def test_all_databases_are_put_together_and_what_is_read_twice_counts_once() -> None:
    first = committed_after(
        [
            history("shop", "0/F00000", (740, "0/E00000", "inserted", 3), (741, "0/E80000", "deleted", 9)),
            history("stock", "0/1000000", (742, "0/E90000", "inserted", 5)),
        ],
        xid=(1 << 32) + 741,
    )
    # The first of them was read up to there only.
    assert first["until"] == "0/F00000"
    again = committed_after(
        [
            history("shop", "0/2000000", (744, "0/1100000", "updated", 2)),
            history("stock", "0/2000000", (742, "0/E90000", "inserted", 5), (745, "0/1200000", "dropped", 1)),
        ],
        first,
        kept_as="/kept",
    )
    assert [one["xid"] for one in again["transactions"]] == [740, 742, 744, 745]
    assert again["tables"] == [
        {"database": "shop", "table": "public.t", "inserted": 3, "updated": 2, "deleted": 0},
        {"database": "stock", "table": "public.t", "inserted": 5, "updated": 0, "deleted": 0},
    ]
    assert (again["count"], again["rows"], again["kept_as"], again["until"]) == (4, 10, "/kept", "0/2000000")
    assert again["lines"] == [
        "4 transactions changed something in 2 databases after the target",
        "shop: public.t: 3 inserted, 2 updated",
        "stock: public.t: 5 inserted",
        "stock: transaction 745: public.t dropped",
        NOT_TOLD,
    ]


def test_a_database_that_nobody_wrote_to_is_said() -> None:
    found = committed_after([history("shop", "0/F00000", (741, "0/E80000", "deleted", 9))], xid=741)
    assert found["count"] == 0
    assert "no other transaction" in found["lines"][0]


def test_what_one_look_could_not_tell_is_said_after_the_next_one_too() -> None:
    first = history("shop", "0/F00000", (740, "0/E00000", "inserted", 3))
    first |= {"item": "shop", "blind": {"before_lsn": "0/E10000", "catalogues": ["pg_class"]}}
    first["scanned"]["unread"] = "segment X, which is lost"
    found = committed_after([first])
    untold = ["shop: not read: segment X, which is lost", "shop: not told: changes of definitions before 0/E10000"]
    assert found["unread"] == untold
    again = committed_after([history("shop", "0/2000000")], found)
    assert again["lines"][-3:] == [*untold, NOT_TOLD]
