# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a database itself still knows of when it was damaged, asked without being a superuser.

Commit times are there only with track_commit_timestamp. Which transaction wrote a row, a column's entry or a relation's
storage is its ``xmin``, which PostgreSQL keeps (also through freezing, since 9.4).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.owners import each_as_its_owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value

try:
    import psycopg2
except ImportError:
    psycopg2 = None  # type: ignore[assignment]  # connect() says so, before anything here needs it

# Tables up to this size (bytes) are read whole, of larger ones about as much is read as a sample.
READ_AT_MOST = 256 * 1024 * 1024
STATEMENT_TIMEOUT = "30s"
LOCK_TIMEOUT = "3s"
WRITERS = 20  # transactions told of each relation
# Fewer rows than this by one transaction are everyday work, unless they are half of the relation.
MANY_ROWS = 1000

SETTINGS = (
    "log_statement",
    "log_line_prefix",
    "log_min_duration_statement",
    "log_min_error_statement",
    "log_duration",
    "pgaudit.log",
    "track_commit_timestamp",
)
FACTS = """
SELECT current_user AS "user", pg_has_role('pg_read_all_stats', 'USAGE') AS reads_all,
       current_setting('server_version_num')::int AS version_num, pg_postmaster_start_time() AS started, now() AS now
"""
CREATED = """
SELECT n.nspname AS schema, c.relname AS name, c.relkind AS kind,
       (SELECT a.xmin::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid ORDER BY a.attnum LIMIT 1) AS xid
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = %s
"""
# TRUNCATE gives new storage to the table, its TOAST table and all indexes; the entries of those are seldom touched
# otherwise, while that of the table changes with every ALTER and GRANT.
STORAGE = """
WITH parts AS (
  SELECT t.oid, t.xmin, t.relfilenode, false AS own FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_class t ON t.oid = c.reltoastrelid WHERE c.oid = %(oid)s
  UNION ALL
  SELECT x.oid, x.xmin, x.relfilenode, false FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_index i ON i.indrelid IN (c.oid, c.reltoastrelid)
    JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid WHERE c.oid = %(oid)s
  UNION ALL
  SELECT c.oid, c.xmin, c.relfilenode, true FROM pg_catalog.pg_class c WHERE c.oid = %(oid)s
)
SELECT DISTINCT xmin::text AS xid FROM parts
WHERE relfilenode NOT IN (0, oid) AND own = (SELECT bool_and(own) FROM parts)
"""
COLUMNS = """
SELECT attnum::int AS number, xmin::text AS xid FROM pg_catalog.pg_attribute
WHERE attrelid = %s AND attisdropped ORDER BY attnum
"""
LEAVES = """
SELECT relid::oid::int8 AS oid FROM pg_catalog.pg_partition_tree(%(oid)s::oid::regclass) WHERE isleaf
UNION SELECT %(oid)s::int8
"""
COUNTS = """
SELECT n_tup_ins, n_tup_upd, n_tup_del, n_live_tup, last_autovacuum FROM pg_catalog.pg_stat_all_tables WHERE relid = %s
"""
ACTIVITY = """
SELECT pid, usename AS "user", datname AS database, state, backend_start, xact_start, query_start, state_change,
       backend_xid::text AS xid, query
FROM pg_catalog.pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND query <> ''
"""
STATEMENTS = """
SELECT left(s.query, 20000) AS query, s.calls, s.rows, r.rolname AS "user"
FROM {schema}.pg_stat_statements s
JOIN pg_catalog.pg_database d ON d.oid = s.dbid
LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.userid
WHERE d.datname = %s AND s.query ~* '\\m(drop|truncate|delete|update|merge|alter)\\M'
"""


@contextmanager
def reading() -> Iterator[None]:
    """Turn what PostgreSQL refuses while it is only looked at into RecoveryError."""
    try:
        yield
    except psycopg2.Error as error:
        raise RecoveryError(
            f"the database's evidence cannot be read: {str(error).strip()}. Nothing was changed. Run it again, or give "
            "the moment yourself (dr_target_time).",
            sqlstate=error.pgcode,
        ) from error


class Database:
    """One database, looked at through a session of its own that changes nothing and never waits long."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        connection.autocommit = True
        for name, text in (
            ("default_transaction_read_only", "on"),
            ("statement_timeout", STATEMENT_TIMEOUT),
            ("lock_timeout", LOCK_TIMEOUT),
            ("search_path", "pg_catalog"),
            ("timezone", "UTC"),
        ):
            execute(connection, "SELECT pg_catalog.set_config(%s, %s, false)", (name, text))
        query = "SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY(%s)"
        self.settings: dict[str, str] = {
            row["name"]: row["setting"] for row in rows(connection, query, (list(SETTINGS),))
        }
        self.facts = rows(connection, FACTS)[0]
        self.keeps_times = self.settings.get("track_commit_timestamp") == "on"
        # What could not be read, in words.
        self.refused: list[str] = []

    @contextmanager
    def _tried(self, what: str) -> Iterator[None]:
        """A look that may fail by itself: no right to it, a lock, too slow."""
        try:
            yield
        except psycopg2.Error as error:
            if self._connection.closed:
                raise
            self.refused.append(f"{what}: {str(error).strip().splitlines()[0]}")

    def commit_time(self, xid: Any) -> Any:
        """When a transaction committed; None when that is not kept (any more) or it did not commit."""
        if not self.keeps_times or int(xid or 0) < 3:
            return None
        return value(self._connection, "SELECT pg_catalog.pg_xact_commit_timestamp(%s::text::xid)", (str(xid),))

    def close(self) -> None:
        """End the session."""
        self._connection.close()

    def has_schema(self, schema: str) -> bool:
        """Whether the schema exists."""
        return bool(value(self._connection, "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s", (schema,)))

    def relations_of(self, schema: str) -> list[dict[str, Any]]:
        """Tables of a schema."""
        query = (
            "SELECT c.oid::int8, n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c "
            "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s "
            "AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY c.relname LIMIT 200"
        )
        return rows(self._connection, query, (schema,))

    def relation(self, schema: str, name: str) -> Optional[dict[str, Any]]:
        """A relation as it is now: OID, kind, when it was made, and what was done to it (``changes``); None without.

        Each change is ``{kind, xid, commit, rows, sure, text}``, with ``kind`` truncate, drop_column, update or
        written (rows that one transaction wrote last, whatever it was). Only what has a commit time is told.
        """
        oid = value(
            self._connection,
            "SELECT c.oid::int8 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = %s AND c.relname = %s",
            (schema, name),
        )
        return None if oid is None else self.relation_by_oid(oid)

    def relation_by_oid(self, oid: int) -> Optional[dict[str, Any]]:
        """Like ``relation``."""
        found = next(iter(rows(self._connection, CREATED, (oid,))), None)
        if found is None:
            return None
        changes: list[dict[str, Any]] = []
        what = display_name(found["schema"], found["name"])
        if self.keeps_times and found["kind"] in ("r", "p"):
            with self._tried(f"dropped columns of {what}"):
                changes += self._dropped_columns(oid)
            written: Optional[dict[str, Any]] = None
            with self._tried(f"rows of {what}"):
                written = self._written(oid, found)
                changes += written["changes"]
            with self._tried(f"storage of {what}"):
                changes += self._storage(oid, found, written)
        return {
            "oid": oid,
            "schema": found["schema"],
            "name": found["name"],
            "kind": found["kind"],
            "created": self.commit_time(found["xid"]),
            "changes": changes,
        }

    def _dropped_columns(self, oid: int) -> list[dict[str, Any]]:
        changes = []
        for row in rows(self._connection, COLUMNS, (oid,)):
            commit = self.commit_time(row["xid"])
            if commit is not None:
                text = f"column number {row['number']} was dropped"
                changes.append(_change("drop_column", row["xid"], commit, None, True, text))
        return changes

    def _rows_as_owner(self, oid: int, schema: str, query: str) -> list[dict[str, Any]]:
        """Result of a query on a table, whose planning runs parts of its index expressions: in a transaction undone."""
        recovering = value(self._connection, "SELECT pg_catalog.pg_is_in_recovery()")
        execute(self._connection, "BEGIN READ ONLY" if recovering else "BEGIN READ WRITE")
        try:
            with each_as_its_owner(self._connection, []) as owners:
                return owners.of(oid, schema).rows(query)
        finally:
            execute(self._connection, "ROLLBACK")

    def _written(self, oid: int, found: dict[str, Any]) -> dict[str, Any]:
        """Which transactions wrote the rows that are there now; ``oldest`` is the age of the oldest of them."""
        table = quote_name(found["schema"], found["name"])
        leaves = [row["oid"] for row in rows(self._connection, LEAVES, {"oid": oid})]
        size = (
            value(self._connection, "SELECT sum(pg_relation_size(o::oid))::int8 FROM unnest(%s::int8[]) o", (leaves,))
            or 0
        )
        share = min(100.0, 100.0 * READ_AT_MOST / size) if size else 100.0
        sample = "" if share >= 100 else f" TABLESAMPLE SYSTEM ({share:.6f})"
        query = (
            "SELECT xmin::text AS xid, count(*) AS rows, age(xmin) AS age, sum(count(*)) OVER () AS read, "
            f"max(age(xmin)) OVER () AS oldest FROM {table}{sample} GROUP BY xmin "
            f"ORDER BY count(*) DESC LIMIT {WRITERS}"
        )
        groups = self._rows_as_owner(oid, found["schema"], query)
        counts: dict[str, Any] = next(iter(rows(self._connection, COUNTS, (oid,))), {})
        changes = []
        for group in groups:
            commit = self.commit_time(group["xid"])
            count, read = int(group["rows"]), int(group["read"])
            if commit is None or count < min(MANY_ROWS, max(2, read / 2)):
                continue
            estimate = round(count * 100 / share)
            updated = int(counts.get("n_tup_upd") or 0) >= estimate
            text = f"{'about ' if sample else ''}{estimate} of the rows that are there were last written by it" + (
                "" if updated else ", as an INSERT or COPY does too"
            )
            changes.append(_change("update" if updated else "written", group["xid"], commit, estimate, updated, text))
        whole = not sample
        oldest = max((int(group["oldest"]) for group in groups), default=None)
        xids = {group["xid"] for group in groups}
        return {"changes": changes, "whole": whole, "oldest": oldest, "xids": xids, "empty": not groups}

    def _storage(self, oid: int, found: dict[str, Any], written: Optional[dict[str, Any]]) -> list[dict[str, Any]]:
        """When the storage was exchanged, and whether only a TRUNCATE can have done that: no row is older."""
        xids: set[str] = set()
        for row in rows(self._connection, LEAVES, {"oid": oid}):
            xids |= {part["xid"] for part in rows(self._connection, STORAGE, {"oid": row["oid"]})}
        if len(xids) != 1:
            return []
        (xid,) = xids
        commit = self.commit_time(xid)
        if commit is None or xid == found["xid"]:
            return []
        age = value(self._connection, "SELECT age(%s::text::xid)", (xid,))
        oldest = (written or {}).get("oldest")
        sure = bool(
            written
            and written["whole"]
            and xid not in written["xids"]
            and (written["empty"] or (oldest is not None and oldest < age))
        )
        text = (
            "it gave the relation new, empty storage: no row is older"
            if sure
            else (
                "it gave the relation new storage, as TRUNCATE does, and VACUUM FULL, CLUSTER and some ALTER TABLE too"
            )
        )
        return [_change("truncate", xid, commit, None, sure, text)]

    def counts(self, oid: int) -> Optional[dict[str, Any]]:
        """Rows inserted, updated and deleted since the statistics were reset."""
        return next(iter(rows(self._connection, COUNTS, (oid,))), None)

    def stats_reset(self) -> Any:
        """Since when the statistics of this database count; None when they were never reset."""
        query = "SELECT stats_reset FROM pg_catalog.pg_stat_database WHERE datname = current_database()"
        return value(self._connection, query)

    def activity(self) -> list[dict[str, Any]]:
        """Client sessions that are open, with their last statement where this role may see it."""
        found = rows(self._connection, ACTIVITY)
        return [row for row in found if row["query"] != "<insufficient privilege>"]

    def statements(self, database: str) -> Optional[list[dict[str, Any]]]:
        """Statements of ``database`` that pg_stat_statements has seen and that can destroy; None without it."""
        query = (
            "SELECT n.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace "
            "WHERE e.extname = 'pg_stat_statements'"
        )
        schema = value(self._connection, query)
        if schema is None:
            return None
        with self._tried("pg_stat_statements"):
            return rows(self._connection, STATEMENTS.format(schema=quote_ident(schema)), (database,))
        return []


def _change(kind: str, xid: Any, commit: Any, count: Optional[int], sure: bool, text: str) -> dict[str, Any]:
    return {"kind": kind, "xid": int(xid), "commit": commit, "rows": count, "sure": sure, "text": text}
