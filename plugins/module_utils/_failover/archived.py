# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that a new primary archives: its timeline's history and a segment of it are in each repository.

A standby takes for archived what it received while archive_mode is on (walreceiver.c: XLogArchiveForceDone), so WAL of
the old timeline that the old primary had not archived would be missing for ever, and no older backup could be restored
across the failover. Such segments are archived from the new primary's pg_wal.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.archive import Archive
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import parse_history, parse_segment_name
from ansible_collections.dbre.recovery.plugins.module_utils._failover.wal_end import segments_in
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login, connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._wal.segment import Owner, why_not

_POLL = 0.1
_STATE = """
SELECT pg_is_in_recovery() AS in_recovery, current_setting('archive_mode') AS archive_mode,
       current_setting('data_directory') AS data, (SELECT system_identifier FROM pg_control_system()) AS identifier,
       (SELECT setting::int FROM pg_settings WHERE name = 'wal_segment_size') AS segment_size,
       CASE WHEN NOT pg_is_in_recovery() THEN
         ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END AS timeline
"""
_ARCHIVER = """
SELECT last_archived_wal, last_failed_wal, last_failed_time::text AS last_failed_time, failed_count::int AS failed_count
  FROM pg_stat_archiver
"""


def prove_archived(
    login: Login, archives: Mapping[str, Archive], spool: str, *, timeout: float, check_mode: bool
) -> dict[str, Any]:
    """Have all WAL of the new primary up to now in each of ``archives`` (by what people call it); the module's result.

    ``spool`` is an empty directory. RecoveryError where WAL does not get there, and where the server is no primary.
    """
    connection = connect(login, any_database=True)
    connection.autocommit = True
    try:
        now = rows(connection, _STATE)[0]
        host = socket.gethostname()
        if now["in_recovery"]:
            raise RecoveryError(
                f"{host} is a standby, and the archive of a primary was to be looked at. Nothing was done."
            )
        if now["archive_mode"] == "off":
            return {"changed": False, "archiving": False, "pushed": [], "proved": []}
        wal = os.path.join(now["data"], "pg_wal")
        history = f"{now['timeline']:08X}.history"
        pushed = _old_timeline(now, wal, history, archives, spool, check_mode)
        if check_mode:
            return {"changed": True, "archiving": True, "pushed": pushed, "proved": []}
        failed = rows(connection, _ARCHIVER)[0]["failed_count"]
        # A switch right behind a switch does nothing, and its segment is the one before.
        value(connection, "SELECT pg_create_restore_point('dbre_failover')")
        segment = value(connection, "SELECT pg_walfile_name(pg_switch_wal())")
        wanted = [name for name in (history, segment) if name != "00000001.history"]
        _wait(connection, wal, wanted, failed, timeout, archives)
        proved = [
            {"archive": title, "files": wanted}
            for title, archive in archives.items()
            if all(_has(archive, name, spool) for name in wanted)
        ]
        missing = [title for title in archives if title not in [entry["archive"] for entry in proved]]
        if missing:
            raise RecoveryError(
                f"the server on {host} says that {' and '.join(wanted)} are archived, and they are not in "
                f"{', '.join(missing)}. The new primary works. Look whether archive_command goes there "
                "(pgbackrest check), and run this again."
            )
        return {"changed": True, "archiving": True, "pushed": pushed, "proved": proved, "segment": segment}
    finally:
        connection.close()


def _old_timeline(
    now: Mapping[str, Any], wal: str, history: str, archives: Mapping[str, Archive], spool: str, check_mode: bool
) -> list[str]:
    """Archive what pg_wal has of the timeline before and an archive lacks; the names of those segments."""
    path = os.path.join(wal, history)
    if not archives or not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        old, fork = parse_history(file.read(), now["timeline"]).ends[-1]
    size = now["segment_size"]
    names = [name for name in segments_in(wal, old) if parse_segment_name(name, size)[1] < fork // size]
    missing = missing_behind(names, list(archives.values()), spool)
    owner = Owner(int(now["identifier"]), size)
    for name in missing:
        reason = why_not(Path(wal, name), name, owner)
        if reason:
            raise RecoveryError(
                f"WAL segment {name} is not in the archive, and not whole in pg_wal on {socket.gethostname()}: {reason}"
                ". The new primary works. Backups from before the failover cannot be restored beyond that segment: "
                "take a new one (backup-now)."
            )
        if not check_mode:
            next(iter(archives.values())).push(os.path.join(wal, name))
    return missing


def missing_behind(names: Sequence[str], archives: Sequence[Archive], spool: str) -> list[str]:
    """Of these segments, in order, those behind the last that every archive has: an archiver goes in order."""
    missing: list[str] = []
    for name in reversed(names):
        if all(_has(archive, name, spool) for archive in archives):
            break
        missing.insert(0, name)
    return missing


def _has(archive: Archive, name: str, spool: str) -> bool:
    path = os.path.join(spool, name)
    found = archive.get(name, path)
    if os.path.exists(path):
        os.unlink(path)
    return found


def _wait(
    connection: Any, wal: str, names: Sequence[str], failed: int, timeout: float, archives: Mapping[str, Archive]
) -> None:
    """Wait until the archiver has reported all of these files as archived."""
    status = os.path.join(wal, "archive_status")
    deadline = time.monotonic() + timeout
    while True:
        waiting = [name for name in names if os.path.exists(os.path.join(status, f"{name}.ready"))]
        if not waiting and all(os.path.exists(os.path.join(status, f"{name}.done")) for name in names):
            return
        now = rows(connection, _ARCHIVER)[0]
        complaint = ""
        # One try may fail for a moment; the archiver tries three times in a row.
        if now["failed_count"] > failed + 2:
            complaint = f"fails: {now['last_failed_wal']}, {now['last_failed_time']}"
        elif time.monotonic() > deadline:
            complaint = f"took longer than {timeout:g} s; the last file archived is {now['last_archived_wal']}"
        if complaint:
            check = next((archive.check_command for archive in archives.values()), "pgbackrest check")
            raise RecoveryError(
                f"archiving on {socket.gethostname()}, the new primary, {complaint}. It works as a primary, and what "
                f"it writes stays in its pg_wal until archiving does. See its log and: {check}. Then run this again, "
                "with the same dr_incident_id."
            )
        time.sleep(_POLL)


def archived_histories(archive: Archive, timeline: int, spool: str) -> dict[int, str]:
    """History files that the archive has of a timeline and of those after it, as far as their numbers follow.

    PostgreSQL looks for newer timelines in the same way (timeline.c: findNewestTimeLine). RecoveryError where the
    archive cannot be read.
    """
    found: dict[int, str] = {}
    number = timeline
    while True:
        name = f"{number:08X}.history"
        path = os.path.join(spool, name)
        if number > 1 and archive.get(name, path):
            with open(path, encoding="utf-8") as file:
                found[number] = file.read()
            os.unlink(path)
        elif number > timeline:
            return found
        number += 1
