# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the record of an incident says to a manager and an auditor. Whatever is not known is left out, never guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core import units
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident import verdict
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.contained import report_entry
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.damage import deleted_since, kind_of
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.kept import Overdue, overdue_to_do
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.proof import (
    check_isolation,
    compare_fingerprints,
    count_differences,
)


def _seconds(start: Any, end: Any) -> float | None:
    found = units.seconds_since(start, end)
    return None if found is None else round(found, 3)


def _objective(measured: float | None, objective: Any) -> dict[str, Any]:
    known = isinstance(objective, (int, float)) and not isinstance(objective, bool)
    met = measured <= objective if known and measured is not None else None
    return {"seconds": measured, "objective_seconds": objective if known else None, "met": met}


def measure_loss(data: Mapping[str, Any], recovered: bool = True) -> dict[str, Any]:
    """How much of what was committed before the incident is lost: ``{seconds, transactions, why}``, null if unknown."""
    if not recovered:
        return {"seconds": None, "transactions": None, "why": "Nothing was recovered so far."}
    incident, target = data.get("incident") or {}, data.get("target") or {}
    given = data.get("lost") or {}
    if given.get("why"):
        return {"seconds": given.get("seconds"), "transactions": given.get("transactions"), "why": given.get("why")}
    exact = bool(target.get("exclusive")) and (
        (target.get("type") == "lsn" and target.get("value") == incident.get("lsn"))
        or (target.get("type") == "xid" and str(target.get("value")) == str(incident.get("xid")))
    )
    if exact and target.get("value"):
        why = (
            "The target is the commit of the incident itself, without it: every transaction before it is in the target."
        )
        return {"seconds": 0.0, "transactions": 0, "why": why}
    before = target.get("value") if target.get("type") == "time" else target.get("commit_time")
    lost = _seconds(before, incident.get("commit_time"))
    if lost is None:
        return {"seconds": None, "transactions": None, "why": "The time of the incident or of the target is not known."}
    why = "From the target, which was given explicitly, to the commit of the incident."
    return {"seconds": max(lost, 0.0), "transactions": None, "why": why}


def _timeline(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    whole = _seconds(state["started"], state["ended"]) or 0.0
    rows = []
    for event in state["events"]:
        spent = _seconds(event["start"], event["end"]) or 0.0
        offset = _seconds(state["started"], event["start"]) or 0.0
        rows.append(
            {
                **event,
                "seconds": spent,
                "left_percent": round(100 * offset / whole, 2) if whole else 0.0,
                "width_percent": round(100 * spent / whole, 2) if whole else 0.0,
            }
        )
    return rows


def _came_back(data: Mapping[str, Any]) -> dict[str, Any]:
    plan, recovery = data.get("load_plan") or {}, data.get("recovery") or {}
    relations = []
    sizes = {units.relation_name(item): item for item in plan.get("relations") or []}
    for relation in recovery.get("relations") or []:
        planned = sizes.get(units.relation_name(relation)) or {}
        relations.append({**{key: planned.get(key) for key in ("state", "action", "bytes", "kind")}, **relation})
    # What is implied comes with something else, as the type of its rows does with a table.
    objects = [
        {"type": str(item.get("type")), "name": str(item.get("identity") or item.get("name"))}
        for item in plan.get("objects") or []
        if item.get("state") in (None, "missing") and not item.get("implied")
    ]
    tables = {units.relation_name(item) for item in relations}
    return {
        "relations": relations,
        "rows": sum(int(item.get("rows") or 0) for item in relations),
        "bytes": sum(int(item.get("bytes") or 0) for item in relations),
        "objects": [item for item in objects if item["type"] != "table" or item["name"] not in tables]
        if recovery
        else [],
        "merged": recovery.get("merged"),
    }


def to_do(item: Any) -> dict[str, Any]:
    """One thing to do as ``{what, why, command}``, from a text or from what the modules return."""
    if not isinstance(item, Mapping):
        return {"what": str(item), "why": None, "command": None}
    what = " ".join(str(item[key]) for key in ("what", "name") if item.get(key))
    what = f"{units.thing(item.get('type'), item.get('object'))} {what}".strip()
    return {"what": what, "why": item.get("reason") or item.get("why"), "command": item.get("command")}


def _distinct(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item for number, item in enumerate(items) if item not in items[:number]]


def _kept(entries: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What stays in production until people remove it, and last the one command that removes all of it."""
    schemas = sorted({units.relation_name({"schema": item["schema"]}) for item in entries if item.get("schema")})
    whole = {
        "what": "All of it",
        "why": "With the journal of this recovery, which lies in the same place and is of no use without them. As long "
        "as they stay, no type, collation or extension that their columns use can be dropped (CASCADE would take the "
        "columns away), and a check that a domain gets is looked at in them, too.",
        "command": f"DROP SCHEMA {', '.join(schemas)} CASCADE;",
    }
    return _distinct([to_do(item) for item in entries]) + ([whole] if schemas else [])


def _verified(state: Mapping[str, Any]) -> Any:
    """When what was lost was back and verified. No user waits for what follows: copies removed, backups begun."""
    ends = [entry["end"] for entry in _timeline(state) if entry["phase"] == "verify" and entry["end"]]
    return ends[-1] if ends else state["ended"]


def measure_time(state: Mapping[str, Any], data: Mapping[str, Any], recovered: bool) -> dict[str, Any]:
    """How long it took: ``{seconds, from_damage_seconds, objective_seconds, met}``, null where nothing was recovered.

    ``seconds`` counts from the command, ``from_damage_seconds`` from the damage; the objective is one of users, who
    wait from the damage on.
    """
    end = _verified(state) if recovered else None
    began = (data.get("incident") or {}).get("commit_time")
    command, damage = _seconds(state["started"], end), _seconds(began, end)
    measured = _objective(command if damage is None else damage, (data.get("objectives") or {}).get("rto_seconds"))
    return {**measured, "seconds": command, "from_damage_seconds": damage}


def _gone(data: Mapping[str, Any], measured: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """From when to when production was without what was lost: ``{since, exact, until, seconds}``, null if unknown.

    ``until`` is null where nothing is back and verified; a copy beside what is in use brings nothing back. Not
    ``exact``: the damage came after ``since``, which is all that a moment tells that was given.
    """
    incident, target = data.get("incident") or {}, data.get("target") or {}
    exact = kind_of(incident) != "explicit" and bool(incident.get("commit_time"))
    since = incident.get("commit_time") or (target.get("value") if target.get("type") == "time" else None)
    relations = (data.get("recovery") or {}).get("relations") or []
    back = not relations or any(item.get("action") != "beside" for item in relations)
    until = _verified(state) if back and measured["seconds"] is not None else None
    return {"since": since, "exact": exact, "until": until, "seconds": _seconds(since, until)}


def build_report(
    state: Mapping[str, Any],
    data: Mapping[str, Any],
    plan: Mapping[str, Any] | None,
    seconds: Mapping[str, float],
    late: Sequence[Overdue] = (),
) -> dict[str, Any]:
    """``report.json``: all that ``report.html`` shows, with numbers in bytes and seconds.

    ``state`` is ``record.json`` with the run ended; ``data`` the collected evidence by subject; ``plan`` the plan that
    was confirmed; ``seconds`` the time spent in each phase; ``late`` what other incidents keep for too long. Keys of
    ``data`` may be missing when a run failed early.
    """
    recovery, objectives = data.get("recovery") or {}, data.get("objectives") or {}
    proof = compare_fingerprints(recovery)
    isolation = check_isolation(data)
    unchanged = {key: (data.get(key) or {}).get("unchanged") for key in ("repository", "production")}
    isolated = all(check["ok"] is not False for check in isolation) and False not in unchanged.values()
    seen = bool(isolation) or any(value is not None for value in unchanged.values())
    lacks = verdict.missing(data, state["parameters"])
    doubts = verdict.unproved(state["outcome"], data, proof["equal"], count_differences(proof), isolation)
    judged = verdict.judge(state["outcome"], data, lacks, doubts)
    recovered = judged != verdict.NOT_RECOVERED
    loss = measure_loss(data, recovered)
    last = state["events"][-1] if state["events"] else {}
    restore = data.get("restore_plan") or {}
    left = verdict.left_entries(data) + (deleted_since(data, state["parameters"]) if recovered else [])
    if state["outcome"] == "failed":
        again = {
            "what": "Take the incident up again",
            "why": "The same command with the same incident id goes on where this run stopped.",
            "command": f"ansible-playbook ... -e dr_incident_id={state['id']}",
        }
        left.insert(0, again)
    contained = report_entry(data, str(state["id"]))
    if contained.get("left"):
        left.insert(0, contained["left"])
    side = state.get("side") or {}
    if side.get("removed"):
        left = [item for item in left if not isinstance(item, Mapping) or item.get("command") != side["abandon"]]
    left += [overdue_to_do(item) for item in late]
    rto = measure_time(state, data, recovered and state["outcome"] == "done")
    return {
        "format": 1,
        "id": state["id"],
        "scenario": state["scenario"],
        "drill": state.get("drill"),
        "parameters": state["parameters"],
        "outcome": state["outcome"],
        "verdict": judged,
        "headline": verdict.headline(judged, lacks, doubts),
        "missing": lacks if recovered else [],
        "unproved": doubts if recovered else [],
        "message": state["message"],
        "failed_at": {key: last.get(key) for key in ("phase", "step", "host")}
        if state["outcome"] == "failed"
        else None,
        "started": state["started"],
        "ended": state["ended"],
        "runs": len(state["runs"]),
        "run_history": state["runs"],
        "planned_at": (plan or {}).get("planned_at"),
        "confirmation": data.get("confirmation"),
        "seconds": dict(seconds),
        "timeline": _timeline(state),
        "gone": _gone(data, rto, state),
        "rto": rto,
        "rpo": {**_objective(loss["seconds"], objectives.get("rpo_seconds")), **loss},
        "tier": objectives.get("tier"),
        "incident": data.get("incident"),
        "target": data.get("target"),
        "transactions_after": None if data.get("later") else data.get("transactions_after"),
        "later": data.get("later"),
        "backup": restore.get("set"),
        "wal": restore.get("wal"),
        "instance": data.get("instance"),
        "side_host": data.get("side_host"),
        "side": state.get("side"),
        "replay": data.get("replay"),
        "containment": contained,
        "proof": proof,
        "isolation": {
            "settings": isolation,
            **{key: data.get(key) for key in unchanged},
            "proved": isolated if seen else None,
        },
        "came_back": _came_back(data),
        "limits": recovery.get("limits"),
        "switch": data.get("switch"),
        "left_to_do": _distinct([to_do(item) for item in left]),
        "kept": _kept(recovery.get("kept") or []),
    }


def summary(report: Mapping[str, Any]) -> str:
    """What came of it, for the screen: the verdict, what it rests on, and what is left to people.

    Why a run failed has been said by the task that did; a verdict that is no success is what the run ends with.
    """
    if report["verdict"] == verdict.NOT_RECOVERED:
        return f"{_what(report)} stays open.{_still_contained(report)}"
    back, switch, rto = report["came_back"], report.get("switch") or {}, report["rto"]
    what = f"{units.counted(len(back['relations']), 'table')} with {units.counted(back['rows'], 'row')} back"
    if switch:
        what = f"{switch.get('now')} serves in place of {switch.get('before')}"
        if switch.get("outage_seconds") is not None:
            what += f" after {units.duration(switch['outage_seconds'])} without a database"
    if report["proof"]["equal"]:
        what += ", equal in rows, checksum and definition to the state before the incident"
    spent = units.duration(rto["seconds"])
    if rto["from_damage_seconds"] is not None:
        spent += f" ({units.duration(rto['from_damage_seconds'])} after the damage)"
    ended = "has ended" if report["outcome"] == "done" else "stays open"
    proved = report["verdict"] == verdict.PROVED
    lines = [f"{_what(report)}{': ' + report['headline'] if proved else ' ' + ended}."]
    lines += [f"Verified after {spent}: {what}."] if rto["seconds"] is not None else []
    lines += [f"Missing: {item['what']}: {item['why']}" for item in report["missing"] if item.get("why")]
    lines += [_still_contained(report).strip()] if _still_contained(report) else []
    left = report.get("left_to_do") or []
    if left:
        each = "each with" if len(left) > 1 else "with"
        lines.append(f"Left to you: {units.counted(len(left), 'thing')}, {each} its reason and command in the report.")
        lines += [f"  {item['what']}" for item in left[:3] if item.get("what")]
        lines += [f"  and {len(left) - 3} more"] if len(left) > 3 else []
    return "\n".join(lines)


def _what(report: Mapping[str, Any]) -> str:
    return f"{'Drill' if report.get('drill') else 'Incident'} {report['id']}"


def _still_contained(report: Mapping[str, Any]) -> str:
    left = (report.get("containment") or {}).get("left")
    return f"\nApplications are still kept from writing. To let them: {left['command']}" if left else ""


def finished_text(record: Mapping[str, Any]) -> str:
    """What a run is told whose incident has ended well before; ``record`` is what the module ``incident`` returns."""
    well = f": {record['headline'] or 'done'}" if record["verdict"] != verdict.IN_PART else ""
    return (
        f"Incident {record['id']} has ended already{well}. Nothing was done now.\n"
        f"Report: {record['path']}/report.html\n"
        "If it happened again, that is another incident: leave dr_incident_id out, or give another one."
    )
