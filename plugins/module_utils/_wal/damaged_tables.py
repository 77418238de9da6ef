# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tables one transaction damaged, and what was done to them later, out of a history. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Optional, TypedDict

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name, parse_relation_list
from ansible_collections.dbre.recovery.plugins.module_utils._wal.later import (
    LARGE_OBJECTS,
    ROWS,
    SHOWN,
    change_text,
    large_objects_left,
    list_lines,
    listed_in,
    name_of,
    rows_but,
    rows_not_told,
    shown_lines,
    table_name,
    unread_lines,
)

# What a change of a table is called as damage, the worst first; all others are changes of its definition.
DAMAGE = {
    "dropped": "drop",
    "truncated": "truncate",
    "column dropped": "column",
    "deleted": "delete",
    "updated": "update",
    "inserted": "insert",
}
DEFINITION = "ddl"
# Tables, partitioned and foreign ones, views.
TABLES = ("r", "p", "f", "v", "m")


class DamagedTables(TypedDict):
    """``relations`` as those of an incident, all of them, and ``asked`` where they come back: ``names`` and ``oids``.

    Of those in ``maybe`` WAL tells only that something of their definition changed, which may be the foreign key to a
    table that was dropped. ``stays`` is what no exchange of tables undoes, and ``left_to_do`` what of it is lost.
    """

    relations: list[dict[str, Any]]
    names: list[str]
    maybe: list[str]
    oids: list[int]
    stays: list[str]
    left_to_do: list[dict[str, Any]]


def comes_back(change: Mapping[str, Any]) -> bool:
    """Whether a change of a history is undone by putting the table as it was in its place."""
    return change["kind"] in TABLES and change["name"] is not None and change["what"] != "created"


def as_of_root(
    history: Mapping[str, Any], change: Mapping[str, Any], wanted: Collection[tuple[str, str]]
) -> Mapping[str, Any]:
    """A change of a partition as one of the partitioned table, where that was named and not the partition."""
    root = (history.get("roots") or {}).get(str(change["oid"]))
    if root is None or (change["schema"], change["name"]) in wanted or (root["schema"], root["name"]) not in wanted:
        return change
    return {**change, **root}


def beyond_tables(changes: Sequence[Mapping[str, Any]]) -> list[str]:
    """What of a transaction's changes no table brings back, in words. Indexes and owned sequences come with tables."""
    lost = any(change["kind"] in TABLES and change["what"] in ("dropped", "column dropped") for change in changes)
    return [
        change_text(change)
        for change in changes
        if change["kind"] in ("n", LARGE_OBJECTS)
        or change["name"] is None
        or (change["what"] == "dropped" and change["kind"] == "S" and not lost)
    ]


def damaged_tables(
    history: Mapping[str, Any], xid: Optional[int], asked: str | Sequence[str] | None = None
) -> DamagedTables:
    """The tables that transaction ``xid`` (32 bits, as WAL has it) changed, or those of them that were ``asked`` for.

    ``history`` is what M(postgresql_change_history_info) returns from the target on, of rows from the first on. Without
    a transaction, those that were asked for are taken. Raises RecoveryError where there is none.
    """
    wanted = [(one["schema"], one["name"]) for one in parse_relation_list(asked)]
    if xid is None:
        if not wanted:
            raise RecoveryError(
                "no transaction and no tables were named, so nobody knows which tables were damaged. Nothing was "
                "changed. Name the transaction (dr_target_xid), or the tables (dr_tables)."
            )
        unknown_yet: dict[str, Any] = {"oid": 0, "kind": "r", "rows": None, "rows_estimated": False, "damage": ""}
        given = [{**unknown_yet, "schema": schema, "name": name, "asked": True} for schema, name in wanted]
        return {
            "relations": given,
            "names": [display_name(*one) for one in wanted],
            "maybe": [],
            "oids": [],
            "stays": [],
            "left_to_do": [],
        }
    changes = [
        as_of_root(history, change, wanted)
        for one in history.get("transactions") or []
        if one["xid"] == xid & 0xFFFFFFFF
        for change in one["changes"]
    ]
    made = {change["oid"] for change in changes if change["what"] == "created"}
    relations = _relations([change for change in changes if comes_back(change) and change["oid"] not in made], wanted)
    touched = {(item["schema"], item["name"]) for item in relations}
    unknown = [display_name(*one) for one in wanted if one not in touched]
    if unknown or not relations:
        listed = ", ".join(sorted(display_name(*one) for one in touched)) or "no table that was there before"
        raise RecoveryError(
            f"transaction {xid} did not change {', '.join(unknown) or 'tables that could come back'}. It changed "
            f"{listed}. Nothing was changed. Name some of these (dr_tables) or none, or see what happened: "
            "ansible-playbook dbre.recovery.what_happened -e dr_database=DATABASE -e dr_min_rows=1"
        )
    chosen = [item for item in relations if item["asked"]]
    told = {change["oid"] for change in changes if change["what"] != "definition changed" or change.get("detail")}
    vague = {item["oid"] for item in chosen if not wanted} - told
    return {
        "relations": relations,
        "names": [display_name(item["schema"], item["name"]) for item in chosen],
        "maybe": [display_name(item["schema"], item["name"]) for item in chosen if item["oid"] in vague],
        "oids": [item["oid"] for item in chosen],
        "stays": beyond_tables(changes)
        + [change_text(one) for one in changes if one["oid"] in made and one["kind"] in TABLES],
        "left_to_do": [*large_objects_left(changes, xid), *([] if wanted else rows_not_told(history))],
    }


def _relations(changes: Iterable[Mapping[str, Any]], wanted: Collection[tuple[str, str]]) -> list[dict[str, Any]]:
    """One for each table, with the worst that was done to it."""
    order = [*DAMAGE.values(), DEFINITION]
    found: dict[int, dict[str, Any]] = {}
    for change in changes:
        damage = DAMAGE.get(change["what"], DEFINITION)
        known = found.get(change["oid"])
        if known is None or order.index(damage) < order.index(known["damage"]):
            found[change["oid"]] = {
                **{key: change[key] for key in ("schema", "name", "oid", "kind")},
                "rows": change["rows"] if damage != DEFINITION else None,
                "rows_estimated": bool(change.get("rows_estimated")),
                "damage": damage,
                "asked": not wanted or (change["schema"], change["name"]) in wanted,
            }
        elif damage == known["damage"] and damage != DEFINITION:
            # Of another partition.
            known["rows"] = (known["rows"] or 0) + (change["rows"] or 0)
    return sorted(found.values(), key=lambda item: (item["schema"], item["name"]))


def later_in_tables(
    history: Mapping[str, Any], xid: Optional[int], oids: Collection[int], names: Collection[str] = ()
) -> dict[str, Any]:
    """What was committed to tables (by OID or, made anew, by name) after the target, but for transaction ``xid``.

    As what later.py tells of a whole database. A long history has not all transactions: of how many there are at least
    is told then. What this collection did itself is not counted.
    """
    mine = None if xid is None else xid & 0xFFFFFFFF
    # What is written to a partition is written to the table.
    oids = {*oids, *(int(oid) for oid, root in (history.get("roots") or {}).items() if root["oid"] in oids)}
    every = list(history.get("transactions") or [])

    def of_them(change: Mapping[str, Any]) -> bool:
        return change["oid"] in oids or (change["name"] is not None and name_of(change) in names)

    found = [
        one for one in every if one["xid"] != mine and one.get("ours") is None and any(map(of_them, one["changes"]))
    ]
    damage = [change for one in every if one["xid"] == mine for change in one["changes"]]
    touched = [item for item in rows_but(history, damage) if item["oid"] in oids or table_name(item) in names]
    tables = [{"table": table_name(item), **{what: item[what] for what in ROWS}} for item in touched]
    # Of one table all that changed rows are counted, and those that did more are told before others.
    others_only = [
        one for one in found if not any(of_them(change) and change["what"] in ROWS for change in one["changes"])
    ]
    by_rows = [item["transactions"] for item in touched]
    whole = history["count"] == len(every) or len(touched) <= 1
    count = len(found) if history["count"] == len(every) else max([0, *by_rows]) + len(others_only)
    others = [
        f"transaction {one['xid']}: {change_text(change)}"
        for one in found
        for change in one["changes"]
        if of_them(change) and change["what"] not in ROWS
    ]
    head = f"{'' if whole else 'at least '}{counted(count, 'transaction')} changed these tables after the target"
    lines = [head, *shown_lines({item["table"]: item for item in tables}, others[: SHOWN * 2])]
    return {
        "count": count,
        "at_least": not whole,
        "rows": sum(item[what] for item in tables for what in ROWS),
        "tables": tables,
        "transactions": [
            {
                **{key: one[key] for key in ("xid", "lsn", "commit_time")},
                "changes": [change_text(change) for change in one["changes"] if of_them(change)],
            }
            for one in found
        ],
        "listed_in": listed_in(history),
        "lines": [
            *(lines if count else ["nobody changed these tables after the target"]),
            *(list_lines(listed_in(history)) if count else []),
            *unread_lines(history),
        ],
    }
