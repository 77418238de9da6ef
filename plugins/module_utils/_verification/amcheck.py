# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""amcheck in a database of a running server, which notices nothing of it.

Where the extension is missing it is made in a transaction that is undone. Locks (ACCESS SHARE) last as long as one
look, and a look that somebody waits for is given up. Expressions of indexes are code of users: those are not compared
with their tables.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import server_message
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import LOCK_NOT_AVAILABLE
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value

with contextlib.suppress(ImportError):  # connect() says so
    import psycopg2
    import psycopg2.extensions

CORRUPT = ("XX001", "XX002")  # data_corrupted, index_corrupted
QUERY_CANCELED = "57014"
_BLOCKS = 16384  # of a table in one look
_LONGEST = 5.0  # seconds that a transaction that made the extension stays open between looks
_FAULTS = 100  # told of one relation
# As the server says it of a page that it read; in quotes since PostgreSQL 18.
INVALID_PAGE = re.compile(r'invalid page in block (\d+) of relation "?([^"\s;]+)"?')
_BLOCK = re.compile(r"(?:block[= ]|tid=\()(\d+)")

EXTENSION = """
SELECT pg_catalog.quote_ident(n.nspname) AS schema FROM pg_catalog.pg_extension e
JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'
"""
# Sequences are checked by their pages alone. An index that is not valid or ready may lack rows.
RELATIONS = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, m.amname AS method,
       i.indexprs IS NOT NULL OR i.indpred IS NOT NULL AS expressions, i.indisvalid AND i.indisready AS usable,
       i.indrelid::regclass::text AS table
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
WHERE c.relkind IN ('r', 'm', 't', 'i') AND c.relpersistence <> 't'
ORDER BY c.oid
"""
WAITING = """
SELECT a.pid FROM pg_catalog.pg_stat_activity a
WHERE a.wait_event_type = 'Lock' AND a.pid <> %(pid)s AND %(pid)s = ANY(pg_catalog.pg_blocking_pids(a.pid)) LIMIT 1
"""


class Fault(NamedTuple):
    """What is wrong with a relation: with its OID, or with the file of another that was come upon."""

    oid: Optional[int]
    path: Optional[str]
    block: Optional[int]
    message: str


class Given(Exception):
    """A look that was given up, and why."""


class Amcheck:
    """The extension in one database, through a session of its own that is in no transaction yet."""

    def __init__(self, connection: Any, watch: Callable[[str], Any]) -> None:
        """``watch`` opens a second session, under the name it is given."""
        self._connection = connection
        self._schema = value(connection, EXTENSION)
        connection.rollback()
        self._made = self._schema is None
        self._began: Optional[float] = None
        self._pid = connection.get_backend_pid()
        self._watch = watch
        self._waits: Optional[int] = None

    def relations(self) -> list[dict[str, Any]]:
        """What can be looked at, or could not."""
        found = rows(self._connection, RELATIONS)
        self._connection.rollback()
        return found

    @contextlib.contextmanager
    def yielding(self) -> Iterator[None]:
        """As long as this lasts, a look that somebody waits for ends."""
        over = threading.Event()
        session = self._watch("watching")
        session.autocommit = True

        def look() -> None:
            with contextlib.suppress(Exception):
                while not over.wait(0.5):
                    waiting = value(session, WAITING, {"pid": self._pid})
                    if waiting is not None:
                        self._waits = int(waiting)
                        execute(session, "SELECT pg_catalog.pg_cancel_backend(%s)", (self._pid,))

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            session.close()
            self._connection.rollback()

    def _begin(self) -> None:
        # Who asked the catalogue in this session since has ended the transaction, and with it the extension is gone.
        going_on = self._connection.info.transaction_status != psycopg2.extensions.TRANSACTION_STATUS_IDLE
        if self._began is not None and going_on and time.monotonic() - self._began < _LONGEST:
            return
        self._connection.rollback()
        if self._made:
            # Nobody else ever sees it: the transaction is undone.
            execute(self._connection, "CREATE EXTENSION amcheck SCHEMA pg_catalog")
            self._schema = "pg_catalog"
        self._began = time.monotonic()

    def _look(self, query: str, args: Any) -> list[dict[str, Any]]:
        """Rows of a query; raises what the server says is corrupt, and Given for anything else."""
        try:
            self._begin()
            execute(self._connection, "SAVEPOINT look")
            try:
                return rows(self._connection, query.format(schema=self._schema), args)
            finally:
                if not self._connection.closed:
                    execute(self._connection, "ROLLBACK TO SAVEPOINT look")
        except psycopg2.Error as error:
            if error.pgcode in CORRUPT:
                raise
            if self._connection.closed:
                raise
            self._began = None
            self._connection.rollback()
            waits, self._waits = self._waits, None
            if error.pgcode == QUERY_CANCELED and waits is not None:
                raise Given(f"session {waits} waited for it, so the look was given up") from error
            if error.pgcode == LOCK_NOT_AVAILABLE:
                raise Given("others had it locked") from error
            raise Given(server_message(error)) from error

    def table(self, oid: int) -> Iterator[Fault]:
        """What is wrong with a table's pages and rows, and with what its rows have in its TOAST table."""
        size = (
            "SELECT (pg_catalog.pg_relation_size(%s::oid::regclass) / current_setting('block_size')::int8)::int8 AS n"
        )
        counted = self._look(size, (oid,))[0]["n"]
        if counted is None:
            raise Given("it was dropped meanwhile")
        blocks = int(counted)
        told = 0
        for first in range(0, blocks, _BLOCKS):
            for fault in self._range(oid, first, min(first + _BLOCKS, blocks) - 1, True):
                yield fault
                told += 1
                if told >= _FAULTS:
                    return

    def _range(self, oid: int, first: int, last: int, toast: bool) -> Iterator[Fault]:
        query = (
            "SELECT blkno::int8 AS block, msg AS message FROM {schema}.verify_heapam("
            "%s::oid::regclass, false, %s::boolean, 'none'::text, %s::bigint, %s::bigint)"
        )
        if first > last:
            return
        try:
            for row in self._look(query, (oid, toast, first, last)):
                yield Fault(oid, None, row["block"], row["message"])
        except psycopg2.Error as error:
            fault = _fault(oid, error)
            yield fault
            if fault.path is None or fault.block is None:
                return
            if toast and fault.path != self._path(oid):
                yield from self._range(oid, first, last, False)
                return
            # The page cannot be read at all; those before and after it can.
            yield from self._range(oid, first, fault.block - 1, toast)
            yield from self._range(oid, fault.block + 1, last, toast)

    def _path(self, oid: int) -> str:
        return str(self._look("SELECT pg_catalog.pg_relation_filepath(%s::oid::regclass) AS p", (oid,))[0]["p"])

    def index(self, relation: Mapping[str, Any]) -> Iterator[Fault]:
        """What is wrong with a B-tree, or with a GIN index since PostgreSQL 18."""
        oid = relation["oid"]
        whole = not relation["expressions"]
        query = "SELECT {schema}.gin_index_check(%s::oid::regclass)"
        args: tuple[Any, ...] = (oid,)
        if relation["method"] == "btree":
            query, args = "SELECT {schema}.bt_index_check(%s::oid::regclass, %s::boolean)", (oid, whole)
        try:
            self._look(query, args)
        except psycopg2.Error as error:
            yield _fault(oid, error)

    @property
    def would_make(self) -> bool:
        """Whether the extension is missing."""
        return self._made

    def is_gone(self, oid: int) -> bool:
        """Whether a relation was dropped meanwhile."""
        gone = value(self._connection, "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = %s)", (oid,))
        self._connection.rollback()
        return bool(gone)

    def looks_into(self, relation: Mapping[str, Any]) -> bool:
        """Whether amcheck of this server knows such relations."""
        version = self._connection.server_version
        if relation["kind"] == "i":
            return relation["method"] == "btree" or (relation["method"] == "gin" and version >= 180000)
        return relation["method"] == "heap" and version >= 140000


def _fault(oid: int, error: Any) -> Fault:
    """An error of the server, by the file that it names, else by the relation that was looked at."""
    message = server_message(error)
    page = INVALID_PAGE.search(message)
    if page:
        return Fault(None, page[2], int(page[1]), message)
    detail = getattr(getattr(error, "diag", None), "message_detail", None) or ""
    block = _BLOCK.search(f"{message} {detail}")
    return Fault(oid, None, int(block[1]) if block else None, message)
