# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tags by which a restored copy tells what it was restored from, to which moment, and for which incident."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

FROM = "dbre:restored-from"
TO = "dbre:restored-to"
# The name it was restored under. One that was renamed has taken a place in production and is nobody's copy any more.
AS = "dbre:restored-as"
STATE = "dbre:restore-state"
INCIDENT = "dbre:incident"
OWN = (FROM, TO, AS, STATE, INCIDENT)
RUNNING = "running"
DONE = "done"


@dataclass(frozen=True)
class Provenance:
    """Where a copy comes from. ``name`` is the source's at that time, ``identity`` its resource ID or a snapshot's ARN.

    ``moment`` is an ISO time, ``latest TIME``, or ``snapshot TIME``.
    """

    name: str
    identity: str
    moment: str
    target: str
    incident: str
    done: bool

    def tags(self) -> dict[str, str]:
        """The tags that say it."""
        return {
            FROM: f"{self.name} {self.identity}",
            TO: self.moment,
            AS: self.target,
            STATE: DONE if self.done else RUNNING,
            **({INCIDENT: self.incident} if self.incident else {}),
        }

    def is_moment(self, asked: str) -> bool:
        """Whether it was restored to the moment that is asked for; ``latest`` and ``snapshot`` match by word."""
        return self.moment == asked or self.moment.partition(" ")[0] == asked

    def __str__(self) -> str:
        return f"{self.name} ({self.identity}) to {self.moment}"


def provenance(tags: Mapping[str, str]) -> Optional[Provenance]:
    """What the tags of an instance or cluster say; None for one that is no restored copy."""
    if FROM not in tags or TO not in tags:
        return None
    name, _space, identity = tags[FROM].partition(" ")
    return Provenance(name, identity, tags[TO], tags.get(AS, ""), tags.get(INCIDENT, ""), tags.get(STATE) == DONE)


def without_own(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags without ours: a copy of something that was once restored itself is not that restore."""
    return {key: text for key, text in tags.items() if key not in OWN}
