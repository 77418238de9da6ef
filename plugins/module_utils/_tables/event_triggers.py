# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Event triggers of production, which are meant for the work of others: none fires on ours.

A session can keep them from firing for itself alone: by ``event_triggers`` since PostgreSQL 17, and before by being a
replica, for which those in their default state do not fire (ENABLE ALWAYS and ENABLE REPLICA do; CREATE EVENT TRIGGER
and session_replication_role in PostgreSQL's documentation). Being a replica, foreign keys and triggers of tables sleep,
too: what a recovery does to rows of production, it does as a replica in any case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._guard.protection import SCHEMA
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import INSUFFICIENT_PRIVILEGE, user_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name

# Those of this collection's drop protection let our sessions through.
ENABLED = f"""
SELECT e.evtname AS name, e.evtevent AS event, e.evtenabled::text AS enabled, e.evttags AS tags,
       pg_catalog.format('%I.%I', n.nspname, p.proname) AS calls
FROM pg_catalog.pg_event_trigger e JOIN pg_catalog.pg_proc p ON p.oid = e.evtfoid
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE e.evtenabled <> 'D' AND e.evtevent <> 'login' AND n.nspname <> '{SCHEMA}' ORDER BY 1
"""
SWITCHES = {"event_triggers": "off", "session_replication_role": "replica"}
# In which states an event trigger fires, by session_replication_role.
FIRING = {"origin": "OA", "local": "OA", "replica": "RA"}
STATES = {"O": "ENABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}


def silence_event_triggers(connection: Any) -> list[dict[str, Any]]:
    """Keep event triggers from firing in this session, from now on; all that are enabled, and whether each ``fires``.

    To be called outside of a transaction.
    """
    found = rows(connection, ENABLED)
    connection.rollback()
    if not found:
        return []
    off = connection.server_version >= 170000 and _set(connection, "event_triggers")
    states = "" if off else FIRING[str(value(connection, "SHOW session_replication_role"))]
    connection.rollback()
    if any(item["enabled"] in states for item in found) and _set(connection, "session_replication_role"):
        states = FIRING["replica"]
    return [{**item, "state": STATES[item["enabled"]], "fires": item["enabled"] in states} for item in found]


def _set(connection: Any, name: str) -> bool:
    """Change a setting for the rest of the session; whether the role may."""
    try:
        execute(connection, f"SET SESSION {name} = '{SWITCHES[name]}'")
    except connection.ProgrammingError as error:
        connection.rollback()
        if error.pgcode != INSUFFICIENT_PRIVILEGE:
            raise
        return False
    connection.commit()
    return True


def refuse_event_triggers(connection: Any, triggers: Sequence[Mapping[str, Any]]) -> None:
    """Raise RecoveryError when event triggers would fire on what we do."""
    firing = [item for item in triggers if item["fires"]]
    if not firing:
        return
    names = ", ".join(f"{item['name']} ({item['state']}, on {item['event']}, calls {item['calls']})" for item in firing)
    if all(item["enabled"] != "O" for item in firing):
        # As a replica we wake none that is merely enabled; other sessions notice nothing of this.
        commands = " ".join(
            f"ALTER EVENT TRIGGER {quote_ident(item['name'])} {'ENABLE' if item['enabled'] == 'A' else 'DISABLE'};"
            for item in firing
        )
        advice = f"As a superuser, let them sleep for sessions that are replicas, as ours are: {commands} Then"
    else:
        user = quote_ident(user_of(connection))
        name = "event_triggers" if connection.server_version >= 170000 else "session_replication_role"
        grant = f"As a superuser: GRANT SET ON PARAMETER {name} TO {user}; then"
        advice = grant if connection.server_version >= 150000 else "Run as a superuser, or as one"
        advice = f"Role {user} may not keep them from firing in its own sessions. {advice}"
    raise RecoveryError(
        f"event triggers on {host_name()} would fire on the work of this recovery: {names}. Nothing was changed. "
        f"{advice} run again with the same incident id.",
        event_triggers=[dict(item) for item in firing],
    )
