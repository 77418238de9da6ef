# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a standby has left the way of the new primary: it has replayed what the old one wrote after the fork.

An old primary that comes back archives what it writes on its own timeline. A standby that takes that from the archive
is beyond the place where the new timeline began, and streams from the new primary all the same: the receiver begins at
the segment, and its position is one that the new primary will have, too (xlogrecovery.c: XLogFileReadAnyTLI takes an
older timeline's segment where the archive has no newer one). Positions therefore tell nothing, and neither does
``received_tli``. What tells is the timeline of what was replayed, which is in the control file.
"""

from __future__ import annotations

import os
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn, parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._failover.wal_end import read_end
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows

_WRITTEN = """
SELECT min_recovery_end_lsn::text AS lsn, min_recovery_end_timeline AS timeline,
       current_setting('server_version_num')::int / 10000 AS major, current_setting('data_directory') AS data,
       (SELECT setting::int FROM pg_settings WHERE name = 'wal_segment_size') AS segment_size,
       pg_last_wal_replay_lsn()::text AS replay_lsn
  FROM pg_control_recovery()
"""
# The first may make a restartpoint up to a checkpoint before the fork; the next one has none to make any more and
# writes down where replay is, and on which timeline (xlog.c: CreateRestartPoint, UpdateMinRecoveryPoint).
_CHECKPOINTS = 3


def left_at(connection: Any, fork: int, timeline: int, check_mode: bool) -> Optional[dict[str, Any]]:
    """What a standby has of another timeline beyond ``fork``, where ``timeline`` began; None where that is nothing.

    As ``{timeline, fork, replayed}``, positions as texts.
    """
    now = rows(connection, _WRITTEN)[0]
    for _each in range(0 if check_mode else _CHECKPOINTS):
        if parse_lsn(now["replay_lsn"]) <= fork or parse_lsn(now["lsn"]) > fork:
            break
        execute(connection, "CHECKPOINT")
        now = rows(connection, _WRITTEN)[0]
    at = parse_lsn(now["lsn"])
    if at <= fork or now["timeline"] == timeline:
        return None
    return _told(now["timeline"], fork, max(at, parse_lsn(now["replay_lsn"])))


def will_leave(connection: Any, fork: int, timeline: int) -> Optional[dict[str, Any]]:
    """The same of a delayed standby, which has WAL that it has not replayed yet."""
    now = rows(connection, _WRITTEN)[0]
    if now["timeline"] == timeline:
        return None
    wal = os.path.join(now["data"], "pg_wal")
    end = read_end(find_bin_dir(now["major"]), wal, now["timeline"], fork, now["segment_size"]).end
    return _told(now["timeline"], fork, end) if end is not None and end > fork else None


def _told(timeline: int, fork: int, replayed: int) -> dict[str, Any]:
    return {"timeline": timeline, "fork": format_lsn(fork), "replayed": format_lsn(replayed)}
