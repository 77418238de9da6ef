# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import force_statements
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.copy import (
    column_list,
    copy_options,
    copy_table,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.plan import JOURNAL
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Progress, Server, host_name


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
    ) -> None:
        self.production = production
        self.side = side
        self.plan = plan
        self.cores = len(os.sched_getaffinity(0))
        self.parallel = parallel or self.cores
        self.maintenance_work_mem = maintenance_work_mem or default_memory(production, self.parallel)
        self.progress = progress or Progress(None)
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
        """A session in the database that is loaded."""
        return self.production.connect(self.database, settings)

    def loading_session(self) -> Any:
        """A session tuned to load and to build indexes; its commits need not wait, publishing makes all durable."""
        return self.session(
            {
                "synchronous_commit": "off",
                "maintenance_work_mem": self.maintenance_work_mem,
                "max_parallel_maintenance_workers": str(self.cores),
                **fingerprint.parallel_settings(self.cores),
            }
        )

    def journal(self, connection: Any, kind: str, detail: Mapping[str, Any]) -> None:
        """Write one entry, in the caller's transaction."""
        table = quote_name(self.staging, JOURNAL)
        execute(
            connection, f"INSERT INTO {table} (kind, detail) VALUES (%s, %s)", (kind, json.dumps(detail, default=str))
        )

    def tell(self, size: int) -> None:
        """Count bytes copied; a line of progress for every 16 MB."""
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


def load_table(context: Context, relation: Mapping[str, Any], index_script: bytes, encoding: str) -> dict[str, Any]:
    """Load one staged table in one transaction and prove it: rows, indexes, checksum of both ends; the result.

    Inside the transaction the table stands at its true place, so that the dump's own index definitions fit; nobody
    sees that, because it is back in staging before the commit.
    """
    schema, name = relation["schema"], relation["name"]
    staging, true = context.staging_schemas.get(schema), quote_name(schema, name)
    shown = display_name(schema, name)
    side = context.side.connect(context.side_database)
    try:
        columns = fingerprint.columns_of(side, [relation["oid"]])[relation["oid"]]
        before = force_statements(side, [relation["oid"]])[0]
    finally:
        side.close()
    connection = context.loading_session()
    try:
        began = time.monotonic()
        mark(connection, context.plan["incident"])
        if staging is not None:
            execute(connection, f"ALTER TABLE {quote_name(staging, name)} SET SCHEMA {quote_ident(schema)}")
        # Emptied in the transaction that fills it, so that rows can be written frozen, with their visibility map.
        execute(connection, f"TRUNCATE ONLY {true}")
        copy_table(
            connection,
            context.side,
            context.side_database,
            f"COPY {true}{column_list(columns)} TO STDOUT {copy_options(columns, encoding)}",
            f"COPY {true}{column_list(columns)} FROM STDIN {copy_options(columns, encoding, freeze=True)}",
            context.tell,
            before,
        )
        copied = time.monotonic()
        recovered = Side(context.side, context.side_database, relation["oid"], f"ONLY {true}", columns, context.cores)
        recovered.start()
        if index_script:
            execute(connection, index_script)
        execute(connection, f"ANALYZE {true}")
        indexed = time.monotonic()
        loaded = fingerprint.content(connection, f"ONLY {true}", columns)
        require_equal(shown, recovered.result(), loaded)
        verified = time.monotonic()
        if staging is not None:
            execute(connection, f"ALTER TABLE {true} SET SCHEMA {quote_ident(staging)}")
        result = {
            "schema": schema,
            "name": name,
            "oid": relation["oid"],
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
        context.journal(connection, "table", result)
        connection.commit()
        return result
    except BaseException:
        connection.rollback()
        raise
    finally:
        connection.close()


def encoding_of(connection: Any) -> str:
    """Encoding of the database."""
    return str(value(connection, "SELECT pg_catalog.current_setting('server_encoding')"))
