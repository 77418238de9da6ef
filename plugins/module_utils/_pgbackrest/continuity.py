# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WAL that is missing from an archive, such as what archive-push-queue-max dropped, of which only a log tells."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import parse_lsn, parse_segment_name, segment_name
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import archived_at, current_databases
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.restore import archived_segments
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest

MIB = 1024 * 1024
# Parallel processes store segments out of order, so what is missing now may be there in a moment.
LOOKS, PAUSE = 5, 1.0


def segment_size(backup: Mapping[str, Any]) -> int:
    """Bytes of a WAL segment, from a backup's start LSN and the segment it is in; 16 MiB where info has no LSN."""
    usual = 16 * MIB
    if not backup["start_lsn"]:
        return usual
    start, name = parse_lsn(backup["start_lsn"]), backup["archive_start"]
    sizes = (usual, *(MIB << power for power in range(11)))
    return next((size for size in sizes if start // size == parse_segment_name(name, size)[1]), usual)


def segments_between(first: str, last: str, size: int) -> list[str]:
    """Names of the WAL segments of one timeline from ``first`` to ``last``, both included."""
    timeline, begin = parse_segment_name(first, size)
    return [segment_name(timeline, n, size) for n in range(begin, parse_segment_name(last, size)[1] + 1)]


def missing_segments(listing: Iterable[str], first: str, last: str, size: int) -> list[str]:
    """Segments of ``first``'s timeline up to ``last`` that no name of a repo-ls listing is of."""
    present = archived_segments(listing)
    return [name for name in segments_between(first, last, size) if name not in present]


def newest_backup(facts: Mapping[str, Any], repo: int) -> Optional[dict[str, Any]]:
    """Newest backup of the current cluster in a repository whose start in WAL is known."""
    current = {(entry["repo"], entry["id"]) for entry in current_databases(facts)}
    found = [
        backup
        for backup in facts["backups"]
        if backup["repo"] == repo and (repo, backup["database_id"]) in current and backup["archive_start"]
    ]
    return dict(max(found, key=lambda backup: str(backup["stop_time"]))) if found else None


class Continuity(NamedTuple):
    """What was found of a repository's WAL since its newest backup, ``backup``."""

    backup: dict[str, Any]
    missing: list[str]  # segments that are not there, between others that are
    present: set[str]  # all that are there, in the directories that were looked at
    newest_stored: Optional[int]  # when the newest segment was stored, in seconds since the epoch


def look_for_gaps(pgbackrest: PgBackRest, facts: Mapping[str, Any], repo: int) -> Optional[Continuity]:
    """Look for WAL that is missing since the newest backup of ``facts``; None where there is no backup or no WAL.

    What is older is not looked at, since retention may have let it expire.
    """
    backup = newest_backup(facts, repo)
    archives = [entry for entry in facts["archives"] if entry["repo"] == repo and entry["max"]]
    if backup is None or not archives:
        return None
    archive = max(archives, key=lambda entry: entry["database_id"] or 0)
    first, last = backup["archive_start"], archive["max"]
    if first[:8] != last[:8] or last < first:
        first = last  # a new timeline has no more than it has; its history is no gap
    size = segment_size(backup)
    directories = sorted({name[:16] for name in segments_between(first, last, size)})
    for look in range(LOOKS):
        listing: dict[str, Any] = {}
        for directory in directories:
            listing.update(pgbackrest.repo_ls(f"archive/{pgbackrest.stanza}/{archive['id']}/{directory}", repo=repo))
        missing = missing_segments(listing, first, last, size)
        if not missing or look == LOOKS - 1:
            break
        time.sleep(PAUSE)
    return Continuity(backup, missing, archived_segments(listing), archived_at(listing, last))


def require_continuous(pgbackrest: PgBackRest, facts: Mapping[str, Any], repo: int) -> None:
    """Raise RecoveryError, naming them, when WAL segments since the newest backup of ``facts`` are not in a repository.

    What is older is not looked at, since retention may have let it expire.
    """
    found = look_for_gaps(pgbackrest, facts, repo)
    if found is None or not found.missing:
        return
    backup, missing = found.backup, found.missing
    raise RecoveryError(
        f"{len(missing)} WAL segment{'s' if len(missing) > 1 else ''} since backup {backup['label']} of stanza "
        f"'{pgbackrest.stanza}' {'are' if len(missing) > 1 else 'is'} missing from repository {repo}, as seen from "
        f"{socket.gethostname()}: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}. No moment after the "
        "first of them can be restored from that backup; what is before it, and what follows a newer backup, can. "
        "archive-push-queue-max drops WAL when its queue is full: see the server's log, and take a full backup now.",
        missing_wal=missing,
    )
