# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the record of an incident says to a manager and an auditor. Whatever is not known is left out, never guessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.dbre.recovery.plugins.plugin_utils._incident import units
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.plan import kind_text, target_text
from jinja2 import ChainableUndefined, Environment

# Of a fingerprint, in the order they are shown; all but the first two make up the definition.
PROPERTIES = [
    "rows",
    "checksum",
    "owner",
    "columns",
    "constraints",
    "referenced_by",
    "indexes",
    "triggers",
    "policies",
    "rules",
    "grants",
    "sequences",
    "statistics",
    "publications",
    "parents",
    "partition_bound",
    "tablespace",
    "persistence",
    "row_security",
    "force_row_security",
    "replica_identity",
    "options",
    "comment",
    "comments",
    "max",
]
DATA_PROPERTIES = ("rows", "checksum")

# What the side instance's settings must read back as, and what that means.
ISOLATION = {
    "archive_mode": ("off", "cannot write to the backup repository"),
    "archive_command": ("", "has no command to archive with"),
    "primary_conninfo": ("", "follows no other server"),
    "shared_preload_libraries": ("", "runs no background jobs"),
    "max_logical_replication_workers": ("0", "subscriptions cannot wake up"),
    "slots": ("0", "keeps no replication slot"),
    "subscription_workers": ("0", "no subscription runs"),
    "wal_receivers": ("0", "receives WAL from nobody"),
    "wal_to_archive": ("0", "no WAL waits to be archived"),
    "cron_jobs": ("0", "runs no scheduled job"),
    "same_resource": ("no", "is another database than production"),
}


def _seconds(start: Any, end: Any) -> float | None:
    found = units.seconds_since(start, end)
    return None if found is None else round(found, 3)


def _objective(measured: float | None, objective: Any) -> dict[str, Any]:
    known = isinstance(objective, (int, float)) and not isinstance(objective, bool)
    met = measured <= objective if known and measured is not None else None
    return {"seconds": measured, "objective_seconds": objective if known else None, "met": met}


def measure_loss(data: Mapping[str, Any]) -> dict[str, Any]:
    """How much of what was committed before the incident is lost: ``{seconds, transactions, why}``, null if unknown."""
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


def compare_fingerprints(recovery: Mapping[str, Any]) -> dict[str, Any]:
    """The two fingerprints side by side: ``{relations: [{name, properties, equal}], difference, equal}``.

    A property is ``{property, recovered, production, equal}``. ``equal`` is null where a side is missing.
    """
    sides = recovery.get("fingerprints") or {}
    recovered, production = dict(sides.get("recovered") or {}), dict(sides.get("production") or {})
    for relation in recovery.get("relations") or []:
        name = units.relation_name(relation)
        for side, checksum in ((recovered, "checksum_side"), (production, "checksum_production")):
            seen = {"rows": relation.get("rows"), "checksum": relation.get(checksum)}
            side[name] = {**{key: value for key, value in seen.items() if value is not None}, **(side.get(name) or {})}
    difference = recovery.get("difference") or []
    # A sequence is named in its property: "sequence public.orders_id_seq".
    different = {
        (
            str(item.get("relation")),
            "sequences" if str(item.get("property")).startswith("sequence ") else item.get("property"),
        )
        for item in difference
    }
    relations = []
    for name in sorted(recovered.keys() | production.keys()):
        one, other = recovered.get(name) or {}, production.get(name) or {}
        properties = []
        for key in PROPERTIES:
            if key not in one and key not in other:
                continue
            equal = None
            if key in one and key in other:
                # A sequence that has gone on is no difference, so there the comparison made on the server decides.
                equal = (key == "sequences" or one[key] == other[key]) and (name, key) not in different
            properties.append(
                {"property": key, "recovered": one.get(key), "production": other.get(key), "equal": equal}
            )
        definition = [item["equal"] for item in properties if item["property"] not in DATA_PROPERTIES]
        relations.append(
            {
                "name": name,
                "properties": properties,
                "definition_equal": all(definition) if definition and None not in definition else None,
                "equal": all(item["equal"] for item in properties) if properties else None,
            }
        )
    equal = None
    if relations:
        equal = not difference and all(item["equal"] for item in relations)
    return {"relations": relations, "difference": difference, "equal": equal}


def check_isolation(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Settings read back from the side instance: ``[{setting, value, meaning, ok}]``; ``ok`` is null where all do."""
    checks = []
    for setting, value in (data.get("proof") or {}).items():
        expected, meaning = ISOLATION.get(setting, (None, ""))
        text = "" if value is None else str(value)
        checks.append(
            {
                "setting": setting,
                "value": value,
                "meaning": meaning,
                "ok": None if expected is None else text == expected,
            }
        )
    return sorted(checks, key=lambda check: check["ok"] is None)


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
    objects = [item for item in plan.get("objects") or [] if item.get("state") in (None, "missing")]
    return {
        "relations": relations,
        "rows": sum(int(item.get("rows") or 0) for item in relations),
        "bytes": sum(int(item.get("bytes") or 0) for item in relations),
        "objects": [
            {"type": str(item.get("type")), "name": str(item.get("identity") or item.get("name"))} for item in objects
        ]
        if recovery
        else [],
        "merged": recovery.get("merged"),
    }


def to_do(item: Any) -> dict[str, Any]:
    """One thing to do as ``{what, why, command}``, from a text or from what the modules return."""
    if not isinstance(item, Mapping):
        return {"what": str(item), "why": None, "command": None}
    what = " ".join(str(item[key]) for key in ("type", "object", "what", "name") if item.get(key))
    return {"what": what, "why": item.get("reason") or item.get("why"), "command": item.get("command")}


def _distinct(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item for number, item in enumerate(items) if item not in items[:number]]


def _verdict(outcome: str, proof: Mapping[str, Any], isolated: bool, merged: bool, switch: Mapping[str, Any]) -> str:
    if outcome != "done":
        return "not_finished"
    if switch and proof["equal"] is None:
        return "took_over" if switch.get("proved") else "unproved"
    if merged and isolated:
        return "merged"
    if proof["equal"] is None:
        return "unproved"
    return "proved" if proof["equal"] and isolated else "different"


def _verified(state: Mapping[str, Any]) -> Any:
    """When what was lost was back and verified. No user waits for what follows: copies removed, backups begun."""
    ends = [entry["end"] for entry in _timeline(state) if entry["phase"] == "verify" and entry["end"]]
    return ends[-1] if state["outcome"] == "done" and ends else state["ended"]


def build_report(
    state: Mapping[str, Any], data: Mapping[str, Any], plan: Mapping[str, Any] | None, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """``report.json``: all that ``report.html`` shows, with numbers in bytes and seconds.

    ``state`` is ``record.json`` with the run ended; ``data`` the collected evidence by subject; ``plan`` the plan that
    was confirmed; ``seconds`` the time spent in each phase. Keys of ``data`` may be missing when a run failed early.
    """
    recovery, objectives = data.get("recovery") or {}, data.get("objectives") or {}
    proof = compare_fingerprints(recovery)
    isolation = check_isolation(data)
    unchanged = {key: (data.get(key) or {}).get("unchanged") for key in ("repository", "production")}
    isolated = all(check["ok"] is not False for check in isolation) and False not in unchanged.values()
    seen = bool(isolation) or any(value is not None for value in unchanged.values())
    loss = measure_loss(data)
    last = state["events"][-1] if state["events"] else {}
    restore = data.get("restore_plan") or {}
    left = [item for source in (data, data.get("load_plan") or {}, recovery) for item in source.get("left_to_do") or []]
    if state["outcome"] == "failed":
        again = {
            "what": "Take the incident up again",
            "why": "The same command with the same incident id goes on where this run stopped.",
            "command": f"ansible-playbook ... -e dr_incident_id={state['id']}",
        }
        left.insert(0, again)
    back = _came_back(data)
    merged = any(item.get("action") == "merge" for item in back["relations"])
    return {
        "format": 1,
        "id": state["id"],
        "scenario": state["scenario"],
        "parameters": state["parameters"],
        "outcome": state["outcome"],
        "verdict": _verdict(state["outcome"], proof, isolated, merged, data.get("switch") or {}),
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
        "rto": _objective(_seconds(state["started"], _verified(state)), objectives.get("rto_seconds")),
        "rpo": {**_objective(loss["seconds"], objectives.get("rpo_seconds")), **loss},
        "incident": data.get("incident"),
        "target": data.get("target"),
        "transactions_after": data.get("transactions_after"),
        "backup": restore.get("set"),
        "wal": restore.get("wal"),
        "instance": data.get("instance"),
        "side_host": data.get("side_host"),
        "replay": data.get("replay"),
        "containment": data.get("containment"),
        "proof": proof,
        "isolation": {
            "settings": isolation,
            **{key: data.get(key) for key in unchanged},
            "proved": isolated if seen else None,
        },
        "came_back": back,
        "switch": data.get("switch"),
        "left_to_do": _distinct([to_do(item) for item in left]),
        "kept": _distinct([to_do(item) for item in recovery.get("kept") or []]),
    }


def summary(report: Mapping[str, Any]) -> str:
    """What came of it, for the screen: a line, and one more when something is left to people."""
    spent = units.duration(report["rto"]["seconds"])
    if report["verdict"] == "not_finished":
        return f"Incident {report['id']} is not finished after {spent}."
    back = report["came_back"]
    switch = report.get("switch") or {}
    what = f"{units.counted(len(back['relations']), 'table')} with {units.counted(back['rows'], 'row')} back"
    if switch:
        what = f"{switch.get('now')} serves in place of {switch.get('before')}"
        if switch.get("outage_seconds") is not None:
            what += f" after {units.duration(switch['outage_seconds'])} without a database"
    proof = {
        "took_over": "which was proved",
        "proved": "equal in rows, checksum and definition to the state before the incident",
        "different": "NOT EQUAL to the state before the incident, see the report",
        "merged": "merged into the tables in use, differing rows listed in the report",
        "unproved": "not compared",
    }[report["verdict"]]
    left = len(report.get("left_to_do") or [])
    more = (
        f"\nLeft to you: {units.counted(left, 'thing')}, each with its reason and command in the report."
        if left
        else ""
    )
    return f"Incident {report['id']} done, verified after {spent}: {what}, {proof}.{more}"


def _shown(value: Any) -> str:
    """A property of a fingerprint in one cell."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return units.number(value)
    if isinstance(value, (list, dict)):
        return str(len(value)) if value else "none"
    return str(value)


def render_html(report: Mapping[str, Any]) -> str:
    """``report.html``: one file that needs nothing else, every value escaped."""
    environment = Environment(autoescape=True, undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        size=units.size,
        duration=units.duration,
        number=units.number,
        moment=units.moment,
        relation=units.relation_name,
        counted=units.counted,
        kind=kind_text,
        target=target_text,
        shown=_shown,
    )
    template = environment.from_string(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
    by_type = Counter(item["type"] for item in report["came_back"]["objects"])
    return template.render(report=report, objects_by_type=sorted(by_type.items()))
