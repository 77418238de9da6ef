# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the running primary says of itself: the facts the search starts from, and those a side restore needs."""

from __future__ import annotations

import codecs
import contextlib
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import parse_lsn, parse_segment_name, segment_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login, connect
from ansible_collections.dbre.recovery.plugins.module_utils._wal.source import before_page_header

with contextlib.suppress(ImportError):  # connect() says so
    import psycopg2

OLDEST_MAJOR = 15  # pg_waldump --relation, and the dropped OIDs in commit records
FIRST_USER_OID = 16384
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
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size') AS wal_segment_size,
       current_setting('block_size')::int AS block_size,
       current_setting('wal_block_size')::int AS wal_block_size,
       current_setting('wal_level') AS wal_level,
       current_setting('full_page_writes') AS full_page_writes,
       to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"') AS host_time,
       pg_is_in_recovery() AS in_recovery,
       txid_snapshot_xmax(txid_current_snapshot())::bigint AS next_xid
"""


def session(login: Login, name: Optional[str] = None) -> Any:
    """A connection to the database of that name, or to any of the server, in which each statement is a transaction."""
    connection = connect(login, name, any_database=True)
    connection.autocommit = True
    return connection


def _rows(connection: Any, query: str, *values: Any) -> list[dict[str, Any]]:
    try:
        with connection.cursor() as cursor:
            cursor.execute(query, values or None)
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row)) for row in cursor.fetchall()]
    except psycopg2.Error as error:
        info = connection.info
        raise RecoveryError(
            f"the server on {socket.gethostname()}, port {info.port}, refused role {info.user!r} what the search must "
            f"know: {str(error).strip()}. Nothing was changed. Use a superuser of the server (login_user, "
            "postgresql_user).",
            sqlstate=error.pgcode,
        ) from error


def one_row(connection: Any, query: str, *values: Any) -> dict[str, Any]:
    """The only row of a query, by column name."""
    (row,) = _rows(connection, query, *values)
    return row


def raw(column: str) -> str:
    """SQL for the bytes of a name as they are stored, which no encoding of client or database changes or refuses."""
    return f"pg_catalog.replace({column}::text, E'\\\\', E'\\\\\\\\')::bytea"


def server_facts(connection: Any) -> dict[str, Any]:
    """The C(server) part of the result; refuses a server whose WAL is not its own or not of the usual shape."""
    (server,) = _rows(connection, _SERVER)
    server["major"] = server["version_num"] // 10000
    if server["in_recovery"]:
        raise RecoveryError(
            f"the server in {server['data_directory']} is in recovery: it is a standby. Nothing was changed. "
            "Run this against the primary (group primary, variable dr_primary)."
        )
    if (server.pop("block_size"), server.pop("wal_block_size")) != (8192, 8192):
        raise RecoveryError("the server was built with other pages than 8 kB, which this does not read")
    server["databases"] = [
        {"name": name_of_database(bytes(row.pop("name")), row.pop("encoding")), **row}
        for row in _rows(
            connection,
            f"SELECT {raw('datname')} AS name, pg_encoding_to_char(encoding) AS encoding, oid::bigint AS oid,"
            ' pg_database_size(oid)::bigint AS size, datcollate::text AS "collate", datctype::text AS ctype'
            " FROM pg_database ORDER BY datname",
        )
    ]
    server["tablespaces"] = [
        {**row, "name": name_of(bytes(row["name"]), "UTF8")}
        for row in _rows(
            connection,
            f"SELECT {raw('spcname')} AS name, oid::bigint AS oid, pg_tablespace_location(oid) AS location"
            " FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY spcname",
        )
    ]
    # Whoever initdb made: it is there, a superuser, whatever its name.
    (server["superuser"],) = (
        name_of(bytes(row["name"]), "UTF8")
        for row in _rows(connection, f"SELECT {raw('rolname')} AS name FROM pg_authid WHERE oid = 10")
    )
    settings = _rows(
        connection,
        "SELECT name, setting::int AS setting FROM pg_settings WHERE name = ANY(%s)",
        list(RECOVERY_SETTINGS),
    )
    server["recovery_settings"] = {row["name"]: row["setting"] for row in settings}
    server["kept_wal"] = kept_wal(connection)
    return server


def kept_wal(connection: Any) -> list[dict[str, str]]:
    """WAL segments that pg_wal has whole, as ranges ``{first, last}`` of names; none of those to come."""
    (row,) = _rows(
        connection,
        "SELECT pg_walfile_name(pg_current_wal_insert_lsn()) AS current,"
        " (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size') AS size,"
        " ARRAY(SELECT name FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' ORDER BY name)::text[] AS names",
    )
    ranges: list[dict[str, str]] = []
    for name in row["names"]:
        if name[8:] >= row["current"][8:]:
            continue
        timeline, number = parse_segment_name(name, row["size"])
        if ranges and ranges[-1]["last"] == segment_name(timeline, number - 1, row["size"]):
            ranges[-1]["last"] = name
        else:
            ranges.append({"first": name, "last": name})
    return ranges


def require_searchable(server: Mapping[str, Any]) -> None:
    """Refuse to search WAL that does not name what was dropped; a target that is given needs no search."""
    if server["major"] < OLDEST_MAJOR:
        raise RecoveryError(
            f"the server is PostgreSQL {server['major']}; searching WAL needs {OLDEST_MAJOR} or later, whose WAL names "
            "what was dropped. Nothing was changed. Give the moment yourself: the time just before the damage "
            "(dr_target_time), or its transaction or WAL position (dr_target_xid, dr_target_lsn)."
        )


def wal_end(connection: Any, patience: float = 10.0) -> tuple[int, int]:
    """(end of the flushed WAL, timeline). Waits a moment for asynchronous commits to be flushed."""
    inserted = None
    deadline = time.monotonic() + patience
    while True:
        (row,) = _rows(
            connection,
            "SELECT pg_current_wal_insert_lsn()::text AS inserted, pg_current_wal_flush_lsn()::text AS flushed,"
            " ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint AS timeline,"
            " pg_size_bytes(current_setting('wal_segment_size')) AS segment",
        )
        # Just behind a page's header there is nothing to flush yet.
        inserted = inserted or before_page_header(parse_lsn(row["inserted"]), row["segment"])
        flushed = parse_lsn(row["flushed"])
        if flushed >= inserted or time.monotonic() > deadline:
            return flushed, row["timeline"]
        time.sleep(0.05)


@dataclass(frozen=True)
class Known:
    """A relation that production has now, with the OIDs of those it is a partition or child of."""

    oid: int
    schema: str
    name: str
    kind: str
    filenode: int = 0
    tablespace: int = 0
    parents: tuple[int, ...] = ()
    unlogged: bool = False
    namespace: int = 0


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

    def text(self, name: bytes) -> str:
        """A name of this database as text."""
        return name_of(name, self.encoding)


_ENCODINGS = {"EUC_JIS_2004": "euc_jis_2004", "UHC": "cp949", "WIN874": "cp874", "WIN866": "cp866", "KOI8R": "koi8-r"}
_UNTOLD = ("SQL_ASCII", "MULE_INTERNAL")


def codec(encoding: str) -> str:
    """Python's name of a PostgreSQL encoding; bytes as they are where Python has none."""
    name = _ENCODINGS.get(encoding, encoding)
    for candidate in (name, name.replace("WIN", "cp"), name.replace("LATIN", "latin-"), name.replace("_", "-")):
        try:
            return codecs.lookup(candidate).name
        except LookupError:
            continue
    return "latin-1"


def name_of(name: bytes, encoding: str) -> str:
    """A name as people write it, out of its bytes; what its encoding does not tell, or not hold, is guessed."""
    for candidate in ("utf-8",) if encoding in _UNTOLD else (codec(encoding), "utf-8"):
        try:
            return name.decode(candidate)
        except UnicodeDecodeError:
            continue
    return name.decode("latin-1")


def name_of_database(name: bytes, encoding: str) -> str:
    """The name of a database of that encoding.

    It has the bytes that the session sent which made the database, of whatever encoding that was. What is UTF-8 beyond
    ASCII is hardly anything else.
    """
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name_of(name, encoding)


def database_row_of(connection: Any, name: str) -> Optional[Database]:
    """The database of that name, without what is in it; None when the server has none."""
    for row in _rows(
        connection,
        f"SELECT oid::bigint AS oid, {raw('datname')} AS name, dattablespace::bigint AS tablespace,"
        " pg_encoding_to_char(encoding) AS encoding FROM pg_database",
    ):
        if name_of_database(bytes(row["name"]), row["encoding"]) == name:
            return Database(**{**row, "name": name})
    return None


def is_gone(login: Login, name: str) -> bool:
    """Whether a server that can be asked has no database of that name any more."""
    try:
        connection = session(login)
        try:
            return database_row_of(connection, name) is None
        finally:
            connection.close()
    except RecoveryError:
        return False


def fill_database(connection: Any, database: Database) -> None:
    """Read what the search needs from inside the database: its schemas, tables and the files of its catalogues."""
    for row in _rows(connection, f"SELECT oid::bigint AS oid, {raw('nspname')} AS name FROM pg_namespace"):
        database.namespaces[row["oid"]] = database.text(bytes(row["name"]))
    for row in _rows(
        connection,
        f"SELECT c.oid::bigint AS oid, c.relnamespace::bigint AS schema, {raw('c.relname')} AS name,"
        " c.relkind::text AS kind, c.relpersistence = 'u' AS unlogged,"
        " coalesce(pg_relation_filenode(c.oid), 0)::bigint AS filenode,"
        " (CASE WHEN c.reltablespace = 0 THEN %s ELSE c.reltablespace::bigint END) AS tablespace,"
        " ARRAY(SELECT i.inhparent::bigint FROM pg_inherits i WHERE i.inhrelid = c.oid) AS parents"
        " FROM pg_class c WHERE c.relkind = ANY('{r,p,m,f,v,S}') AND c.relpersistence <> 't' AND c.oid >= %s",
        database.tablespace,
        FIRST_USER_OID,
    ):
        row["name"], row["parents"] = database.text(bytes(row["name"])), tuple(row["parents"])
        row["namespace"] = row["schema"]
        row["schema"] = database.namespaces.get(row["schema"], "?")
        database.relations[row["oid"]] = Known(**row)
    for name in ("pg_class", "pg_namespace", "pg_attribute", "pg_statistic", "pg_statistic_ext_data"):
        (row,) = _rows(
            connection, "SELECT pg_relation_filenode(%s::regclass)::bigint AS filenode", f"pg_catalog.{name}"
        )
        database.catalogs[name] = row["filenode"]


def database_catalog(connection: Any) -> int:
    """Filenode of pg_database, which all databases share."""
    (row,) = _rows(connection, "SELECT pg_relation_filenode('pg_catalog.pg_database'::regclass)::bigint AS filenode")
    return int(row["filenode"])
