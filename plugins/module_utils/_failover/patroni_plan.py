# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A failover that Patroni carries out: when it may be asked for, to whom, and what is proved afterwards.

Nothing of PostgreSQL is touched beside it, so that what a candidate lacks cannot be brought there first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Optional, cast

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn, parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted, size
from ansible_collections.dbre.recovery.plugins.module_utils._failover.ancestry import timelines_of
from ansible_collections.dbre.recovery.plugins.module_utils._failover.choice import SAFE, Choice, Loss, Wishes, lsn_of
from ansible_collections.dbre.recovery.plugins.module_utils._failover.patroni import Asked, as_text, leader_of
from ansible_collections.dbre.recovery.plugins.module_utils._failover.quorum import NO_PROMISE, Acknowledged
from ansible_collections.dbre.recovery.plugins.module_utils._failover.state import (
    HostState,
    PatroniMember,
    PatroniView,
)

WELL = ("running", "streaming", "in archive recovery")
_SYNCHRONOUS = ("sync_standby", "quorum_standby")
_OFF = ("", "false", "off", "no", "null")


def patroni_manages(states: Sequence[HostState]) -> bool:
    """Whether Patroni, and nothing else, fails these hosts over; RecoveryError for a mixture."""
    names = {manager["name"]: state["host"] for state in states for manager in state.get("managers") or []}
    if "Patroni" not in names:
        return False
    if len(names) > 1:
        said = " and ".join(f"{name} on {host}" for name, host in names.items())
        raise RecoveryError(
            f"more than one program fails these hosts over: {said}. {SAFE} Which of them decides is not for a playbook "
            "to guess: take the others off (a keepalived that only moves an address may stay on hosts of its own), or "
            f"fail over by hand: {_command(_views(states), 'switchover')}"
        )
    return True


def _views(states: Sequence[HostState]) -> list[PatroniView]:
    return [state["patroni"] for state in states if "patroni" in state]


def _told(state: HostState) -> Mapping[str, Any]:
    """What Patroni says on a host; empty where there is none, or nobody could ask."""
    return cast("Mapping[str, Any]", state.get("patroni") or {})


def _command(views: Sequence[PatroniView], *words: str) -> str:
    view = next((view for view in views if view["config"]), None)
    where = (view["program"], view["config"], view["scope"]) if view else ("patronictl", "/etc/patroni/config.yml", "")
    return " ".join(word for word in Asked(*where).argv(words) if word)


def agreed_view(states: Sequence[HostState]) -> PatroniView:
    """What Patroni says, the same on every host that can ask it; RecoveryError where there is no such thing."""
    known = {state["host"]: state["patroni"] for state in states if "patroni" in state}
    scopes = {host: view["scope"] for host, view in known.items() if view["scope"]}
    if len(set(scopes.values())) > 1:
        said = ", ".join(f"{host} {scope}" for host, scope in scopes.items())
        raise RecoveryError(
            f"these hosts are of different clusters of Patroni; their scopes: {said}. {SAFE} Correct the inventory: "
            "the primary and its standbys belong together (groups primary and standby, or -l)."
        )
    asked = [view for view in known.values() if not view["unread"] and view["members"]]
    if not asked:
        why = "; ".join(f"{host}: {view['unread'] or 'it has no members'}" for host, view in known.items())
        raise RecoveryError(
            f"Patroni manages {', '.join(known)}, and cannot be asked ({why}). Without its store it fails nobody over, "
            f"and nothing is done behind its back. {SAFE} Bring its store back (etcd, Consul, ZooKeeper), see that "
            f"this answers, and run this again: {_command(list(known.values()), 'list')}"
        )
    leaders = {leader_of(view["members"]) for view in asked}
    if len(leaders) > 1:
        raise RecoveryError(
            f"Patroni is changing its leader at this moment ({' and '.join(sorted(leaders - {''}))}). {SAFE} Run this "
            "again in a minute."
        )
    return asked[0]


def refuse_unready(view: PatroniView) -> None:
    """Raise RecoveryError where somebody has told Patroni something else."""
    ask = Asked(view["program"], view["config"], view["scope"])
    if view["settings"].get("pause", "") not in _OFF:
        raise RecoveryError(
            f"Patroni's cluster {view['scope']} is in maintenance mode (pause): somebody works on it, and Patroni does "
            f"not see to it that there is one primary. {SAFE} Ask whoever paused it. When that is over, and the right "
            f"server holds the leader lock, let Patroni manage it again, and run this again: "
            f"{' '.join(ask.argv(['resume', '--wait']))}"
        )
    if view["scheduled"]:
        raise RecoveryError(
            f"somebody has scheduled a switchover of {view['scope']} for {view['scheduled']}, which a command of now "
            f"would overwrite. {SAFE} Wait for it, or take it back: {' '.join(ask.argv(['flush', 'switchover']))}"
        )
    standby = [member["name"] for member in view["members"] if member["role"] == "standby_leader"]
    if standby:
        raise RecoveryError(
            f"Patroni's cluster {view['scope']} is a standby cluster (its leader {standby[0]} follows another "
            f"cluster): whoever is its leader takes no writes. {SAFE} To make it the one that does, take "
            f"standby_cluster out of its dynamic configuration: {' '.join(ask.argv(['edit-config']))}"
        )


def hosts_of(states: Sequence[HostState]) -> dict[str, str]:
    """Hosts by the names of their members."""
    return {state["patroni"]["member"]: state["host"] for state in states if _told(state).get("member")}


def refuse_disagreement(view: PatroniView, states: Sequence[HostState]) -> None:
    """Raise RecoveryError where servers are not what Patroni takes them for."""
    leader = leader_of(view["members"])
    for state in states:
        member = _told(state).get("member")
        if "patroni" in state and not member and leader not in hosts_of(states):
            member = leader  # whose name cannot be read there is whom nobody else is
        if not state.get("answers"):
            continue
        host, writes = state["host"], not state["in_recovery"]
        if writes and member != leader:
            said = f"takes {leader} for the leader" if leader else "knows no leader"
            runs = _told(state).get("running")
            start = _told(state).get("unit") or "patroni"
            way = (
                "Its Patroni ends it within seconds when it lives: run this again in a minute"
                if runs
                else f"No Patroni runs there to end it. Look at once which of the two applications write to; then "
                f"start Patroni there, which makes a standby of it: systemctl start {start}"
            )
            raise RecoveryError(
                f"the server on {host} takes writes on timeline {state['timeline']}, and Patroni {said}. {SAFE} {way}."
            )
        if member and member == leader and not writes:
            raise RecoveryError(
                f"{host} has Patroni's leader lock, and its server is a standby at this moment: Patroni is at work. "
                f"{SAFE} Run this again in a minute."
            )


def barred(view: PatroniView, state: HostState) -> str:
    """Why Patroni would not have a host for its leader; empty where it would."""
    name = _told(state).get("member")
    if not state.get("reachable"):
        return ""
    if not name and "patroni" in state:
        return f"has a Patroni that cannot be asked ({state['patroni']['unread']})"
    if not name:
        return "is none of Patroni's, which alone promotes here"
    member = next((each for each in view["members"] if each["name"] == name), None)
    if member is None:
        unit = state["patroni"]["unit"] or "patroni"
        return f"is not in Patroni's list (systemctl start {unit})"
    tags = member["tags"]
    if tags.get("nofailover") or str(tags.get("failover_priority", 1)) == "0":
        return f"has the tag {as_text({k: v for k, v in tags.items() if k in ('nofailover', 'failover_priority')})}"
    if tags.get("nostream"):
        return "has the tag nostream: it has only what the archive has"
    if member["state"] not in WELL:
        return f"is {member['state']}, as Patroni says"
    if view["settings"].get("synchronous_mode", "") not in _OFF and member["role"] not in _SYNCHRONOUS:
        why = " (tag nosync)" if tags.get("nosync") else ""
        return f"is not synchronous{why}, and synchronous_mode is on"
    leader = next((each for each in view["members"] if each["name"] == leader_of(view["members"])), None)
    if leader and None not in (leader["timeline"], member["timeline"]) and member["timeline"] != leader["timeline"]:
        return f"is on timeline {member['timeline']}, and the leader on {leader['timeline']}"
    return ""


def refuse_untouchable(view: PatroniView, old: HostState, members: Mapping[str, str], wishes: Wishes) -> None:
    """Raise RecoveryError where the old primary is none to be replaced by Patroni now."""
    leader, host = leader_of(view["members"]), old["host"]
    if old.get("answers") and not wishes.switchover:
        raise RecoveryError(
            f"the primary on {host} runs, answers, and has Patroni's leader lock: it is not gone. {SAFE} To exchange "
            "its place with a standby, with nothing lost, run this with -e dr_switchover=yes."
        )
    if leader and leader not in members and not old.get("reachable"):
        ttl = view["settings"].get("ttl", "30")
        raise RecoveryError(
            f"{host} cannot be reached from here, and Patroni's leader {leader} is on no host that could be: it lives, "
            f"or died less than {ttl} s ago. {SAFE} Run this again in {ttl} s. If it is the leader still, it lives: "
            "mend the way to it, and run this with -e dr_switchover=yes."
        )


def judged_loss(choice: Choice, old: HostState, candidate: HostState, switchover: bool) -> Choice:
    """The choice with what would be lost when Patroni carries it out: it brings nothing from other disks."""
    if switchover:
        why = "Patroni ends the old one in order, and promotes when everything has arrived"
        return replace(choice, loss=Loss(0, 0, 0.0, True, why), sources=[], best_end=choice.end)
    end, mine = lsn_of(old) if old.get("reachable") else None, lsn_of(candidate) or 0
    if end is None:
        return replace(choice, sources=[], best_end=choice.end)
    commits, read_from = old.get("commits"), old.get("read_from")
    nothing = end <= mine or (commits == 0 and bool(read_from) and parse_lsn(str(read_from)) <= mine)
    if nothing:
        why = f"the disk of {old['host']} has no commit beyond {format_lsn(choice.end)}, which {choice.candidate} has"
        return replace(choice, loss=Loss(0, 0, 0.0, True, why), sources=[], best_end=choice.end)
    # Counted from where reading began, which may be before what the candidate has.
    many = f"at most {counted(commits, 'transaction')}, " if commits else ""
    why = (
        f"{many}{size(end - mine)} of WAL up to {format_lsn(end)} are on the disk of {old['host']} alone, which "
        f"{choice.candidate} lacks, and Patroni does not bring them"
    )
    return replace(choice, loss=Loss(end - mine, None, None, False, why), sources=[], best_end=choice.end)


def refuse_patroni_loss(choice: Choice, old: HostState, wishes: Wishes) -> None:
    """Raise RecoveryError where commits may be lost, and nobody has agreed to that."""
    if choice.loss.exact or wishes.accept_loss:
        return
    unit = _told(old).get("unit") or "patroni"
    raise RecoveryError(
        f"commits that clients were told of may be lost: {choice.loss.why}. {SAFE} Bring {old['host']} back, and "
        f"nothing is: Patroni starts the server there, which stays the leader or hands over what it has (systemctl "
        f"start {unit}). Or go on with what {choice.candidate} has: -e dr_accept_loss=yes"
    )


def already_led(old: HostState, leader: HostState) -> Choice:
    """The choice that Patroni has made by itself, or an earlier run."""
    ends = timelines_of(leader["timeline"], leader.get("history")).ends
    timeline, fork = ends[-1] if ends else (leader["timeline"], lsn_of(leader) or 0)
    lost, own = 0, lsn_of(old) if old.get("reachable") and not old.get("answers") else None
    if own is not None and old["timeline"] == timeline:
        lost = max(own - fork, 0)
    if lost and old.get("commits"):
        loss = Loss(
            lost, None, None, False, f"{size(lost)} of WAL beyond {format_lsn(fork)} are on the disk of {old['host']}"
        )
    elif own is not None:
        loss = Loss(0, 0, 0.0, True, f"the disk of {old['host']} has no commit beyond {format_lsn(fork)}")
    elif old.get("answers"):
        loss = Loss(0, 0, 0.0, True, f"{old['host']} follows it with all that it had")
    else:
        loss = Loss(None, None, None, False, f"the disk of {old['host']} cannot be read")
    return Choice(
        candidate=leader["host"],
        reason=f"Patroni has made it the leader, on timeline {leader['timeline']}",
        timeline=timeline,
        end=fork,
        best_end=fork,
        others={},
        sources=[],
        acknowledged=Acknowledged(NO_PROMISE, "it is done"),
        loss=loss,
    )


def orders(
    view: PatroniView, old: HostState, candidate: HostState, states: Sequence[HostState], switchover: bool
) -> dict[str, Any]:
    """What is handed on to those who have it carried out, and prove it."""
    members = hosts_of(states)
    mine = candidate["patroni"]
    leader = leader_of(view["members"])
    # Whose Patroni is gone may have left no trace of its name; the dead leader is then the one that nobody else is.
    old_member = _told(old).get("member") or ("" if leader in members else leader)
    old_runs = bool(_told(old).get("running"))
    there = [member["name"] for member in view["members"]]
    return {
        "program": mine["program"],
        "config": mine["config"],
        "scope": view["scope"],
        "member": mine["member"],
        "leader": old_member,
        "switchover": switchover,
        "old_unit": _told(old).get("unit", ""),
        "followers": [
            name for name in there if name != mine["member"] and (old_runs if name == old_member else name in members)
        ],
        "elsewhere": [name for name in there if name not in members and name != old_member],
        "members": view["members"],
        "configuration": view["configuration"],
    }


def patroni_lines(choice: Choice, old: HostState, given: Mapping[str, Any], led: bool) -> list[str]:
    """The plan for people."""
    ask = Asked(given["program"], given["config"], given["scope"])
    if not old.get("reachable"):
        how = f"cannot be reached ({old.get('why')}); that it is off rests on your word or your command"
    elif old.get("answers"):
        how = "runs, and becomes a standby" if not led else "is a standby by now"
    else:
        how = f"does not answer; its disk has WAL up to {old.get('end')} (timeline {old['timeline']})"
    said = [f"{old['host']}, the primary, {how}"]
    said.append(f"{choice.candidate} {'is' if led else 'becomes'} the primary: {choice.reason}")
    said += [f"{host}: {why}" for host, why in choice.others.items()]
    said += [
        f"WARNING: Patroni's member {name} is none of these hosts, and nothing is known of it"
        for name in given["elsewhere"]
    ]
    if led:
        said.append("nothing is asked of Patroni; applications are led there, and it is proved")
    else:
        said.append(f"by Patroni, which manages these hosts: {' '.join(ask.argv(words(given)))}")
    tags = [f"{m['name']} {as_text(m['tags'])}" for m in given["members"] if m["tags"]]
    said.append(f"Patroni's dynamic configuration and tags stay as they are ({'; '.join(tags) or 'there are none'})")
    said.append(f"it is Patroni's to bring {old['host']} back as a standby")
    return said


def words(given: Mapping[str, Any]) -> list[str]:
    """Command and options for patronictl. That the leader's name is given keeps it from exchanging another."""
    if given["switchover"]:
        return ["switchover", "--leader", given["leader"], "--candidate", given["member"], "--force"]
    return ["failover", "--candidate", given["member"], "--force"]


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What is not in Patroni as it was, of that which nobody was to change: its configuration, and members' tags.

    Both are what :func:`orders` returned.
    """
    known = {member["name"]: member["tags"] for member in before["members"]}
    found = [
        f"{member['name']} had {as_text(known[member['name']])}, and has {as_text(member['tags'])}"
        for member in after["members"]
        if member["name"] in known and member["tags"] != known[member["name"]]
    ]
    if after["configuration"] != before["configuration"]:
        show = Asked(after["program"], after["config"], after["scope"]).argv(["show-config"])
        found.append(f"the dynamic configuration is another ({' '.join(show)})")
    return found


def member_named(members: Sequence[PatroniMember], name: str) -> Optional[PatroniMember]:
    """The member of this name; None where Patroni's list does not have it."""
    return next((member for member in members if member["name"] == name), None)
