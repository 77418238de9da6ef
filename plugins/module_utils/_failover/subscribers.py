# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lead the subscriptions of a server from one publisher to another, and see that they go on there.

A subscriber tells its publisher up to where it has everything. Where that is beyond the beginning of the new primary's
timeline, the new primary has other WAL there, and would leave out what it commits up to that position.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._failover.conninfo import with_primary
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login, connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident, quote_literal
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows

with suppress(ImportError):  # connect() says so
    from psycopg2 import Error, ProgrammingError
    from psycopg2.extensions import parse_dsn

POLL = 0.2  # seconds
# A publisher's password is in the statement; and who owns a subscription may hold its lock for ever.
_SETTINGS = {
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_duration": "off",
    "lock_timeout": "2s",
}
SUBSCRIPTIONS = """
SELECT s.oid::int8 AS oid, s.subname AS name, d.datname AS database, s.subenabled AS enabled, s.subslotname AS slot,
       s.subconninfo AS conninfo,
       (SELECT o.remote_lsn::text FROM pg_catalog.pg_replication_origin_status o WHERE o.external_id = 'pg_' || s.oid)
         AS remote_lsn,
       (SELECT w.latest_end_lsn::text FROM pg_catalog.pg_stat_subscription w
         WHERE w.subid = s.oid AND w.relid IS NULL AND w.pid IS NOT NULL
           AND coalesce(pg_catalog.to_jsonb(w) ->> 'leader_pid', '') = '') AS told
FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
ORDER BY d.datname, s.subname
"""


@dataclass(frozen=True)
class Lead:
    """From whom (``old_hosts``, ``old_port``) to whom, whose timeline began at ``lsn`` and who has ``slots``.

    ``timeout``: seconds that a subscription may take until it goes on.
    """

    old_hosts: list[str]
    host: str
    lsn: str
    slots: list[str] = field(default_factory=list)
    old_port: int = 5432
    port: int = 5432
    timeout: float = 60


def leads_to(conninfo: str, hosts: Collection[str], port: int) -> bool:
    """Whether a connection string leads to one of these hosts on that port, and to no other server."""
    try:
        parts = parse_dsn(conninfo)
    except ProgrammingError:
        return False
    named = [name for key in ("host", "hostaddr") for name in str(parts.get(key) or "").split(",") if name]
    ports = {each or "5432" for each in str(parts.get("port") or "").split(",")}
    return bool(named) and all(name in hosts for name in named) and ports == {str(port)}


def lead(login: Login, wanted: Lead, check_mode: bool) -> dict[str, Any]:
    """The module's result: each subscription to the old or the new primary, and why it was not led, if so."""
    connection = connect(login, any_database=True)
    try:
        found = []
        for row in rows(connection, SUBSCRIPTIONS):
            at_old = leads_to(row["conninfo"], wanted.old_hosts, wanted.old_port)
            if at_old or leads_to(row["conninfo"], [wanted.host], wanted.port):
                found.append((row, at_old))
        changed = False
        told = []
        for row, at_old in found:
            why = _why_not(row, wanted)
            if at_old and not why:
                changed = True
                if not check_mode:
                    why = _lead(login, row, wanted)
            if not why and not check_mode:
                why = _goes_on(connection, row, wanted)
            told.append({name: row[name] for name in ("database", "name", "slot", "remote_lsn")} | {"left": why})
        return {"changed": changed, "subscriptions": told}
    finally:
        connection.close()


def _why_not(row: Mapping[str, Any], wanted: Lead) -> str:
    """Why a subscription cannot go on with the new primary as it is; empty where it can."""
    if not row["enabled"]:
        return "it is disabled"
    if row["slot"] not in wanted.slots:
        return f"{wanted.host} does not have its slot {row['slot']}"
    # Of one that has come by itself already this is what it got there.
    if row["remote_lsn"] and row["told"] is None and parse_lsn(row["remote_lsn"]) > parse_lsn(wanted.lsn):
        return (
            f"it has what was committed up to {row['remote_lsn']}, and {wanted.host} has its own from {wanted.lsn} on: "
            "it has rows that are lost there, and would leave out the first ones that are committed there"
        )
    return ""


def _lead(login: Login, row: Mapping[str, Any], wanted: Lead) -> str:
    try:
        conninfo = with_primary(row["conninfo"], wanted.host, wanted.port)
    except RecoveryError:
        return "its connection is a URI, in which no server is replaced"
    inside = connect(login, row["database"], settings=_SETTINGS)
    try:
        inside.autocommit = True
        name = quote_ident(row["name"])
        execute(inside, f"ALTER SUBSCRIPTION {name} CONNECTION {quote_literal(conninfo)}")
    except Error as error:
        # Not its text, which may repeat the statement.
        return f"its connection could not be changed (SQLSTATE {error.pgcode}: somebody holds its lock, or forbids it)"
    finally:
        inside.close()
    return ""


def _goes_on(connection: Any, row: Mapping[str, Any], wanted: Lead) -> str:
    """Wait until its worker was told of WAL of the new primary; why not, where it is not in time."""
    deadline = time.monotonic() + wanted.timeout
    while True:
        connection.rollback()
        now: Optional[Mapping[str, Any]] = next(
            (each for each in rows(connection, SUBSCRIPTIONS) if each["oid"] == row["oid"]), None
        )
        if now is None:
            return "it is not there any more"
        if now["told"] and parse_lsn(now["told"]) >= parse_lsn(wanted.lsn):
            return ""
        if time.monotonic() > deadline:
            return (
                f"it does not stream from {wanted.host} after {wanted.timeout:.0f} s; the log of the server on "
                f"{socket.gethostname()} says why"
            )
        time.sleep(POLL)
