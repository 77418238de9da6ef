# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read everything that a server has on disk once, so that a volume that loads lazily is there when it is needed."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._core.workers import run_parallel
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import (
    INSUFFICIENT_PRIVILEGE,
    give_back,
    server_message,
    try_to_become,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_literal,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.owners import each_as_its_owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.trusted import require_own_schema

# Holds the extension while we work, when there was none, and in its comment what is to be given back.
SCHEMA = "dbre_warm"
PREWARM = "pg_prewarm"
SCAN = "scan"
# What one call reads: small enough to tell how far it is, and to share a large table among sessions.
CHUNK = 64 << 20
# A managed service's own, which nobody else can connect to.
CLOSED_DATABASES = ["rdsadmin"]

DATABASES = """
SELECT datname AS name FROM pg_catalog.pg_database
WHERE datallowconn AND pg_catalog.has_database_privilege(oid, 'CONNECT') AND NOT datname = ANY(%s) ORDER BY datname
"""

# What is shared by all databases is read with the first.
FORKS = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, fork.name AS fork,
       coalesce(pg_catalog.pg_relation_size(c.oid, fork.name), 0) AS bytes,
       pg_catalog.has_table_privilege(c.oid, 'SELECT') AS readable, pg_catalog.pg_get_userbyid(c.relowner) AS owner
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN unnest(ARRAY['main', 'fsm', 'vm', 'init']) AS fork(name)
WHERE c.relkind IN ('r', 'i', 'm', 'S', 't') AND c.relpersistence <> 't' AND (%(shared)s OR NOT c.relisshared)
  AND coalesce(pg_catalog.pg_relation_size(c.oid, fork.name), 0) > 0
ORDER BY 6 DESC, 1
"""

EXTENSION = """
SELECT n.nspname AS schema, pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS usable
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_prewarm'
"""
# The owner of the database, where we may not make anything in it.
CLOSED_TO_US = """
SELECT pg_catalog.pg_get_userbyid(datdba) AS owner FROM pg_catalog.pg_database
WHERE datname = pg_catalog.current_database() AND NOT pg_catalog.has_database_privilege(oid, 'CREATE')
"""
# FirstNormalObjectId in src/include/access/transam.h.
FIRST_OF_USERS = 16384
TABLE_SIZE = "SELECT coalesce(pg_catalog.pg_table_size(%s::oid), 0)"


class Piece(NamedTuple):
    """What one query reads: blocks ``first`` to ``last`` of a fork, or a whole table with its TOAST."""

    oid: int
    schema: str
    name: str
    fork: str
    first: int
    last: int
    size: int


def pieces_of(fork: Mapping[str, Any], block: int) -> list[Piece]:
    """The chunks of one fork, of ``block`` bytes a block."""
    blocks, step = int(fork["bytes"]) // block, CHUNK // block
    return [
        Piece(
            fork["oid"],
            fork["schema"],
            fork["name"],
            fork["fork"],
            first,
            min(first + step, blocks) - 1,
            (min(first + step, blocks) - first) * block,
        )
        for first in range(0, blocks, step)
    ]


def databases_of(server: Server) -> list[str]:
    """All databases that can be connected to."""
    connection = server.connect()
    try:
        return [row["name"] for row in rows(connection, DATABASES, (CLOSED_DATABASES,))]
    finally:
        connection.close()


class Warmer:
    """Reads one database."""

    def __init__(self, server: Server, database: str, shared: bool) -> None:
        self._server = server
        self.database = database
        self._connection = server.connect(database)
        self._forks = rows(self._connection, FORKS, {"shared": shared})
        self._block = int(value(self._connection, "SELECT pg_catalog.current_setting('block_size')"))
        self._schema = self._find_extension()
        self._reason = "the extension pg_prewarm is not there"
        self._connection.commit()
        self._lock = threading.Lock()
        self._done: set[int] = set()
        self.bytes = 0
        self.unread: list[dict[str, Any]] = []

    def _find_extension(self) -> str | None:
        found = rows(self._connection, EXTENSION)
        return found[0]["schema"] if found and found[0]["usable"] else None

    @property
    def size(self) -> int:
        """Bytes that are on disk."""
        return sum(int(fork["bytes"]) for fork in self._forks)

    def facts(self) -> dict[str, Any]:
        """What is told of this database."""
        return {
            "method": PREWARM if self._schema else SCAN,
            "reason": None if self._schema else self._reason,
            "bytes": self.bytes,
            "relations": len(self._done or {fork["oid"] for fork in self._forks}),
        }

    def close(self) -> None:
        """End the session; nothing else."""
        self._connection.close()

    def run(self, parallel: int, tell: Any) -> None:
        """Read everything in ``parallel`` sessions; ``tell`` is called with the bytes of each piece."""
        self._begin()
        try:
            pieces = self._pieces()
            sessions: queue.SimpleQueue[Any] = queue.SimpleQueue()
            opened: list[Any] = []
            try:
                while len(opened) < min(parallel, len(pieces)):
                    opened.append(self._session())
                    sessions.put(opened[-1])
                run_parallel([partial(self._read, sessions, piece, tell) for piece in pieces], len(opened))
            finally:
                for session in opened:
                    session.close()
        finally:
            self._end()

    def _session(self) -> Any:
        # A full scan must not take the way around TOAST or the table.
        scans = {f"enable_{kind}": "off" for kind in ("indexscan", "indexonlyscan", "bitmapscan")}
        session = self._server.connect(self.database, {**scans, "max_parallel_workers_per_gather": "0"})
        session.autocommit = True
        return session

    # What is made for the time of the work

    def _begin(self) -> None:
        """Get the extension, and memberships of owners whose relations we may not read; both are noted at once."""
        main = self._connection
        lock = f"SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended('{SCHEMA}', 0))"
        if not value(main, lock):
            raise RecoveryError(f"another run warms database {display_name(None, self.database)}. Let it end.")
        main.commit()
        if value(main, "SELECT pg_catalog.pg_is_in_recovery()"):
            main.rollback()
            return
        self._end()
        owners = {fork["owner"] for fork in self._forks if not fork["readable"]}
        borrowed = try_to_become(main, sorted(owners | {row["owner"] for row in rows(main, CLOSED_TO_US)}))[0]
        if rows(main, CLOSED_TO_US):
            # Nothing can be made here, so nothing can be noted that must be given back.
            main.rollback()
            self._schema = self._find_extension()
            self._reason = "the extension pg_prewarm is not there, and the role may not create it in this database"
        else:
            self._schema = self._find_extension()
            made = not self._schema and self._make_extension()
            if borrowed and not made:
                execute(main, f"CREATE SCHEMA {SCHEMA}")
            if borrowed:
                execute(main, f"COMMENT ON SCHEMA {SCHEMA} IS {quote_literal(json.dumps(borrowed))}")
        query = (
            "SELECT oid::int8 AS oid FROM pg_catalog.pg_class WHERE NOT pg_catalog.has_table_privilege(oid, 'SELECT')"
        )
        closed = {row["oid"] for row in rows(main, query)}
        self._forks = [{**fork, "readable": fork["oid"] not in closed} for fork in self._forks]
        main.commit()

    def _make_extension(self) -> bool:
        main = self._connection
        execute(main, "SAVEPOINT dbre_extension")
        try:
            execute(main, f"CREATE SCHEMA {SCHEMA}")
            execute(main, f"CREATE EXTENSION {PREWARM} SCHEMA {SCHEMA}")
        except main.OperationalError as error:
            # Its files are not installed; any other of this class is a server that fails.
            if error.pgcode != "58P01":
                raise
            self._reason = server_message(error)
        except main.DatabaseError as error:
            # A role that may not, a service that does not know it: each has words and codes of its own.
            self._reason = server_message(error)
        else:
            self._schema = SCHEMA
            return True
        execute(main, "ROLLBACK TO SAVEPOINT dbre_extension")
        return False

    def _end(self) -> None:
        """Remove what was made, by us or by a run that was killed, and give back what was borrowed."""
        main = self._connection
        main.rollback()
        query = (
            "SELECT pg_catalog.obj_description(oid, 'pg_namespace') AS comment FROM pg_catalog.pg_namespace "
            "WHERE nspname = %s"
        )
        advice = f"When nobody needs it: DROP SCHEMA {SCHEMA} CASCADE; then run again."
        require_own_schema(main, SCHEMA, "", advice)
        for row in rows(main, query, (SCHEMA,)):
            give_back(main, json.loads(row["comment"] or "[]"))
            found = rows(main, EXTENSION)
            if found and found[0]["schema"] == SCHEMA:
                execute(main, f"DROP EXTENSION {PREWARM}")
            execute(main, f"DROP SCHEMA {SCHEMA}")
        main.commit()

    # Reading

    def _pieces(self) -> list[Piece]:
        """What is read, the largest first; what may not be read is noted as unread."""
        # Some catalogues are for superusers only, and small.
        closed = [fork for fork in self._forks if not fork["readable"] and fork["oid"] >= FIRST_OF_USERS]
        unread = {fork["oid"]: fork for fork in closed}
        self.unread = [self._skip(fork, "permission denied") for fork in unread.values()]
        if self._schema:
            readable = [fork for fork in self._forks if fork["readable"]]
            return [piece for fork in readable for piece in pieces_of(fork, self._block)]
        tables = [fork for fork in self._forks if fork["readable"] and fork["kind"] in "rm" and fork["fork"] == "main"]
        return [
            Piece(
                table["oid"],
                table["schema"],
                table["name"],
                "main",
                0,
                0,
                int(value(self._connection, TABLE_SIZE, (table["oid"],))),
            )
            for table in tables
        ]

    def _skip(self, relation: Mapping[str, Any], reason: str) -> dict[str, Any]:
        name = display_name(relation["schema"], relation["name"])
        return {"database": self.database, "relation": name, "reason": reason}

    def _read(self, sessions: queue.SimpleQueue[Any], piece: Piece, tell: Any) -> None:
        session = sessions.get()
        try:
            if self._schema:
                execute(
                    session,
                    f"SELECT {quote_ident(self._schema)}.pg_prewarm(%s::oid::regclass, 'read', %s, %s, %s)",
                    (piece.oid, piece.fork, piece.first, piece.last),
                )
            else:
                columns = fingerprint.columns_of(session, [piece.oid])[piece.oid]
                self._scan(session, piece, columns)
        except session.OperationalError:
            raise
        except session.DatabaseError as error:
            if error.pgcode == INSUFFICIENT_PRIVILEGE:
                self.unread.append(self._skip(piece._asdict(), server_message(error)))
            elif not self._is_gone(session, piece):
                raise
        else:
            with self._lock:
                self.bytes += piece.size
                self._done.add(piece.oid)
                tell(piece.size)
        finally:
            sessions.put(session)

    @staticmethod
    def _scan(session: Any, piece: Piece, columns: Sequence[Mapping[str, Any]]) -> None:
        """Read a table as its owner, in a transaction undone: to plan a query runs parts of its index expressions."""
        query = fingerprint.checksum_query(
            f"ONLY {quote_name(piece.schema, piece.name)}", columns, session.server_version
        )
        execute(session, "BEGIN")
        try:
            with each_as_its_owner(session, []) as owners:
                owners.of(piece.oid, piece.schema).rows(query)
        finally:
            if not session.closed:
                execute(session, "ROLLBACK")

    def _is_gone(self, session: Any, piece: Piece) -> bool:
        """Whether the relation was dropped, made anew or cut short since it was listed: there is nothing to warm."""
        query = (
            "SELECT coalesce(pg_catalog.pg_relation_size(oid, %s), 0) FROM pg_catalog.pg_class "
            "WHERE oid = %s::oid AND relnamespace = pg_catalog.to_regnamespace(%s)"
        )
        size = value(session, query, (piece.fork, piece.oid, quote_ident(piece.schema)))
        return size is None or size < (piece.last + 1) * self._block


def warm(
    server: Server, databases: Sequence[str], parallel: int, progress: Progress, check_mode: bool = False
) -> dict[str, Any]:
    """Read all of ``databases``; the result of the module."""
    began = time.monotonic()
    warmers: list[Warmer] = []
    done = 0

    def tell(size: int) -> None:
        nonlocal done
        done += size
        progress.say("warm", done, total, "bytes")

    try:
        for number, database in enumerate(databases):
            warmers.append(Warmer(server, database, shared=number == 0))
        total = sum(warmer.size for warmer in warmers)
        if not check_mode:
            for warmer in warmers:
                warmer.run(parallel, tell)
        facts = {warmer.database: warmer.facts() for warmer in warmers}
    finally:
        for warmer in warmers:
            warmer.close()
    methods = {item["method"] for item in facts.values()}
    return {
        "changed": False,
        "bytes": total if check_mode else sum(item["bytes"] for item in facts.values()),
        "relations": sum(item["relations"] for item in facts.values()),
        "method": methods.pop() if len(methods) == 1 else "mixed",
        "databases": facts,
        "unread": [item for warmer in warmers for item in warmer.unread],
        "seconds": round(time.monotonic() - began, 2),
    }
