# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways back from a transaction that did damage, compared. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional, TypedDict

from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted, duration, size
from ansible_collections.dbre.recovery.plugins.module_utils._wal.damaged_tables import beyond_tables, comes_back
from ansible_collections.dbre.recovery.plugins.module_utils._wal.later import ROWS, change_text, name_of

SHOWN = 3


class Facts(TypedDict):
    """What is known before anything is restored; None where it is not.

    ``damage`` are the changes of the transaction that did it, as a history has them, None where only a moment was
    named. ``count`` transactions changed ``rows`` later, in ``tables``. ``past`` has of each strategy what earlier runs
    measured: ``seconds`` from the restored instance to the end, ``bytes_per_second`` of what they loaded.
    """

    damage: Optional[Sequence[Mapping[str, Any]]]
    count: int
    rows: int
    tables: Sequence[Mapping[str, Any]]
    database_bytes: Optional[int]
    free_bytes: Optional[int]
    restore_seconds: Optional[float]
    past: Mapping[str, Mapping[str, float]]


class Way(TypedDict):
    """One value of ``dr_strategy``. ``lacks`` is why it does not suffice, empty where it does."""

    strategy: str
    lacks: str
    seconds: Optional[float]
    lost: str
    needs: str
    stays: str


def _rows(facts: Facts) -> Way:
    damage = facts["damage"]
    lacks = ""
    if damage is None:
        lacks = "no transaction was named (dr_target_xid)"
    else:
        others = [change_text(change) for change in damage if change["what"] not in ROWS or change["kind"] != "r"]
        if others:
            more = f" and {counted(len(others) - SHOWN, 'more change')}" if len(others) > SHOWN else ""
            lacks = f"it takes back rows only, and the transaction did more: {', '.join(others[:SHOWN])}{more}"
    rows = sum(int(change["rows"] or 0) for change in damage or [] if change["what"] in ROWS)
    touched = {name_of(change) for change in damage or []}
    same = sum(1 for item in facts["tables"] if item["table"] in touched)
    lost = "nothing; "
    lost += (
        f"rows that later transactions changed, too, in {counted(same, 'table')} stay as they are and are listed"
        if same
        else "no later transaction changed rows of the same tables"
    )
    return {
        "strategy": "rows",
        "lacks": lacks,
        "seconds": _seconds(facts, "rows"),
        "lost": lost,
        "needs": f"room for {counted(rows, 'row')} twice",
        "stays": "these rows, from which the undo is taken back",
    }


def _tables(facts: Facts) -> Way:
    damage = facts["damage"]
    lacks = ""
    if damage is None:
        lacks = "no transaction was named (dr_target_xid), so the damaged tables have to be (dr_tables)"
    else:
        others = beyond_tables(damage)
        if others:
            more = f" and {counted(len(others) - SHOWN, 'more change')}" if len(others) > SHOWN else ""
            lacks = f"it brings back tables only, and the transaction did more: {', '.join(others[:SHOWN])}{more}"
        elif not damage:
            lacks = "the transaction changed no table that WAL tells of"
    touched = {name_of(change) for change in damage or [] if comes_back(change)}
    later = [item for item in facts["tables"] if item["table"] in touched]
    rows = sum(item[what] for item in later for what in ROWS)
    lost = "nothing, for nobody changed rows of these tables later"
    if later:
        lost = f"what was done to {counted(rows, 'row')} of {len(later)} of these tables later, but for the damaged "
        lost += "tables, which have it"
    return {
        "strategy": "tables",
        "lacks": lacks,
        "seconds": _seconds(facts, "tables"),
        "lost": lost,
        "needs": "room for these tables a second time, and a moment in which nobody uses them",
        "stays": "the damaged tables, in another schema; functions and types, of which WAL does not tell, as they are",
    }


def _database(facts: Facts) -> Way:
    much, free = facts["database_bytes"], facts["free_bytes"]
    tight = much is not None and free is not None and much > free
    room = "room for the database a second time"
    if much is not None:
        room += f", {size(much)} as it is" + (f"; {size(free)} are free" if free is not None else "")
    return {
        "strategy": "database",
        "lacks": "there may be too little room" if tight else "",
        "seconds": _seconds(facts, "database", much),
        "lost": _later(facts) + ", but for the damaged database, which has it",
        "needs": room,
        "stays": "the damaged database, under another name",
    }


def _cluster_swap(facts: Facts) -> Way:
    return {
        "strategy": "cluster_swap",
        # All databases are more than this one.
        "lacks": _database(facts)["lacks"],
        "seconds": _seconds(facts, "cluster_swap"),
        "lost": f"{_later(facts)}, and what was committed later in all others, but for the cluster that is kept",
        "needs": "room for the whole cluster a second time, and a stop of the server",
        "stays": "the cluster in use, beside",
    }


def _cluster_in_place(facts: Facts) -> Way:
    return {
        "strategy": "cluster_in_place",
        "lacks": "",
        "seconds": _seconds(facts, "cluster_in_place"),
        "lost": f"{_later(facts)}, and what was committed later in all others, but for the WAL, which has it",
        "needs": "a stop of the server for all of it, and dr_overwrite, since it cannot be taken back",
        "stays": "the WAL; the cluster in use is overwritten",
    }


# From the smallest to the largest; each is one entry.
WAYS: tuple[Callable[[Facts], Way], ...] = (_rows, _tables, _database, _cluster_swap, _cluster_in_place)


def ways_back(facts: Facts) -> list[Way]:
    """All that could serve, the smallest first."""
    return [way(facts) for way in WAYS]


def recommended(ways: Sequence[Way]) -> Optional[str]:
    """The strategy of the smallest that suffices."""
    return next((way["strategy"] for way in ways if not way["lacks"]), None)


def ways_lines(facts: Facts) -> list[str]:
    """The comparison for people, a line for each way."""
    ways = ways_back(facts)
    best = recommended(ways)
    return [_line(way, way["strategy"] == best) for way in ways]


def _line(way: Way, best: bool) -> str:
    word = "RECOMMENDED, the smallest that suffices. " if best else ""
    if way["lacks"]:
        word = f"NOT ENOUGH: {way['lacks']}. "
    spent = "time not known yet" if way["seconds"] is None else f"about {duration(way['seconds'])}"
    return (
        f"-e dr_strategy={way['strategy']}: {word}Takes {spent}. Lost: {way['lost']}. Needs {way['needs']}. "
        f"Stays: {way['stays']}"
    )


def _later(facts: Facts) -> str:
    if not facts["count"]:
        return "nothing, for nothing was committed later"
    return f"what {counted(facts['count'], 'later transaction')} did ({counted(facts['rows'], 'row')})"


def _seconds(facts: Facts, strategy: str, much: Optional[int] = None) -> Optional[float]:
    """Until it is done, where the restore and what follows it were both measured."""
    past = facts["past"].get(strategy) or {}
    restore, after, speed = facts["restore_seconds"], past.get("seconds"), past.get("bytes_per_second")
    if restore is None:
        restore = past.get("restore")
    if much is not None and speed:
        after = much / speed
    return None if restore is None or after is None else restore + after
