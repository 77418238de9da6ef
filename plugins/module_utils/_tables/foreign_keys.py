# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Foreign keys put back NOT VALID, then validated while production writes; what does not fit is reported.

A partitioned table takes none that is NOT VALID (before PostgreSQL 18). Its partitions do, and when all of theirs are
valid, the tree's own is made of these without a look at a row: tryAttachPartitionForeignKey() in
src/backend/commands/tablecmds.c. Only where the other table is partitioned, too, all rows are checked under the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import (
    INSUFFICIENT_PRIVILEGE,
    force_statements,
    server_message,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import execute_as_owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import Lock, Locks, patiently
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.owners import runs_as_owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.references import ENDS
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import Attempt, savepoint
from ansible_collections.dbre.recovery.plugins.module_utils._tables.broken_keys import (
    shown_key,
    tables_of_key,
    violation,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import Context
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import Entry

FOREIGN_KEYS = (
    """
SELECT k.oid::int8 AS oid, k.conname AS name, n.nspname AS schema, c.relname AS table, c.relkind AS kind,
       k.conrelid::int8 AS relation, k.confrelid::int8 AS other_relation,
       pg_catalog.pg_get_constraintdef(k.oid) AS definition, k.convalidated AS validated,
       rn.nspname AS other_schema, rc.relname AS other_table, rc.relkind AS other_kind,
       """
    + ENDS
    + """
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class rc ON rc.oid = k.confrelid JOIN pg_catalog.pg_namespace rn ON rn.oid = rc.relnamespace
WHERE k.contype = 'f' AND k.oid = ANY(%s::oid[])
ORDER BY k.oid
"""
)
# What the keys of partitioned tables are called on their partitions.
NAMES_BELOW = """
WITH RECURSIVE below AS (
  SELECT k.oid AS root, k.oid, k.conrelid, k.conname FROM pg_catalog.pg_constraint k WHERE k.oid = ANY(%s::oid[])
  UNION ALL
  SELECT below.root, k.oid, k.conrelid, k.conname
  FROM pg_catalog.pg_constraint k JOIN below ON k.conparentid = below.oid
)
SELECT below.root::int8 AS key, n.nspname AS schema, c.relname AS table, below.conname AS name
FROM below JOIN pg_catalog.pg_class c ON c.oid = below.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
"""
LEAVES = """
SELECT n.nspname AS schema, c.relname AS table
FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass(%s)) AS tree
JOIN pg_catalog.pg_class c ON c.oid = tree.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE tree.isleaf AND c.relkind <> 'p' ORDER BY 1, 2
"""
THERE = """
SELECT convalidated AS valid FROM pg_catalog.pg_constraint
WHERE conrelid = pg_catalog.to_regclass(%s) AND conname = %s AND contype = 'f'
"""
# How often partitions may come that have none yet, while all are validated.
ROUNDS = 5


class ForeignKeys:
    """The foreign keys among some entries of a dump."""

    def __init__(self, context: Context, entries: Iterable[Entry]) -> None:
        self._entries = {entry.oid: entry for entry in entries}
        self._incident: str = context.plan["incident"]
        placed = {item["oid"] for item in context.plan["relations"] if item["action"] == "place"}
        side = context.side.connect(context.side_database)
        try:
            every = rows(side, FOREIGN_KEYS, (list(self._entries),))
            for key in every:
                key["both_placed"] = {key["relation"], key["other_relation"]} <= placed
            # Of tables whose partitions get theirs first; nobody waits for tables that were lost.
            trees = {
                key["oid"]
                for key in every
                if key["kind"] == "p" and key["other_kind"] != "p" and key["validated"] and not key["both_placed"]
            }
            self._names = {
                (row["key"], row["schema"], row["table"]): row["name"]
                for row in rows(side, NAMES_BELOW, (list(trees),))
            }
        finally:
            side.close()
        # Those that rows of ours or of production did not let be made, each with its statement.
        self._broken: list[tuple[Mapping[str, Any], str]] = []
        self._keys = [key for key in every if key["oid"] not in trees]
        self._trees = [key for key in every if key["oid"] in trees]

    def add(self, connection: Any) -> list[dict[str, Any]]:
        """Make those that are not there, in the caller's transaction; what could not be made.

        But what rows do not allow, of which :meth:`violations` tells when nobody waits for these any more.
        """
        self._broken = []
        left_to_do = []
        for key in self._keys:
            left_to_do += self._add(connection, key)
        for key in self._trees:
            leaves = self._leaves(connection, key)
            if leaves and not _there(connection, key):
                left_to_do += self._add_to_parts(connection, key, leaves)
            else:
                # Without partitions there are no rows to look at.
                left_to_do += self._add(connection, key)
        return left_to_do

    @staticmethod
    def _add_to_parts(
        connection: Any, key: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        errors: list[Any] = []
        with savepoint(connection, errors.append):
            for part in parts:
                if not _there(connection, part):
                    execute(connection, f"{_statement(part)} NOT VALID")
        return [
            left("foreign key", shown_key(key), server_message(error), f"{_statement(key)};", lost=True)
            for error in errors
        ]

    def _leaves(self, connection: Any, key: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What a key of a partitioned table is on each of its partitions that has rows."""
        return [
            {**key, **row, "kind": "r", "name": self._names.get((key["oid"], row["schema"], row["table"]), key["name"])}
            for row in rows(connection, LEAVES, (tables_of_key(key)[0],))
        ]

    def _add(self, connection: Any, key: Mapping[str, Any]) -> list[dict[str, Any]]:
        if _there(connection, key):
            return []
        partitioned = key["kind"] == "p"
        whole = _statement(key)
        statement = f"{whole} NOT VALID" if not partitioned and key["validated"] else whole
        caged = partitioned and runs_as_owner(connection, tables_of_key(key))
        show, hide = self._hidden(connection, key, caged) if partitioned else ([], [])
        if show and not key["both_placed"]:
            return [self._unseen(key, show, statement, hide)]
        errors: list[Any] = []
        with savepoint(connection, errors.append):
            for command in show:
                execute(connection, command)
            if caged:
                execute_as_owner(connection, tables_of_key(key)[0], statement, tables_of_key(key)[1])
            else:
                execute(connection, statement)
            for command in hide:
                execute(connection, command)
        left_to_do = []
        for error in errors:
            if isinstance(error, connection.IntegrityError):
                self._broken.append((key, f"{statement};"))
            else:
                left_to_do.append(
                    left("foreign key", shown_key(key), server_message(error), f"{statement};", lost=True)
                )
        return left_to_do

    def violations(self, connection: Any) -> list[dict[str, Any]]:
        """What of the keys could not be made for the rows that are there, after the transaction that tried it."""
        found = [{**violation(connection, key, command), "lost": True} for key, command in self._broken]
        connection.rollback()
        return found

    def finish(
        self, connection: Any, comments: Sequence[Entry], attempt_of: Callable[[], Attempt]
    ) -> list[dict[str, Any]]:
        """Validate what is not valid yet, each in a transaction of its own; what production's rows do not allow.

        Then what the dump says of them (see :meth:`late`).
        """
        left_to_do = []
        for key in self._keys:
            left_to_do += self._validate(connection, key)
        for key in self._trees:
            left_to_do += self._join(connection, key)
        if not comments:
            return left_to_do

        def work() -> list[dict[str, Any]]:
            mark(connection, self._incident)
            attempt = attempt_of()
            attempt.make(comments)
            return [item.left() for item in attempt.refused]

        return left_to_do + patiently(connection, work)

    def late(self, entries: Iterable[Entry]) -> list[Entry]:
        """Those of ``entries`` that say something of a key which is made last."""
        trees = {self._entries[key["oid"]].dump_id for key in self._trees}
        return [entry for entry in entries if entry.description == "COMMENT" and not trees.isdisjoint(entry.depends)]

    def _validate(self, connection: Any, key: Mapping[str, Any]) -> list[dict[str, Any]]:
        table = tables_of_key(key)[0]
        there = _there(connection, key)
        connection.rollback()
        if not key["validated"] or not there or there[0]["valid"]:
            return []
        statement = _validation(key)

        def work() -> list[dict[str, Any]]:
            mark(connection, self._incident)
            caged = runs_as_owner(connection, tables_of_key(key))
            show, hide = self._hidden(connection, key, caged)
            if show:
                return [self._unseen(key, show, statement, hide)]
            if caged:
                execute_as_owner(connection, table, statement, tables_of_key(key)[1])
            else:
                execute(connection, statement)
            return []

        try:
            return patiently(connection, work)
        except connection.IntegrityError:
            connection.rollback()
            entry = violation(connection, key, f"{statement};")
            connection.rollback()
            return [entry]
        except connection.ProgrammingError as error:
            if error.pgcode != INSUFFICIENT_PRIVILEGE:
                raise
            connection.rollback()
            why = server_message(error)
            reason = f"the table's owner may not check the rows that are there ({why}); new ones are checked"
            return [left("foreign key", shown_key(key), reason, f"{statement};")]

    def _join(self, connection: Any, key: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Make the key of a partitioned table of those of its partitions, which are validated one by one."""
        command = f"{_statement(key)};"
        for _round in range(ROUNDS):
            leaves = self._leaves(connection, key)
            # Where not even one partition has it, why not was told when it was to be made.
            wanted = not _there(connection, key) and any(_there(connection, part) for part in leaves)
            connection.rollback()
            if not wanted:
                return []
            refused_parts = self._add_to_new(connection, key, leaves)
            if refused_parts:
                return refused_parts
            left_to_do = self._unseen_parts(connection, key, leaves)
            if left_to_do:
                return left_to_do
            for part in leaves:
                left_to_do += self._validate(connection, part)
            if left_to_do:
                reason = "not all rows of its partitions are checked. Do what is left to do there, then run the command"
                return [*left_to_do, left("foreign key", shown_key(key), reason, command, lost=True)]
            refused = self._make_of_parts(connection, key)
            if refused is not None:
                return [left("foreign key", shown_key(key), refused, command, lost=True)] if refused else []
        reason = "partitions are made faster than they can be checked. At a quiet time, run the command"
        return [left("foreign key", shown_key(key), reason, command, lost=True)]

    def _unseen_parts(
        self, connection: Any, key: Mapping[str, Any], leaves: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """One entry for all partitions whose rows cannot be seen."""
        lifted: dict[str, str] = {}
        for part in leaves:
            caged = runs_as_owner(connection, tables_of_key(part))
            lifted.update(zip(*self._hidden(connection, part, caged)))
        connection.rollback()
        if not lifted:
            return []
        statements = "; ".join([*map(_validation, leaves), _statement(key)])
        return [self._unseen(key, [*lifted], statements, [*lifted.values()])]

    def _add_to_new(
        self, connection: Any, key: Mapping[str, Any], leaves: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """Partitions that came since get theirs."""
        locks = Locks(connection)

        def work() -> list[dict[str, Any]]:
            mark(connection, self._incident)
            lacking = [part for part in leaves if not _there(connection, part)]
            locks.take(_locks(lacking))
            return self._add_to_parts(connection, key, lacking)

        return patiently(connection, work, locks=locks)

    def _make_of_parts(self, connection: Any, key: Mapping[str, Any]) -> str | None:
        """Why the server refuses it, empty when it does not; None when a partition has none that is valid."""
        locks = Locks(connection)

        def work() -> str | None:
            mark(connection, self._incident)
            locks.take(_locks([key]))
            for part in self._leaves(connection, key):
                found = _there(connection, part)
                if not found or not found[0]["valid"]:
                    return None
            errors: list[Any] = []
            with savepoint(connection, errors.append):
                execute(connection, _statement(key))
            return server_message(errors[0]) if errors else ""

        return patiently(connection, work, locks=locks)

    def locks(self) -> list[Lock]:
        """The locks under which they are made."""
        return _locks([*self._keys, *self._trees])

    @staticmethod
    def _hidden(connection: Any, key: Mapping[str, Any], as_owner: bool) -> tuple[list[str], list[str]]:
        """Statements that show all rows of both tables of a key to those who look, and that undo it."""
        query = "SELECT pg_catalog.to_regclass(name)::oid::int8 AS oid FROM unnest(%s::text[]) AS name"
        oids = [row["oid"] for row in rows(connection, query, (tables_of_key(key),))]
        return force_statements(connection, oids, as_owner)

    @staticmethod
    def _unseen(key: Mapping[str, Any], show: list[str], statement: str, hide: list[str]) -> dict[str, Any]:
        return left(
            "foreign key",
            shown_key(key),
            "row security binds even the owner of one of its tables, so the rows that are there can only be checked "
            "while that table is locked; new rows are checked. At a quiet time, run the command",
            "; ".join(["BEGIN", *show, statement, *hide, "COMMIT;"]),
        )


def _locks(keys: Iterable[Mapping[str, Any]]) -> list[Lock]:
    ends = {table for key in keys for table in tables_of_key(key)}
    return [Lock(table, "SHARE ROW EXCLUSIVE", tree=True) for table in sorted(ends)]


def _there(connection: Any, key: Mapping[str, Any]) -> list[dict[str, Any]]:
    return rows(connection, THERE, (tables_of_key(key)[0], key["name"]))


def _validation(key: Mapping[str, Any]) -> str:
    return f"ALTER TABLE {tables_of_key(key)[0]} VALIDATE CONSTRAINT {quote_ident(key['name'])}"


def _statement(key: Mapping[str, Any]) -> str:
    only = "" if key["kind"] == "p" else "ONLY "
    return f"ALTER TABLE {only}{tables_of_key(key)[0]} ADD CONSTRAINT {quote_ident(key['name'])} {key['definition']}"
