# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import SIDE_INSTANCE
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import (
    counted,
    duration,
    moment,
    number,
    relation_name,
    seconds_since,
    size,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.ways import ways_lines
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.contained import in_force_lines
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.damage import (
    candidate_line,
    deleted_since,
    of_incident,
    relation_line,
    stays_lost,
    what_happened,
)
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.impact import bystander_lines, limit_lines
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.kept import overdue_line

WIDTH = 100
_LABEL = 17
_NAMES_SHOWN = 8

CONTAINMENT = {
    "none": "none: production stays as it is while this runs",
    "read_only": (
        "database made read-only, sessions ended once to reconnect; undone when this run ends, however it ends"
    ),
    "pgbouncer_pause": (
        "clients wait in PgBouncer (PAUSE), for one hour at most; undone (RESUME) when this run ends, however it ends"
    ),
}
LOAD = {
    "beside": "goes to schema recovered_{id}, beside the one in use",
    "merge": "rows missing by primary key are put back; rows that differ are listed and left",
    "replace": "swapped in one transaction; the one in use is kept beside it",
    "place": "goes back to its place",
}


def target_text(target: Mapping[str, Any]) -> str:
    """One line that says up to where is replayed."""
    text = f"{str(target.get('type', 'unknown')).upper()} {target.get('value', '')}".strip()
    text += " (everything before it, itself not)" if target.get("exclusive") else " (itself included)"
    return text + (f", timeline {target['timeline']}" if target.get("timeline") else "")


def _name_of(item: Any) -> str:
    """What an entry of a list is called, be it a text or a dictionary."""
    return (
        " ".join(str(item[key]) for key in ("type", "object", "name", "reason") if item.get(key))
        if isinstance(item, Mapping)
        else str(item)
    )


def _incident_lines(data: Mapping[str, Any], now: str) -> list[str]:
    incident = data.get("incident") or {}
    if not incident:
        return []
    told = any("damage" in item for item in incident.get("relations") or [])
    lines = [what_happened(incident)]
    if incident.get("rows") and not told:
        lines.append(f"{counted(incident['rows'], 'row')} hit")
    if incident.get("ours"):
        lines.append("PART OF AN EARLIER RECOVERY with this collection, which marks its transactions")
    age = seconds_since(incident.get("commit_time"), now)
    ago = f" ({duration(age)} ago)" if age is not None else ""
    if incident.get("xid") or incident.get("lsn"):
        lines.append(
            f"transaction {incident.get('xid', 'unknown')}, committed {moment(incident.get('commit_time', 'unknown'))}"
            f"{ago}, LSN {incident.get('lsn', 'unknown')}"
        )
        lines += [
            f"and with it transaction {one['xid']}, committed {moment(one['commit_time'])}, LSN {one['lsn']}"
            for one in incident.get("also") or []
        ]
    elif incident.get("commit_time"):
        lines.append(f"at {moment(incident['commit_time'])}{ago}, as {incident.get('found_by', 'given')} says")
    if incident.get("precision"):
        lines.append(str(incident["precision"]))
    return lines


def _before_lines(record: Mapping[str, Any]) -> list[str]:
    before = record.get("recovered_before")
    return [f"RECOVERED ALREADY by incident {before}. What it made anew is left as it is"] if before else []


def _damage_lines(record: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    """Everything that the transaction damaged, with its rows, and whether it comes back."""
    incident, asked = data.get("incident") or {}, record.get("parameters") or {}
    damaged = [item for item in of_incident(incident) if item.get("damage")]
    if not damaged:
        return []
    lost, scope = stays_lost(incident, asked), str(asked.get("scope") or "transaction")
    return [relation_line(item, item not in lost, scope) for item in damaged]


def _candidate_lines(data: Mapping[str, Any]) -> list[str]:
    """All transactions that may have done it, the oldest first; none where there was one only."""
    incident, candidates = data.get("incident") or {}, data.get("candidates") or []
    if len(candidates) < 2:
        return []
    return [candidate_line(item, item.get("lsn") == incident.get("lsn")) for item in candidates]


def _searched_lines(data: Mapping[str, Any]) -> list[str]:
    """Which WAL was read to find it, and which was not."""
    scanned = data.get("scanned") or {}
    if not scanned.get("from_lsn"):
        return []
    when = f", {moment(scanned['from_time'])} to {moment(scanned['to_time'])}" if scanned.get("from_time") else ""
    lines = [
        f"{counted(scanned.get('segments'), 'segment')}, LSN {scanned['from_lsn']} to {scanned.get('to_lsn')}{when}"
    ]
    return [*lines, f"not read: {scanned['unread']}"] if scanned.get("unread") else lines


def _target_lines(data: Mapping[str, Any], now: str) -> list[str]:
    target = data.get("target") or {}
    if not target:
        return []
    lines = [target_text(target)]
    if plan_before := data.get("instead_of"):
        before = f"{target_text(plan_before.get('target') or {})}, as planned {moment(plan_before.get('planned_at'))}"
        lines.append(f"INSTEAD OF {before}: that plan is older than what happened since, and has to be confirmed anew")
    age = seconds_since(target.get("commit_time"), now)
    if target.get("commit_time"):
        lines.append(
            f"commit time {moment(target['commit_time'])}" + (f", {duration(age)} ago" if age is not None else "")
        )
    if target.get("reason"):
        lines.append(str(target["reason"]))
    return lines


def _after_lines(record: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    after = data.get("transactions_after") or {}
    if data.get("later"):
        return [str(line) for line in data["later"]["lines"]]
    if after.get("count") is None:
        return []
    return [
        (
            f"{counted(after['count'], 'transaction')} in {duration(after.get('seconds'))} committed after the target: "
            "they stay in production as they are"
        ),
        *(f"{item['object']}: {item['reason']}" for item in deleted_since(data, record.get("parameters") or {})),
    ]


def _repository_lines(data: Mapping[str, Any]) -> list[str]:
    lost = (data.get("repository") or {}).get("lost") or []
    return [f"REPOSITORY {entry.get('repo')} CANNOT BE REACHED: {entry.get('message')}" for entry in lost]


def _source_sections(data: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """What the source wants shown, in its order. The name of a side instance's host only the playbook knows."""
    plan = data.get("restore_plan") or {}
    if not plan.get("shown"):
        return []
    host = data.get("side_host") or (data.get("instance") or {}).get("host")
    where = (
        (f"{host}:" if host else "") + str(plan.get("path")) + (f", port {plan['port']}" if plan.get("port") else "")
    )
    return [
        (item["label"], [where, *item["lines"]] if item["label"] == SIDE_INSTANCE else item["lines"])
        for item in plan["shown"]
    ]


def _production_lines(record: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    load_plan = data.get("load_plan") or {}
    if data.get("takeover"):
        return [str(line) for line in data["takeover"]]
    if not load_plan.get("relations"):
        parameters = record.get("parameters") or {}
        load = str(parameters.get("load") or "beside")
        lines = ["what is missing goes back to its place, with all that went with it"]
        if load in LOAD:
            lines.append(f"what exists again ({load}): {LOAD[load].format(id=record.get('id', ''))}")
        return [*lines, "nothing is dropped or overwritten without a copy kept beside it"]
    lines = []
    for relation in load_plan["relations"][:_NAMES_SHOWN]:
        action = str(relation.get("action"))
        does = LOAD.get(action, action).format(id=record.get("id", ""))
        what = f"{size(relation.get('bytes'))}, about {number(relation.get('rows_estimate'))} rows"
        lines.append(f"{relation_name(relation)} ({relation.get('state')}; {what}): {does}")
    more = len(load_plan["relations"]) - _NAMES_SHOWN
    if more > 0:
        lines.append(f"and {counted(more, 'more table')}")
    for wait in load_plan.get("waits", []):
        spent = f"{duration(wait.get('least_seconds'))} to {duration(wait.get('most_seconds'))}"
        lines.append(f"{wait.get('whom')} to {wait.get('object')} wait {spent}, {wait.get('why')}")
    if load_plan.get("objects"):
        lines.append(f"{counted(len(load_plan['objects']), 'object')} that went with them")
    lines += _large_object_lines(load_plan.get("large_objects") or {})
    if load_plan.get("missing_roles"):
        lines.append(
            f"roles that do not exist any more: {', '.join(_name_of(role) for role in load_plan['missing_roles'])}"
        )
    for role in load_plan.get("missing_memberships", []):
        lines.append(f"the role {_name_of(role)} cannot be become; as {role.get('by')}: {role.get('command')}")
    return lines


def _large_object_lines(large_objects: Mapping[str, Any]) -> list[str]:
    """Large objects that come back with rows, and those that may have been unlinked on purpose."""
    lines = []
    left = large_objects.get("left") or {}
    for entry, does in (
        (large_objects, "they come back with the rows that name them"),
        (left, "they are named by rows but stay away, for nothing says that the damage took them; left to you"),
    ):
        if entry.get("count"):
            much = "size unknown" if entry.get("bytes") is None else size(entry["bytes"])
            owners = [str(name) for name in entry.get("owners") or []]
            more = f" and {counted(len(owners) - _NAMES_SHOWN, 'more role')}" if len(owners) > _NAMES_SHOWN else ""
            whose = ", ".join(owners[:_NAMES_SHOWN]) + more
            lines.append(f"{counted(entry['count'], 'large object')} ({much}, of {whose}): {does}")
    return lines


def _expected_lines(record: Mapping[str, Any]) -> list[str]:
    past = record.get("past_seconds") or {}
    plan = (record.get("plan") or record.get("data") or {}).get("restore_plan") or {}
    measured = (plan.get("expected") or {}).get("seconds") or {}
    if not past and measured:
        spent = duration(sum(measured.values()))
        return [f"about {spent} until the side instance is there; no earlier run has shown how long the rest takes"]
    if not past:
        unknown = "unknown: no earlier run of this scenario has ended in this folder"
        return [f"{unknown}, and no restore test has measured this host (verify-backups does)"]
    parts = ", ".join(f"{phase} {duration(spent)}" for phase, spent in past.items())
    return [f"about {duration(sum(past.values()))}, as in earlier runs ({parts})"]


def _way_lines(record: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    """The ways back compared, where a scenario has several."""
    ways = data.get("ways")
    if not ways:
        return []
    database = (data.get("impact") or {}).get("database") or {}
    measured = ((data.get("restore_plan") or {}).get("expected") or {}).get("seconds") or {}
    return ways_lines(
        {
            "damage": ways.get("damage"),
            "count": int(ways.get("count") or 0),
            "rows": int(ways.get("rows") or 0),
            "tables": ways.get("tables") or [],
            "database_bytes": database.get("bytes"),
            "free_bytes": database.get("free"),
            "restore_seconds": sum(measured.values()) if measured else None,
            "past": record.get("past_strategies") or {},
        }
    )


def _digest_lines(record: Mapping[str, Any]) -> list[str]:
    digest = record.get("digest")
    return [f"{digest} (dr_confirm={digest} carries out this plan and no other)"] if digest else []


def plan_text(record: Mapping[str, Any], now: str, width: int = WIDTH) -> str:
    """The plan of an incident as a block of aligned lines.

    ``record`` is what the module ``dbre.recovery.incident`` returns; what is not known yet is left out. ``now`` is an
    ISO 8601 time with offset, for the ages.
    """
    data = record.get("plan") or record.get("data") or {}
    method = str((record.get("parameters") or {}).get("contain") or "none")
    in_force = in_force_lines((record.get("data") or {}).get("in_force") or [], str(record.get("id")))
    left = [_name_of(item) for item in data.get("left_to_do") or []]
    late = record.get("overdue") or []
    commands = {item["abandon"] for item in late}
    sections = [
        ("What happened", [*_incident_lines(data, now), *_before_lines(record)]),
        ("Damaged", _damage_lines(record, data)),
        ("May be it, too", _candidate_lines(data)),
        ("WAL searched", _searched_lines(data)),
        ("Target", _target_lines(data, now)),
        ("After it", _after_lines(record, data)),
        ("Repository", _repository_lines(data)),
        *_source_sections(data),
        ("In production", _production_lines(record, data)),
        ("Who would notice", bystander_lines(record, data)),
        ("Limits", limit_lines(data)),
        ("Ways back", _way_lines(record, data)),
        ("Containment", [CONTAINMENT.get(method, method), *in_force]),
        ("Expected time", _expected_lines(record)),
        ("Left to you", left),
        ("Kept too long", [line for item in late for line in (overdue_line(item), item["abandon"])]),
        ("Record", [str(record.get("path", ""))]),
        ("Digest", _digest_lines(record)),
    ]
    lines = [f"Plan of incident {record.get('id')} ({record.get('scenario')})"]
    if record.get("plan"):
        lines[0] += f", made {moment(record['plan'].get('planned_at'))}"
    lines.append("")
    for label, texts in sections:
        head = label
        for text in texts:
            wrapped = textwrap.wrap(text, width - _LABEL - 2, break_long_words=False, break_on_hyphens=False) or [""]
            if text in commands:  # to be copied, so in one line
                wrapped = [text]
            for line in wrapped:
                lines.append(f"  {head:<{_LABEL}}{line}".rstrip())
                head = ""
    return "\n".join(lines)
