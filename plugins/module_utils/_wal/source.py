# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring WAL together in one directory: from the server's own pg_wal, and from its archive."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.archive import Archive
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import (
    Timelines,
    format_lsn,
    parse_history,
    segment_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._core.programs import ENVIRONMENT, run
from ansible_collections.dbre.recovery.plugins.module_utils._wal.record import (
    LONG_HEADER_SIZE,
    PAGE,
    SHORT_HEADER,
    Reader,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.segment import Owner, begins
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import Commit, CommitLog


def roomiest(*directories: str) -> str:
    """Of some directories and the usual temporary ones, the writable one with the most room; /tmp may be small."""
    usable = [one for one in (*directories, "/var/tmp", "/tmp") if os.access(one, os.W_OK | os.X_OK)]
    return max(usable, key=lambda one: shutil.disk_usage(one).free, default=directories[0])


def before_page_header(lsn: int, segment_size: int) -> int:
    """``lsn``, or the start of its page when nothing but the page's header lies between the two.

    Told to end behind a page's header, pg_waldump reads that header and then takes what its buffer held before for the
    next record (WALDumpReadPage in pg_waldump.c): it ends in an error.
    """
    header = SHORT_HEADER.size if lsn % segment_size >= PAGE else LONG_HEADER_SIZE
    return lsn - lsn % PAGE if lsn % PAGE <= header else lsn


class WalSource:
    """One directory of segments that pg_waldump can read from end to end.

    All files there carry the name of the newest timeline, which pg_waldump is told: it checks the timelines inside the
    pages, not those in the names. Segments of pg_wal are symbolic links. The server may recycle such a file while it
    is read; ``refetch_recycled`` tells afterwards, since recycling writes the first page first.
    """

    def __init__(
        self,
        *,
        pg_wal: str,
        spool: str,
        archive: Archive,
        timelines: Timelines,
        segment_size: int,
        system_identifier: int,
        waldump: str,
    ) -> None:
        self.timelines = timelines
        self.segment_size = segment_size
        self.from_primary: set[int] = set()
        self.from_archive: set[int] = set()
        self._pg_wal = Path(pg_wal)
        self._spool = Path(spool)
        self._archive = archive
        self._owner = Owner(system_identifier, segment_size)
        self._waldump = waldump
        self.reader = Reader(lambda segment: str(self._path(segment)), segment_size)

    def name(self, segment: int) -> str:
        """File name of a segment in pg_wal and in the archive."""
        return segment_name(self.timelines.of_segment(segment, self.segment_size), segment, self.segment_size)

    def _path(self, segment: int) -> Path:
        return self._spool / segment_name(self.timelines.current, segment, self.segment_size)

    def is_local(self, segment: int) -> bool:
        """Whether pg_wal has the segment, and not an older file that waits under its name to be written over."""
        return self._holds(self._pg_wal / self.name(segment), segment)

    def _holds(self, path: Path, segment: int) -> bool:
        return begins(path, segment, self._owner)

    def fitting(self, segments: int) -> int:
        """How many of so many segments may be fetched at a time, for the disk must not fill up.

        Raises RecoveryError where there is no room even for one.
        """
        room = shutil.disk_usage(self._spool).free
        # The stretch before is still there while the next one comes, and others write to the disk, too.
        fitting = min(segments, room // 4 // self.segment_size)
        if fitting < 1:
            raise RecoveryError(
                f"there is no room for WAL from the archive on {socket.gethostname()}: {self._spool} has {room} bytes "
                f"free, and the next segments need {4 * self.segment_size}. Nothing was changed. Make room there, or "
                "name a directory with more (spool_path, dr_wal_path)."
            )
        return int(fitting)

    def provide(self, segments: range, *, local: bool = True) -> None:
        """Have these segments in the directory; raises RecoveryError naming those that are nowhere."""
        wanted: dict[str, str] = {}
        by_name: dict[str, int] = {}
        for segment in segments:
            path = self._path(segment)
            if path.is_symlink() or path.exists():
                continue
            if local and self.is_local(segment):
                path.symlink_to(self._pg_wal / self.name(segment))
                self.from_primary.add(segment)
            else:
                by_name[self.name(segment)] = segment
                wanted[self.name(segment)] = str(path)
        missing = self._archive.get_all(wanted)
        if missing:
            raise RecoveryError(
                f"WAL segment {', '.join(sorted(missing))} is neither in pg_wal nor in the archive on "
                f"{socket.gethostname()}. Nothing was changed. What happened in or before it cannot be seen or "
                "replayed without it; narrow the search to later WAL with since (dr_since), or bring the segment back.",
                missing_segments=sorted(missing),
            )
        for name, segment in by_name.items():
            if not self._holds(Path(wanted[name]), segment):
                raise RecoveryError(f"the archive's file {name} does not hold that segment of this server's WAL")
            self.from_archive.add(segment)

    def refetch_recycled(self) -> bool:
        """Replace links to files that the server has meanwhile taken for other WAL by copies from the archive.

        Returns whether there were any; what was read of them must then be read again.
        """
        self.reader.close()
        taken = [segment for segment in sorted(self.from_primary) if not self._holds(self._path(segment), segment)]
        for segment in taken:
            self._path(segment).unlink()
            self.from_primary.discard(segment)
            self.provide(range(segment, segment + 1), local=False)
        return bool(taken)

    def first_next_xid(self, segment: int) -> Optional[int]:
        """Number of the next transaction where a segment begins; None where no list of running ones tells.

        The segment and the next one are provided.
        """
        start = self.reader.first_record(segment)
        end = self.reader.first_record(segment + 1)
        for piece in self.waldump(start, end, "--rmgr=Standby"):
            found = re.search(rb"desc: RUNNING_XACTS nextXid (\d+) ", piece)
            if found is not None:
                return int(found.group(1))
        return None

    def has_of(self, timeline: int, segment: int) -> bool:
        """Whether the archive has a segment that another timeline of this server wrote; it is in the directory then."""
        name = segment_name(timeline, segment, self.segment_size)
        path = self._spool / name
        return path.exists() or self._archive.get(name, str(path))

    def first_commit_of(self, timeline: int, lsn: int) -> Optional[Commit]:
        """The first commit of another timeline from ``lsn`` on, of those in that segment and the next."""
        segment = lsn // self.segment_size
        if not self.has_of(timeline, segment):
            return None
        self.has_of(timeline, segment + 1)
        argv = [self._waldump, f"--path={self._spool}", f"--timeline={timeline}", f"--start={format_lsn(lsn)}"]
        # It goes on to where there is no more, which is an error to it.
        _rc, stdout, _stderr = run([*argv, "--rmgr=Transaction"])
        log = CommitLog()
        log.add(stdout.encode())
        return log.first_from(lsn)

    def release(self, segments: range) -> None:
        """Remove what was fetched of these segments; links cost nothing."""
        self.reader.close()
        for segment in segments:
            path = self._path(segment)
            if not path.is_symlink():
                path.unlink(missing_ok=True)

    def waldump(self, start: int, end: int, *options: str) -> Iterator[bytes]:
        """Whole lines that pg_waldump prints of the records from ``start`` to before ``end``, in large pieces.

        Both are LSNs at which records begin, or the end is that of all WAL; so that any error is one.
        """
        end = before_page_header(end, self.segment_size)
        argv = [self._waldump, f"--path={self._spool}", f"--timeline={self.timelines.current}"]
        argv += [f"--start={format_lsn(start)}", f"--end={format_lsn(end)}", *options]
        if start >= end:
            return
        # Its output may be gigabytes, and is read as it comes; a module's run_command would keep it all.
        with subprocess.Popen(  # pylint: disable=ansible-bad-function
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **ENVIRONMENT},
        ) as process:
            if not isinstance(process.stdout, io.BufferedReader) or process.stderr is None:
                raise RecoveryError("pg_waldump has no output to read")
            rest = b""
            while True:
                piece = process.stdout.read1(1 << 20)
                if not piece:
                    break
                whole, newline, tail = piece.rpartition(b"\n")
                if newline:
                    yield rest + whole + newline
                    rest = tail
                else:
                    rest += piece
            if rest:
                yield rest
            error = process.stderr.read().decode(errors="replace").strip()
        if process.returncode != 0:
            raise RecoveryError(
                f"the WAL from {format_lsn(start)} to {format_lsn(end)} cannot be read "
                f"on {socket.gethostname()}: {error}"
            )


def read_timelines(current: int, pg_wal: str, archive: Archive, spool: str) -> Timelines:
    """History of the server's timeline, from pg_wal or the archive."""
    if current == 1:
        return Timelines(1)
    name = f"{current:08X}.history"
    path = Path(pg_wal) / name
    if not path.exists():
        path = Path(spool) / name
        if not archive.get(name, str(path)):
            raise RecoveryError(
                f"the history file {name} of the server's timeline is neither in pg_wal nor in the archive, so WAL of "
                "earlier timelines cannot be followed. Nothing was changed."
            )
    return parse_history(path.read_text(), current)
