# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One index, built or dropped while production writes, in a session that is in no transaction.

A killed run leaves an index that is not valid, and so does one that somebody builds at this moment. Only what an
earlier run began, or what looks like it, is dropped, and never while it is being built.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import server_message
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import (
    DEADLOCK,
    LOCK_NOT_AVAILABLE,
    LOCKED,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import is_passing
from ansible_collections.dbre.recovery.plugins.module_utils._tables.index_groups import Build

# How long transactions of others may keep an index from being built.
PATIENCE = "10min"
# How often somebody may get in its way so that neither gets on.
ATTEMPTS = 5
THERE = """
SELECT i.indisvalid AS valid, pg_catalog.pg_get_indexdef(i.indexrelid) AS definition,
       pg_catalog.pg_get_constraintdef(k.oid) AS constraint
FROM pg_catalog.pg_index i
LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid
  AND k.contype IN ('p', 'u', 'x')
WHERE i.indexrelid = pg_catalog.to_regclass(%s) AND i.indrelid = pg_catalog.to_regclass(%s)
"""
# Who may not see what a session of another builds sees at least that it holds the lock of a build on the table.
BUILDERS = """
SELECT p.pid, a.usename::text AS role FROM pg_catalog.pg_stat_progress_create_index p
JOIN pg_catalog.pg_stat_activity a ON a.pid = p.pid
WHERE p.datname = pg_catalog.current_database() AND p.pid <> pg_catalog.pg_backend_pid()
  AND (p.index_relid = pg_catalog.to_regclass(%s)
       OR p.index_relid IS NULL AND EXISTS (
         SELECT FROM pg_catalog.pg_locks l WHERE l.pid = p.pid AND l.locktype = 'relation'
           AND l.relation = pg_catalog.to_regclass(%s) AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted))
ORDER BY 1 LIMIT 1
"""


class There(NamedTuple):
    """What is in the place of an index."""

    valid: bool
    definition: str
    constraint: Optional[str]
    """What the server says of the key that it is of."""

    def unlike(self, build: Build) -> Optional[str]:
        """Why it is not what is to be built, and cannot become it."""
        if self.definition != build.definition:
            other = self.definition
        elif self.constraint is not None and build.key and self.constraint != build.constraint:
            other = self.constraint
        else:
            return None
        return (
            f"an index of this name is there that is not as it was ({other}); it was left as it is. Where it is not "
            "wanted, rename or drop it, then run the command"
        )


def what_is_there(connection: Any, build: Build) -> Optional[There]:
    """What is in the place of an index, on its table."""
    found = rows(connection, THERE, (build.name, build.table))
    return There(**found[0]) if found else None


@contextmanager
def alone(connection: Any, patience: str = PATIENCE) -> Iterator[None]:
    """Statements that stand outside of transactions, and wait for those of others."""
    connection.autocommit = True
    try:
        execute(connection, f"SET SESSION lock_timeout = '{patience}'")
        yield
    finally:
        if not connection.closed:
            execute(connection, "RESET default_tablespace; RESET lock_timeout")
            connection.autocommit = False


def build_index(connection: Any, build: Build, patience: str = PATIENCE) -> Optional[str]:
    """Build one index anew, in place of what is not valid; why that cannot be."""
    with alone(connection, patience):
        execute(connection, "SELECT pg_catalog.set_config('default_tablespace', %s, false)", (build.tablespace,))
        for _attempt in range(ATTEMPTS):
            # What a killed run left, or an attempt.
            remains = drop_broken(connection, build)
            if remains:
                return f"one that is not valid is in its place{remains}"
            try:
                execute(connection, build.statement)
                return None
            except connection.DatabaseError as error:
                if is_passing(error) and error.pgcode not in LOCKED:
                    raise
                reason = server_message(error)
                if error.pgcode == LOCK_NOT_AVAILABLE:
                    reason = f"for {patience} others had transactions open that are older than its building"
                if error.pgcode != DEADLOCK:
                    break
        return reason + drop_broken(connection, build)


def drop_broken(connection: Any, build: Build) -> str:
    """Drop an index that is not valid; what to do, for people, where that cannot be."""
    there = what_is_there(connection, build)
    if there is None or there.valid:
        return ""
    builders = rows(connection, BUILDERS, (build.name, build.table))
    if builders:
        return (
            f"; session {builders[0]['pid']} (role {builders[0]['role']}) builds it at this moment. When that has "
            "ended, run again with the same incident id"
        )
    # It may have been finished in between.
    there = what_is_there(connection, build)
    return "" if there is None or there.valid else drop_index(connection, build)


def drop_index(connection: Any, build: Build) -> str:
    """Drop an index, whatever it is; what to do, for people, where others keep us from it."""
    statement = f"DROP INDEX CONCURRENTLY {build.name}"
    for _attempt in range(ATTEMPTS):
        if what_is_there(connection, build) is None:
            return ""
        try:
            execute(connection, statement)
        except connection.DatabaseError as error:
            if error.pgcode not in LOCKED:
                raise
            if error.pgcode == LOCK_NOT_AVAILABLE:
                break
    return (
        "; others had transactions open that kept it from being dropped. It serves no query, but refuses duplicates if "
        f"it is unique: run {statement}; before the command"
    )
