# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logical replication out of production: what subscribers get of a recovery, and what they must never see.

A change of a table that a subscriber does not have stops it for ever. Publications FOR ALL TABLES and of schemas take
in every table that is made, but none that is unlogged; and the rewrite by which one becomes logged is not decoded
(``relrewrite`` in src/backend/replication/logical/reorderbuffer.c).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value

ALL_TABLES = "SELECT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE puballtables)"
# Since PostgreSQL 15.
SCHEMAS = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_publication_namespace p JOIN pg_catalog.pg_namespace n ON n.oid = p.pnnspid
               WHERE n.nspname = ANY(%s))
"""
PUBLISHED = """
SELECT t.pubname AS publication, t.schemaname AS schema, t.tablename AS name
FROM pg_catalog.pg_publication_tables t
WHERE (t.schemaname, t.tablename) IN
      (SELECT * FROM ROWS FROM (pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::text[]))) ORDER BY 1, 2, 3
"""
# What publishes tables as soon as they are there.
OF_ALL_TABLES = "SELECT pubname AS publication FROM pg_catalog.pg_publication WHERE puballtables"
OF_SCHEMAS = """
SELECT DISTINCT p.pubname AS publication FROM pg_catalog.pg_publication p
JOIN pg_catalog.pg_publication_namespace s ON s.pnpubid = p.oid JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid
WHERE n.nspname = ANY(%s)
"""
SLOTS = """
SELECT s.slot_name AS name, s.active,
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.confirmed_flush_lsn)::int8 AS behind_bytes,
       coalesce(r.application_name || coalesce(' at ' || pg_catalog.host(r.client_addr), ''), '') AS subscriber
FROM pg_catalog.pg_replication_slots s LEFT JOIN pg_catalog.pg_stat_replication r ON r.pid = s.active_pid
WHERE s.slot_type = 'logical' AND s.database = pg_catalog.current_database() ORDER BY 1
"""


def is_published(connection: Any, schemas: Sequence[str]) -> bool:
    """Whether a table that is made in one of ``schemas`` is published at once."""
    if value(connection, ALL_TABLES):
        return True
    return connection.server_version >= 150000 and bool(value(connection, SCHEMAS, (list(schemas),)))


def create_kept(connection: Any, schema: str, name: str, query: str) -> list[str]:
    """Statements that make a table of ``query``, which stays; no subscriber sees it."""
    table = quote_name(schema, name)
    if not is_published(connection, [schema]):
        return [f"CREATE TABLE {table} AS {query}"]
    return [f"CREATE UNLOGGED TABLE {table} AS {query}", f"ALTER TABLE {table} SET LOGGED"]


class Unpublished:
    """Keeps a table that nobody knows yet from being published while it is filled, in the caller's transaction."""

    def __init__(self, connection: Any, schema: str, table: str) -> None:
        """``table`` is an SQL name; it stands in ``schema`` while it is filled, and is empty."""
        query = "SELECT relpersistence = 'p' FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass(%s)"
        self._connection = connection
        self._hidden = is_published(connection, [schema]) and bool(value(connection, query, (table,)))
        if self._hidden:
            execute(connection, f"ALTER TABLE {table} SET UNLOGGED")

    def filled(self, table: str) -> None:
        """Make it, under the name that it has now, as it is to be; before indexes, which would be written twice."""
        if self._hidden:
            execute(self._connection, f"ALTER TABLE {table} SET LOGGED")


def replication_of(connection: Any, relations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Who subscribes to what a load plan's ``relations`` touch, and how many changes they get.

    Tables that are put back in their place are filled unseen: a subscriber still has its own rows, for a drop is not
    replicated. What is merged, replaced or filled is sent, as any change.
    """
    sent = [item for item in relations if item["action"] in ("merge", "replace", "columns")]
    names = [item["schema"] for item in sent], [item["name"] for item in sent]
    found = rows(connection, PUBLISHED, names) if sent else []
    tables = {(row["schema"], row["name"]) for row in found}
    publications = {row["publication"] for row in found}
    schemas = sorted({item["schema"] for item in relations if item["action"] != "none"})
    if schemas:
        publications |= {row["publication"] for row in rows(connection, OF_ALL_TABLES)}
    if schemas and connection.server_version >= 150000:
        publications |= {row["publication"] for row in rows(connection, OF_SCHEMAS, (schemas,))}
    changes = sum(
        int(item["rows_estimate"]) * (2 if item["action"] == "replace" else 1)
        for item in sent
        if (item["schema"], item["name"]) in tables
    )
    return {
        "publications": sorted(publications),
        "slots": rows(connection, SLOTS) if publications else [],
        "most_changes": changes,
    }
