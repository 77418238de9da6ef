# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which standby is to be promoted, why, and what would be lost. Decided from states alone, so that it can be tested."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn, parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import duration, moment, seconds_since, size
from ansible_collections.dbre.recovery.plugins.module_utils._failover.ancestry import (
    DIVERGED,
    Position,
    position,
    relate,
)
from ansible_collections.dbre.recovery.plugins.module_utils._failover.quorum import Acknowledged, acknowledged
from ansible_collections.dbre.recovery.plugins.module_utils._failover.recorded import newest
from ansible_collections.dbre.recovery.plugins.module_utils._failover.state import HostState

SAFE = "Nothing was changed."
# Bytes that a standby may lack in a switchover: clients wait until it has them.
LAG = 16 << 20


@dataclass(frozen=True)
class Wishes:
    """What people asked for.

    ``promote``: the host to promote; ``planned``: the one that an earlier plan chose, which stays unless it cannot.
    ``max_lag``: seconds that ``promote`` may be behind the best; ``fenced``: whether somebody says that the old primary
    is off, or gave a command for it; ``accept_loss``: whether acknowledged commits may be lost; ``switchover``: whether
    the primary lives, and is to exchange its place.
    """

    promote: str = ""
    planned: str = ""
    max_lag: float = 60.0
    fenced: bool = False
    accept_loss: bool = False
    switchover: bool = False


@dataclass(frozen=True)
class Source:
    """A host whose pg_wal can be read, and where its WAL ends."""

    host: str
    end: int
    kind: str
    """``standby`` or ``primary``."""


@dataclass(frozen=True)
class Loss:
    """What cannot come back. Null is unknown; ``exact`` says that nothing else can be lost."""

    bytes: Optional[int]
    transactions: Optional[int]
    seconds: Optional[float]
    exact: bool
    why: str


@dataclass(frozen=True)
class Choice:
    """Whom to promote. ``others`` says of each other standby why not it; ``sources`` have WAL that it lacks."""

    candidate: str
    reason: str
    timeline: int
    end: int
    best_end: int
    others: dict[str, str]
    sources: list[Source]
    acknowledged: Acknowledged
    loss: Loss
    warnings: list[str] = field(default_factory=list)


def lsn_of(state: HostState) -> Optional[int]:
    """Where a server's WAL ends; None where that is not known."""
    text = state.get("end")
    return parse_lsn(text) if text else None


def place_of(state: HostState) -> Optional[Position]:
    """The same with its timelines; RecoveryError where its timeline has no history file."""
    end = state.get("end")
    return position(state["timeline"], state.get("history"), end) if end else None


def why_not(state: HostState, line: Optional[Position], system_identifier: str) -> str:
    """Why a standby cannot be promoted; empty when it can. ``line`` is the history that the cluster's WAL is on."""
    if not state.get("reachable"):
        return f"cannot be reached ({state.get('why') or 'no answer'})"
    if state["system_identifier"] != system_identifier:
        return "is of another cluster"
    if not state["running"] or not state["answers"]:
        return "its server does not run" if not state["running"] else f"does not answer ({state.get('why')})"
    if state["delay_seconds"]:
        return f"is delayed by {duration(state['delay_seconds'])} on purpose; it is a source of WAL only"
    if state.get("barred"):
        return state["barred"]
    if state["held"]:
        return "stands at the recovery target of an incident"
    if state["paused"]:
        return "its replay is paused (SELECT pg_wal_replay_resume())"
    if state["lacks"]:
        return f"lacks settings that the primary had, so that its replay stops: {', '.join(state['lacks'])}"
    place = place_of(state)
    if place is None:
        return "does not say where its WAL ends"
    if line is not None:
        relation = relate(place, line)
        if relation.kind == DIVERGED and relation.fork is not None:
            return f"has left the others at {format_lsn(relation.fork)}: what it has after that is its own"
    return ""


def _line(primary: HostState, standbys: Sequence[HostState], identifier: str) -> Optional[Position]:
    """The history that the cluster is on: the old primary's where it is known, else that of most WAL."""
    if primary.get("reachable") and (place := place_of(primary)) is not None:
        return place
    ours = [state for state in standbys if state.get("reachable") and state["system_identifier"] == identifier]
    places = [place for place in map(place_of, ours) if place is not None]
    return max(places, key=lambda place: (place.timelines.current, place.lsn), default=None)


def choose(primary: HostState, standbys: Sequence[HostState], wishes: Wishes) -> Choice:
    """Whom to promote, with the reason; RecoveryError, which names the way out, where nobody can be.

    All refusals of the module refusals have to be asked before.
    """
    known = [state for state in [primary, *standbys] if state.get("reachable")]
    identifier = known[0]["system_identifier"] if known else ""
    line = _line(primary, standbys, identifier)
    verdicts = {state["host"]: why_not(state, line, identifier) for state in standbys}
    able = {state["host"]: state for state in standbys if not verdicts[state["host"]]}
    if wishes.promote and wishes.promote not in verdicts:
        raise RecoveryError(
            f"dr_promote={wishes.promote} is none of the standbys, which are {', '.join(verdicts) or 'none'}. {SAFE}"
        )
    if wishes.promote and wishes.promote not in able:
        raise RecoveryError(
            f"{wishes.promote} (dr_promote) cannot be promoted: it {verdicts[wishes.promote]}. {SAFE} Mend that, or "
            f"leave dr_promote out{_instead(able)}."
        )
    if not able:
        said = "; ".join(f"{host} {why}" for host, why in verdicts.items()) or "the inventory has none"
        raise RecoveryError(
            f"no standby can be promoted: {said}. {SAFE} Mend one of them and run this again, or restore the newest "
            "backup with all WAL: provision-primary on a new host, with pgbackrest restore."
        )
    order = _in_order(list(able.values()), wishes.switchover)
    best = order[0]
    wanted = wishes.promote or (wishes.planned if wishes.planned in able else "")
    chosen = able.get(wanted, best)
    warnings = _behind(chosen, best, wishes) if chosen is not best else []
    reason = _reason(chosen, order, wishes)
    end = lsn_of(chosen) or 0
    for state in standbys:
        if state["host"] in able and state is not chosen:
            verdicts[state["host"]] = _less(state, chosen)
    sources = _sources(primary, standbys, line, identifier, chosen)
    found = judge_acknowledged(primary, standbys)
    best_end = max([end, *(source.end for source in sources)])
    return Choice(
        candidate=chosen["host"],
        reason=reason,
        timeline=chosen["timeline"],
        end=end,
        best_end=best_end,
        others={host: why for host, why in verdicts.items() if host != chosen["host"]},
        sources=sources,
        acknowledged=found,
        loss=expected_loss(primary, standbys, best_end, found),
        warnings=warnings,
    )


def _in_order(able: Sequence[HostState], switchover: bool) -> list[HostState]:
    """The best first, as the inventory has them where they are as good.

    In a switchover all get everything before one is promoted, so that a moment's difference does not count.
    """
    most = max(lsn_of(state) or 0 for state in able)
    return sorted(able, key=lambda state: max(most - (lsn_of(state) or 0) - (LAG if switchover else 0), 0))


def _instead(able: dict[str, HostState]) -> str:
    return f" ({', '.join(able)} can be)" if able else ""


def _reason(chosen: HostState, order: Sequence[HostState], wishes: Wishes) -> str:
    end = chosen.get("end")
    if chosen["host"] == wishes.promote:
        return f"it was asked for (dr_promote); its WAL ends at {end}"
    if chosen is not order[0]:
        return f"the plan that was confirmed says so; its WAL ends at {end}"
    if len(order) == 1:
        return f"it is the only standby that can be; its WAL ends at {end}"
    behind = (lsn_of(chosen) or 0) - (lsn_of(order[1]) or 0)
    if wishes.switchover and abs(behind) <= LAG:
        return "it comes first in the inventory, and gets all WAL before it is promoted"
    if behind == 0:
        return f"its WAL ends at {end}, as that of {order[1]['host']} does, and it comes first in the inventory"
    return f"it has most WAL, up to {end}: {size(behind)} more than {order[1]['host']}"


def _less(state: HostState, chosen: HostState) -> str:
    difference = (lsn_of(chosen) or 0) - (lsn_of(state) or 0)
    if difference > 0:
        return f"has {size(difference)} of WAL less"
    return "has as much WAL" if difference == 0 else f"has {size(-difference)} of WAL more, which is taken from it"


def _behind(chosen: HostState, best: HostState, wishes: Wishes) -> list[str]:
    """What to say of a candidate that is not the best; RecoveryError where it is too far behind."""
    bytes_behind = (lsn_of(best) or 0) - (lsn_of(chosen) or 0)
    if bytes_behind <= 0:
        return []
    seconds = seconds_since(chosen.get("replay_time"), best.get("replay_time"))
    if wishes.promote and seconds is not None and seconds > wishes.max_lag:
        raise RecoveryError(
            f"{chosen['host']} (dr_promote) is {duration(seconds)} behind {best['host']}, more than dr_max_lag "
            f"({duration(wishes.max_lag)}): replay of that much takes its time. {SAFE} Leave dr_promote out to promote "
            f"{best['host']}, or allow it: -e dr_max_lag={round(seconds) + 1}"
        )
    less = f"{chosen['host']} HAS {size(bytes_behind)} OF WAL LESS THAN {best['host']}"
    return [f"{less}; that is taken from there before it is promoted"]


def _sources(
    primary: HostState, standbys: Sequence[HostState], line: Optional[Position], identifier: str, chosen: HostState
) -> list[Source]:
    """Hosts that have WAL which the candidate lacks: other standbys first, then the old primary's disk."""
    mine = lsn_of(chosen) or 0
    found = []
    for kind, states in (("standby", standbys), ("primary", [primary])):
        for state in states:
            if not state.get("reachable") or state is chosen or state["system_identifier"] != identifier:
                continue
            place = place_of(state)
            if place is None or place.lsn <= mine or state["timeline"] != chosen["timeline"]:
                continue
            if line is not None and relate(place, line).kind == DIVERGED:
                continue
            found.append(Source(state["host"], place.lsn, kind))
    return found


def judge_acknowledged(primary: HostState, standbys: Sequence[HostState]) -> Acknowledged:
    """Whether every acknowledged commit is on a standby that can be read, by the old primary's last known settings."""
    reachable = [state["host"] for state in standbys if state.get("reachable") and state.get("end")]
    setting, commit, said = last_known(primary, standbys)
    named = {state["host"]: _name_of(state, setting or "") for state in standbys}
    found = acknowledged(setting, named, reachable, commit)
    return replace(found, why=f"{found.why}{said}")


def _name_of(state: HostState, setting: str) -> str:
    """application_name of a standby. One that cannot be reached does not say it: what role postgresql_standby gives it
    where the setting has that, else the inventory's name."""
    if "upstream" in state:
        return state["upstream"]["name"]
    usual = usual_name(state["host"])
    return usual if usual in setting.lower() else state["host"]


def usual_name(host: str) -> str:
    """How role postgresql_standby calls the standby on a host: its user, its slot, and so its application_name."""
    return "dbre_" + re.sub("[^a-z0-9_]", "_", host.lower())


def last_known(primary: HostState, standbys: Sequence[HostState]) -> tuple[Optional[str], str, str]:
    """The old primary's ``synchronous_standby_names``, its ``synchronous_commit``, and since when that is known.

    From its disk where that can be read, which needs no words, else what was written down last.
    """
    setting = primary.get("synchronous_standby_names")
    told = newest([entry for state in standbys for entry in state.get("recorded") or []])
    if setting is not None or told is None:
        return setting, str(primary.get("synchronous_commit") or "on"), ""
    names = told["synchronous_standby_names"]
    said = f" (by synchronous_standby_names = '{names}', written down at {moment(told['at'])} in {told['where']})"
    return names, told["synchronous_commit"], said


def expected_loss(primary: HostState, standbys: Sequence[HostState], best_end: int, found: Acknowledged) -> Loss:
    """What is lost of what was committed, when everything that can be read up to ``best_end`` is taken."""
    if primary.get("reachable") and lsn_of(primary) is not None:
        return Loss(0, 0, 0.0, True, "the old primary's disk can be read: whatever it had is taken from there")
    if found.verdict == "all":
        return Loss(0, 0, 0.0, True, f"{found.why}; what was not acknowledged may be missing")
    told = [
        (parse_lsn(str(state["primary_lsn"])), state.get("primary_time"))
        for state in standbys
        if state.get("primary_lsn")
    ]
    furthest, when = max(told, default=(0, None))
    least = max(furthest - best_end, 0)
    said = f"the old primary's disk cannot be read, and {found.why}"
    if furthest:
        said += f". The old primary was last heard of at {when}, with WAL up to {format_lsn(furthest)}"
    return Loss(least or None, None, None, False, said)
