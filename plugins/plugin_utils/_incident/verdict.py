# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What came of an incident, in one of three verdicts. A check that could not run makes none of them better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted, relation_name, thing
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.damage import stays_lost

PROVED, IN_PART, NOT_RECOVERED = "proved", "in_part", "not_recovered"
TITLES = {PROVED: "Recovered and proved", IN_PART: "Recovered in part", NOT_RECOVERED: "Not recovered"}
# Types of entries that are about rows; whatever else a database holds is there or it is not.
_WITH_ROWS = ("rows", "table", "partitioned table", "foreign table", "materialized view")
_SHOWN = 6


def left_entries(data: Mapping[str, Any]) -> list[Any]:
    """Everything that is left to people, of whatever phase found it, each once."""
    sources = (data, data.get("load_plan") or {}, data.get("recovery") or {})
    entries = [item for source in sources for item in source.get("left_to_do") or []]
    return [item for number, item in enumerate(entries) if item not in entries[:number]]


def needs_side_instance(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is left to do and reads the side instance, which therefore stays."""
    return [dict(item) for item in left_entries(data) if isinstance(item, Mapping) and item.get("needs_side_instance")]


def _lost(entry: Mapping[str, Any], loaded: set[str]) -> dict[str, Any]:
    """A loss in ``left_to_do``, as ``{what, rows, why, object}``. What is in ``loaded`` lacks rows only."""
    kind, name = str(entry.get("type") or entry.get("what") or ""), str(entry.get("object") or entry.get("name") or "")
    count = entry.get("rows")
    what = thing(kind, name)
    if kind in _WITH_ROWS and count:
        what = f"{counted(count, 'row')} of {name}"
    elif kind == "rows" or (kind in _WITH_ROWS and name in loaded):
        what = f"rows of {name}"
    elif count:
        what += f" ({counted(count, 'row')})"
    return {"what": what, "rows": count, "why": entry.get("reason") or entry.get("why"), "object": name}


def missing(data: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was there before the incident and production lacks now: ``[{what, rows, why, object}]``.

    ``parameters`` are the words of the run: what the same transaction damaged and nobody asked for counts, too.
    """
    recovery = data.get("recovery") or {}
    relations = {relation_name(item): item for item in recovery.get("relations") or []}
    found = [
        _lost(item, set(relations)) for item in left_entries(data) if isinstance(item, Mapping) and item.get("lost")
    ]
    named = {item["object"] for item in found}
    merged = recovery.get("merged") or {}
    incident = data.get("incident") or {}
    damages = {relation_name(item): item.get("damage") for item in incident.get("relations") or []}
    for name, relation in relations.items():
        result = merged.get(name) or relation.get("merged") or {}
        # Rows that differ are after an UPDATE the damage itself, and where a table was emptied others with the keys of
        # those that were lost; after anything else they are somebody's work.
        differing = incident.get("kind") == "update" or damages.get(name) in ("update", "truncate", "drop")
        unfit = 0 if name in named else int(result.get("not_fitting") or 0)
        # Those that the incident's own transaction left so are in left_to_do.
        unfit += int(result.get("differing") or 0) - int(result.get("damaged") or 0) if differing else 0
        if unfit:
            why = f"they do not fit into the table as it is now, or differ from it; they are in {result.get('table')}"
            found.append({"what": f"{counted(unfit, 'row')} of {name}", "rows": unfit, "why": why, "object": name})
        if relation.get("action") == "beside" and name not in named and not relation.get("left_to_do"):
            count = int(relation.get("rows") or 0)
            why = f"the copy beside it, {relation.get('copy')}, is complete; the table in use is as it was"
            what = f"what {name} lost of the {counted(count, 'row')} it had"
            found.append({"what": what, "rows": None, "why": why, "object": name})
    later = data.get("later") or {}
    if (recovery or data.get("switch")) and later.get("count"):
        least = "at least " if later.get("at_least") else ""
        what = f"what {least}{counted(later['count'], 'later transaction')} did"
        why = f"committed after the target, and only in what was kept: {'; '.join(later['lines'])}"
        found.append({"what": what, "rows": None, "why": why, "object": str(later.get("kept_as") or "")})
    if data.get("switch") and later.get("unlogged"):
        empty = ", ".join(later["unlogged"])
        why = f"no backup and no WAL has rows of unlogged tables, so that they came back empty: {empty}"
        found.append({"what": "rows of unlogged tables", "rows": None, "why": why, "object": ""})
    plan = data.get("load_plan") or {}
    handled = {*relations, *(relation_name(item) for item in plan.get("relations") or [])}
    handled |= {str(item.get("identity")) for item in plan.get("objects") or []}
    for item in stays_lost(data.get("incident") or {}, parameters):
        name, hit = relation_name(item), item.get("rows")
        if name not in handled and (hit != 0 or item["damage"] in ("drop", "column")):
            what = f"{counted(hit, 'row')} of {name}" if hit else name
            why = f"the same transaction did it ({item['damage']}), and it was not asked for"
            found.append({"what": what, "rows": hit, "why": why, "object": name})
    return found


def unproved(
    outcome: str, data: Mapping[str, Any], equal: bool | None, differences: int, isolation: list[dict[str, Any]]
) -> list[str]:
    """What was not shown to be right: checks that failed, and checks that did not run.

    ``equal`` and ``differences`` are what the comparison found, ``isolation`` the settings that were read back.
    """
    switch, recovery = data.get("switch") or {}, data.get("recovery") or {}
    found = [] if outcome == "done" else ["the run ended before all of it was verified"]
    if equal is False:
        found.append(f"{counted(differences, 'property', 'properties')} differ from before the incident")
    elif equal is None and switch:
        found += [] if switch.get("proved") else ["that another database took over was not proved"]
    elif equal is None:
        actions = {item.get("action") for item in recovery.get("relations") or []}
        # An undo compares each row in its own transaction, and ends it otherwise.
        if not actions or actions - {"merge", "beside", "undo"}:
            found.append("what is back was not compared with what was there before")
    found += [f"the side instance was not isolated: {item['setting']}" for item in isolation if item["ok"] is False]
    if recovery and not isolation:
        found.append("the isolation of the side instance was not read back")
    titles = {"repository": "the backup repository", "production": "the production server's configuration"}
    found += [
        f"{title} changed meanwhile" for key, title in titles.items() if (data.get(key) or {}).get("unchanged") is False
    ]
    return found


def judge(outcome: str, data: Mapping[str, Any], lacks: list[dict[str, Any]], doubts: list[str]) -> str:
    """One of the three verdicts. A run that ended before it put anything in its place has recovered nothing."""
    if not (data.get("recovery") or (data.get("switch") and outcome == "done")):
        return NOT_RECOVERED
    return IN_PART if lacks or doubts else PROVED


def headline(verdict: str, lacks: list[dict[str, Any]], doubts: list[str]) -> str:
    """The verdict with all that is missing, in one sentence: for the report, the screen, and the word of the exit."""
    text = TITLES[verdict]
    if verdict != IN_PART:
        return text
    parts = []
    if lacks:
        things = _summed(lacks)
        more = len(things) - _SHOWN
        parts.append("missing " + ", ".join(things[:_SHOWN] + ([counted(more, "more thing")] if more > 0 else [])))
    if doubts:
        parts.append("not proved: " + "; ".join(doubts))
    return f"{text}: {'; '.join(parts)}"


def _summed(lacks: list[dict[str, Any]]) -> list[str]:
    """What is missing; rows of one table that are missing for several reasons are counted once."""
    found: dict[tuple[Any, Any], int] = {}
    for item in lacks:
        is_rows = bool(item["rows"]) and item["what"] == f"{counted(item['rows'], 'row')} of {item['object']}"
        key = (item["object"], None) if is_rows else (None, item["what"])
        found[key] = found.get(key, 0) + (item["rows"] if is_rows else 0)
    return [what or f"{counted(count, 'row')} of {name}" for (name, what), count in found.items()]
