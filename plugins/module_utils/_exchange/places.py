# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which directories make up a cluster, whether they can be exchanged, and which renames are left. Pure functions."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import size

IN_PLACE = "-e dr_strategy=cluster_in_place"
# What is written meanwhile, and what a file system wants to keep free.
MARGIN = 1.1
# Longest path of a Unix socket is 107 bytes on Linux.
LONGEST_KEEP = 107 - len("/run/.s.PGSQL.65535")
_UNTOUCHED = "Nothing was changed."


class Place(TypedDict):
    """One directory of a cluster: where it is in use, and where it waits, is kept, and goes when it is taken back."""

    live: str
    incoming: str
    kept: str
    taken: str


@dataclass(frozen=True)
class Facts:
    """What a host is like: devices by path, directories that are mount points, and bytes that are free."""

    host: str
    data: str
    side: str
    devices: Mapping[str, int]
    mounts: Collection[str]
    free: int
    needed: int
    writable: bool


def keep_of(data: str, incident: str) -> str:
    """Directory beside the data directory in which the one that is replaced is kept."""
    return f"{data.rstrip('/')}.before-{incident}"


def data_place(data: str, side: str, keep: str) -> Place:
    """The data directory itself."""
    return {
        "live": data,
        "incoming": os.path.join(side, "data"),
        "kept": os.path.join(keep, "data"),
        "taken": os.path.join(keep, "taken-back"),
    }


def beside(live: str, incoming: str, incident: str) -> Place:
    """A directory that a link in the data directory leads to: of a tablespace, or of WAL."""
    return {
        "live": live,
        "incoming": incoming,
        "kept": f"{live}.before-{incident}",
        "taken": f"{live}.taken-back-{incident}",
    }


def refuse_swap(facts: Facts, keep: str, linked: Sequence[str]) -> None:
    """RecoveryError where directories cannot be exchanged on this host; it names the way that can.

    ``linked`` are directories that links in the data directory lead to, each to be exchanged by a rename as well.
    """
    for path in (facts.data, *linked):
        if path in facts.mounts:
            raise RecoveryError(
                f"{path} on {facts.host} is a mount point, which cannot be renamed. {_UNTOUCHED} Restore over it: "
                f"{IN_PLACE}"
            )
    if not facts.writable:
        raise RecoveryError(
            f"the server's user may not write in {os.path.dirname(facts.data)} on {facts.host}, so that {facts.data} "
            f"cannot be renamed. {_UNTOUCHED} Let it (chown), or restore over the directory: {IN_PLACE}"
        )
    if len(keep) > LONGEST_KEEP:
        raise RecoveryError(
            f"{keep} is too long for a socket below it ({len(keep)} bytes; {LONGEST_KEEP} at most). {_UNTOUCHED} Give "
            "the incident a shorter name (dr_incident_id)."
        )
    if facts.devices[facts.side] != facts.devices[facts.data]:
        raise RecoveryError(
            f"{facts.side} on {facts.host} is on another file system than {facts.data}, so that what is restored there "
            f"cannot take its place by a rename. {_UNTOUCHED} Restore beside it: -e dr_side_path="
            f"{os.path.dirname(facts.data)}/dbre-recovery (where there is room), or over it: {IN_PLACE}"
        )
    wanted = int(facts.needed * MARGIN)
    if wanted > facts.free:
        raise RecoveryError(
            f"there is no room for a second cluster on {facts.host}: {size(wanted)} are needed below {facts.side}, "
            f"{size(facts.free)} are free. {_UNTOUCHED} Make room, or restore over the one that is there, which keeps "
            f"no copy of it: {IN_PLACE}"
        )


def moves(place: Place, there: Collection[str], to: str) -> list[tuple[str, str]]:
    """Renames that are left for one place, in order, out of which of its paths are there.

    ``to`` is ``new`` or ``old``. Each rename makes a state that none of the others has, so that a run that was killed
    between two goes on. RecoveryError where the paths are in no such state.
    """
    live, kept = place["live"], place["kept"]
    other = place["incoming"] if to == "new" else place["taken"]
    state = tuple(path in there for path in (live, other, kept))
    if to == "new":
        steps = [(live, kept), (other, live)]
        left = {(True, True, False): 2, (False, True, True): 1, (True, False, True): 0}
    else:
        steps = [(live, other), (kept, live)]
        left = {(True, False, True): 2, (False, True, True): 1, (True, True, False): 0, (True, False, False): 0}
    if state not in left:
        known = ", ".join(
            f"{path} is {'' if found else 'not '}there" for path, found in zip((live, other, kept), state)
        )
        raise RecoveryError(
            f"somebody else has moved directories of this cluster: {known}. Nothing more was moved. See where they "
            f"are; what was in use belongs to {kept} or {live}."
        )
    count = left[state]
    return steps[len(steps) - count :] if count else []
