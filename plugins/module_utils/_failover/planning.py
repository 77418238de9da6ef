# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole plan of a failover out of what was seen on all hosts, as a playbook hands it on and people read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn, parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted, moment, size
from ansible_collections.dbre.recovery.plugins.module_utils._failover.ancestry import foreign_histories
from ansible_collections.dbre.recovery.plugins.module_utils._failover.choice import (
    SAFE,
    Choice,
    Wishes,
    choose,
    last_known,
    place_of,
    usual_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._failover.logical import logical_lines, logical_slots
from ansible_collections.dbre.recovery.plugins.module_utils._failover.patroni_plan import (
    agreed_view,
    already_led,
    barred,
    hosts_of,
    judged_loss,
    leader_of,
    orders,
    patroni_lines,
    patroni_manages,
    refuse_disagreement,
    refuse_patroni_loss,
    refuse_unready,
    refuse_untouchable,
)
from ansible_collections.dbre.recovery.plugins.module_utils._failover.quorum import (
    NO_PROMISE,
    NOT_ALL,
    exchanged,
)
from ansible_collections.dbre.recovery.plugins.module_utils._failover.recorded import newest
from ansible_collections.dbre.recovery.plugins.module_utils._failover.refusals import (
    refuse_living,
    refuse_managers,
    refuse_promoted,
    refuse_strangers,
    refuse_switchover,
    refuse_unfenced,
)
from ansible_collections.dbre.recovery.plugins.module_utils._failover.salvage import segments_to_bring
from ansible_collections.dbre.recovery.plugins.module_utils._failover.state import HostState, host_state, unreachable


@dataclass(frozen=True)
class Known:
    """What an earlier look, or an earlier run, has found.

    ``candidate``: whom the plan that was confirmed promotes; ``off``: whether the old primary was shut off by this
    incident; ``upstreams``: whom each standby followed before it was cut off, which it does not know any more.
    """

    candidate: str = ""
    off: bool = False
    upstreams: Mapping[str, Any] = field(default_factory=dict)


def state_of(result: Mapping[str, Any]) -> HostState:
    """The state of a host out of what a task in a loop over hosts registered for it; RecoveryError as host_state()."""
    host = str(result.get(str(result.get("ansible_loop_var", "item"))))
    if isinstance(result.get("state"), Mapping):
        return host_state(host, result["state"])
    said = " ".join(str(result.get("msg") or "no answer").split()).replace("Task failed: ", "")
    return unreachable(host, said)


def plan(looked: Sequence[Mapping[str, Any]], primary: str, wishes: Wishes, known: Known) -> dict[str, Any]:
    """What is to be done, as a dictionary; RecoveryError, which names the way out, where nothing can be.

    ``looked`` are the results of a task in a loop over the standbys and the old primary, ``primary`` is its name.
    """
    states = {state["host"]: state for state in map(state_of, looked)}
    old = states.pop(primary)
    for host, upstream in known.upstreams.items():
        if states.get(host, {}).get("reachable"):
            states[host]["upstream"] = upstream
    standbys = list(states.values())
    everybody = [old, *standbys]
    if patroni_manages(everybody):
        return patroni_plan(old, standbys, wishes, known)
    refuse_managers(everybody)
    refuse_strangers(old, standbys)
    refuse_promoted(standbys, known.candidate)
    chosen = states.get(known.candidate)
    promoted = bool(chosen and chosen.get("answers") and not chosen["in_recovery"])
    if not known.off and not promoted and not wishes.switchover:
        refuse_living(old)
    if promoted:
        return {"promoted": True, "primary": _primary(old), "reachable": _reachable(standbys)}
    refuse_foreign(standbys)
    choice = choose(old, standbys, wishes)
    if wishes.switchover and not known.off:
        refuse_switchover(old, states[choice.candidate])
    refuse_unasked(old, choice, wishes)
    return {
        **_as_dictionary(choice),
        "promoted": False,
        "system_identifier": states[choice.candidate]["system_identifier"],
        "bring": _bring(choice, everybody),
        "followers": _followers(choice, standbys),
        "upstreams": {state["host"]: state["upstream"] for state in standbys if "upstream" in state},
        "reachable": _reachable(standbys),
        "primary": _primary(old),
        "replication": replication(old, standbys, choice.candidate),
        "logical": logical_slots(old, states[choice.candidate]),
        "lines": lines(old, standbys, choice),
        "clean": shut_down(old, states[choice.candidate]),
    }


def patroni_plan(old: HostState, standbys: Sequence[HostState], wishes: Wishes, known: Known) -> dict[str, Any]:
    """The same where Patroni carries it out, or has done so already; RecoveryError where nothing is to be asked of it.

    ``patroni`` in it is what :func:`orders` returned.
    """
    everybody = [old, *standbys]
    view = agreed_view(everybody)
    refuse_strangers(old, standbys)
    refuse_unready(view)
    refuse_disagreement(view, everybody)
    members = hosts_of(everybody)
    leading = next((s for s in standbys if s["host"] == members.get(leader_of(view["members"]))), None)
    if leading is not None and leading.get("answers"):
        if not known.candidate:
            refuse_living(old)
        refuse_unfenced(old, wishes)
        choice = already_led(old, leading)
    else:
        refuse_untouchable(view, old, members, wishes)
        for state in standbys:
            state["barred"] = barred(view, state)
        refuse_foreign(standbys)
        choice = choose(old, standbys, wishes)
        leading, chosen = None, next(state for state in standbys if state["host"] == choice.candidate)
        if wishes.switchover:
            refuse_switchover(old, chosen)
        judged = choice = judged_loss(choice, old, chosen, wishes.switchover)
        _refuse_together(lambda: refuse_unfenced(old, wishes), lambda: refuse_patroni_loss(judged, old, wishes))
    new = next(state for state in standbys if state["host"] == choice.candidate)
    given = orders(view, old, new, everybody, wishes.switchover)
    return {
        **_as_dictionary(choice),
        "promoted": leading is not None,
        "system_identifier": new["system_identifier"],
        "bring": [],
        "followers": [],
        "upstreams": {},
        "reachable": _reachable(standbys),
        # Of one that lives the last commit is that of a moment ago, and says nothing of how long clients wait.
        "primary": {**_primary(old), **({"last_commit": None} if old.get("answers") else {})},
        "lines": [*patroni_lines(choice, old, given, leading is not None), f"lost: {_lost(choice)}"],
        "clean": True,
        "patroni": given,
    }


def shut_down(old: HostState, candidate: HostState) -> bool:
    """Whether the old primary was shut down in order, and the candidate has its WAL up to the shutdown checkpoint."""
    end = old.get("end")
    return old.get("cluster_state") == "shut down" and end is not None and candidate.get("end") == end


def replication(old: HostState, standbys: Sequence[HostState], candidate: str) -> dict[str, str]:
    """Settings by which commits of the new primary wait as those of the old one did, once the roles have changed.

    Empty where the old one's were empty, or nobody knows them.
    """
    mine = next(state for state in standbys if state["host"] == candidate).get("upstream")
    names, _commit, _said = last_known(old, standbys)
    told = newest([entry for state in standbys for entry in state.get("recorded") or []])
    slots = old.get("synchronized_standby_slots") or (told["synchronized_standby_slots"] if told else "")
    if mine is None:
        return {"synchronous_standby_names": "", "synchronized_standby_slots": ""}
    theirs = [each.strip().strip('"') for each in slots.split(",") if each.strip()]
    return {
        "synchronous_standby_names": exchanged(names or "", mine["name"], usual_name(old["host"])),
        "synchronized_standby_slots": ", ".join(usual_name(old["host"]) if e == mine["slot"] else e for e in theirs),
    }


def refuse_foreign(standbys: Sequence[HostState]) -> None:
    """Raise RecoveryError where the archive has a timeline that the standbys neither came from nor lead to."""
    for state in standbys:
        archived = {int(number): text for number, text in (state.get("archived") or {}).items()}
        place = place_of(state) if archived else None
        if place is None:
            continue
        for timeline, fork in foreign_histories(archived, place):
            raise RecoveryError(
                f"the archive has {timeline:08X}.history, of a timeline that left this cluster's WAL at "
                f"{format_lsn(fork)} and is not that of {state['host']} (timeline {state['timeline']}, WAL up to "
                f"{state['end']}): another server archives, or archived, under the same stanza. A standby that is "
                f"promoted could follow it and drop what was committed since. {SAFE} Find that server (pgbackrest "
                "info names the timelines) and stop it; when what it wrote is not wanted, take its .history and its "
                "WAL out of the repository, and run this again."
            )


def refuse_unasked(old: HostState, choice: Choice, wishes: Wishes) -> None:
    """Raise RecoveryError that names all words which people have to give before anything is done."""
    _refuse_together(lambda: refuse_unfenced(old, wishes), lambda: refuse_loss(old, choice, wishes))


def _refuse_together(*refusals: Callable[[], None]) -> None:
    said = []
    for refuse in refusals:
        try:
            refuse()
        except RecoveryError as error:
            said.append(error.msg)
    if said:
        raise RecoveryError(" And: ".join(said))


def refuse_loss(old: HostState, choice: Choice, wishes: Wishes) -> None:
    """Raise RecoveryError where commits that clients were told of may be lost, and nobody has agreed to that."""
    if choice.loss.exact or wishes.accept_loss:
        return
    found = choice.acknowledged
    back = ""
    if found.verdict == NOT_ALL:
        need = f"any {found.needed} of " if found.needed < len(found.absent) else ""
        back = f" Bring back {need}{', '.join(found.absent)} and run this again: nothing acknowledged is lost then."
    raise RecoveryError(
        f"commits that clients were told of may be lost: the disk of {old['host']} cannot be read, and {found.why}. "
        f"{SAFE}{back} Or bring back {old['host']} so far that its disk can be read by SSH; PostgreSQL need not run. "
        f"Or go on with what {choice.candidate} and the archive have: -e dr_accept_loss=yes"
    )


def _as_dictionary(choice: Choice) -> dict[str, Any]:
    found = asdict(choice)
    found["sources"] = [{**source, "end": format_lsn(source["end"])} for source in found["sources"]]
    return {**found, "end": format_lsn(choice.end), "best_end": format_lsn(choice.best_end)}


def _reachable(standbys: Sequence[HostState]) -> list[str]:
    return [state["host"] for state in standbys if state.get("answers")]


def _primary(old: HostState) -> dict[str, Any]:
    keys = ("host", "reachable", "running", "service", "timeline", "end", "commits", "last_commit", "data_directory")
    more = ("synchronous_standby_names", "slots", "masked", "ready")
    return {key: old.get(key) for key in (*keys, *more)}


def _bring(choice: Choice, states: Sequence[HostState]) -> list[dict[str, str]]:
    """Files of WAL to bring to the candidate, each with the host that has it and its path there."""
    by_host = {state["host"]: state for state in states}
    wanted = segments_to_bring(
        [by_host[source.host] for source in choice.sources], by_host[choice.candidate], choice.best_end
    )
    return [
        {"host": host, "name": name, "path": f"{by_host[host]['data_directory']}/pg_wal/{name}"}
        for host, names in wanted.items()
        for name in names
    ]


def _followers(choice: Choice, standbys: Sequence[HostState]) -> list[dict[str, Any]]:
    """Other standbys of this cluster that answer, and so can follow the new primary."""
    return [
        {"host": state["host"], "slot": state["upstream"]["slot"], "user": state["upstream"].get("user", "")}
        for state in standbys
        if state["host"] != choice.candidate and state.get("answers") and "upstream" in state
    ]


def lines(old: HostState, standbys: Sequence[HostState], choice: Choice) -> list[str]:
    """The plan for people."""
    said = [f"{old['host']}, the primary, {_how(old)}"]
    said.append(f"{choice.candidate} becomes the primary: {choice.reason}")
    said += [f"{host}: {why}" for host, why in choice.others.items()]
    said += [f"WARNING: {warning}" for warning in choice.warnings]
    if choice.sources:
        more = choice.best_end - choice.end
        whence = ", ".join(source.host for source in choice.sources)
        said.append(f"{size(more)} of WAL that {choice.candidate} lacks are taken from {whence} before it is promoted")
    said.append(f"replayed up to {format_lsn(choice.best_end)} on timeline {choice.timeline}, and promoted only then")
    candidate = next(state for state in standbys if state["host"] == choice.candidate)
    if prepared := candidate.get("prepared"):
        said.append(f"{counted(prepared, 'prepared transaction')} stay prepared on the new primary (pg_prepared_xacts)")
    said += logical_lines(old, choice.candidate, logical_slots(old, candidate))
    if choice.acknowledged.verdict != NO_PROMISE:
        said.append(choice.acknowledged.why)
    said.append(f"lost: {_lost(choice)}")
    return said


def _how(old: HostState) -> str:
    if not old.get("reachable"):
        return f"cannot be reached ({old.get('why')}); that it is off rests on your word or your command"
    if old["answers"]:
        return "runs: clients of PgBouncer wait while it is shut down in order, and it becomes a standby"
    running = "runs and does not answer" if old["running"] else "does not run"
    last = f", last commit {moment(old['last_commit'])}" if old.get("last_commit") else ""
    has = f"its disk has WAL up to {old.get('end')} (timeline {old['timeline']}{last})"
    return f"{running}; {has}. It is shut off for good"


def _lost(choice: Choice) -> str:
    loss = choice.loss
    if loss.exact:
        return f"nothing that was committed; {loss.why}"
    least = f"at least {size(loss.bytes)} of WAL; " if loss.bytes else ""
    return f"UNKNOWN: {least}{loss.why}"


def located(planned: Mapping[str, Any], salvaged: Mapping[str, Any]) -> dict[str, Any]:
    """Whom to promote, up to where, and what was lost, for the steps after this one and for the record.

    ``salvaged`` is what the module postgresql_wal_salvage returned; empty where nothing was to be brought.
    """
    expected = str(planned["best_end"])
    end = str(salvaged.get("end", expected))
    keys = ("commits", "last_commit", "taken", "bytes", "from", "archive_unread")
    return {
        "candidate": planned["candidate"],
        "timeline": planned["timeline"],
        "lsn": end,
        "expected": expected,
        "followers": planned["followers"],
        "replication": planned.get("replication") or {},
        "clean": planned.get("clean", False),
        "slots": [follower["slot"] for follower in planned["followers"] if follower["slot"]],
        "logical": planned.get("logical") or [],
        "salvaged": {key: salvaged.get(key) for key in keys},
        "last_commit": salvaged.get("last_commit") or (planned.get("primary") or {}).get("last_commit"),
        "lost": loss_of(planned.get("loss") or {}, end, expected),
        **({"patroni": planned["patroni"]} if "patroni" in planned else {}),
    }


def loss_of(loss: Mapping[str, Any], end: str, expected: str) -> dict[str, Any]:
    """What was lost, for the report: ``{seconds, transactions, why}``, null where nobody knows."""
    if parse_lsn(end) < parse_lsn(expected):
        missing = size(parse_lsn(expected) - parse_lsn(end))
        why = f"There was WAL up to {expected}, and the new primary has it up to {end}: {missing} could not be brought."
        return {"seconds": None, "transactions": None, "why": why}
    if loss.get("exact"):
        return {"seconds": 0, "transactions": 0, "why": f"Nothing that was committed: {loss.get('why')}."}
    return {"seconds": None, "transactions": None, "why": f"{loss.get('why')}."}
