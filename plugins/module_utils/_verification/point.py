# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""To which moment a restore test restores: the end of the archive, one that chance chose, or one that was named."""

from __future__ import annotations

import glob
import json
import os
import random
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn, parse_lsn, parse_segment_name
from ansible_collections.dbre.recovery.plugins.module_utils._core.times import parse_time
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.continuity import segment_size
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import last_archive
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import REACHED

_LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")
LATEST, RANDOM, KEPT = "latest", "random", "kept"


def restore_point(facts: Mapping[str, Any], point: str, seed: str) -> dict[str, Any]:
    """A recovery target out of a stanza's facts; raises RecoveryError where there is none.

    No WAL can be read before there is a server to read it with, so the end is where the newest archived segment begins:
    a record is certain to be there. ``seed`` decides what chance chooses. ``point`` is latest, random, LSN or time.
    """
    archive = last_archive(facts)
    if archive is None:
        # One that cannot be read says nothing of what is in it.
        silent = [one for one in facts["repositories"] if one["status"]["code"] not in REACHED]
        why = "".join(f" Repository {one['repo']} cannot be read: {one['status']['message']}" for one in silent)
        raise RecoveryError(
            f"stanza '{facts['name']}' has no archived WAL to restore with.{why}",
            **({"repositories": silent} if silent else {}),
        )
    key = (archive["repo"], archive["database_id"])
    backups = [
        one
        for one in facts["backups"]
        if (one["repo"], one["database_id"]) == key and one["archive_start"] and one["stop_lsn"] and not one["error"]
    ]
    if not backups and any(one["error"] for one in facts["backups"]):
        raise RecoveryError(
            f"every backup of stanza '{facts['name']}' holds damaged pages, so that none is restored.",
            code="BACKUP_PAGE_ERRORS",
        )
    if not backups:
        raise RecoveryError(
            f"stanza '{facts['name']}' has no backup that is known to be whole in repository {archive['repo']}."
        )
    size = segment_size(backups[-1])
    timeline, number = parse_segment_name(archive["max"], size)
    end = number * size
    begins = [parse_lsn(one["stop_lsn"]) for one in backups]
    if point not in (LATEST, RANDOM):
        return {**_named(point, backups, end + size), "timeline": timeline}
    if max(begins) > end:
        # The newest backup's own end is behind it; the one before leads to the end.
        begins = [lsn for lsn in begins if lsn <= end]
    if not begins:
        raise RecoveryError(
            f"no WAL was archived since the only backup of stanza '{facts['name']}' ended. Have the server archive a "
            "segment (SELECT pg_switch_wal()), then run again."
        )
    lsn, reason = end, f"the beginning of {archive['max']}, the newest WAL in the archive"
    if point == RANDOM:
        lsn = random.Random(seed).randint(min(begins), end)  # not for a secret
        reason = f"a moment that chance chose between {format_lsn(min(begins))} and {format_lsn(end)}, seed {seed}"
    return {
        "type": "lsn",
        "value": format_lsn(lsn),
        "exclusive": True,
        "timeline": timeline,
        "reason": reason,
    }


def check_point(point: str) -> str:
    """A point as it was asked for. Raises RecoveryError for what is none, before anything is looked at."""
    if point not in (LATEST, RANDOM, KEPT) and not _LSN.fullmatch(point):
        try:
            parse_time(point, "backup_verification_point")
        except RecoveryError as error:
            raise RecoveryError(f"{error.msg} It may be {LATEST}, {RANDOM}, {KEPT} or an LSN as well.") from None
    return point


def kept_snapshot(directory: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The oldest of the fingerprints that earlier tests kept, of this cluster, to which can be restored.

    Raises RecoveryError where there is none.
    """
    found = []
    clusters = {str(entry["system_identifier"]) for entry in facts["databases"]}
    stops = [parse_lsn(one["stop_lsn"]) for one in facts["backups"] if one["stop_lsn"] and not one["error"]]
    for path in glob.glob(os.path.join(glob.escape(directory), "verifications", "*", "snapshot.json")):
        with suppress(OSError, ValueError, KeyError, TypeError), open(path, encoding="utf-8") as file:
            snapshot = dict(json.load(file))
            if snapshot["system_identifier"] in clusters and any(stop <= parse_lsn(snapshot["lsn"]) for stop in stops):
                found.append(snapshot)
    if not found:
        raise RecoveryError(
            "no earlier test has kept fingerprints of a moment that can still be restored. Name databases to compare "
            "(backup_verification_compare) in a test to latest first.",
            code="DATA_NOT_COMPARABLE",
        )
    return min(found, key=lambda one: parse_lsn(one["lsn"]))


def _named(point: str, backups: Sequence[Mapping[str, Any]], end: int) -> dict[str, Any]:
    """The target that ``point`` names, which the archive's WAL before ``end`` may hold."""
    if _LSN.fullmatch(point):
        lsn, first = parse_lsn(point), min(parse_lsn(one["stop_lsn"]) for one in backups)
        if lsn < first:
            raise RecoveryError(
                f"{point} is before the end of the oldest backup, {format_lsn(first)}: nothing leads there.",
                code="PITR_TARGET_BEFORE_BACKUP",
            )
        if lsn >= end:
            raise RecoveryError(
                f"{point} is behind the archive's end, {format_lsn(end)}: its WAL is not there.",
                code="PITR_TARGET_UNREACHED",
            )
        return {"type": "lsn", "value": format_lsn(lsn), "exclusive": True, "reason": "it was asked for"}
    moment, oldest = parse_time(point, "point"), min(str(one["stop_time"]) for one in backups)
    if moment < parse_time(oldest, "stop_time"):
        raise RecoveryError(
            f"{point} is before the end of the oldest backup, {oldest}: nothing leads there.",
            code="PITR_TARGET_BEFORE_BACKUP",
        )
    return {"type": "time", "value": moment.isoformat(" "), "exclusive": False, "reason": "it was asked for"}
