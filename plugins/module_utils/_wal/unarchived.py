# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running server has committed and its archive does not have yet: what would be lost if it were gone now."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.archive import Archive
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import (
    Timelines,
    format_lsn,
    parse_lsn,
    parse_segment_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._wal.server import one_row
from ansible_collections.dbre.recovery.plugins.module_utils._wal.source import WalSource
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import CommitLog, parse_time

_NOW = """
SELECT pg_current_wal_flush_lsn()::text AS flushed, pg_walfile_name(pg_current_wal_insert_lsn()) AS segment,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size') AS size,
       current_setting('data_directory') AS data, current_setting('server_version_num')::int / 10000 AS major,
       (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
       to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"') AS now
"""


def refuse_other_cluster(
    facts: Mapping[str, Any], archive: Optional[Mapping[str, Any]], system_identifier: str
) -> None:
    """Raise RecoveryError where an archive (last_archive of ``facts``) is of another cluster than the server."""
    for one in facts["databases"]:
        its = archive and (one["repo"], one["id"]) == (archive["repo"], archive["database_id"])
        if its and str(one["system_identifier"]) != system_identifier:
            raise RecoveryError(
                f"stanza '{facts['name']}' has WAL of the cluster with system identifier {one['system_identifier']}, "
                f"and the server's is {system_identifier}: all of it would be lost"
            )


def unarchived(
    connection: Any, newest: Optional[str], archive: Archive, spool: str, bin_dir: Optional[str] = None
) -> dict[str, Any]:
    """``{transactions, seconds, from_lsn, to_lsn, first, now, system_identifier}`` of commits behind the archive's end.

    ``newest`` is the newest segment that the archive has, asked before this. ``seconds`` is the age of the oldest of
    these commits, 0 where there is none: a quiet server loses nothing, however old its last transaction is. A commit
    whose record goes over the end of the archive's last segment is not counted.
    """
    if newest is None:
        raise RecoveryError("the archive has no WAL of this cluster at all, so that everything would be lost")
    server = one_row(connection, _NOW)
    size = int(server["size"])
    timeline, number = parse_segment_name(newest, size)
    current = parse_segment_name(server["segment"], size)[0]
    if timeline != current:
        raise RecoveryError(
            f"the archive ends on timeline {timeline} ({newest}), and the server is on {current}: what it has "
            "committed since cannot be counted before WAL of its timeline is archived"
        )
    begin, end = (number + 1) * size, parse_lsn(server["flushed"])
    commits = CommitLog(lambda _lsn, _rest: False)
    if begin < end:
        source = WalSource(
            pg_wal=os.path.join(server["data"], "pg_wal"),
            spool=spool,
            archive=archive,
            timelines=Timelines(current),
            segment_size=size,
            system_identifier=int(server["system_identifier"]),
            waldump=os.path.join(find_bin_dir(int(server["major"]), bin_dir), "pg_waldump"),
        )
        source.provide(range(number + 1, (end - 1) // size + 1))
        for text in source.waldump(begin, end, "--rmgr=Transaction"):
            commits.add(text)
    first = commits.first_from(begin)
    age = (parse_time(server["now"], "now") - first.time) / 1_000_000 if first else 0.0
    return {
        "transactions": len(commits),
        "seconds": round(max(age, 0.0), 1),
        "from_lsn": format_lsn(begin),
        "to_lsn": format_lsn(max(begin, end)),
        "first": first.commit_time if first else None,
        "now": server["now"],
        "system_identifier": server["system_identifier"],
    }
