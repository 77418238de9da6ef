# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was committed after a target, which a database as it was at the target lacks. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Optional, TypedDict

from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted, number
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name

ROWS = ("inserted", "updated", "deleted")
SHOWN = 12
NOT_TOLD = "not told: what later transactions did to functions, types, grants and large objects, or read"


class Later(TypedDict):
    """``transactions`` with their ``changes`` in words, rows by table in ``tables``, and ``lines`` for people.

    ``damage`` are the changes of the transaction that was left out, None where none was.
    """

    damage: Optional[list[dict[str, Any]]]
    count: int
    rows: int
    transactions: list[dict[str, Any]]
    tables: list[dict[str, Any]]
    lines: list[str]


def later_transactions(history: Mapping[str, Any], xid: Optional[int] = None) -> Later:
    """All that was committed from the target on, but for the transaction ``xid``, which is the damage itself.

    ``history`` is what M(postgresql_change_history_info) returns from the target on, of rows from the first on.
    """
    mine = None if xid is None else xid & 0xFFFFFFFF
    every = list(history.get("transactions") or [])
    found = [one for one in every if one["xid"] != mine]
    tables = _tables(found)
    return {
        "damage": None if mine is None else [c for one in every if one["xid"] == mine for c in one["changes"]],
        "count": len(found),
        "rows": sum(item[what] for item in tables for what in ROWS),
        "transactions": [
            {
                **{key: one[key] for key in ("xid", "lsn", "commit_time")},
                "changes": [change_text(change) for change in one["changes"]],
            }
            for one in found
        ],
        "tables": tables,
        "lines": [*_lines(found, tables), *unread_lines(history), NOT_TOLD],
    }


def _tables(found: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    totals: dict[Any, Counter[str]] = defaultdict(Counter)
    names: dict[Any, str] = {}
    for one in found:
        for change in one["changes"]:
            if change["what"] in ROWS:
                totals[change["oid"]][change["what"]] += change["rows"] or 0
                names[change["oid"]] = name_of(change)
    tables = [{"table": names[oid], **{what: count[what] for what in ROWS}} for oid, count in totals.items()]
    return sorted(tables, key=lambda item: str(item["table"]))


def name_of(change: Mapping[str, Any]) -> str:
    """What a change of a history is about."""
    if change["kind"] == "n":
        return display_name(None, change["name"])
    return display_name(change["schema"], change["name"]) if change["name"] is not None else f"OID {change['oid']}"


def change_text(change: Mapping[str, Any]) -> str:
    """One change of a history in words."""
    rows = f" ({counted(change['rows'], 'row')})" if change["rows"] is not None else ""
    return f"{name_of(change)} {change['what']}{change.get('detail') or ''}{rows}"


def _lines(found: list[Mapping[str, Any]], tables: list[dict[str, Any]]) -> list[str]:
    if not found:
        return ["no transaction changed anything in this database after the target but what is to be undone"]
    others = [
        f"transaction {one['xid']}: {change_text(change)}"
        for one in found
        for change in one["changes"]
        if change["what"] not in ROWS
    ]
    lines = [f"{counted(len(found), 'transaction')} changed something in this database after the target"]
    return lines + shown_lines({str(item["table"]): item for item in tables}, others)


def shown_lines(tables: Mapping[str, Mapping[str, Any]], others: Sequence[str]) -> list[str]:
    """Rows by table, under what people call it, and changes of definitions, as far as anybody reads."""
    lines = []
    for name, item in list(tables.items())[:SHOWN]:
        counts = ", ".join(f"{number(item[what])} {what}" for what in ROWS if item[what])
        lines.append(f"{name}: {counts}")
    if len(tables) > SHOWN:
        lines.append(f"and {counted(len(tables) - SHOWN, 'more table')}")
    lines += others[:SHOWN]
    if len(others) > SHOWN:
        lines.append(f"and {counted(len(others) - SHOWN, 'more change')} of definitions")
    return lines


def unread_lines(history: Mapping[str, Any]) -> list[str]:
    """What a history does not tell, since it was not read or could not be."""
    unread, blind = (history.get("scanned") or {}).get("unread"), history.get("blind")
    lines = [f"not read: {unread}"] if unread else []
    return [*lines, f"not told: changes of definitions before {blind['before_lsn']}"] if blind else lines
