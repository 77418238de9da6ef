# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the WAL of two servers of one cluster is related: by where their timelines left each other, never by a number.

Two servers that were promoted apart may both be on timeline 2. What tells them apart is the history file of their
timelines (PostgreSQL: src/backend/access/transam/timeline.c), which says where each was left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import Timelines, parse_history, parse_lsn

SAME, BEHIND, AHEAD, DIVERGED = "same", "behind", "ahead", "diverged"
_NEVER = 1 << 64


@dataclass(frozen=True)
class Position:
    """The end of a server's WAL: an LSN, and the timelines that lead there."""

    timelines: Timelines
    lsn: int


@dataclass(frozen=True)
class Relation:
    """What one position is to another; ``fork`` is where they left each other, None while neither has left."""

    kind: str
    fork: Optional[int] = None


def timelines_of(timeline: int, history: Optional[str]) -> Timelines:
    """Timelines out of a server's number and the text of that timeline's history file.

    Timeline 1 has none. Raises RecoveryError where another has none, since its number alone says nothing.
    """
    if timeline == 1:
        return Timelines(1)
    if not history or not history.strip():
        raise RecoveryError(
            f"the history file of timeline {timeline} is missing, so that nobody can tell where that timeline began. "
            f"Nothing was changed. Put {timeline:08X}.history back into pg_wal; the archive has it."
        )
    return parse_history(history, timeline)


def position(timeline: int, history: Optional[str], lsn: str) -> Position:
    """A position out of what a server says of itself; RecoveryError as :func:`timelines_of`."""
    return Position(timelines_of(timeline, history), parse_lsn(lsn))


def fork_of(one: Timelines, other: Timelines) -> int:
    """Position up to which two histories are one; beyond every position where they are the same."""
    stretches = [[*each.ends, (each.current, _NEVER)] for each in (one, other)]
    begin = 0
    for (timeline, end), (other_timeline, other_end) in zip(*stretches):
        if timeline != other_timeline:
            return begin
        if end != other_end:
            return min(end, other_end)
        begin = end
    return _NEVER


def relate(one: Position, other: Position) -> Relation:
    """What ``one`` is to ``other``: ``behind`` means that all of its WAL is in the other's, which has more."""
    fork = fork_of(one.timelines, other.timelines)
    inside, other_inside = one.lsn <= fork, other.lsn <= fork
    known = fork if fork < _NEVER else None
    if inside and other_inside:
        order = (one.lsn > other.lsn) - (one.lsn < other.lsn)
        return Relation({-1: BEHIND, 0: SAME, 1: AHEAD}[order], known)
    if inside:
        return Relation(BEHIND, known)
    if other_inside:
        return Relation(AHEAD, known)
    return Relation(DIVERGED, known)


def follows_from(child: Timelines, parent: Position) -> bool:
    """Whether a server on ``child`` can have been promoted from a server that stood at or before ``parent``.

    That is: ``child`` left the parent's timeline, directly or over others, at or before the parent's end.
    """
    fork = fork_of(child, parent.timelines)
    return child.current != parent.timelines.current and fork <= parent.lsn and child.at(fork) != child.at(fork - 1)


def foreign_histories(histories: Mapping[int, str], current: Position) -> list[tuple[int, int]]:
    """Timelines of which history files lie about that a server at ``current`` neither came from nor leads to.

    As ``(timeline, position)``: where each left what the server has. A standby that finds such a file may follow it,
    and one that is promoted gets a number above it. RecoveryError for a file that cannot be read.
    """
    found = []
    for timeline, text in sorted(histories.items()):
        timelines = parse_history(text, timeline)
        own = dict(current.timelines.ends)
        if timeline == current.timelines.current or timeline in own:
            fork = fork_of(timelines, current.timelines)
            ends = dict(timelines.ends)
            if any(own.get(each) != end for each, end in ends.items()):
                found.append((timeline, fork))
        elif timeline > current.timelines.current:
            found.append((timeline, fork_of(timelines, current.timelines)))
    return found
