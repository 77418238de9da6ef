# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the running primary says of itself: the facts the search starts from, and those a side restore needs."""

from __future__ import annotations

import codecs
import time
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._wal.lsn import parse_lsn

OLDEST_MAJOR = 15  # pg_waldump --relation, and the dropped OIDs in commit records
RECOVERY_SETTINGS = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
)

_SERVER = """
SELECT current_setting('server_version_num')::int AS version_num,
       (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
       current_setting('data_directory') AS data_directory,
       current_setting('wal_segment_size') AS segment_size_text,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size') AS wal_segment_size,
       current_setting('block_size')::int AS block_size,
       current_setting('wal_block_size')::int AS wal_block_size,
       current_setting('wal_level') AS wal_level,
       current_setting('full_page_writes') AS full_page_writes,
       to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"') AS host_time,
       pg_is_in_recovery() AS in_recovery
"""


def _rows(connection: Any, query: str, *values: Any) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values or None)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor.fetchall()]


def one_row(connection: Any, query: str, *values: Any) -> dict[str, Any]:
    """The only row of a query, by column name."""
    (row,) = _rows(connection, query, *values)
    return row


def server_facts(connection: Any) -> dict[str, Any]:
    """The C(server) part of the result; refuses a server that the search cannot read WAL of."""
    (server,) = _rows(connection, _SERVER)
    del server["segment_size_text"]
    server["major"] = server["version_num"] // 10000
    if server["major"] < OLDEST_MAJOR:
        raise RecoveryError(
            f"the server is PostgreSQL {server['major']}; searching WAL needs {OLDEST_MAJOR} or later, whose "
            "WAL names what was dropped. Nothing was changed. Give the recovery target explicitly (dr_target_time)."
        )
    if server["in_recovery"]:
        raise RecoveryError(
            f"the server in {server['data_directory']} is in recovery: it is a standby. Nothing was changed. "
            "Run this against the primary (group primary, variable dr_primary)."
        )
    if (server.pop("block_size"), server.pop("wal_block_size")) != (8192, 8192):
        raise RecoveryError("the server was built with other pages than 8 kB, which this does not read")
    server["databases"] = _rows(
        connection,
        "SELECT datname AS name, oid::bigint AS oid, pg_database_size(oid)::bigint AS size FROM pg_database ORDER BY 1",
    )
    server["tablespaces"] = _rows(
        connection,
        "SELECT spcname AS name, oid::bigint AS oid, pg_tablespace_location(oid) AS location"
        " FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1",
    )
    settings = _rows(
        connection,
        "SELECT name, setting::int AS setting FROM pg_settings WHERE name = ANY(%s)",
        list(RECOVERY_SETTINGS),
    )
    server["recovery_settings"] = {row["name"]: row["setting"] for row in settings}
    return server


def wal_end(connection: Any, patience: float = 1.0) -> tuple[int, int]:
    """(end of the flushed WAL, timeline). Waits a moment for asynchronous commits to be flushed."""
    inserted = None
    deadline = time.monotonic() + patience
    while True:
        (row,) = _rows(
            connection,
            "SELECT pg_current_wal_insert_lsn()::text AS inserted, pg_current_wal_flush_lsn()::text AS flushed,"
            " ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint AS timeline",
        )
        inserted = inserted or parse_lsn(row["inserted"])
        flushed = parse_lsn(row["flushed"])
        if flushed >= inserted or time.monotonic() > deadline:
            return flushed, row["timeline"]
        time.sleep(0.05)


@dataclass(frozen=True)
class Known:
    """A relation that production has now. ``filenodes`` are (tablespace, filenode) where it keeps rows, if it does."""

    oid: int
    schema: str
    name: str
    kind: str
    filenode: int = 0
    tablespace: int = 0
    parent: int = 0


@dataclass
class Database:
    """One database as production has it now."""

    oid: int
    name: str
    tablespace: int
    encoding: str
    namespaces: dict[int, str] = field(default_factory=dict)
    relations: dict[int, Known] = field(default_factory=dict)
    catalogs: dict[str, int] = field(default_factory=dict)

    def relation(self, schema: str, name: str) -> Optional[Known]:
        """The relation of that name, if production has it."""
        return next((known for known in self.relations.values() if (known.schema, known.name) == (schema, name)), None)


_ENCODINGS = {"SQL_ASCII": "latin-1", "EUC_JIS_2004": "euc_jis_2004", "MULE_INTERNAL": "latin-1", "UHC": "cp949"}


def codec(encoding: str) -> str:
    """Python's name of a PostgreSQL encoding; bytes as they are where Python has none."""
    name = _ENCODINGS.get(encoding, encoding)
    for candidate in (name, name.replace("WIN", "cp"), name.replace("LATIN", "latin-"), name.replace("_", "-")):
        try:
            return codecs.lookup(candidate).name
        except LookupError:
            continue
    return "latin-1"


def database_row_of(connection: Any, name: str) -> Optional[Database]:
    """The database of that name, without what is in it; None when the server has none."""
    rows = _rows(
        connection,
        "SELECT oid::bigint AS oid, datname AS name, dattablespace::bigint AS tablespace,"
        " pg_encoding_to_char(encoding) AS encoding FROM pg_database WHERE datname = %s",
        name,
    )
    return Database(**rows[0]) if rows else None


def fill_database(connection: Any, database: Database) -> None:
    """Read what the search needs from inside the database: its schemas, tables and the files of its catalogues."""
    for row in _rows(connection, "SELECT oid::bigint AS oid, nspname FROM pg_namespace"):
        database.namespaces[row["oid"]] = row["nspname"]
    for row in _rows(
        connection,
        "SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,"
        " coalesce(pg_relation_filenode(c.oid), 0)::bigint AS filenode,"
        " (CASE WHEN c.reltablespace = 0 THEN %s ELSE c.reltablespace::bigint END) AS tablespace,"
        " coalesce(i.inhparent::bigint, 0) AS parent"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND c.relispartition"
        " WHERE c.relkind = ANY('{r,p,m,f,v,S}') AND c.relpersistence <> 't' AND c.oid >= 16384",
        database.tablespace,
    ):
        database.relations[row["oid"]] = Known(**row)
    for name in ("pg_class", "pg_namespace", "pg_statistic", "pg_statistic_ext_data"):
        (row,) = _rows(
            connection, "SELECT pg_relation_filenode(%s::regclass)::bigint AS filenode", f"pg_catalog.{name}"
        )
        database.catalogs[name] = row["filenode"]


def database_catalog(connection: Any) -> int:
    """Filenode of pg_database, which all databases share."""
    (row,) = _rows(connection, "SELECT pg_relation_filenode('pg_catalog.pg_database'::regclass)::bigint AS filenode")
    return int(row["filenode"])
