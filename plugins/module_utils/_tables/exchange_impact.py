# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who and what hangs on a database that is to be exchanged for a recovered one, known before anything is restored."""

from __future__ import annotations

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import size
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server, host_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.exchange import (
    connect_elsewhere,
    require_exchangeable,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.room import HOME, free_below, places_of

SESSIONS = """
SELECT coalesce(usename::text, backend_type) AS role, coalesce(application_name, '') AS application,
       count(*)::int8 AS sessions
FROM pg_catalog.pg_stat_activity WHERE datname = %s AND pid <> pg_catalog.pg_backend_pid()
  AND coalesce(application_name, '') <> pg_catalog.current_setting('application_name')
GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2
"""
SLOTS = """
SELECT slot_name AS name, plugin, active FROM pg_catalog.pg_replication_slots
WHERE database = %s AND NOT temporary ORDER BY 1
"""
SUBSCRIPTIONS = """
SELECT s.subname AS name, s.subenabled AS enabled FROM pg_catalog.pg_subscription s
JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = %s ORDER BY 1
"""
PUBLICATIONS = "SELECT pubname AS name FROM pg_catalog.pg_publication ORDER BY 1"
# By what the catalogue counts, for which no table is locked: what the rows of all tables take at least (see room.py).
LEAST = """
SELECT coalesce(sum(least(c.relpages::float8 * pg_catalog.current_setting('block_size')::int8,
                          greatest(c.reltuples, 0)::float8 * 28)), 0)::int8
FROM pg_catalog.pg_class c WHERE c.relkind = 'r' AND c.relpersistence = 'p'
"""


def exchange_impact(production: Server, database: str, incident: str) -> dict[str, Any]:
    """Sessions that are ended, what stays with the damaged database, and the room that a second one needs.

    Raises RecoveryError where it cannot be exchanged at all. Nothing is changed.
    """
    admin = connect_elsewhere(production, database)
    try:
        kept = require_exchangeable(admin, database, incident)
        home = value(admin, HOME, (database,))
        disk = None if production.remote else free_below(places_of(admin)[home])
        found: dict[str, Any] = {
            "kept_as": kept,
            "sessions": rows(admin, SESSIONS, (database,)),
            "slots": rows(admin, SLOTS, (database,)),
            "subscriptions": rows(admin, SUBSCRIPTIONS, (database,)),
            "bytes": value(admin, "SELECT pg_catalog.pg_database_size(%s)", (database,)),
        }
    finally:
        admin.close()
    inside = production.connect(database)
    try:
        found["publications"] = [row["name"] for row in rows(inside, PUBLICATIONS)]
        least = int(value(inside, LEAST))
    finally:
        inside.close()
    if disk is not None and least > disk["free"]:
        raise RecoveryError(
            f"a second {display_name(None, database)} does not fit on {host_name()}: the rows that it has now take at "
            f"least {size(least)}, and {size(disk['free'])} are free on the file system of {disk['path']}. Nothing was "
            f"changed. Make room there, better {size(found['bytes'])}, or choose another way (dr_strategy).",
            disk=dict(disk),
        )
    return {**found, "disk": disk}
