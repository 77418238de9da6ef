# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it takes to undo one transaction's rows, out of what it and all later ones changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted, number
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    parse_relation_list,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.later import (
    LARGE_OBJECTS,
    large_objects_left,
    rows_but,
)

# What a change of rows is called in a history, and as what it stands in the plan.
ROWS = {"inserted": "insert", "updated": "update", "deleted": "delete"}
# What a change of columns is called there, among others.
DEFINING = ("definition changed", "column dropped", "rewritten by a change of its definition")
SHOWN = 10


class UndoPlan(TypedDict):
    """``relations`` as those of an incident, with their ``names`` and ``oids``; ``later`` in lines for people.

    ``left_to_do`` is what the transaction changed that are no rows of tables, in entries as a recovery has them.
    """

    relations: list[dict[str, Any]]
    names: list[str]
    oids: list[int]
    rows: int
    later: list[str]
    left_to_do: list[dict[str, Any]]


def undo_plan(history: Mapping[str, Any], xid: int, asked: str | Sequence[str] | None = None) -> UndoPlan:
    """The plan for transaction ``xid`` (32 bits, as WAL has it), of the tables ``asked`` for or all that it changed.

    ``history`` is what M(postgresql_change_history_info) returns from the transaction's COMMIT record on, of rows from
    the first on; it begins with that transaction. Raises RecoveryError where undoing rows is not what undoes it.
    """
    every = list(history.get("transactions") or [])
    nothing: Mapping[str, Any] = {"xid": None, "changes": []}
    mine: Mapping[str, Any] = next((one for one in every if one["xid"] == xid & 0xFFFFFFFF), nothing)
    changes = [change for change in mine["changes"] if change["what"] in ROWS and change["kind"] == "r"]
    others = [change for change in mine["changes"] if change["what"] not in ROWS and change["kind"] != LARGE_OBJECTS]
    if not changes and not others:
        raise RecoveryError(
            f"transaction {xid} changed no rows of tables in this database that WAL tells of. Nothing was changed. See "
            "what happened: ansible-playbook dbre.recovery.what_happened -e dr_database=DATABASE -e dr_min_rows=1"
        )
    if others:
        named = ", ".join(f"{_name(change)} {change['what']}" for change in others[:5])
        raise RecoveryError(
            f"transaction {xid} did not only change rows: {named}{' and more' if len(others) > 5 else ''}. Undoing its "
            "rows would not undo that. Nothing was changed. Put its tables as they were just before it in their "
            "places, by the same command with -e dr_strategy=tables (the whole database with dr_strategy=database), or "
            "bring back what was lost beside: "
            f"ansible-playbook dbre.recovery.dr_table_drop -e dr_target_xid={xid} -e dr_load=beside -e dr_database="
            "DATABASE -e dr_tables=TABLES"
        )
    wanted = [(one["schema"], one["name"]) for one in parse_relation_list(asked)]
    touched = {(change["schema"], change["name"]) for change in changes}
    unknown = [display_name(*one) for one in wanted if one not in touched]
    if unknown:
        raise RecoveryError(
            f"transaction {xid} did not change rows of {', '.join(unknown)}. It changed those of "
            f"{', '.join(sorted(display_name(*one) for one in touched))}; of a partitioned table name the partitions, "
            "or name none to undo all. Nothing was changed."
        )
    chosen = [change for change in changes if not wanted or (change["schema"], change["name"]) in wanted]
    oids = sorted({change["oid"] for change in chosen})
    left_to_do = [*large_objects_left(mine["changes"], xid), *_to_refresh(mine["changes"])]
    # A list of tables that somebody gave is all that is to be undone.
    unlogged = [] if wanted else list(history.get("unlogged") or [])
    return {
        "relations": [
            {
                **{key: change[key] for key in ("schema", "name", "oid", "kind", "rows")},
                "damage": ROWS[change["what"]],
                "rows_estimated": False,
                "asked": True,
            }
            for change in chosen
        ],
        "names": sorted({_name(change) for change in chosen}),
        "oids": oids,
        "rows": sum(change["rows"] for change in chosen),
        "later": [
            *_later(history, mine, set(oids)),
            *_defined_anew(history, mine, set(oids)),
            *(f"NOT UNDONE: {_what(item)}" for item in left_to_do),
            *(f"NOT KNOWN: {_what(item)}" for item in _not_told(unlogged)),
        ],
        "left_to_do": [*left_to_do, *_not_told(unlogged)],
    }


def _defined_anew(history: Mapping[str, Any], mine: Mapping[str, Any], oids: set[int]) -> list[str]:
    """Later changes of what these tables are; WAL tells that, and not of which kind."""
    lines = []
    for one in history["transactions"]:
        told = sorted(
            {f"{_name(change)} {change['what']}" for change in one["changes"] if _is_definition(change, oids)}
        )
        if told and one["xid"] != mine["xid"]:
            lines.append(
                f"NOT SURE: transaction {one['xid']} changed a definition since ({', '.join(told)}); where the columns "
                "are not those of then, no row of that table can be taken back, which is known after the restore"
            )
    return lines


def _is_definition(change: Mapping[str, Any], oids: set[int]) -> bool:
    return change["oid"] in oids and change["what"] in DEFINING


def _not_told(unlogged: Sequence[str]) -> list[dict[str, Any]]:
    """Entry for unlogged tables: nobody knows whether the transaction changed them, too."""
    if not unlogged:
        return []
    more = f" and {number(len(unlogged) - SHOWN)} more" if len(unlogged) > SHOWN else ""
    return [
        {
            "type": "unlogged table" if len(unlogged) == 1 else "unlogged tables",
            "object": ", ".join(unlogged[:SHOWN]) + more,
            "reason": "their rows are not in WAL; what the transaction changed of them, if anything, is not undone",
            "command": None,
            "lost": False,
            "rows": None,
            "needs_side_instance": False,
        }
    ]


def _what(item: Mapping[str, Any]) -> str:
    return f"{item['type']} {item['object']}: {item['reason']}"


def _to_refresh(changes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Entries for materialized views that the transaction refreshed, row by row, out of what it had changed."""
    views = sorted({(one["schema"], one["name"]) for one in changes if one["what"] in ROWS and one["kind"] == "m"})
    return [
        {
            "type": "materialized view",
            "object": display_name(*view),
            "reason": "the transaction refreshed it, and it shows what tables had in them then",
            "command": f"REFRESH MATERIALIZED VIEW {quote_name(*view)};",
            "lost": False,
            "rows": None,
            "needs_side_instance": False,
        }
        for view in views
    ]


def _name(change: Mapping[str, Any]) -> str:
    return display_name(change["schema"], change["name"]) if change["name"] is not None else f"OID {change['oid']}"


def _later(history: Mapping[str, Any], mine: Mapping[str, Any], oids: set[int]) -> list[str]:
    """How many later transactions changed the same tables, and how many others."""
    told = [one for one in history["transactions"] if one["xid"] != mine["xid"]]
    same = [one for one in told if any(change["oid"] in oids for change in one["changes"])]
    # Those that are not told one by one changed rows only, and are counted by table: one may have changed several.
    untold = history["count"] - 1 - len(told)
    by_table = [item["transactions"] for item in rows_but(history, mine["changes"]) if item["oid"] in oids]
    least = max([len(same), *by_table])
    most = min(sum(by_table), len(same) + untold) if untold else least
    how_many = f"between {number(least)} and {number(most)}" if most > least else number(least)
    noun = "later transaction" if how_many == "1" else "later transactions"
    lines = [f"{how_many} {noun} changed the same tables; rows they changed, too, stay as they are"]
    if same:
        numbers = ", ".join(str(one["xid"]) for one in same[:SHOWN])
        more = most - len(same[:SHOWN])
        lines.append(f"they are {numbers}{f' and {number(more)} more' if more > 0 else ''}")
    others = history["count"] - 1 - most
    if others > 0:
        lines.append(
            f"{counted(others, 'later transaction')} changed other tables only, and what they read is not told"
        )
    return lines
