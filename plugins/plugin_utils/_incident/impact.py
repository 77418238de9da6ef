# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan and a report say of those who share production with a recovery, and of what it takes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.units import (
    counted,
    duration,
    number,
    relation_name,
    size,
)

_SHOWN = 8
_LATER = (
    "the size of what was lost is known when it is restored; what does not fit is refused then, before production is "
    "touched. Loading writes about as much WAL"
)


def bystander_lines(record: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    """Event triggers, publications and subscribers of production, and what each gets of the recovery."""
    impact = data.get("impact") or {}
    lines = [
        f"event trigger {item['name']} ({item['state']}, on {item['event']}, calls {item['calls']}): does not fire"
        for item in impact.get("event_triggers") or []
    ]
    lines += _exchange_lines(impact.get("exchange") or {})
    replication = impact.get("replication") or {}
    if replication.get("publications"):
        lines.append(
            f"publication {', '.join(replication['publications'][:_SHOWN])}: "
            "what goes back to its place is filled unseen; "
            + _sent(data, str((record.get("parameters") or {}).get("load") or "beside"))
        )
        for slot in replication.get("slots") or []:
            who = f"subscriber {slot['subscriber']}" if slot.get("subscriber") else "no subscriber"
            state = "active" if slot.get("active") else "NOT ACTIVE"
            lines.append(f"slot {slot['name']}: {state}, {who}, {size(slot.get('behind_bytes'))} behind")
    return lines


def _exchange_lines(found: Mapping[str, Any]) -> list[str]:
    """Who and what hangs on a database that is exchanged for a recovered one."""
    if not found:
        return []
    sessions = found.get("sessions") or []
    count = sum(int(item["sessions"]) for item in sessions)
    who = ", ".join(
        f"{number(item['sessions'])} of {item['role']}" + (f" ({item['application']})" if item["application"] else "")
        for item in sessions[:_SHOWN]
    )
    more = f" and {counted(len(sessions) - _SHOWN, 'more role')}" if len(sessions) > _SHOWN else ""
    ended = (
        "ALL ARE ENDED ONCE, when the names are exchanged; new ones wait for less than a second, for some five where "
    )
    ended += "a session does not end"
    lines = [f"{counted(count, 'session')} in it now{f': {who}{more}' if who else ''}. {ended}"]
    for slot in found.get("slots") or []:
        state = "active" if slot.get("active") else "not in use"
        lines.append(
            f"logical slot {slot['name']} ({slot['plugin']}, {state}) stays with the damaged one: ITS READER GETS "
            "NOTHING OF THE RECOVERED ONE. Make a new slot there, and copy anew"
        )
    for item in found.get("subscriptions") or []:
        lines.append(
            f"subscription {item['name']} goes on in the damaged one; the recovered one has it DISABLED, under the "
            "same slot. Disable it there, before it is enabled here and refreshed"
        )
    if found.get("publications"):
        lines.append(
            f"publication {', '.join(found['publications'][:_SHOWN])}: comes back as it was; subscribers follow the "
            "damaged one until they are told"
        )
    return lines


def _sent(data: Mapping[str, Any], load: str) -> str:
    if load == "beside":
        return "copies beside are not sent"
    if load == "swap":
        return "it lists the table that takes the place, and SUBSCRIBERS KEEP THE ROWS THEY HAVE: copy them anew there"
    if load == "replace":
        return "of a table that is replaced, EACH ROW IS SENT TO SUBSCRIBERS TWICE, deleted and as it was"
    hit = sum(int(item.get("rows") or 0) for item in (data.get("incident") or {}).get("relations") or [])
    told = f" ({counted(hit, 'row')} went)" if hit else ""
    return f"EACH ROW THAT IS MERGED IS SENT TO SUBSCRIBERS, as any other{told}"


def limit_lines(data: Mapping[str, Any]) -> list[str]:
    """What production has to spare, and what loading takes of it, as far as that is known before the restore."""
    impact = data.get("impact") or {}
    limits = impact.get("limits")
    if not limits:
        return []
    return [
        _connections(limits["connections"]),
        *_disks(limits),
        *_sizes(impact),
        _archive(limits["archive"]),
        *_slots(limits),
        *_standbys(limits, impact.get("max_lag")),
    ]


def _connections(found: Mapping[str, Any]) -> str:
    free = found["max"] - found["used"]
    line = f"connections: takes at most {found['wanted']}; {number(found['used'])} of {number(found['max'])} are in use"
    line += f", {found['reserved']} of the rest reserved" if found.get("reserved") else ""
    return line + ("" if free >= found["wanted"] else ": FEWER ARE FREE, SO FEWER TABLES ARE LOADED AT A TIME")


def _disks(limits: Mapping[str, Any]) -> list[str]:
    found: dict[Any, list[Mapping[str, Any]]] = {}
    for item in limits.get("disk") or []:
        found.setdefault(item["device"], []).append(item)
    return [
        f"disk: {size(items[0]['free'])} of {size(items[0]['total'])} free for "
        + ", ".join(str(item["path"]) for item in items[:_SHOWN])
        for items in found.values()
    ]


def _sizes(impact: Mapping[str, Any]) -> list[str]:
    here = impact.get("relations") or []
    exchange = impact.get("exchange") or {}
    if exchange:
        disk = exchange.get("disk") or {}
        room = f"; {size(disk['free'])} are free for it in {disk['path']}" if disk else ""
        tight = bool(disk) and exchange["bytes"] > disk["free"]
        short = ", WHICH MAY BE TOO LITTLE; it is known exactly when it is restored" if tight else ""
        return [f"both databases stand beside each other: this one has {size(exchange['bytes'])}{room}{short}"]
    lines = [
        f"{relation_name(item)} is there with {size(item['bytes'])}, about {number(item['rows_estimate'])} rows"
        for item in here[:_SHOWN]
    ]
    return [
        *lines,
        _LATER,
    ]


def _archive(found: Mapping[str, Any]) -> str:
    if found["mode"] == "off":
        return "archive: off"
    waiting = "not known how many segments" if found.get("waiting") is None else counted(found["waiting"], "segment")
    line = f"archive: {waiting} waiting"
    if found.get("failing"):
        line += f", AND IT FAILS, last on {found.get('failed')}: the WAL of the load stays in pg_wal until it works"
    return line


def _slots(limits: Mapping[str, Any]) -> list[str]:
    slots = limits.get("slots") or []
    idle = [item for item in slots if not item["active"]]
    if not idle:
        return []
    most = limits.get("max_slot_wal_keep_bytes")
    bound = "WITHOUT A LIMIT (max_slot_wal_keep_size)" if most is None else f"at most {size(most)}, then it is lost"
    return [f"slot {item['name']} is not in use and keeps {size(item['kept_bytes'])} of WAL, {bound}" for item in idle]


def _standbys(limits: Mapping[str, Any], max_lag: Any) -> list[str]:
    lines = []
    for item in limits.get("standbys") or []:
        where = f" at {item['address']}" if item.get("address") else ""
        line = f"standby {item['name']}{where} ({item['sync_state']})"
        if item.get("not_replayed_bytes") is not None:
            line += (
                f": {size(item['not_received_bytes'])} not received, {size(item['not_replayed_bytes'])} not replayed"
            )
        if item.get("replay_lag_seconds"):
            line += f", {duration(item['replay_lag_seconds'])} behind"
        lines.append(line)
    if lines and max_lag is not None:
        wait = f"loading waits while one is behind by more than {duration(max_lag)} because of it (dr_max_lag)"
        lines.append(wait if float(max_lag) > 0 else "loading waits for none of them (dr_max_lag=0)")
    return lines


def measured_lines(limits: Mapping[str, Any]) -> list[str]:
    """What a run has taken of production, for the report; ``limits`` is what the load returned."""
    lines = []
    if limits.get("wal_bytes") is not None:
        lines.append(f"{size(limits['wal_bytes'])} of WAL were written while it was loaded, that of others included")
    if limits.get("sessions"):
        lines.append(f"{counted(limits['sessions'], 'session')} of ours at one time at most")
    exchange = limits.get("exchange") or {}
    if exchange.get("seconds") is not None:
        ended = counted(exchange["sessions"], "session")
        lines.append(f"{ended} ended for the exchange of names; new ones waited {duration(exchange['seconds'])}")
    waited = limits.get("waited_seconds") or 0
    if limits.get("standbys"):
        lines.append(f"waited {duration(waited)} for standbys" if waited else "waited for no standby")
    for item in limits.get("standbys") or []:
        line = f"standby {item['name']}: at most {duration(item['most_lag_seconds'])} behind"
        lines.append(line + (f"; not waited for, since {item['not_waited_for']}" if item.get("not_waited_for") else ""))
    return lines
