# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have a WAL segment in the archive: look, switch when the server still writes to it, wait."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.archive import Archive
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import parse_lsn, parse_segment_name, segment_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login
from ansible_collections.dbre.recovery.plugins.module_utils._wal.segment import Owner, why_not
from ansible_collections.dbre.recovery.plugins.module_utils._wal.server import one_row, session

LOOK = 2.0  # seconds
POLL = 0.1  # seconds; archive-push of one segment takes about as long
SAFE = "Production was not changed beyond a switch to a new WAL segment, if that; everything is still in its pg_wal."

_STATE = """
SELECT pg_is_in_recovery() AS in_recovery, (SELECT system_identifier::text FROM pg_control_system()),
       current_setting('archive_mode') AS archive_mode,
       current_setting('data_directory') AS data_directory,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size') AS segment_size,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_insert_lsn()::text END AS inserted,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_insert_lsn()) END AS file,
       last_archived_wal, last_failed_wal, failed_count::bigint AS failed_count,
       last_failed_time::text AS last_failed_time
  FROM pg_stat_archiver
"""


def ensure_archived(
    login: Login,
    segment: str,
    spool: str,
    archive: Archive,
    *,
    timeout: float,
    timeline: Optional[int] = None,
    lost: Sequence[str] = (),
    check_mode: bool = False,
) -> dict[str, Any]:
    """The module's result; ``spool`` is an empty directory to fetch the segment to, as proof that it can be.

    ``timeline`` is the one that the server must be on, ``lost`` are segments that the archive may have lost.
    """
    began = time.monotonic()
    connection = session(login)
    try:
        state = _check(connection, segment, timeline, archive)
        again = [name for name in lost if not archive.get(name, os.path.join(spool, name))]
        if not check_mode:
            for name in again:
                _put_back(state, archive, name, spool)
        if archive.get(segment, os.path.join(spool, segment)):
            return _result(segment, "archived", False, began, again)
        switch = _is_current(segment, state, archive)
        if not switch and _is_done(state, segment):
            if not check_mode:
                _put_back(state, archive, segment, spool)
            return _result(segment, "waiting" if check_mode else "archived", False, began, [*again, segment])
        if check_mode:
            return _result(segment, "current" if switch else "waiting", switch, began, again)
        if switch:
            one_row(connection, "SELECT pg_switch_wal()::text AS lsn")
        _wait(connection, archive, segment, os.path.join(spool, segment), timeout, state["failed_count"])
        return _result(segment, "archived", switch, began, again)
    finally:
        connection.close()


def _result(segment: str, state: str, switched: bool, began: float, put_back: list[str]) -> dict[str, Any]:
    return {
        "changed": switched or bool(put_back),
        "segment": segment,
        "state": state,
        "switched": switched,
        "put_back": put_back,
        "seconds": round(time.monotonic() - began, 3),
    }


def _is_done(state: Mapping[str, Any], segment: str) -> bool:
    """Whether the archiver has reported the segment as archived (PostgreSQL: pgarch_archiveDone in pgarch.c)."""
    return os.path.exists(os.path.join(state["data_directory"], "pg_wal", "archive_status", f"{segment}.done"))


def _put_back(state: Mapping[str, Any], archive: Archive, segment: str, spool: str) -> None:
    """Archive a segment again that the archive has lost and pg_wal still has."""
    host = socket.gethostname()
    path = os.path.join(state["data_directory"], "pg_wal", segment)
    reason = why_not(Path(path), segment, Owner(int(state["system_identifier"]), int(state["segment_size"])))
    if reason:
        raise RecoveryError(
            f"the archive of {archive.name} has lost WAL segment {segment}, which {host} had archived, "
            f"and pg_wal there does not have it: {reason}. Nothing was changed. Use another repository "
            "(dr_repository), a backup set that ended after it (dr_set), or a standby whose pg_wal has it: copy it to "
            f"any place on {host} and, as the server's user, run: {archive.push_command(f'PLACE/{segment}')}",
            missing_wal=[segment],
        )
    archive.push(path)
    if not archive.get(segment, os.path.join(spool, segment)):
        raise RecoveryError(
            f"WAL segment {segment} was archived again from pg_wal on {host}, and the archive still does not have it. "
            f"{SAFE} See: {archive.check_command}"
        )


def _check(connection: Any, segment: str, wanted: Optional[int], archive: Archive) -> dict[str, Any]:
    """The archiver's state; refuses a server that cannot archive the segment."""
    host = socket.gethostname()
    state = one_row(connection, _STATE)
    if state["in_recovery"]:
        raise RecoveryError(
            f"the server on {host} is in recovery: it is a standby and does not archive. Nothing was changed. "
            "Run this against the primary (group primary, variable dr_primary)."
        )
    timeline, _number = parse_segment_name(segment, state["segment_size"])
    now = int(state["file"][:8], 16)
    # At the very beginning of a segment the one before it is complete, and a switch would do nothing.
    number = parse_lsn(state["inserted"]) // state["segment_size"]
    state["current"] = segment_name(now, number, state["segment_size"])
    if timeline > now or (wanted and wanted != now):
        raise RecoveryError(
            f"WAL segment {segment} of timeline {wanted or timeline} is wanted, and the server on {host} "
            f"is on timeline {now}. Nothing was changed. Find the target anew (postgresql_recovery_target_info)."
        )
    if state["archive_mode"] == "off":
        raise RecoveryError(
            f"archive_mode is off on {host}, so WAL segment {segment} will never be archived. Nothing was "
            "changed. Switch archiving on (role dbre.recovery.postgresql_archiving); without a restart, push the files "
            f"of pg_wal by hand: {archive.push_command('FILE')}"
        )
    return state


def _is_current(segment: str, state: Mapping[str, Any], archive: Archive) -> bool:
    """Whether the server still writes to the segment; refuses one that is nowhere."""
    if segment == state["current"]:
        return True
    # A segment that the server has not reached, and one that is gone, will both never come.
    if segment > state["current"] or not os.path.exists(os.path.join(state["data_directory"], "pg_wal", segment)):
        raise RecoveryError(
            f"WAL segment {segment} is neither in the archive nor in pg_wal on {socket.gethostname()}, which writes to "
            f"{state['current']} now. Nothing was changed. Without it no restore can pass that point; "
            f"see what the archive has: {archive.show_command}"
        )
    return False


def _wait(connection: Any, archive: Archive, segment: str, path: str, timeout: float, failed: int) -> None:
    """Wait until the archive has the segment; ``failed`` is the archiver's count of failures before."""
    host = socket.gethostname()
    deadline = time.monotonic() + timeout
    looked = time.monotonic()
    while True:
        state = one_row(connection, _STATE)
        # The archiver goes in order, so a later one done means this one done; the archive has the last word.
        done = state["last_archived_wal"] is not None and state["last_archived_wal"][8:24] >= segment[8:]
        # With one of several repositories lost the archiver fails again and again, and yet the others get the segment.
        if archive.chosen and time.monotonic() - looked > LOOK:
            done, looked = True, time.monotonic()
        if done and archive.get(segment, path):
            return
        # Reported and lost since we began.
        if _is_done(state, segment) and not archive.get(segment, path):
            _put_back(state, archive, segment, os.path.dirname(path))
            return
        if state["failed_count"] > failed and not archive.chosen:
            raise RecoveryError(
                f"archiving on {host} failed: {state['last_failed_wal']}, {state['last_failed_time']}. "
                f"WAL segment {segment} does not get there. {SAFE} See the server's log and: "
                f"{archive.check_command}. When one of several repositories is lost, name another (dr_repository)."
            )
        if time.monotonic() > deadline:
            raise RecoveryError(
                f"WAL segment {segment} was not archived within {timeout} s on {host}; the last one "
                f"archived is {state['last_archived_wal']}. {SAFE} Run again, with a longer timeout "
                f"(postgresql_recovery_target_archive_timeout), or see: {archive.check_command}"
            )
        time.sleep(POLL)
