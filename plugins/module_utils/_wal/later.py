# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was committed after a target, which a database as it was at the target lacks. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Optional, TypedDict

from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted, number
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name
from ansible_collections.dbre.recovery.plugins.module_utils._wal.other_changes import words_of

ROWS = ("inserted", "updated", "deleted")
SHOWN = 12
NAMED = 10  # of tables whose rows are not told
NOT_TOLD = "not told: which functions, types, grants and large objects later transactions changed, and what they read"
LARGE_OBJECTS = "L"  # the kind of their changes
# What is older than the target is not later (see Search for these words).
_ASKED = re.compile(r"what is older than \S+, as dr_(?:from|since) says")


class Later(TypedDict):
    """How many there are, those that are told one by one with their ``changes`` in words, rows by table, and lines.

    ``damage`` are the changes of the transactions that were left out, None where none was named. ``listed_in`` are the
    files on the host with all transactions, those that were left out among them.
    """

    damage: Optional[list[dict[str, Any]]]
    count: int
    rows: int
    transactions: list[dict[str, Any]]
    tables: list[dict[str, Any]]
    listed_in: list[str]
    lines: list[str]


def later_transactions(history: Mapping[str, Any], xids: Optional[Sequence[int]] = None) -> Later:
    """All that was committed from the target on, but for the transactions ``xids``, which are the damage itself.

    ``history`` is what M(postgresql_change_history_info) returns from the target on, of rows from the first on.
    """
    mine = {xid & 0xFFFFFFFF for xid in xids or ()}
    every = list(history.get("transactions") or [])
    found = [one for one in every if one["xid"] not in mine]
    others = [one for one in history.get("other_changes") or [] if one["xid"] not in mine and one["what"]]
    count = history["count"] - (len(every) - len(found)) + sum(not one["told"] for one in others)
    damages = [one["changes"] for one in every if one["xid"] in mine]
    left = rows_but(history, *damages)
    tables = [{"table": table_name(item), **{what: item[what] for what in ROWS}} for item in left]
    return {
        "damage": None if xids is None else [change for damage in damages for change in damage],
        "count": count,
        "rows": sum(item[what] for item in tables for what in ROWS),
        "transactions": [
            {
                **{key: one[key] for key in ("xid", "lsn", "commit_time")},
                "changes": [change_text(change) for change in one["changes"]],
            }
            for one in found
        ],
        "tables": tables,
        "listed_in": listed_in(history),
        "lines": [
            *_lines(count, found, tables),
            *words_of(Counter(word for one in others for word in one["what"])),
            *list_lines(listed_in(history)),
            *unread_lines(history),
            NOT_TOLD,
        ],
    }


def rows_but(history: Mapping[str, Any], *damages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows by table of all transactions of a history, but those of some, the changes of each of which are given."""
    own: Counter[tuple[Any, str]] = Counter()
    mine: Counter[Any] = Counter()
    for damage in damages:
        changes = [change for change in damage if change["what"] in ROWS]
        for change in changes:
            own[change["oid"], change["what"]] += change["rows"] or 0
        mine.update({change["oid"] for change in changes})
    tables = [
        {
            **item,
            **{what: item[what] - own[item["oid"], what] for what in ROWS},
            "transactions": item["transactions"] - mine[item["oid"]],
        }
        for item in history.get("tables") or []
    ]
    return [item for item in tables if item["transactions"]]


def listed_in(history: Mapping[str, Any]) -> list[str]:
    """The file with all transactions of a history, where one was written."""
    return [str(history["listed_in"])] if history.get("listed_in") else []


def list_lines(files: Sequence[str]) -> list[str]:
    """Where all transactions are listed, for people."""
    return [f"each transaction is a line of {' and '.join(files)} on the database's host"] if files else []


def table_name(item: Mapping[str, Any]) -> str:
    """What a table of a history is called."""
    return display_name(item["schema"], item["name"]) if item["name"] is not None else f"OID {item['oid']}"


def name_of(change: Mapping[str, Any]) -> str:
    """What a change of a history is about."""
    if change["kind"] == "n":
        return display_name(None, change["name"])
    if change["kind"] == LARGE_OBJECTS:
        return str(change["name"])
    return table_name(change)


def change_text(change: Mapping[str, Any]) -> str:
    """One change of a history in words."""
    rows = f" ({counted(change['rows'], 'row')})" if change["rows"] is not None else ""
    return f"{name_of(change)} {change['what']}{change.get('detail') or ''}{rows}"


def large_objects_left(changes: Sequence[Mapping[str, Any]], xid: int) -> list[dict[str, Any]]:
    """Entry of ``left_to_do`` where a transaction changed large objects, which come back with the whole database only.

    Those that it made take nothing away.
    """
    if not any(change["kind"] == LARGE_OBJECTS and change["loses"] for change in changes):
        return []
    reason = (
        f"transaction {xid} changed or removed some, WAL does not tell which, and they are as it left them. As they "
        "were just before it they are in what dr_strategy=database brings back; where large objects went with the rows "
        "of tables that name them, dr-table-drop finds them"
    )
    return [
        {
            "type": "large objects",
            "object": f"of transaction {xid}",
            "reason": reason,
            "command": None,
            "lost": True,
            "rows": None,
            "needs_side_instance": False,
        }
    ]


def _lines(count: int, found: list[Mapping[str, Any]], tables: list[dict[str, Any]]) -> list[str]:
    if not count:
        return ["no transaction changed anything in this database after the target but what is to be undone"]
    others = [
        f"transaction {one['xid']}: {change_text(change)}"
        for one in found
        for change in one["changes"]
        if change["what"] not in ROWS
    ]
    lines = [f"{counted(count, 'transaction')} changed something in this database after the target"]
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
    lines = [f"not read: {unread}"] if unread and not _ASKED.fullmatch(unread) else []
    return [*lines, f"not told: changes of definitions before {blind['before_lsn']}"] if blind else lines


def rows_not_told(history: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Entries for unlogged and foreign tables: nobody knows whether the transaction changed them, too."""
    found = []
    for what, where in (("unlogged", "not in WAL"), ("foreign", "on other servers, and not in WAL")):
        names = list(history.get(what) or [])
        more = f" and {number(len(names) - NAMED)} more" if len(names) > NAMED else ""
        entry = {
            "type": f"{what} table" if len(names) == 1 else f"{what} tables",
            "object": ", ".join(names[:NAMED]) + more,
            "reason": f"their rows are {where}; what the transaction changed of them, if anything, is not undone",
            "command": None,
            "lost": False,
            "rows": None,
            "needs_side_instance": False,
        }
        found += [entry] if names else []
    return found
