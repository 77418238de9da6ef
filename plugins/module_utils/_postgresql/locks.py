# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks on tables that production uses: all of them within a moment, or none.

A session that wants such a table stands behind us as long as we wait for it, and then until our commit; both together
must stay below two seconds. So one lock is waited for with none of the others in hand, those get what is left of a
moment, and when one cannot be had all are given up, to be tried again beginning with that one.

Partitions are used in any order: who inserts into one and reads another holds what we want while he waits for what we
have, and the next the other way round, for as long as there is traffic. So after one could not be had with others in
hand, the next attempt begins with the partitioned tables above them: who comes by those is over then, or waits there
with nothing in hand.

Nobody becomes the victim of a deadlock with us: the server looks for one when a session has waited for
deadlock_timeout (1 s), and by then we wait no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional, TypeVar

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import is_superuser
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_literal, quote_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name

T = TypeVar("T")

# Seconds. The first lock; the server ends an autovacuum that holds it after deadlock_timeout, which only a superuser
# can shorten for himself.
FIRST = 1.0
FIRST_OF_OTHERS = 1.2
# From the first request to the last lock, when that is not over already.
ALL = 0.8
# What nobody foresaw, with the others in hand.
UNFORESEEN = 0.1
DEADLOCK_TIMEOUT = "50ms"
# Between attempts those that stood behind us have their turn.
ATTEMPTS = 30
PAUSE = 0.5
LONGEST_PAUSE = 3.0
LOCK_NOT_AVAILABLE = "55P03"
DEADLOCK = "40P01"
INTERNAL_ERROR = "XX000"
LOCKED = (LOCK_NOT_AVAILABLE, DEADLOCK)

# From the weakest to the strongest (PostgreSQL documentation, 13.3.1).
MODES = (
    "ACCESS SHARE",
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
)
# The weakest mode that each conflicts with, and with all that are stronger; only SHARE not with itself.
WEAKEST_CONFLICT = (7, 6, 4, 3, 2, 2, 1, 0)

# Tables, with their partitions where asked; what locks all of one (a column, a check) goes down to other children, too.
# What is no table or gone, or may not be locked by this role, is left to the statement that needs it. The last
# parameter asks for the partitioned tables above them as well. Those below others come after them, and brothers in the
# order in which the server locks them.
LOCKABLE = """
WITH RECURSIVE asked AS (
  SELECT name, mode, tree FROM unnest(%s::text[], %s::text[], %s::bool[]) AS given(name, mode, tree)
), wanted AS (
  SELECT pg_catalog.to_regclass(name)::oid AS oid, mode, tree, 0 AS depth FROM asked
  UNION
  SELECT i.inhrelid, mode, tree, depth + 1 FROM pg_catalog.pg_inherits i
  JOIN wanted ON wanted.oid = i.inhparent AND tree
  JOIN pg_catalog.pg_class child ON child.oid = i.inhrelid AND (child.relispartition OR mode = 'ACCESS EXCLUSIVE')
), above AS (
  SELECT oid, mode, 0 AS depth FROM wanted WHERE %s
  UNION
  SELECT i.inhparent, mode, depth - 1 FROM above
  JOIN pg_catalog.pg_class part ON part.oid = above.oid AND part.relispartition
  JOIN pg_catalog.pg_inherits i ON i.inhrelid = part.oid
), found AS (
  SELECT oid, mode, depth FROM wanted UNION ALL SELECT oid, mode, depth FROM above
)
SELECT n.nspname AS schema, c.relname AS name, mode, min(depth) < 0 AS above
FROM found JOIN pg_catalog.pg_class c ON c.oid = found.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND (pg_catalog.pg_has_role(c.relowner, 'USAGE')
                                   OR pg_catalog.has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE'))
GROUP BY c.oid, n.nspname, c.relname, mode ORDER BY min(depth), c.oid
"""

# A prepared transaction has no process. Its locks are of the session's own number until the server starts again, and of
# that of the transaction from then on; on its transaction's number it has a lock, too.
PREPARED_LOCKS = """(
  SELECT own.virtualtransaction, p.gid, p.prepared FROM pg_catalog.pg_locks own
  JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = own.transactionid
  WHERE own.pid IS NULL AND own.locktype = 'transactionid' AND own.granted
)"""
HOLDERS = f"""
SELECT l.pid, l.mode, x.gid, coalesce(a.usename::text, a.backend_type) AS role, a.application_name, a.state,
       pg_catalog.to_char(coalesce(a.xact_start, x.prepared) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS since
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
LEFT JOIN {PREPARED_LOCKS} AS x ON l.pid IS NULL AND x.virtualtransaction = l.virtualtransaction
WHERE l.locktype = 'relation' AND l.granted AND l.relation = pg_catalog.to_regclass(%s) AND l.mode = ANY(%s)
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
ORDER BY coalesce(a.xact_start, x.prepared), l.pid
"""
PREPARED = f"""
SELECT x.gid, pg_catalog.array_agg(DISTINCT l.relation::pg_catalog.regclass::text) AS tables
FROM {PREPARED_LOCKS} AS x JOIN pg_catalog.pg_locks l ON l.pid IS NULL AND l.virtualtransaction = x.virtualtransaction
WHERE l.locktype = 'relation' AND l.relation = ANY(%s::oid[])
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
GROUP BY x.gid ORDER BY x.gid
"""
# Those that are prepared wait for somebody, however short they are.
LONGEST = """
SELECT pid, NULL AS mode, gid, role, application_name, state,
       pg_catalog.to_char(began AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS since
FROM (
  SELECT a.pid, NULL AS gid, a.usename::text AS role, a.application_name, a.state, a.xact_start AS began
  FROM pg_catalog.pg_stat_activity a
  WHERE a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid()
    AND a.backend_type = 'client backend'
  UNION ALL
  SELECT NULL, p.gid, NULL, NULL, NULL, p.prepared FROM pg_catalog.pg_prepared_xacts p
  WHERE p.database = pg_catalog.current_database()
) AS transactions
WHERE began < pg_catalog.now() - interval '1 s' ORDER BY gid IS NULL, began LIMIT 3
"""


class Lock(NamedTuple):
    """A lock to be had on a table (SQL), in a mode of LOCK TABLE; ``tree``: on those below it, too."""

    table: str
    mode: str
    tree: bool = False


def is_concurrent(error: Any) -> bool:
    """Whether another session changed the same row of a catalogue at the same moment: the server does not wait."""
    return error.pgcode == INTERNAL_ERROR and "tuple concurrently" in str(error)


def conflicting(mode: str) -> list[str]:
    """The modes that conflict with a mode of LOCK TABLE, as pg_locks calls them."""
    weakest = WEAKEST_CONFLICT[MODES.index(mode)]
    found = [other for other in MODES[weakest:] if not mode == other == "SHARE"]
    return [f"{other.title().replace(' ', '')}Lock" for other in found]


def limit(seconds: float) -> str:
    """The statement that limits each wait for a lock, in the caller's transaction, to a millisecond at the least."""
    return f"SET LOCAL lock_timeout = '{max(1, round(seconds * 1000))}ms'"


class Locks:
    """The locks of one transaction, which is tried until they can all be had."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._first = FIRST if is_superuser(connection) else FIRST_OF_OTHERS
        self._began = 0.0
        # What could not be had the last time.
        self._failed: Optional[tuple[str, str]] = None
        # What we need of that, with which the next time begins; and whether it begins above that.
        self._hardest: Optional[tuple[str, str]] = None
        self._from_above = False

    def begin(self) -> None:
        """Begin the caller's transaction anew."""
        self._began = time.monotonic()
        execute(self._connection, limit(self._first))
        if self._first == FIRST:
            # Ends an autovacuum that is in our way sooner, and makes us see a deadlock before anybody else does.
            execute(self._connection, f"SET LOCAL deadlock_timeout = '{DEADLOCK_TIMEOUT}'")

    def take(self, wanted: Iterable[Lock]) -> None:
        """Have all locks, in the caller's transaction, as late in it as can be.

        Where they cannot be had, it is tried again here, with none of them in hand in between, for as long as it took
        to come this far; after that the server's error is raised, and the transaction begins anew.
        """
        asked = list(wanted)
        deadline = time.monotonic() + (time.monotonic() - self._began)
        while asked:
            execute(self._connection, "SAVEPOINT dbre_locks")
            try:
                self._take_once(asked)
            except self._connection.DatabaseError as error:
                if error.pgcode not in LOCKED or time.monotonic() > deadline:
                    raise
                execute(self._connection, "ROLLBACK TO SAVEPOINT dbre_locks")
                execute(self._connection, "RELEASE SAVEPOINT dbre_locks")
                time.sleep(PAUSE)
            else:
                execute(self._connection, "RELEASE SAVEPOINT dbre_locks")
                execute(self._connection, limit(UNFORESEEN))
                return

    def _take_once(self, asked: Sequence[Lock]) -> None:
        found = rows(self._connection, LOCKABLE, (*map(list, zip(*asked)), self._from_above))
        pairs = [((quote_name(row["schema"], row["name"]), str(row["mode"])), bool(row["above"])) for row in found]
        # The strongest are the hardest to get.
        pairs.sort(key=lambda pair: (not pair[1], pair[0] != self._hardest, -MODES.index(pair[0][1])))
        self._failed = None
        began = time.monotonic()
        for number, (pair, above) in enumerate(pairs):
            seconds = self._first if number == 0 else ALL - (time.monotonic() - began)
            table, mode = pair
            try:
                execute(self._connection, f"{limit(seconds)}; LOCK TABLE ONLY {table} IN {mode} MODE")
            except self._connection.DatabaseError:
                self._failed = pair
                self._hardest = self._hardest if above else pair
                # Who sits on the first may do so for hours, and need not be in the way of what we need.
                self._from_above = number > 0
                raise

    def holders(self) -> str:
        """Who has what we could not have, and what to do before we are run; after the transaction was rolled back."""
        if self._failed is None:
            found, what = rows(self._connection, LONGEST), "The longest transactions are those of"
        else:
            table, mode = self._failed
            found = rows(self._connection, HOLDERS, (table, conflicting(mode)))
            what = f"We need {table} in {mode} mode. It is held by"
        self._connection.rollback()
        if not found:
            return "Those who held it have ended since: run"
        ends = [
            f"ROLLBACK PREPARED {quote_literal(item['gid'])};"
            if item["gid"]
            else f"SELECT pg_catalog.pg_terminate_backend({item['pid']});"
            for item in found
        ]
        return f"{what} {'; '.join(map(shown_session, found))}. Wait for them, or end them ({' '.join(ends)}), then run"


def prepared_lines(connection: Any, oids: Iterable[int]) -> list[str]:
    """Prepared transactions that hold locks on tables, for people: these stay until somebody decides."""
    return [
        f"NOTE prepared transaction {quote_literal(item['gid'])} holds {', '.join(item['tables'])}: before these can "
        f"be locked it has to be decided, by COMMIT PREPARED {quote_literal(item['gid'])} or ROLLBACK PREPARED"
        for item in rows(connection, PREPARED, (list(oids),))
    ]


def shown_session(item: Mapping[str, Any]) -> str:
    """Whoever holds a lock, for people."""
    mode = item["mode"] and f", {item['mode']}"
    since = item["since"] and f" since {item['since']} UTC"
    if item["gid"]:
        return f"the prepared transaction {quote_literal(item['gid'])}{mode or ''}{since or ''}"
    name = item["application_name"] and f", application {item['application_name']}"
    state = item["state"] or "in a transaction"
    return f"session {item['pid']} (role {item['role']}{name or ''}, {state}{since or ''}{mode or ''})"


def patiently(connection: Any, work: Callable[[], T], passing: Sequence[str] = (), locks: Optional[Locks] = None) -> T:
    """Do ``work`` in one transaction and commit; short waits for locks, repeated, so that production is not held up.

    ``work`` takes the ``locks`` that it needs. A lock that cannot be had within the attempts is an error that names
    those who hold it. ``passing`` are further SQLSTATEs that another attempt may not meet.
    """
    locks = locks or Locks(connection)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            locks.begin()
            result = work()
            connection.commit()
            return result
        except connection.DatabaseError as error:
            connection.rollback()
            # Another recovery grants or puts default privileges aside at the same moment.
            locked = error.pgcode in LOCKED or is_concurrent(error)
            if not locked and (error.pgcode not in passing or attempt == ATTEMPTS):
                raise
            if attempt == ATTEMPTS:
                raise RecoveryError(
                    f"what a step of the recovery needs on {host_name()} was locked by others in {ATTEMPTS} attempts: "
                    f"{str(error).strip()}. Nothing of this step was kept; what was loaded is safe in staging. "
                    f"{locks.holders()} again with the same incident id.",
                    sqlstate=error.pgcode,
                ) from error
            time.sleep(min(PAUSE * attempt, LONGEST_PAUSE))
        except BaseException:
            connection.rollback()
            raise
    raise AssertionError("not reached")
