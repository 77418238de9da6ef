# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan says of the transaction that was found, and of the WAL it was looked for in."""

from __future__ import annotations

from typing import Any

from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.plan import plan_text

NOW = "2026-11-23T22:00:00+00:00"


def relation(name: str, **more: Any) -> dict[str, Any]:
    return {"schema": "public", "name": name, "oid": 1, "kind": "r", "damage": "truncate", "asked": False, **more}


def shown(**data: Any) -> str:
    return plan_text({"id": "x", "scenario": "table-drop", "data": data}, NOW, 300)


def test_the_rows_of_each_relation_stand_beside_it_and_what_was_not_asked_for_is_said() -> None:
    relations = [
        relation("customers", rows=0, asked=True),
        relation("orders", rows=5000, rows_estimated=True),
        relation("items", rows=None),
        relation("notes", damage="column", columns=["body"]),
    ]
    text = shown(incident={"kind": "truncate", "database": "shop", "relations": relations})
    assert "public.customers: truncate, 0 rows\n" in text
    assert "public.orders: truncate, about 5,000 rows; not asked for, but the same transaction did it" in text
    assert "public.items: truncate, rows unknown until it is restored: no ANALYZE had counted them; not" in text
    assert "public.notes: column, column body; not" in text


def test_the_wal_that_was_searched_and_what_was_not_read() -> None:
    scanned = {"from_lsn": "0/1000028", "to_lsn": "0/1D76CA8", "segments": 12, "unread": "what is older than backup X"}
    text = shown(scanned={**scanned, "from_time": NOW, "to_time": NOW})
    assert "12 segments, LSN 0/1000028 to 0/1D76CA8, 2026-11-23 22:00" in text
    assert "not read: what is older than backup X" in text
