# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stops a failover before anything is chosen: who must not be touched, and what people have to see to."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import size
from ansible_collections.dbre.recovery.plugins.module_utils._failover.choice import LAG, SAFE, Wishes
from ansible_collections.dbre.recovery.plugins.module_utils._failover.state import HostState


def refuse_managers(states: Sequence[HostState]) -> None:
    """Raise RecoveryError where another program fails over by itself, with that program's own command."""
    for state in states:
        for manager in state.get("managers") or []:
            raise RecoveryError(
                f"{manager['name']} manages {state['host']} ({manager['found']}), and nothing is done behind its back. "
                f"{SAFE} Fail over with its own command: {manager['command']}"
            )


def refuse_strangers(primary: HostState, standbys: Sequence[HostState]) -> None:
    """Raise RecoveryError where hosts are of different clusters."""
    known = {state["host"]: state["system_identifier"] for state in [primary, *standbys] if state.get("reachable")}
    if len(set(known.values())) > 1:
        said = ", ".join(f"{host} {identifier}" for host, identifier in known.items())
        raise RecoveryError(
            f"these hosts are not of one cluster; their system identifiers: {said}. {SAFE} Correct the inventory: the "
            "primary and its standbys belong together (groups primary and standby, or -l)."
        )


def refuse_living(primary: HostState) -> None:
    """Raise RecoveryError where the old primary works, or is none."""
    if not primary.get("answers"):
        return
    host = primary["host"]
    if primary["in_recovery"]:
        raise RecoveryError(
            f"{host} is a standby, and not the primary that is gone. {SAFE} Name the old primary (dr_primary, or the "
            "group primary of the inventory)."
        )
    raise RecoveryError(
        f"the primary on {host} runs, answers, and takes writes on timeline {primary['timeline']}: nothing is promoted "
        f"beside it. {SAFE} To exchange its place with a standby, with nothing lost, run this with -e "
        "dr_switchover=yes. If it must go all the same, stop it there and run this again: systemctl stop "
        f"{primary['service']}"
    )


# Segments that wait to be archived, for which clients would wait, too.
BACKLOG = 8


def refuse_switchover(primary: HostState, candidate: HostState) -> None:
    """Raise RecoveryError where two servers cannot exchange their places now without making clients wait for long."""
    host, new = primary["host"], candidate["host"]
    if not primary.get("answers") or primary["in_recovery"]:
        why = primary.get("why") or "it does not run"
        how = "is a standby" if primary.get("in_recovery") else f"does not answer ({why})"
        raise RecoveryError(
            f"dr_switchover is for a primary that lives, and {host} {how}. {SAFE} If it is gone, leave dr_switchover "
            "out."
        )
    if primary["ready"] > BACKLOG:
        raise RecoveryError(
            f"{primary['ready']} segments of WAL wait to be archived on {host}, and it ends only when they are: "
            f"clients would wait as long. {SAFE} See why archiving is slow (pg_stat_archiver), and run this again when "
            "it has caught up."
        )
    behind = parse_lsn(str(primary["end"])) - parse_lsn(str(candidate.get("replay_lsn") or "0/0"))
    if candidate.get("receiver") != "streaming" or behind > LAG:
        how = f"has {size(behind)} of WAL to replay" if candidate.get("receiver") == "streaming" else "does not stream"
        raise RecoveryError(
            f"{new} {how}: clients would wait until it has everything. {SAFE} Run this again when it has caught up "
            "(pg_stat_replication), or promote another: -e dr_promote=HOST"
        )


def refuse_promoted(standbys: Sequence[HostState], allowed: str = "") -> None:
    """Raise RecoveryError where a standby is a primary already, unless it is the one of this incident."""
    there = [state for state in standbys if state.get("answers") and not state["in_recovery"]]
    others = [state for state in there if state["host"] != allowed]
    if not others:
        return
    said = ", ".join(f"{state['host']} (timeline {state['timeline']})" for state in there)
    if len(there) > 1:
        raise RecoveryError(
            f"several hosts are primaries: {said}. {SAFE} Look at once which of them applications write to, stop the "
            f"others (systemctl stop {others[0]['service']}), and make those standbys of it anew: provision-standby "
            "with postgresql_standby_rebuild=true, which loses what only they have."
        )
    raise RecoveryError(
        f"{said} is the primary already; there is nothing to promote. {SAFE} If it was made so on purpose, put it into "
        "the group primary of the inventory, and the old one out of it."
    )


def refuse_unfenced(primary: HostState, wishes: Wishes) -> None:
    """Raise RecoveryError where nobody can see to it that the old primary stays off."""
    if primary.get("reachable") or wishes.fenced:
        return
    host = primary["host"]
    raise RecoveryError(
        f"{host} cannot be reached ({primary.get('why') or 'no answer'}), so that it cannot be stopped from here. It "
        f"may still serve clients or come back by itself: two primaries would be worse than none. {SAFE} See that it "
        "is off and stays off: power (console of the machine, or its hypervisor or cloud), or its network port; it "
        "must neither answer on PostgreSQL's port from any client's network nor start by itself. Then run this again "
        "with -e dr_fenced=yes. Or give a command that does it and ends with 0 only if it is done: "
        "-e dr_fence_command='...'."
    )
