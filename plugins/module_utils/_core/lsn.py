# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WAL positions, segment names and timelines (PostgreSQL: src/include/access/xlog_internal.h)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})\Z")
_SEGMENT = re.compile(r"[0-9A-F]{24}\Z")


def parse_lsn(text: str) -> int:
    """Byte position in WAL out of its text, such as ``0/3008940``."""
    match = _LSN.match(text.strip())
    if match is None:
        raise RecoveryError(f"{text!r} is no WAL position; write it as PostgreSQL does, such as 0/3008940")
    return (int(match.group(1), 16) << 32) | int(match.group(2), 16)


def format_lsn(lsn: int) -> str:
    """Text of a byte position in WAL, as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def is_segment_name(name: str) -> bool:
    """Whether ``name`` is that of a whole WAL segment: 24 hexadecimal digits in capitals."""
    return _SEGMENT.match(name) is not None


def segment_name(timeline: int, segment: int, segment_size: int) -> str:
    """File name of a WAL segment from its timeline, number and size in bytes."""
    per_id = 0x100000000 // segment_size
    return f"{timeline:08X}{segment // per_id:08X}{segment % per_id:08X}"


def parse_segment_name(name: str, segment_size: int) -> tuple[int, int]:
    """(timeline, number) of a WAL segment from its file name."""
    if not is_segment_name(name):
        raise RecoveryError(f"{name!r} is no name of a WAL segment; those have 24 hexadecimal digits in capitals")
    per_id = 0x100000000 // segment_size
    return int(name[:8], 16), int(name[8:16], 16) * per_id + int(name[16:], 16)


@dataclass(frozen=True)
class Timelines:
    """The way from the first timeline to ``current``: where each of its ancestors ended.

    ``ends`` are (timeline, end LSN) of the ancestors, oldest first; WAL from an end on belongs to the next timeline.
    """

    current: int
    ends: tuple[tuple[int, int], ...] = ()

    def at(self, lsn: int) -> int:
        """Timeline that the byte at ``lsn`` was written on."""
        for timeline, end in self.ends:
            if lsn < end:
                return timeline
        return self.current

    def of_segment(self, segment: int, segment_size: int) -> int:
        """Timeline of the file that holds the whole segment: the newest that any of its bytes belongs to.

        The segment in which a timeline ends is copied up to there into the first segment of the next one.
        """
        return self.at((segment + 1) * segment_size - 1)

    def contains(self, timeline: int, lsn: int) -> bool:
        """Whether the byte at ``lsn`` of ``timeline`` is part of this history."""
        return self.at(lsn) == timeline


def parse_history(text: str, timeline: int) -> Timelines:
    """Timelines out of the history file of ``timeline`` (PostgreSQL: src/backend/access/transam/timeline.c).

    Every line is the number of an ancestor, the LSN at which it was left, and a reason; blank lines and lines that
    begin with ``#`` mean nothing.
    """
    ends: list[tuple[int, int]] = []
    for line in text.splitlines():
        fields = line.split(None, 2)
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) < 2 or not fields[0].isdigit():
            raise RecoveryError(f"the history file of timeline {timeline} has a line that means nothing: {line!r}")
        ends.append((int(fields[0]), parse_lsn(fields[1])))
    if ends != sorted(ends):
        raise RecoveryError(f"the history file of timeline {timeline} is out of order: {ends}")
    return Timelines(timeline, tuple(ends))
