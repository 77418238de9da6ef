# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give a standby the WAL that it lacks: from the archive, from other standbys, from the dead primary's disk.

What was brought is joined segment by segment in a directory of its own, its end is proved by pg_waldump, and only then
is it put into the standby's pg_wal, where its startup process finds it (xlogrecovery.c: WaitForWALToBecomeAvailable
looks into the archive and into pg_wal in turn, and opens the file anew each time).
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.archive import Archive
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import sync_directory
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn, parse_lsn, segment_name
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted, size
from ansible_collections.dbre.recovery.plugins.module_utils._failover.state import HostState
from ansible_collections.dbre.recovery.plugins.module_utils._failover.survey import look
from ansible_collections.dbre.recovery.plugins.module_utils._failover.wal_end import WalEnd, read_end
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login
from ansible_collections.dbre.recovery.plugins.module_utils._wal.segment import Owner, begins

ARCHIVE = "archive"
_JOINED = "joined"


@dataclass(frozen=True)
class Wanted:
    """What is wanted: WAL of ``timeline`` up to ``expected``; ``lose`` takes less where there is no more.

    ``path`` has a directory for each of ``sources``, named like the host, with the segments that were brought from it,
    in the order in which they are to be believed.
    """

    path: str
    timeline: int
    expected: str
    sources: list[str]
    lose: bool = False
    data_directory: Optional[str] = None
    bin_dir: Optional[str] = None


def salvage(login: Login, wanted: Wanted, archive: Optional[Archive], check_mode: bool) -> dict[str, Any]:
    """Put into pg_wal what it lacks; the module's result. RecoveryError where it does not lead to ``expected``."""
    state = look(login, data=wanted.data_directory, bin_dir=wanted.bin_dir)
    host = socket.gethostname()
    if not state["in_recovery"]:
        return {"changed": False, "from": state["end"], "end": state["end"], "commits": 0, "taken": {}}
    if state["timeline"] != wanted.timeline or not state["end"]:
        raise RecoveryError(
            f"the standby on {host} is on timeline {state['timeline']}, and WAL of timeline {wanted.timeline} was to "
            "be brought to it. Nothing was changed. Run this again; the plan is looked at anew."
        )
    join = Join(state, wanted, archive)
    start = parse_lsn(state["end"])
    try:
        found = join.run()
        end = max(start, found.end or 0)
        if end < parse_lsn(wanted.expected) and not wanted.lose:
            raise RecoveryError(join.complaint(end), **join.told(end))
        changed = end > start
        if changed and not check_mode:
            join.put()
    finally:
        shutil.rmtree(join.joined, ignore_errors=True)
    return {
        "changed": changed,
        "from": state["end"],
        "end": format_lsn(end),
        "commits": found.commits if changed else 0,
        "last_commit": found.last_commit if changed else None,
        **join.told(end),
    }


class Join:
    """Segments from several places, joined to one continuous stretch of WAL behind what the standby has."""

    def __init__(self, state: HostState, wanted: Wanted, archive: Optional[Archive]) -> None:
        self.state, self.wanted, self.archive = state, wanted, archive
        self.start = parse_lsn(str(state["end"]))
        self.size = state["segment_size"]
        self.wal = os.path.join(state["data_directory"], "pg_wal")
        self.joined = os.path.join(wanted.path, _JOINED)
        self.owner = Owner(int(state["system_identifier"]), self.size)
        self.sources = [ARCHIVE, *wanted.sources]
        self.taken: dict[str, list[str]] = {}
        self.unread = ""

    def run(self) -> WalEnd:
        """Join as much as there is; where it ends, and what was committed in it."""
        shutil.rmtree(self.joined, ignore_errors=True)
        os.makedirs(self.joined, mode=0o700)
        number = self.start // self.size
        while source := self._complete(number):
            self._take(source, number)
            number += 1
        last = self._furthest(number)
        if last is not None:
            self._take(last, number)
        return self._end() if self.taken else WalEnd(None, 0, None, "")

    def _complete(self, number: int) -> str:
        """The first source that has the whole segment; empty where none has.

        The archive has no others. A server begins a segment only when the one before is complete.
        """
        for source in self.sources:
            if self._has(source, number) and (source == ARCHIVE or self._has(source, number + 1)):
                return source
        return ""

    def _furthest(self, number: int) -> Optional[str]:
        """Of the sources that have a part of the segment, the one whose part leads furthest; None where none has."""
        there = [source for source in self.sources if self._has(source, number)]
        if len(there) < 2:
            return there[0] if there else None
        ends = {}
        for source in there:
            self._copy(source, number)
            ends[source] = self._end().end or 0
        return max(there, key=lambda source: ends[source])

    def _name(self, number: int) -> str:
        return segment_name(self.wanted.timeline, number, self.size)

    def _has(self, source: str, number: int) -> bool:
        """Whether a source has a file of that name that begins as that segment; what the archive has is fetched."""
        path = os.path.join(self.wanted.path, source, self._name(number))
        if source == ARCHIVE and self.archive is not None and not os.path.exists(path):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            try:
                self.archive.get(self._name(number), path)
            except RecoveryError as error:
                self.unread, self.archive = error.msg, None
        return begins(Path(path), number, self.owner)

    def _take(self, source: str, number: int) -> None:
        self._copy(source, number)
        self.taken.setdefault(source, []).append(self._name(number))

    def _copy(self, source: str, number: int) -> None:
        name = self._name(number)
        shutil.copyfile(os.path.join(self.wanted.path, source, name), os.path.join(self.joined, name))

    def _end(self) -> WalEnd:
        return read_end(self.state["bin_dir"], self.joined, self.wanted.timeline, self.start, self.size)

    def put(self) -> None:
        """Put the joined segments into pg_wal, each at once and whole."""
        for name in sorted(os.listdir(self.joined)):
            scratch = os.path.join(self.wal, f"dbre-salvage.{name}")
            shutil.copyfile(os.path.join(self.joined, name), scratch)
            os.chmod(scratch, 0o600)
            with open(scratch, "rb") as file:
                os.fsync(file.fileno())
            os.replace(scratch, os.path.join(self.wal, name))
        sync_directory(self.wal)

    def told(self, end: int) -> dict[str, Any]:
        """What came from where, for the record."""
        taken = {source: len(names) for source, names in self.taken.items()}
        return {"taken": taken, "bytes": end - self.start, "archive_unread": self.unread}

    def complaint(self, end: int) -> str:
        """Why what was brought does not do, with the way out."""
        brought = ", ".join(f"{counted(len(names), 'segment')} from {source}" for source, names in self.taken.items())
        lacking = size(parse_lsn(self.wanted.expected) - end)
        unread = f" The archive could not be read: {self.unread}." if self.unread else ""
        return (
            f"the WAL that was brought to {socket.gethostname()} ({brought or 'nothing of use'}) ends at "
            f"{format_lsn(end)}, and there has been WAL up to {self.wanted.expected}: {lacking} are missing.{unread} "
            "Nothing is promoted and nothing was changed here. Bring back the host that has it and run this again, or "
            "do without it: -e dr_salvage_on_timeout=lose"
        )


def segments_to_bring(states: Sequence[HostState], candidate: HostState, best_end: int) -> dict[str, list[str]]:
    """By host, the names of the segments that have to be brought from it so that the candidate comes to ``best_end``.

    The first host alone that has it all; else all that have a part of it. The hosts are in the order in which they are
    to be asked.
    """
    start = parse_lsn(str(candidate["end"]))
    segment_size, timeline = candidate["segment_size"], candidate["timeline"]
    found: dict[str, list[str]] = {}
    for state in states:
        end = parse_lsn(str(state["end"]))
        if end <= start:
            continue
        first = state.get("first")
        numbers = range(start // segment_size, (end - 1) // segment_size + 1)
        names = [segment_name(timeline, number, segment_size) for number in numbers]
        names = [name for name in names if first and name >= first]
        if end >= best_end and len(names) == len(numbers):
            return {state["host"]: names}
        if names:
            found[state["host"]] = names
    return found
