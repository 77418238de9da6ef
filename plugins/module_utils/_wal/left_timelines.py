# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuse a target that was taken down on a timeline that the server has left since.

Its own WAL goes on at the same position, and at the same time, with something else.
"""

from __future__ import annotations

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._wal.record import LONG_HEADER_SIZE, PAGE
from ansible_collections.dbre.recovery.plugins.module_utils._wal.scan import Scan
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import Commit, format_time, parse_lines


def other_timelines(scan: Scan, lsn: int) -> list[int]:
    """Timelines that are not the server's at ``lsn``, and of which the archive has the segment with it."""
    timelines, segment = scan.source.timelines, lsn // scan.source.segment_size
    others = [number for number in range(1, timelines.current) if not timelines.contains(number, lsn)]
    return [number for number in others if scan.source.has_of(number, segment)]


def require_position(scan: Scan, lsn: int, following: Commit) -> str:
    """RecoveryError where ``lsn`` is a position of a timeline that was left, and of none of the server's own records.

    Else what to say where a timeline that was left has WAL of that position, too.
    """
    others = other_timelines(scan, lsn)
    if not others:
        return ""
    named, current = ", ".join(map(str, others)), scan.source.timelines.at(lsn)
    size = scan.source.segment_size
    first = scan.steady(lsn // size, following.lsn + 1, lambda: _first_from(scan, lsn, following.lsn))
    if first != lsn and not (lsn % PAGE == 0 and first - lsn <= LONG_HEADER_SIZE):
        raise RecoveryError(
            f"target_lsn {format_lsn(lsn)} is of a timeline that was left (timeline {named} has it in the archive): no "
            f"record of timeline {current}, on which the server is now, begins there. Nothing was changed. Name a "
            "position that what-happened tells now."
        )
    return f"; of timeline {current}, not of timeline {named}, which was left and has WAL of that position, too"


def _first_from(scan: Scan, lsn: int, until: int) -> int:
    """Where the first record begins at or after ``lsn``, and not after ``until``, where one does."""
    for piece in scan.source.waldump(lsn, until, "--limit=1"):
        for line in parse_lines(piece):
            return line.lsn
    return until


def require_moment(scan: Scan, time: int, following: Commit) -> None:
    """RecoveryError where the server was at ``time`` on a timeline that it has left since.

    ``following`` is the first commit after it that the server has.
    """
    before = scan.commits.last_before(following.lsn)
    for timeline, end in scan.source.timelines.ends:
        if following.lsn < end or (before is not None and before.lsn >= end):
            continue
        first = scan.source.first_commit_of(timeline, end)
        if first is not None and first.time <= time:
            raise RecoveryError(
                f"at target_time {format_time(time)} the server was on timeline {timeline}, or one after it, which was "
                f"left: what had been committed there since {first.commit_time} is not in what it is now. Nothing was "
                f"changed. Just before that it is as with -e dr_target_lsn={format_lsn(end)}. What was left is in the "
                "cluster that was kept then, and in the archive on that timeline."
            )
