# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fingerprints of a running server in snapshots whose position in WAL is known, so that a restore can be compared.

A commit is in WAL a moment before others see it. So a snapshot belongs to a position only where every commit before
that is seen in it, and none from there on. Both are read: the snapshot says what it sees, WAL what was committed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.archive import Archive
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import (
    Timelines,
    format_lsn,
    parse_lsn,
    parse_segment_name,
    segment_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login, connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.fingerprint import (
    as_table,
    checksum_query,
    columns_of,
    definitions,
    parallel_settings,
    rows_as_owner,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows
from ansible_collections.dbre.recovery.plugins.module_utils._wal.source import WalSource, before_page_header
from ansible_collections.dbre.recovery.plugins.module_utils._wal.waldump import CommitLog

TRIES = 200
PAUSE = 0.05
HALF = 1 << 31
# Of user's schemas; what is temporary is nobody else's, and what is unlogged is empty after every restore.
TABLES = """
SELECT c.oid::int8 AS oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND (c.relkind = 'r' OR c.relispopulated)
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""
WHERE = """
SELECT pg_current_wal_insert_lsn()::text AS lsn, pg_walfile_name(pg_current_wal_insert_lsn()) AS segment,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size') AS size,
       current_setting('data_directory') AS data, current_setting('server_version_num')::int / 10000 AS major,
       (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier
"""
# Nobody decodes this prefix. Of a transaction, so that its commit writes it out: the WAL writer may sleep for minutes.
SOMETHING = (
    "SELECT pg_catalog.set_config('synchronous_commit', 'local', true),"
    " pg_catalog.pg_logical_emit_message(true, 'dbre.recovery', '')"
)


class Sees(NamedTuple):
    """What a snapshot sees: transactions before ``xmax`` that are not ``running``; all 64-bit."""

    xmax: int
    running: frozenset[int]

    def sees(self, xid: int) -> bool:
        """Whether a transaction that committed is seen; ``xid`` is as WAL has it, 32 bits."""
        whole = (self.xmax & ~0xFFFFFFFF) | xid
        if whole - self.xmax > HALF:
            whole -= 1 << 32
        elif self.xmax - whole > HALF:
            whole += 1 << 32
        return whole < self.xmax and whole not in self.running


def parse_snapshot(text: str) -> Sees:
    """``xmin:xmax:xip,xip`` of pg_current_snapshot()."""
    _xmin, xmax, running = text.split(":")
    return Sees(int(xmax), frozenset(int(xid) for xid in running.split(",") if xid))


def position(commits: Iterable[tuple[int, int]], snapshots: Sequence[Sees], end: int) -> Optional[int]:
    """Where in WAL all the snapshots are, or None where there is no such place.

    ``commits`` are (position, transaction) in the order of WAL, up to ``end``, which was read after the snapshots.
    """
    found: Optional[int] = None
    for lsn, xid in commits:
        if lsn >= end:
            break
        seen = {one.sees(xid) for one in snapshots}
        if len(seen) > 1 or (found is not None and True in seen):
            return None
        if found is None and False in seen:
            found = lsn
    return end if found is None else found


Refused = Callable[[str, Any], None]


class Taken(NamedTuple):
    """Fingerprints of one database, and relations whose rows could not be read, with the reason."""

    relations: dict[str, dict[str, Any]]
    omitted: list[dict[str, str]]


def fingerprints_of(connection: Any, database: str, refused: Optional[Refused] = None) -> Taken:
    """Fingerprints of all tables and materialized views, in the connection's transaction.

    ``{relation: {rows, checksum, definition}}``; of the definition a hash is enough to see that it differs. ``refused``
    is told of each whose rows the server did not give, and why; without it such an error ends everything.
    """
    oids = [row["oid"] for row in rows(connection, TABLES)]
    columns = columns_of(connection, oids)
    found: dict[str, dict[str, Any]] = {}
    omitted = []
    for name, item in definitions(connection, oids).items():
        query = checksum_query(as_table(item), columns[item["oid"]], connection.server_version, None)
        content: dict[str, Any] = {}
        try:
            with _undone(connection, refused, name):
                content = rows_as_owner(connection, item, query, "Its definition was compared.")[0]
        except RecoveryError as error:
            omitted.append({"what": f"rows of {name} in {database}", "why": error.msg})
        # A sequence that came back from WAL may be ahead, and an OID says nothing.
        shape = {key: value for key, value in item.items() if key not in ("oid", "sequences")}
        digest = hashlib.sha256(json.dumps(shape, sort_keys=True, default=str).encode()).hexdigest()[:16]
        found[name] = {"definition": digest, **{key: content[key] for key in ("rows", "checksum") if key in content}}
    return Taken(found, omitted)


@contextmanager
def _undone(connection: Any, refused: Optional[Refused], name: str) -> Iterator[None]:
    """Whatever a look did ends with it; an error of the server goes to ``refused``, if there is somebody to tell."""
    if refused is None:
        yield
        return
    execute(connection, "SAVEPOINT dbre_look")
    try:
        yield
    except Exception as error:
        execute(connection, "ROLLBACK TO SAVEPOINT dbre_look")
        if not hasattr(error, "pgcode"):
            raise
        refused(name, error)
    else:
        execute(connection, "ROLLBACK TO SAVEPOINT dbre_look")


@contextmanager
def reading(login: Login, database: str) -> Any:
    """A session whose transaction is still to begin, and only reads."""
    settings = {**parallel_settings(len(os.sched_getaffinity(0))), "default_transaction_read_only": "on"}
    with closing(connect(login, database, settings=settings)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        yield connection


class Snapshots:
    """Snapshots of some databases of one server that are all at one position in WAL."""

    def __init__(
        self,
        connections: Mapping[str, Any],
        watch: Any,
        source: Callable[[Mapping[str, Any], str], WalSource],
    ) -> None:
        """``watch`` is a session that commits each statement; ``source`` reads the server's WAL."""
        self._connections = connections
        self._watch = watch
        self._source = source

    def take(self) -> dict[str, Any]:
        """Take them; ``{lsn, timeline, segment, system_identifier, tries}``. Raises RecoveryError where none agree."""
        for number in range(1, TRIES + 1):
            (before,) = rows(self._watch, WHERE)
            if _end(before) % int(before["size"]) == 0:
                # Right after a switch the segment is not begun: no file of it can be read, archived or replayed.
                execute(self._watch, SOMETHING)
                (before,) = rows(self._watch, WHERE)
            snapshots = []
            for connection in self._connections.values():
                connection.rollback()
                (row,) = rows(connection, "SELECT pg_catalog.pg_current_snapshot()::text AS text")
                snapshots.append(parse_snapshot(row["text"]))
            (after,) = rows(self._watch, WHERE)
            size, end = int(after["size"]), _end(after)
            timeline = parse_segment_name(after["segment"], size)[0]
            found = position(self._commits(before, after), snapshots, end)
            if found is not None:
                return {
                    "lsn": format_lsn(found),
                    "timeline": timeline,
                    "segment": segment_name(timeline, found // size, size),
                    "system_identifier": after["system_identifier"],
                    "running": sorted({xid for one in snapshots for xid in one.running}),
                    "tries": number,
                }
            time.sleep(PAUSE)
        raise RecoveryError(
            f"in {TRIES} tries there was no moment at which the snapshots of {', '.join(self._connections)} were "
            "all at one position of WAL: too much is committed meanwhile. Compare fewer databases in one test"
        )

    def _commits(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[int, int]]:
        """Commits from a segment before the snapshots on, until after them."""
        size, end = int(after["size"]), _end(after)
        first = max(_end(before) // size - 1, 1)
        # What is not flushed cannot be read.
        for _look in range(200):
            (row,) = rows(self._watch, "SELECT pg_current_wal_flush_lsn()::text AS lsn")
            if parse_lsn(row["lsn"]) >= end:
                break
            time.sleep(0.01)
        log = CommitLog(lambda _lsn, _rest: False)
        source = self._source(after, after["segment"])
        source.provide(range(first, (end - 1) // size + 1))
        for text in source.waldump(first * size, end, "--rmgr=Transaction"):
            log.add(text)
        return list(zip(log.lsns, log.xids))


def _end(server: Mapping[str, Any]) -> int:
    """Where the server's WAL ends; just behind a page's header there is nothing yet."""
    return before_page_header(parse_lsn(server["lsn"]), int(server["size"]))


def take_fingerprints(
    login: Login, databases: Sequence[str], archive: Archive, spool: str, bin_dir: Optional[str] = None
) -> dict[str, Any]:
    """Fingerprints of databases of a running primary, all of one position in WAL, as compared() takes them."""

    def source(server: Mapping[str, Any], segment: str) -> WalSource:
        size = int(server["size"])
        return WalSource(
            pg_wal=os.path.join(server["data"], "pg_wal"),
            spool=spool,
            archive=archive,
            timelines=Timelines(parse_segment_name(segment, size)[0]),
            segment_size=size,
            system_identifier=int(server["system_identifier"]),
            waldump=os.path.join(find_bin_dir(int(server["major"]), bin_dir), "pg_waldump"),
        )

    with ExitStack() as stack:
        watch = stack.enter_context(closing(connect(login, databases[0])))
        watch.autocommit = True
        connections = {name: stack.enter_context(reading(login, name)) for name in databases}
        taken = Snapshots(connections, watch, source).take()
        told: dict[str, Any] = {}
        omitted: list[dict[str, str]] = []
        for name, connection in connections.items():
            found = fingerprints_of(connection, name)
            told[name] = found.relations
            omitted += found.omitted
            connection.rollback()
    return {**taken, "databases": told, "not_checked": omitted}
