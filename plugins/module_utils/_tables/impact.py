# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What production has to spare for a recovery, and who would notice one: all that can be known before a restore."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import prepared_lines
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.lookup import refuse_lost_quotes
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    parse_relation_list,
    parse_schema_list,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server
from ansible_collections.dbre.recovery.plugins.module_utils._tables.actions import SWAP
from ansible_collections.dbre.recovery.plugins.module_utils._tables.displaced import (
    find_holding,
    find_roots,
    holding_lines,
    refuse_holding,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.event_triggers import (
    refuse_event_triggers,
    silence_event_triggers,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.exchange_impact import exchange_impact
from ansible_collections.dbre.recovery.plugins.module_utils._tables.replication import replication_of
from ansible_collections.dbre.recovery.plugins.module_utils._tables.room import HOME, free_below, places_of

# Beside the sessions that load: one for the steps, one that holds the lock of the incident and looks at standbys.
OTHER_SESSIONS = 2

CONNECTIONS = """
SELECT pg_catalog.current_setting('max_connections')::int4 AS max,
       pg_catalog.current_setting('superuser_reserved_connections')::int4
         + coalesce(pg_catalog.current_setting('reserved_connections', true)::int4, 0) AS reserved,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid()) AS used
"""
ARCHIVE = """
SELECT pg_catalog.current_setting('archive_mode') AS mode, last_failed_wal AS failed,
       coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) AS failing,
       (SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size') AS segment_bytes
FROM pg_catalog.pg_stat_archiver
"""
MAY_LIST = "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_ls_archive_statusdir()', 'EXECUTE')"
WAITING = "SELECT count(*) FROM pg_catalog.pg_ls_archive_statusdir() AS f WHERE f.name ~ '[.]ready$'"
# Null where slots may keep all WAL there is.
KEPT_AT_MOST = """
SELECT nullif(setting::int8, -1) * 1048576 FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size'
"""
SLOTS = """
SELECT slot_name AS name, slot_type AS type, active, wal_status,
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn)::int8 AS kept_bytes
FROM pg_catalog.pg_replication_slots WHERE NOT temporary ORDER BY 1
"""
STANDBYS = """
SELECT r.application_name AS name, pg_catalog.host(r.client_addr) AS address, r.state, r.sync_state,
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), r.write_lsn)::int8 AS not_received_bytes,
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), r.replay_lsn)::int8 AS not_replayed_bytes,
       extract(epoch FROM r.replay_lag)::float8 AS replay_lag_seconds
FROM pg_catalog.pg_stat_replication r LEFT JOIN pg_catalog.pg_replication_slots s ON s.active_pid = r.pid
WHERE r.state IN ('streaming', 'catchup') AND coalesce(s.slot_type, 'physical') = 'physical' ORDER BY 1, 2
"""
# By the pages that the catalogue counts, for which no lock of the table is needed: with TOAST and indexes.
RELATIONS = """
SELECT n.nspname AS schema, c.relname AS name, greatest(c.reltuples, 0)::int8 AS rows_estimate,
       ((SELECT sum(p.relpages::int8) FROM pg_catalog.pg_class p
         WHERE p.oid IN (c.oid, c.reltoastrelid)
            OR p.oid IN (SELECT i.indexrelid FROM pg_catalog.pg_index i WHERE i.indrelid IN (c.oid, c.reltoastrelid)))
        * pg_catalog.current_setting('block_size')::int8)::int8 AS bytes,
       EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) AS has_key,
       EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND NOT EXISTS (
         SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY(i.indkey::int2[])
         AND a.attgenerated <> '')) AS keyed
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND (n.nspname = ANY (%(schemas)s::text[]) OR c.oid IN (
  SELECT coalesce(tree.relid, asked.oid)
  FROM (SELECT a.oid FROM pg_catalog.pg_class a JOIN pg_catalog.pg_namespace s ON s.oid = a.relnamespace
        WHERE (s.nspname, a.relname) IN (SELECT * FROM ROWS FROM (unnest(%(of)s::text[]), unnest(%(names)s::text[])))
       ) AS asked
  LEFT JOIN LATERAL pg_catalog.pg_partition_tree(asked.oid) AS tree ON true))
ORDER BY 1, 2
"""


def impact_on(
    production: Server,
    database: str,
    relations: Sequence[str],
    schemas: Sequence[str],
    load: str,
    parallel: int,
    incident: str = "",
) -> dict[str, Any]:
    """All of it; relations and schemas are as somebody wrote them.

    Raises RecoveryError when event triggers would fire on the work, and when a name that lost its quotes fits two of
    them; nothing is changed.
    """
    admin = production.connect()
    try:
        query = "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = %s)"
        exists = bool(value(admin, query, (database,)))
        found: dict[str, Any] = {"limits": limits_of(admin, production.remote, parallel)}
        if exists:
            found["database"] = size_of(admin, production.remote, database)
    finally:
        admin.close()
    nobody: dict[str, Any] = {
        "event_triggers": [],
        "replication": {"publications": [], "slots": []},
        "relations": [],
        "keyless": [],
        "without_key": [],
    }
    if load == SWAP and not relations:
        found["exchange"] = exchange_impact(production, database, incident)
    if not exists:
        return {**found, **nobody}
    named = parse_relation_list(relations), parse_schema_list(schemas)
    connection = production.connect(database)
    try:
        refuse_lost_quotes(connection, relations, schemas)
        triggers = silence_event_triggers(connection)
        refuse_event_triggers(connection, triggers)
        if load == SWAP and relations:
            found["holding"] = _holding(connection, named[0], incident)
        return {**found, "event_triggers": triggers, **_subscribed(connection, *named, load)}
    finally:
        connection.close()


def _holding(connection: Any, relations: Sequence[Mapping[str, str]], incident: str) -> list[str]:
    """What hangs on tables that are exchanged, and what becomes of it; RecoveryError where that cannot be handled."""
    roots = find_roots(connection, [], [(item["schema"], item["name"]) for item in relations])
    holding = find_holding(connection, roots)
    refuse_holding(holding)
    locked = {*roots, *(key[end] for key in holding["keys"] for end in ("relation", "other_relation"))}
    return [*holding_lines(holding, incident), *prepared_lines(connection, locked)]


def size_of(connection: Any, remote: bool, database: str) -> dict[str, Any]:
    """``{bytes, free}`` of a database and of the disk that it is on; null where it cannot be known."""
    home = value(connection, HOME, (database,))
    disk = None if remote else free_below(places_of(connection)[home])
    return {
        "bytes": value(connection, "SELECT pg_catalog.pg_database_size(%s)", (database,)),
        "free": disk["free"] if disk else None,
    }


def limits_of(connection: Any, remote: bool, parallel: int) -> dict[str, Any]:
    """Connections, disk, archive, slots and standbys of production; null where it cannot be known."""
    archive = rows(connection, ARCHIVE)[0]
    archive["waiting"] = value(connection, WAITING) if value(connection, MAY_LIST) else None
    return {
        "connections": {**rows(connection, CONNECTIONS)[0], "wanted": parallel + OTHER_SESSIONS},
        "disk": [] if remote else _disk(connection),
        "archive": archive,
        "slots": rows(connection, SLOTS),
        "max_slot_wal_keep_bytes": value(connection, KEPT_AT_MOST),
        "standbys": rows(connection, STANDBYS),
    }


def _disk(connection: Any) -> list[dict[str, Any]]:
    places = places_of(connection)
    paths = [*places.values(), os.path.join(places["pg_default"], "pg_wal")]
    return [item for item in (free_below(path) for path in dict.fromkeys(paths)) if item is not None]


def _subscribed(
    connection: Any, relations: Sequence[Mapping[str, str]], schemas: Sequence[str], load: str
) -> dict[str, Any]:
    """What is asked for and there is in production, and who subscribes to it or to what is made anew."""
    named = {
        "schemas": list(schemas),
        "of": [item["schema"] for item in relations],
        "names": [item["name"] for item in relations],
    }
    here = rows(connection, RELATIONS, named)
    keyless = [display_name(item["schema"], item["name"]) for item in here if not item.pop("keyed")]
    without_key = [{"schema": item["schema"], "name": item["name"]} for item in here if not item.pop("has_key")]
    known = {(item["schema"], item["name"]) for item in here}
    gone = [
        {**item, "action": "place", "rows_estimate": 0}
        for item in relations
        if (item["schema"], item["name"]) not in known
    ]
    gone += [{"schema": name, "name": "", "action": "place", "rows_estimate": 0} for name in schemas]
    touched = [*({**item, "action": load} for item in here), *gone]
    found = replication_of(connection, touched)
    # How many rows are put back is known when they are restored.
    return {
        "relations": here,
        "keyless": keyless,
        "without_key": without_key,
        "replication": {key: found[key] for key in ("publications", "slots")},
    }
