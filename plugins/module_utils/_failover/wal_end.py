# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the valid WAL in a directory ends, proved by pg_waldump, and what was committed on the way there.

A server keeps older files under the names of segments to come, and the last segment is written in part: file names and
sizes prove nothing. pg_waldump checks each record's checksum and its link to the one before (PostgreSQL:
src/backend/access/transam/xlogreader.c) and stops at the first that is not valid.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from typing import Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn, is_segment_name
from ansible_collections.dbre.recovery.plugins.module_utils._core.programs import ENVIRONMENT, run
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import Line, parse_lines

PAGE = 8192
LONG_HEADER, SHORT_HEADER = 40, 24  # bytes of a page's header: of the first page of a segment, and of the others
_CHUNK = 1 << 20
_COMMIT_TIME = re.compile(rb"desc: COMMIT(?:_PREPARED \d+:)? (\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d\.\d{6}) UTC")
# What pg_waldump says where valid WAL ends: a record that is none, or the next file that is not there.
_END = re.compile(r"error in WAL record at|could not find file|could not find a valid record after")


@dataclass(frozen=True)
class WalEnd:
    """``end`` is behind the last valid record, as ``pg_last_wal_replay_lsn()`` has it once that is replayed.

    ``commits`` were read from the beginning on, ``last_commit`` is when the last of them was committed (ISO 8601, UTC),
    ``stopped`` what pg_waldump says of the end. Without any valid record ``end`` is None.
    """

    end: Optional[int]
    commits: int
    last_commit: Optional[str]
    stopped: str


def record_end(lsn: int, total: int, segment_size: int, switch: bool = False) -> int:
    """Position behind a record of ``total`` bytes at ``lsn``: where replay stands when it has replayed it.

    Records are padded to 8 bytes and go around the headers of pages (xlogreader.c: XLogDecodeNextRecord). A ``switch``
    ends its segment.
    """
    room = PAGE - lsn % PAGE
    at = lsn
    while total > room:
        total -= room
        at += PAGE - at % PAGE
        header = SHORT_HEADER if at % segment_size else LONG_HEADER
        room = PAGE - header
        if total <= room:
            at += header
    end = at + (total + 7) // 8 * 8
    return -(-end // segment_size) * segment_size if switch else end


def end_of(line: Line, segment_size: int) -> int:
    """Position behind the record of a line."""
    return record_end(line.lsn, line.total, segment_size, line.rmgr == "XLOG" and line.operation == "SWITCH")


class Tail:
    """Reads pg_waldump's text piece by piece and keeps of it what :class:`WalEnd` says."""

    def __init__(self) -> None:
        self.commits = 0
        self.last_commit: Optional[str] = None
        self.last = b""
        self._rest = b""

    def add(self, text: bytes) -> None:
        """Take up the next piece of text, which may end within a line."""
        text = self._rest + text
        cut = text.rfind(b"\n") + 1
        whole, self._rest = text[:cut], text[cut:]
        self.commits += whole.count(b", desc: COMMIT")
        commit = whole.rfind(b"desc: COMMIT")
        if commit >= 0 and (match := _COMMIT_TIME.match(whole, commit)):
            self.last_commit = f"{match.group(1).decode()}T{match.group(2).decode()}+00:00"
        start = whole.rfind(b"rmgr: ")
        if start >= 0:
            self.last = whole[start:].split(b"\n", 1)[0]

    def line(self) -> Optional[Line]:
        """The last record; None where there is none."""
        return next(parse_lines(self.last), None) if self.last else None


def judge(tail: Tail, complaint: str, returned: int, segment_size: int, place: str) -> WalEnd:
    """What pg_waldump's text, its last ``complaint`` and exit code say of the WAL at ``place``, for messages.

    Raises RecoveryError where it stopped for another reason than the end of valid WAL.
    """
    if not _END.search(complaint):
        said = complaint.strip() or f"exit code {returned}, and nothing of an end"
        raise RecoveryError(f"pg_waldump cannot read the WAL in {place}: {said}. Nothing was changed there.")
    line = tail.line()
    end = None if line is None else end_of(line, segment_size)
    return WalEnd(end, tail.commits, tail.last_commit, complaint.strip())


def read_end(bin_dir: str, wal: str, timeline: int, start: int, segment_size: int) -> WalEnd:
    """The end of the WAL in directory ``wal``, read from ``start`` on; RecoveryError as :func:`judge`."""
    argv = [os.path.join(bin_dir, "pg_waldump"), f"--path={wal}", f"--timeline={timeline}"]
    tail = Tail()
    # A module's run_command would keep gigabytes of text.
    with subprocess.Popen(  # pylint: disable=ansible-bad-function
        [*argv, f"--start={format_lsn(start)}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **ENVIRONMENT},
    ) as process:
        if process.stdout is None or process.stderr is None:
            raise RecoveryError("pg_waldump has no output to read")
        while piece := process.stdout.read(_CHUNK):
            tail.add(piece)
        complaint = process.stderr.read().decode(errors="replace")
    return judge(tail, complaint, process.returncode, segment_size, f"{wal} from {format_lsn(start)} on")


def has_record(bin_dir: str, wal: str, timeline: int, lsn: int) -> bool:
    """Whether a timeline has a valid record from a position on, in the segment of that position at least."""
    argv = [os.path.join(bin_dir, "pg_waldump"), f"--path={wal}", f"--timeline={timeline}", "--limit=1"]
    rc, stdout, _stderr = run([*argv, f"--start={format_lsn(lsn)}"])
    return rc == 0 and stdout.startswith("rmgr: ")


def segments_in(wal: str, timeline: int) -> list[str]:
    """Names of the files of a timeline's segments in a directory, in order; those to come among them."""
    wanted = f"{timeline:08X}"
    return sorted(name for name in os.listdir(wal) if is_segment_name(name) and name.startswith(wanted))
