# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who else notices that a cluster goes back: readers of slots, publishers, standbys, and open transactions."""

from __future__ import annotations

import shlex
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login, psql_with
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_literal,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows, value

_PREPARED = "SELECT gid, database::text FROM pg_catalog.pg_prepared_xacts ORDER BY 1"
_SUBSCRIPTIONS = """
SELECT d.datname::text AS database, s.subname::text AS name
FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
WHERE s.subenabled ORDER BY 1, 2
"""
_SLOTS = "SELECT slot_name::text AS name FROM pg_catalog.pg_replication_slots WHERE NOT temporary ORDER BY 1"
_WAITED_FOR = "SELECT pg_catalog.current_setting('synchronous_standby_names')"
_CONFIRM = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_replication WHERE sync_state IN ('sync', 'quorum')"


def hanging_on(connection: Any, standbys: int) -> list[str]:
    """The same for the plan, line by line."""
    slots = [display_name(None, one["name"]) for one in rows(connection, _SLOTS)]
    named = f" ({', '.join(slots)})" if slots else ""
    lines = [f"replication slots are not restored{named}: whoever used one begins anew"]
    lines += [
        f"subscription {display_name(None, one['name'])} in {display_name(None, one['database'])} goes on where its "
        "publisher is: what it received after the target is lost, and is not sent again"
        for one in rows(connection, _SUBSCRIPTIONS)
    ]
    if standbys:
        lines.append(f"{counted(standbys, 'server')} that stream from it must be built anew")
    names = value(connection, _WAITED_FOR)
    if names:
        lines.append(
            f"COMMITS WAIT FOR STANDBYS (synchronous_standby_names = {names}), which cannot follow: no commit ends "
            "until they are built anew, or taken out of it, for which the report has the command"
        )
    return lines


def left_to_do(connection: Any, login: Login) -> list[dict[str, str]]:
    """What people have to do once the cluster serves; what holds applications up comes first."""
    found = []
    names = value(connection, _WAITED_FOR)
    if names and not value(connection, _CONFIRM):
        found.append(_commits_wait(login, value(connection, "SELECT pg_catalog.current_database()::text"), names))
    found += [_decision(login, one["gid"], one["database"]) for one in rows(connection, _PREPARED)]
    return found + [_gap(login, one["name"], one["database"]) for one in rows(connection, _SUBSCRIPTIONS)]


def _commits_wait(login: Login, database: str, names: str) -> dict[str, str]:
    without = """ALTER SYSTEM SET synchronous_standby_names = ''"""
    reload = "SELECT pg_catalog.pg_reload_conf()"
    return {
        "what": "Let commits end: they wait for standbys that cannot follow",
        "reason": f"synchronous_standby_names is {names}, and no standby of it streams from the cluster as it is now. "
        "The command takes them out; build them anew, and undo it then with ALTER SYSTEM RESET "
        "synchronous_standby_names, or set it as it was.",
        "command": f"{psql_with(login, database)} -c {shlex.quote(without)} -c {shlex.quote(reload)}",
    }


def _gap(login: Login, name: str, database: str) -> dict[str, str]:
    return {
        "what": f"Fill the gap of subscription {name} in {database}",
        "reason": "What its publisher had sent after the target is not in this cluster, and is not sent again, so that "
        "rows are missing, and later changes of those are passed over. The command keeps it from going on so. Then "
        "empty its tables, drop it, and create it again, which copies them.",
        "command": f"{psql_with(login, database)} -c {shlex.quote(f'ALTER SUBSCRIPTION {quote_ident(name)} DISABLE')}",
    }


def _decision(login: Login, gid: str, database: str) -> dict[str, str]:
    """What is left to do with a transaction that was prepared, and has come back as such."""
    decide = psql_with(login, database)
    commit = f"{decide} -c {shlex.quote(f'COMMIT PREPARED {quote_literal(gid)}')}"
    return {
        "what": f"Decide the transaction that is prepared as {gid} in {database}",
        "reason": "It was not decided where this cluster goes on from, so that it keeps its locks, and hinders "
        "VACUUM. Whoever prepared it may have decided it since, or believes so. Where it was committed, or "
        f"is to be: {commit} And else the command here.",
        "command": f"{decide} -c {shlex.quote(f'ROLLBACK PREPARED {quote_literal(gid)}')}",
    }
