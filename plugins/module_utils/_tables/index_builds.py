# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes that fell from tables which were not lost: built when all else is back, while production writes to these.

CREATE INDEX CONCURRENTLY stands outside of transactions, so that a killed run leaves an index that is not valid; it
waits for transactions that are older than itself, but nobody who reads or writes waits for it (CREATE INDEX in
PostgreSQL's documentation, "Building Indexes Concurrently").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import server_message
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import LOCK_NOT_AVAILABLE, patiently
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import Attempt, is_passing
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import Context
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plan import left
from ansible_collections.dbre.recovery.plugins.module_utils._tables.publish import Steps
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import Entry, SchemaDump, statements_of

# How long transactions of others may keep an index from being built.
PATIENCE = "10min"
# Of ordinary tables that are in no tree: partitions get their indexes with those of their parents.
DEFINITIONS = """
SELECT i.indexrelid::int8 AS oid, n.nspname AS schema, c.relname AS name, tn.nspname AS table_schema,
       t.relname AS table, pg_catalog.pg_get_indexdef(i.indexrelid) AS definition, s.spcname AS tablespace
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class t ON t.oid = i.indrelid AND t.relkind = 'r' AND NOT t.relispartition
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace
WHERE i.indexrelid = ANY(%s::oid[])
"""
THERE = """
SELECT i.indisvalid AS valid FROM pg_catalog.pg_index i
WHERE i.indexrelid = pg_catalog.to_regclass(%s) AND i.indrelid = pg_catalog.to_regclass(%s)
"""


class Build(NamedTuple):
    """One index: its entry of the dump, what hangs on it, and what the recovered instance says of it."""

    entry: Entry
    hanging: list[Entry]
    name: str
    """SQL name."""
    table: str
    """SQL name."""
    definition: str
    tablespace: str

    @property
    def statement(self) -> str:
        """What builds it."""
        words = self.definition.split(" INDEX ", 1)
        return f"{words[0]} INDEX CONCURRENTLY {words[1]}"


def standing_alone(entries: Sequence[Entry], others: Sequence[Entry]) -> dict[int, list[Entry]]:
    """Indexes among ``others``, by dump id, that nothing of ``entries`` needs but what says something of them."""
    found: dict[int, list[Entry]] = {entry.dump_id: [] for entry in others if entry.description == "INDEX"}
    for entry in entries:
        for dump_id in entry.depends:
            if dump_id not in found:
                continue
            if entry.description == "COMMENT":
                found[dump_id].append(entry)
            else:
                del found[dump_id]
    return found


class IndexBuilds:
    """The indexes of surviving tables that can be built while production writes."""

    def __init__(self, context: Context, dump: SchemaDump, steps: Steps) -> None:
        self._context = context
        self._dump = dump
        every = [*steps.own, *steps.others, *steps.foreign_keys, *steps.after_foreign_keys]
        alone = standing_alone(every, steps.others)
        # What runs code of users while it is read is made as its owner, which only a transaction can be.
        chosen = {entry.oid: entry for entry in steps.others if entry.dump_id in alone.keys() - dump.run_as.keys()}
        self._builds: list[Build] = []
        if not chosen:
            return
        side = context.side.connect(context.side_database)
        try:
            found = rows(side, DEFINITIONS, (list(chosen),))
        finally:
            side.close()
        for item in found:
            entry = chosen[item["oid"]]
            self._builds.append(
                Build(
                    entry,
                    alone[entry.dump_id],
                    quote_name(item["schema"], item["name"]),
                    quote_name(item["table_schema"], item["table"]),
                    item["definition"],
                    "" if (entry.catalog, entry.oid) in dump.without_home else item["tablespace"] or "",
                )
            )

    def without(self, steps: Steps) -> Steps:
        """The steps without them."""
        ours = {entry.dump_id for build in self._builds for entry in (build.entry, *build.hanging)}
        return steps._replace(others=[entry for entry in steps.others if entry.dump_id not in ours])

    def make(self, connection: Any, attempt_of: Callable[[], Attempt]) -> list[dict[str, Any]]:
        """Build those that are not there, in a session that is in no transaction; what is left to do."""
        left_to_do: list[dict[str, Any]] = []
        for build in self._builds:
            there = rows(connection, THERE, (build.name, build.table))
            connection.commit()
            if there and there[0]["valid"]:
                continue
            error = self._build(connection, build, bool(there))
            if error is not None:
                reason = server_message(error)
                if error.pgcode == LOCK_NOT_AVAILABLE:
                    reason = f"for {PATIENCE} others had transactions open that are older than its building"
                name = self._dump.identity(build.entry)
                left_to_do.append(left("index", name, reason, f"{build.statement};", lost=True))
                continue
            left_to_do += self._describe(connection, build, attempt_of())
        return left_to_do

    def _build(self, connection: Any, build: Build, broken: bool) -> Any:
        """Build one index anew; the error where it does not fit the rows that are there now."""
        connection.autocommit = True
        try:
            execute(connection, f"SET SESSION lock_timeout = '{PATIENCE}'")
            execute(connection, "SELECT pg_catalog.set_config('default_tablespace', %s, false)", (build.tablespace,))
            if broken:
                execute(connection, f"DROP INDEX CONCURRENTLY {build.name}")
            try:
                execute(connection, build.statement)
            except connection.DatabaseError as error:
                if is_passing(error) and error.pgcode != LOCK_NOT_AVAILABLE:
                    raise
                if value(connection, "SELECT EXISTS (" + THERE + " AND NOT i.indisvalid)", (build.name, build.table)):
                    execute(connection, f"DROP INDEX CONCURRENTLY {build.name}")
                return error
        finally:
            if not connection.closed:
                execute(connection, "RESET default_tablespace; RESET lock_timeout")
                connection.autocommit = False
        return None

    def _describe(self, connection: Any, build: Build, attempt: Attempt) -> list[dict[str, Any]]:
        """What else the dump says of an index: statistics of its expressions, whether the table is clustered by it."""
        script = statements_of(self._dump.script([build.entry])).strip()
        begin = f"{build.definition};"
        more = script[len(begin) :].strip() if script.startswith(begin) else ""
        if not more and not build.hanging:
            return []

        def work() -> None:
            mark(connection, self._context.plan["incident"])
            if more:
                execute(connection, more)
            attempt.make(build.hanging)

        patiently(connection, work)
        return [item.left() for item in attempt.refused]
