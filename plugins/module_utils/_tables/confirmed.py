# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our commits wait for no synchronous standby; whether one has what was published is looked at afterwards."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import value
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left

PATIENCE = 10.0
WANTED = "SELECT pg_catalog.current_setting('synchronous_standby_names')"
CONFIRMED = """
SELECT count(*) > 0 FROM pg_catalog.pg_stat_replication
WHERE sync_state IN ('sync', 'quorum') AND flush_lsn >= %s::pg_lsn
"""


def unconfirmed(connection: Any, patience: float = PATIENCE) -> list[dict[str, Any]]:
    """An entry of ``left_to_do`` when no synchronous standby confirms within ``patience`` seconds what was committed.

    Empty where production has none. A commit that waited for a standby that is gone would wait for ever.
    """
    wanted = value(connection, WANTED)
    if not wanted:
        connection.rollback()
        return []
    until = value(connection, "SELECT pg_catalog.pg_current_wal_flush_lsn()::text")
    deadline = time.monotonic() + patience
    while not value(connection, CONFIRMED, (until,)):
        connection.rollback()
        if time.monotonic() > deadline:
            reason = (
                f"no synchronous standby ({wanted}) confirmed what was published within {patience:.0f} s; it is safe "
                "on this server only. Bring a standby back, or take it out of synchronous_standby_names"
            )
            return [left("standby", "synchronous_standby_names", reason)]
        time.sleep(0.2)
    connection.rollback()
    return []
