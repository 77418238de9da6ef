# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WAL on its way from a server to its repositories, as samples of metrics."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import parse_segment_name
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.metrics import Sample
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.continuity import (
    Continuity,
    newest_backup,
    segment_size,
)
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import current_databases

SEGMENT = re.compile("[0-9A-F]{24}")


class Finished(NamedTuple):
    """A finished segment in pg_wal: whether it still waits for the archive, and since when it is in that state."""

    name: str
    waits: bool
    since: float  # seconds since the epoch


def finished_segments(data_directory: str) -> list[Finished]:
    """What ``pg_wal`` of a server holds. Raises OSError."""
    found = []
    for entry in os.scandir(os.path.join(data_directory, "pg_wal", "archive_status")):
        name, _dot, state = entry.name.rpartition(".")
        if state in ("ready", "done") and SEGMENT.fullmatch(name):
            with suppress(FileNotFoundError):  # archived or recycled meanwhile
                found.append(Finished(name, state == "ready", entry.stat().st_mtime))
    return found


def of_queue(stanza: str, finished: Iterable[Finished]) -> Iterator[Sample]:
    """WAL that waits to be archived."""
    times = [segment.since for segment in finished if segment.waits]
    yield Sample("dbre_backup_ready_segments", {"stanza": stanza}, len(times))
    if times:
        yield Sample("dbre_backup_ready_oldest_timestamp_seconds", {"stanza": stanza}, min(times))


def newest_archived(facts: Mapping[str, Any]) -> dict[int, str]:
    """Name of the newest WAL segment of the current cluster in each repository that has one."""
    current = {(entry["repo"], entry["id"]) for entry in current_databases(facts)}
    return {
        entry["repo"]: str(entry["max"])
        for entry in facts["archives"]
        if entry["max"] and (entry["repo"], entry["database_id"]) in current
    }


def of_archives(facts: Mapping[str, Any]) -> Iterator[Sample]:
    """How far the repositories are from each other."""
    newest = newest_archived(facts)
    numbers = {}
    for repo, name in newest.items():
        backup = newest_backup(facts, repo)
        if backup:
            numbers[repo] = parse_segment_name(name, segment_size(backup))[1]
    for repo, number in numbers.items():
        labels = {"stanza": str(facts["name"]), "repo": str(repo)}
        yield Sample("dbre_backup_archive_behind_segments", labels, max(numbers.values()) - number)


def of_lag(facts: Mapping[str, Any], repo: int, finished: Iterable[Finished], now: float) -> Iterator[Sample]:
    """What a primary has finished and the repository does not have.

    ``finished`` was looked at before ``facts``, so that what comes meanwhile is no lag.
    """
    labels = {"stanza": str(facts["name"]), "repo": str(repo)}
    newest = newest_archived(facts).get(repo, "")
    beyond = [segment for segment in finished if segment.name > newest]
    yield Sample("dbre_backup_archive_lag_segments", labels, len(beyond))
    oldest = min((segment.since for segment in beyond), default=now)
    yield Sample("dbre_backup_archive_lag_seconds", labels, max(now - oldest, 0.0))


def of_gaps(
    facts: Mapping[str, Any], repo: int, found: Optional[Continuity], finished: Optional[Iterable[Finished]]
) -> Iterator[Sample]:
    """WAL that is missing since the newest backup; ``found`` is None where that could not be looked for.

    ``finished`` is what is in pg_wal, looked at before ``facts``; None where no primary is on this host.
    """
    labels = {"stanza": str(facts["name"]), "repo": str(repo)}
    yield Sample("dbre_backup_check_known", {**labels, "check": "wal_gap"}, int(found is not None))
    if found is None:
        return
    if found.newest_stored is not None:
        yield Sample("dbre_backup_window_end_timestamp_seconds", labels, found.newest_stored)
    segments = list(finished or ())
    waiting = {segment.name for segment in segments if segment.waits}
    lost = [name for name in found.missing if name not in waiting]
    for state, number in (("waiting", len(found.missing) - len(lost)), ("lost", len(lost))):
        yield Sample("dbre_backup_wal_gap_segments", {**labels, "state": state}, number)
    if finished is not None:
        newest = newest_archived(facts).get(repo, "")
        dropped = [
            segment.name
            for segment in segments
            if not segment.waits and (segment.name > newest or segment.name in found.missing)
        ]
        yield Sample("dbre_backup_archive_dropped_segments", labels, len(dropped))
