# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it takes to undo the rows of transactions, out of what they and all later ones changed. Pure."""

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
    rows_not_told,
)

# What a change of rows is called in a history, and as what it stands in the plan.
ROWS = {"inserted": "insert", "updated": "update", "deleted": "delete"}
# What a change of columns is called there, among others.
DEFINING = ("definition changed", "column dropped", "rewritten by a change of its definition")
SHOWN = 10


class UndoPlan(TypedDict):
    """``relations`` as those of an incident, with their ``names`` and ``oids``; ``later`` in lines for people.

    ``transactions`` are those of postgresql_side_instance's ``images``, in order. ``left_to_do`` is what they changed
    that are no rows of tables, in entries as a recovery has them.
    """

    relations: list[dict[str, Any]]
    names: list[str]
    oids: list[int]
    transactions: list[dict[str, Any]]
    rows: int
    later: list[str]
    left_to_do: list[dict[str, Any]]


def undo_plan(
    history: Mapping[str, Any], named: Sequence[Mapping[str, Any]], asked: str | Sequence[str] | None = None
) -> UndoPlan:
    """The plan for the transactions ``named``, of the tables ``asked`` for or all that they changed.

    Each has its ``xid`` (32 bits, as WAL has it), ``lsn`` and ``subxacts``, in the order of their commits.

    ``history`` is what M(postgresql_change_history_info) returns from the first one's COMMIT record on, of rows from
    the first on; all of them are told in it. Raises RecoveryError where undoing rows is not what undoes them.
    """
    told = {one["xid"]: one for one in history.get("transactions") or []}
    mine = [told.get(one["xid"], {"xid": one["xid"], "changes": []}) for one in named]
    for one in mine:
        _require_rows_only(one)
    every = [change for one in mine for change in _rows_of(one)]
    wanted = [(one["schema"], one["name"]) for one in parse_relation_list(asked)]
    touched = {(change["schema"], change["name"]) for change in every}
    unknown = [display_name(*one) for one in wanted if one not in touched]
    if unknown:
        numbers = ", ".join(str(one["xid"]) for one in mine)
        raise RecoveryError(
            f"transaction{'s' if len(mine) > 1 else ''} {numbers} did not change rows of {', '.join(unknown)}. "
            f"Changed were {', '.join(sorted(display_name(*one) for one in touched))}; of a partitioned table name the "
            "partitions, or name none to undo all. Nothing was changed."
        )
    by_xid = [
        [change for change in _rows_of(one) if not wanted or (change["schema"], change["name"]) in wanted]
        for one in mine
    ]
    idle = [str(one["xid"]) for one, changes in zip(mine, by_xid) if not changes]
    if idle:
        raise RecoveryError(
            f"transaction {', '.join(idle)} changed no rows of the tables that were named. Nothing was changed. Name "
            "only transactions that did (dr_target_xid), or more tables (dr_tables)."
        )
    chosen = [change for changes in by_xid for change in changes]
    oids = {change["oid"] for change in chosen}
    left_to_do = [
        item
        for one in mine
        for item in [
            *large_objects_left(one["changes"], one["xid"]),
            *_beside_rows(history, one["xid"]),
            *_to_refresh(one["changes"]),
        ]
    ]
    # A list of tables that somebody gave is all that is to be undone.
    not_told = [] if wanted else rows_not_told(history)
    return {
        "relations": _relations(chosen),
        "names": sorted({_name(change) for change in chosen}),
        "oids": sorted(oids),
        "transactions": [
            {
                "lsn": one["lsn"],
                "xids": [one["xid"], *(one.get("subxacts") or [])],
                "relations": sorted({change["oid"] for change in changes}),
            }
            for one, changes in zip(named, by_xid)
        ],
        "rows": sum(change["rows"] for change in chosen),
        "later": [
            *_later(history, mine, oids),
            *_defined_anew(history, mine, oids),
            *(f"NOT UNDONE: {_what(item)}" for item in left_to_do),
            *(f"NOT KNOWN: {_what(item)}" for item in not_told),
        ],
        "left_to_do": [*left_to_do, *not_told],
    }


def _rows_of(one: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [change for change in one["changes"] if change["what"] in ROWS and change["kind"] == "r"]


def _require_rows_only(one: Mapping[str, Any]) -> None:
    xid = one["xid"]
    others = [change for change in one["changes"] if change["what"] not in ROWS and change["kind"] != LARGE_OBJECTS]
    if not _rows_of(one) and not others:
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


def _relations(chosen: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tables as those of an incident; what several transactions did alike to one is one entry."""
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for change in chosen:
        entry = found.setdefault(
            (change["oid"], change["what"]),
            {
                **{key: change[key] for key in ("schema", "name", "oid", "kind")},
                "rows": 0,
                "damage": ROWS[change["what"]],
                "rows_estimated": False,
                "asked": True,
            },
        )
        entry["rows"] += change["rows"]
    return list(found.values())


def _defined_anew(history: Mapping[str, Any], mine: Sequence[Mapping[str, Any]], oids: set[int]) -> list[str]:
    """Later changes of what these tables are; WAL tells that, and not of which kind."""
    lines = []
    for one in history["transactions"]:
        told = sorted(
            {f"{_name(change)} {change['what']}" for change in one["changes"] if _is_definition(change, oids)}
        )
        if told and one["xid"] not in {own["xid"] for own in mine}:
            lines.append(
                f"NOT SURE: transaction {one['xid']} changed a definition since ({', '.join(told)}); where the columns "
                "are not those of then, no row of that table can be taken back, which is known after the restore"
            )
    return lines


def _is_definition(change: Mapping[str, Any], oids: set[int]) -> bool:
    return change["oid"] in oids and change["what"] in DEFINING


def _what(item: Mapping[str, Any]) -> str:
    return f"{item['type']} {item['object']}: {item['reason']}"


def _beside_rows(history: Mapping[str, Any], xid: int) -> list[dict[str, Any]]:
    """Entries for functions, types and the like that the transaction changed, too, which no undo of rows takes back."""
    words = [word for one in history.get("other_changes") or [] if one["xid"] == xid for word in one["what"]]
    shared = [word for one in history.get("other_changes") or [] if one["xid"] == xid for word in one["shared"]]
    return [
        {
            "type": ", ".join(what),
            "object": f"of transaction {xid}",
            "reason": f"the transaction made, changed or removed some, WAL does not tell which, and they are as it "
            f"left them. As they were just before it they are in what dr_strategy={strategy} brings back",
            "command": None,
            "lost": True,
            "rows": None,
            "needs_side_instance": False,
        }
        for what, strategy in ((words, "database"), (shared, "cluster_swap"))
        if what
    ]


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


def _later(history: Mapping[str, Any], mine: Sequence[Mapping[str, Any]], oids: set[int]) -> list[str]:
    """How many later transactions changed the same tables, and how many others."""
    named = {one["xid"] for one in mine}
    told = [one for one in history["transactions"] if one["xid"] not in named]
    same = [one for one in told if any(change["oid"] in oids for change in one["changes"])]
    # Those that are not told one by one changed rows only, and are counted by table: one may have changed several.
    untold = history["count"] - len(mine) - len(told)
    left = rows_but(history, *(one["changes"] for one in mine))
    by_table = [item["transactions"] for item in left if item["oid"] in oids]
    least = max([len(same), *by_table])
    most = min(sum(by_table), len(same) + untold) if untold else least
    how_many = f"between {number(least)} and {number(most)}" if most > least else number(least)
    noun = "later transaction" if how_many == "1" else "later transactions"
    lines = [f"{how_many} {noun} changed the same tables; rows they changed, too, stay as they are"]
    if same:
        numbers = ", ".join(str(one["xid"]) for one in same[:SHOWN])
        more = most - len(same[:SHOWN])
        lines.append(f"they are {numbers}{f' and {number(more)} more' if more > 0 else ''}")
    others = history["count"] - len(mine) - most
    if others > 0:
        lines.append(
            f"{counted(others, 'later transaction')} changed other tables only, and what they read is not told"
        )
    return lines
