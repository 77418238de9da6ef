# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._core.workers import NoSession
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import (
    force_statements,
    is_superuser,
    server_message,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import (
    acting_as_owner,
    needs_cage,
    owned_by_nobody_else,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import is_concurrent
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server, host_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.settings import SAFE_PATH
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.users_code import runs_others_code
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import is_passing
from ansible_collections.dbre.recovery.plugins.module_utils._tables.copy import (
    carried,
    column_list,
    copy_options,
    copy_table,
    plain_columns,
    stored_columns,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.event_triggers import (
    refuse_event_triggers,
    silence_event_triggers,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.journal import JOURNAL, write_journal
from ansible_collections.dbre.recovery.plugins.module_utils._tables.lag import Lag, Watch
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plain import Loosened, own_search_path
from ansible_collections.dbre.recovery.plugins.module_utils._tables.replication import Unpublished

try:
    import psycopg2
except ImportError:
    psycopg2 = None  # type: ignore[assignment]  # connect() says so, before anything here needs it


TRIES = 5
# A standby that does not answer must not hold up a recovery; see confirmed.py.
LOCAL_COMMIT = {"synchronous_commit": "local"}


def default_memory(production: Server, parallel: int) -> str:
    """maintenance_work_mem for one of ``parallel`` sessions: a quarter of the free memory among them, 64 MB to 2 GB.

    The memory of a server over the network cannot be seen; what it has for shared_buffers stands for what is free.
    """
    if production.remote:
        connection = production.connect()
        free = value(connection, "SELECT pg_catalog.pg_size_bytes(pg_catalog.current_setting('shared_buffers')) / 1024")
        connection.close()
    else:
        with open("/proc/meminfo") as file:
            free = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
    return f"{max(64 * 1024, min(2 * 1024 * 1024, free // 4 // parallel))}kB"


def recovered_content(side: Any, oid: int, table: str, columns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows and checksum of a table of the recovered instance, in a transaction that the caller does not commit."""
    for statement in force_statements(side, [oid])[0]:
        execute(side, statement)
    return fingerprint.content(side, table, columns)


class Side(threading.Thread):
    """Counts and checksums one table in the recovered instance while production builds indexes."""

    def __init__(
        self, server: Server, database: str, oid: int, table: str, columns: Sequence[Mapping[str, Any]], cores: int
    ) -> None:
        super().__init__(daemon=True)
        self._arguments = (server, database, oid, table, columns, cores)
        self._error: BaseException | None = None
        self._content: dict[str, Any] = {}

    def run(self) -> None:
        server, database, oid, table, columns, cores = self._arguments
        try:
            connection = server.connect(database, fingerprint.parallel_settings(cores))
            try:
                self._content = recovered_content(connection, oid, table, columns)
            finally:
                connection.close()
        except BaseException as error:  # handed on to the thread that waits
            self._error = error

    def result(self) -> dict[str, Any]:
        """Rows and checksum; raises what went wrong."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._content


class Context:
    """What every step of one recovery needs: the two servers, the plan, sessions, the journal."""

    def __init__(
        self,
        production: Server,
        side: Server,
        plan: Mapping[str, Any],
        *,
        parallel: int | None = None,
        maintenance_work_mem: str | None = None,
        progress: Progress | None = None,
        max_lag: float = 0,
    ) -> None:
        self.production = production
        self.side = side
        self.plan = plan
        self.cores = len(os.sched_getaffinity(0))
        self.parallel = parallel or self.cores
        self.maintenance_work_mem = maintenance_work_mem or default_memory(production, self.parallel)
        self.progress = progress or Progress(None)
        self.watch = Watch(Lag(max_lag), self.progress)
        self.staging: str = plan["staging_schema"]
        self.staging_schemas: Mapping[str, str] = plan["staging_schemas"]
        self.side_database: str = plan["database"]
        self.database: str = plan["staging_database"] or plan["database"]
        # Only of a role that is no superuser.
        self.roles: Sequence[str] = plan.get("roles", [])
        self.owners: Sequence[Sequence[str]] = plan.get("owners", [])
        self._counted = 0
        self._count_lock = threading.Lock()

    def session(self, settings: Mapping[str, str] | None = None) -> Any:
        """A session in the database that is loaded, whose commits wait for no standby; no event trigger fires."""
        connection = self.production.connect(self.database, {**LOCAL_COMMIT, **(settings or {})})
        refuse_event_triggers(connection, silence_event_triggers(connection))
        return connection

    def loading_session(self) -> Any:
        """A session tuned to load and to build indexes; its commits need not wait, publishing makes all durable.

        Raises NoSession when there is none to be had.
        """
        try:
            connection = self.session(
                {
                    "synchronous_commit": "off",
                    "maintenance_work_mem": self.maintenance_work_mem,
                    "max_parallel_maintenance_workers": str(self.cores),
                    **fingerprint.parallel_settings(self.cores),
                }
            )
        except RecoveryError as error:
            raise NoSession(error.msg, **error.details) from error
        if is_superuser(connection):
            execute(connection, "SET temp_file_limit = -1")
        connection.commit()
        return connection

    def journal(self, connection: Any, kind: str, detail: Mapping[str, Any]) -> None:
        """Write one entry, in the caller's transaction."""
        write_journal(connection, self.staging, kind, detail)

    def tell(self, size: int) -> None:
        """Count bytes copied, with a line of progress for every 16 MB; wait while standbys are too far behind."""
        self.watch.wait()
        with self._count_lock:
            before = self._counted
            self._counted += size
            if before >> 24 != self._counted >> 24:
                self.progress.say("copy", self._counted, max(self.plan["bytes"], self._counted), "bytes")


def require_equal(table: str, recovered: Mapping[str, Any], loaded: Mapping[str, Any]) -> None:
    """Raise RecoveryError when the rows loaded are not those of the recovered instance."""
    if recovered != loaded:
        raise RecoveryError(
            f"the rows of {table} loaded on {host_name()} are not those of the recovered instance: "
            f"{loaded['rows']} rows with checksum {loaded['checksum']} instead of {recovered['rows']} rows with "
            f"checksum {recovered['checksum']}. They were not kept, and nothing was published. "
            "Run again with the same incident id.",
            relation=table,
        )


class TableLoad:
    """Loads one staged table in one transaction and proves it: rows, indexes, checksum of both ends.

    Inside the transaction the table stands at its true place, so that the dump's own index definitions fit; nobody
    sees that, because it is back in staging before the commit.
    """

    def __init__(self, context: Context, relation: Mapping[str, Any], encoding: str, staged: bool = False) -> None:
        self.context = context
        self.relation = relation
        self.encoding = encoding
        self.there = quote_name(relation["schema"], relation["name"])
        staging = context.staging_schemas.get(relation["schema"])
        # Where its place is not free: with its indexes, it is filled where it was staged.
        self.schema: str = staging if staged and staging is not None else relation["schema"]
        self.true = quote_name(self.schema, relation["name"])
        self.staging = None if staged else staging

    def run(self, make_indexes: Callable[[Any], None] = lambda connection: None) -> dict[str, Any]:
        """The result. ``make_indexes`` makes what fits in the session it is given.

        What production's functions, checks and types (no longer) allow is tried again as the table's owner would see
        it, and then without them: the rows come first.
        """
        try:
            return self._try(make_indexes)
        except psycopg2.DatabaseError as error:
            if is_passing(error):
                raise
        try:
            return self._try(make_indexes, own_path=True)
        except psycopg2.DatabaseError as error:
            if is_passing(error):
                raise
            return self._try(make_indexes, why=server_message(error))

    def _try(
        self, make_indexes: Callable[[Any], None], own_path: bool = False, why: str | None = None
    ) -> dict[str, Any]:
        for attempt in itertools.count(1):
            side = self.context.side.connect(self.context.side_database)
            connection = self.context.loading_session()
            try:
                result = self._load(connection, side, make_indexes, own_path, why)
                connection.commit()
                return result
            except psycopg2.DatabaseError as error:
                # Others grant something on the same schema at the same moment.
                if attempt == TRIES or not is_concurrent(error):
                    raise
            finally:
                connection.close()
                side.close()
        raise AssertionError("not reached")

    def _load(
        self, connection: Any, side: Any, make_indexes: Callable[[Any], None], own_path: bool, why: str | None
    ) -> dict[str, Any]:
        oid, name, schema = self.relation["oid"], self.relation["name"], self.schema
        before = force_statements(side, [oid])[0]
        recovered_columns = fingerprint.columns_of(side, [oid])[oid]
        unreadable = needs_cage(side, oid, written=False)
        trusting = runs_others_code(side, oid)
        side.rollback()
        began = time.monotonic()
        mark(connection, self.context.plan["incident"])
        if self.staging is not None:
            execute(connection, f"ALTER TABLE {quote_name(self.staging, name)} SET SCHEMA {quote_ident(schema)}")
        execute(connection, f"LOCK TABLE ONLY {self.true} IN ACCESS EXCLUSIVE MODE")
        path = own_search_path(connection, self.true) if own_path else ""
        queue = quote_name(self.context.staging, JOURNAL)
        with owned_by_nobody_else(connection, self.true, queue, trusting):
            loosened = None if why is None else Loosened(connection, side, self.relation, self.true, why)
            columns, source = self._columns(connection, recovered_columns, unreadable)
            hidden = Unpublished(connection, schema, self.true)
            # Emptied in the transaction that fills it, so that rows can be written frozen, with their visibility map.
            execute(connection, f"TRUNCATE ONLY {self.true}")
            # Nobody else can change the table now.
            proved = stored_columns(columns) if unreadable else recovered_columns
            content = None
            if unreadable or needs_cage(connection, self._here(connection)):
                content = self._copy_as_owner(connection, columns, source, before, path)
            else:
                set_search_path(connection, path)
                self._copy(connection, columns, source, before, self.true)
                set_search_path(connection, SAFE_PATH)
            hidden.filled(self.true)
            copied = time.monotonic()
            if unreadable and content is not None:
                # What came is all that can be told: to query that table there would run code of its owner as us.
                recovered: Callable[[], dict[str, Any]] = partial(dict, content)
            else:
                cores, table = self.context.cores, f"ONLY {self.there}"
                reader = Side(self.context.side, self.context.side_database, oid, table, proved, cores)
                reader.start()
                recovered = reader.result
            left_to_do = []
            if loosened is not None:
                loaded = self._proved(connection, recovered, proved)
                left_to_do = loosened.tighten()
            make_indexes(connection)
            execute(connection, f"ANALYZE {self.true}")
            indexed = time.monotonic()
            if loosened is None:
                loaded = self._proved(connection, recovered, proved)
            verified = time.monotonic()
        if self.staging is not None:
            execute(connection, f"ALTER TABLE {self.true} SET SCHEMA {quote_ident(self.staging)}")
        result = {
            "schema": self.relation["schema"],
            "name": name,
            "oid": oid,
            "action": "place",
            "rows": loaded["rows"],
            "checksum_side": loaded["checksum"],
            "checksum_production": loaded["checksum"],
            "seconds": {
                "copy": round(copied - began, 2),
                "index": round(indexed - copied, 2),
                "verify": round(verified - indexed, 2),
            },
        }
        self.context.journal(connection, "table", result)
        for entry in left_to_do:
            self.context.journal(connection, "refused", {"entry": None, "left": entry})
        return result

    def _here(self, connection: Any) -> int:
        return int(value(connection, "SELECT pg_catalog.to_regclass(%s)::oid::int8", (self.true,)))

    def _copy(
        self,
        connection: Any,
        columns: Sequence[Mapping[str, Any]],
        source: str,
        before: Sequence[str],
        target: str,
    ) -> None:
        copy_table(
            connection,
            self.context.side,
            self.context.side_database,
            f"COPY {source} TO STDOUT {copy_options(columns, self.encoding)}",
            f"COPY {target}{column_list(columns)} FROM STDIN {copy_options(columns, self.encoding, freeze=True)}",
            self.context.tell,
            before,
        )

    def _copy_as_owner(
        self,
        connection: Any,
        columns: Sequence[Mapping[str, Any]],
        source: str,
        before: Sequence[str],
        path: str,
    ) -> dict[str, Any]:
        """Rows into a table that nobody's code belongs to, then as the owner from there; rows and checksum of it."""
        oid, schema = self._here(connection), self.schema
        here = {column["name"]: column["type"] for column in fingerprint.columns_of(connection, [oid])[oid]}
        stored = stored_columns(columns)
        plain = plain_columns(connection, [{**column, "type": here[column["name"]]} for column in stored])
        with acting_as_owner(connection, oid, schema, ["INSERT", "SELECT"]) as owner:
            copy = f"{owner.schema}.copy"
            execute(connection, f"CREATE UNLOGGED TABLE {copy} ({', '.join(item.definition for item in plain)})")
            taken = fingerprint.columns_of_table(connection, copy)
            self._copy(connection, carried(stored, taken), source, before, copy)
            owner.lend("TABLE", copy, ["SELECT"])
            owner.execute(
                f"INSERT INTO {self.true}{column_list(columns)} OVERRIDING SYSTEM VALUE "
                f"SELECT {', '.join(item.back for item in plain)} FROM {copy}",
                path,
            )
            return fingerprint.content(connection, copy, stored)

    def _columns(
        self, connection: Any, recovered: Sequence[Mapping[str, Any]], plain: bool
    ) -> tuple[list[dict[str, Any]], str]:
        """Columns that COPY carries, as the table to be loaded has them, and what it reads on the other side.

        Where that must be the ``plain`` table and no query, values that the other side computes stay there.
        """
        oid = self._here(connection)
        here = {column["name"]: column for column in fingerprint.columns_of(connection, [oid])[oid]}
        columns = [
            {**column, "generated": here[column["name"]]["generated"]}
            for column in carried(recovered, [*here.values()])
        ]
        stored = stored_columns(columns)
        if plain:
            computed = {column["name"] for column in stored_columns(columns)} - {
                column["name"] for column in stored_columns(recovered)
            }
            columns = [column for column in columns if column["name"] not in computed]
        elif any(column["generated"] and not here[column["name"]]["generated"] for column in recovered):
            fields = ", ".join(quote_ident(column["name"]) for column in stored)
            return columns, f"(SELECT {fields} FROM ONLY {self.there})"
        return columns, f"{self.there}{column_list(columns)}"

    def _proved(
        self, connection: Any, recovered: Callable[[], dict[str, Any]], columns: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        oid, table = self._here(connection), f"ONLY {self.true}"
        if needs_cage(connection, oid):
            loaded = fingerprint.content_as_owner(connection, oid, self.schema, table, columns)
        else:
            loaded = fingerprint.content(connection, table, columns)
        require_equal(display_name(self.relation["schema"], self.relation["name"]), recovered(), loaded)
        return loaded


def set_search_path(connection: Any, path: str) -> None:
    """Set the search_path of the caller's transaction."""
    execute(connection, "SELECT pg_catalog.set_config('search_path', %s, true)", (path,))


def encoding_of(connection: Any) -> str:
    """Encoding of the database."""
    return str(value(connection, "SELECT pg_catalog.current_setting('server_encoding')"))
