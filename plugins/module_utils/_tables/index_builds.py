# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes and keys that fell from tables which were not lost: built when all else is back, while production writes.

CREATE INDEX CONCURRENTLY stands outside of transactions, so that a killed run leaves an index that is not valid; it
waits for transactions that are older than itself, but nobody who reads or writes waits for it (CREATE INDEX in
PostgreSQL's documentation, "Building Indexes Concurrently"). A key is made of its index in a moment (ALTER TABLE, "ADD
table_constraint_using_index"), the index of a partitioned table of those of its partitions (ALTER INDEX, "ATTACH
PARTITION"). What needs a key, the foreign keys of others and what is said of it, follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import server_message
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import is_another
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import (
    DEADLOCK,
    LOCK_NOT_AVAILABLE,
    LOCKED,
    Lock,
    Locks,
    patiently,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident, quote_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import (
    NEEDS_ANOTHER,
    Attempt,
    is_passing,
    savepoint,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.foreign_keys import ForeignKeys
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import Context
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plan import left
from ansible_collections.dbre.recovery.plugins.module_utils._tables.publish import Steps
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import Entry, SchemaDump, statements_of

# How long transactions of others may keep an index from being built.
PATIENCE = "10min"
# How often somebody may get in its way so that neither gets on.
ATTEMPTS = 5
# What can be built so: not a constraint of exclusion, nor what is on a materialized view.
DEFINITIONS = """
SELECT CASE WHEN k.oid IS NULL THEN 'INDEX' ELSE 'CONSTRAINT' END AS description,
       coalesce(k.oid, i.indexrelid)::int8 AS oid, n.nspname AS schema, c.relname AS name, tn.nspname AS table_schema,
       t.relname AS table, t.relkind = 'p' AS partitioned, pg_catalog.pg_get_indexdef(i.indexrelid) AS definition,
       s.spcname AS tablespace, k.contype AS key, k.conname, k.condeferrable, k.condeferred,
       i.indisclustered AS clustered, i.indisreplident AS identity
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class t ON t.oid = i.indrelid AND t.relkind IN ('r', 'p')
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace
WHERE (i.indexrelid = ANY(%s::oid[]) AND k.oid IS NULL OR k.oid = ANY(%s::oid[])) AND NOT i.indisexclusion
"""
THERE = """
SELECT i.indisvalid AS valid, EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = i.indexrelid
                                      AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u')) AS is_key
FROM pg_catalog.pg_index i
WHERE i.indexrelid = pg_catalog.to_regclass(%s) AND i.indrelid = pg_catalog.to_regclass(%s)
"""
# A primary key of such columns would look at all rows under its lock.
NULLABLE = """
SELECT string_agg(pg_catalog.quote_ident(a.attname), ', ') FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND NOT a.attnotnull
  AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
WHERE i.indexrelid = pg_catalog.to_regclass(%s)
"""
# Partitions that have no index in one of a partitioned table: they came after it was lost.
WITHOUT = """
SELECT string_agg(p.inhrelid::regclass::text, ', ' ORDER BY p.inhrelid::regclass::text)
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_inherits p ON p.inhparent = i.indrelid
WHERE i.indexrelid = pg_catalog.to_regclass(%s) AND NOT i.indisvalid AND NOT EXISTS (
  SELECT FROM pg_catalog.pg_inherits part JOIN pg_catalog.pg_index other ON other.indexrelid = part.inhrelid
  WHERE part.inhparent = i.indexrelid AND other.indrelid = p.inhrelid)
"""
# What may hang on an index or a key that is built late.
HANGING = ("COMMENT", "INDEX ATTACH")


class Build(NamedTuple):
    """One index or key of a table: its entry of the dump, and what the recovered instance says of it."""

    entry: Entry
    name: str
    """SQL name."""
    table: str
    """SQL name."""
    partitioned: bool
    """Whether it is only made of those of partitions."""
    definition: str
    tablespace: str
    key: str
    """The statement that makes the key of the index; empty for what is no key."""
    primary: bool
    more: tuple[str, ...]
    """Further statements that describe the index of a key."""

    @property
    def statement(self) -> str:
        """What builds the index."""
        words = self.definition.split(" INDEX ", 1)
        return f"{words[0]} INDEX CONCURRENTLY {words[1]}"

    @property
    def command(self) -> str:
        """What makes all of it, each statement by itself."""
        return f"{self.statement};\n{self.key};" if self.key else f"{self.statement};"


class Group(NamedTuple):
    """What is built together: an index or a key, or those of a whole partitioned table, and what hangs on them."""

    members: list[Entry]
    hanging: list[Entry]
    foreign_keys: list[Entry]
    after: list[Entry]
    """Comments on the foreign keys."""

    @property
    def entries(self) -> list[Entry]:
        """All of them."""
        return [*self.members, *self.hanging, *self.foreign_keys, *self.after]


def _tied(entries: Sequence[Entry], chosen: Sequence[Entry]) -> dict[int, int]:
    """For each of ``chosen`` one of those that it is tied to, the same for all of these; by dump ids.

    The index of a partition needs that of the table above it, and an attachment needs both.
    """
    first = {entry.dump_id: entry.dump_id for entry in chosen}
    for entry in entries:
        if entry.dump_id in first or entry.description == "INDEX ATTACH":
            tied = {first[dump_id] for dump_id in (entry.dump_id, *entry.depends) if dump_id in first}
            first.update({dump_id: min(tied) for dump_id, other in first.items() if other in tied})
    return first


def groups_of(entries: Sequence[Entry], others: Sequence[Entry]) -> list[Group]:
    """Indexes and keys among ``others`` by what must be built together, but what anything else of ``entries`` needs.

    Only comments, attachments and foreign keys may need them.
    """
    first = _tied(entries, [entry for entry in others if entry.description in ("INDEX", "CONSTRAINT")])
    found = {dump_id: Group([], [], [], []) for dump_id in first.values()}
    needed: set[int] = set()
    of_keys: dict[int, set[int]] = {}
    for entry in entries:
        above = {first[dump_id] for dump_id in entry.depends if dump_id in first}
        if entry.dump_id in first:
            found[first[entry.dump_id]].members.append(entry)
        elif entry.description == "FK CONSTRAINT":
            of_keys[entry.dump_id] = above
            # What needs two groups cannot follow one of them.
            needed |= above if len(above) > 1 else set()
            for dump_id in above:
                found[dump_id].foreign_keys.append(entry)
        elif entry.description in HANGING:
            for dump_id in above:
                found[dump_id].hanging.append(entry)
            for dump_id in {dump_id for key in entry.depends for dump_id in of_keys.get(key, ())}:
                found[dump_id].after.append(entry)
        else:
            needed |= above
    return [group for dump_id, group in found.items() if dump_id not in needed]


class IndexBuilds:
    """The indexes and keys of surviving tables that can be built while production writes."""

    def __init__(self, context: Context, dump: SchemaDump, steps: Steps) -> None:
        self._context = context
        self._dump = dump
        self._builds: dict[int, Build] = {}
        self._groups: list[Group] = []
        every = [*steps.own, *steps.others, *steps.foreign_keys, *steps.after_foreign_keys]
        # What runs code of users while it is read is made as its owner, which only a transaction can be.
        caged = _caged(context, dump)
        possible = [
            group
            for group in groups_of(every, steps.others)
            if caged.isdisjoint(entry.dump_id for entry in [*group.members, *group.hanging])
        ]
        entries = {(entry.description, entry.oid): entry for group in possible for entry in group.members}
        if not entries:
            return
        oids = [[oid for kind, oid in entries if kind == wanted] for wanted in ("INDEX", "CONSTRAINT")]
        side = context.side.connect(context.side_database)
        try:
            found = rows(side, DEFINITIONS, tuple(oids))
        finally:
            side.close()
        for item in found:
            entry = entries[item["description"], item["oid"]]
            lost_space = (entry.catalog, entry.oid) in dump.without_home
            self._builds[entry.dump_id] = build_of(entry, item, "" if lost_space else item["tablespace"] or "")
        self._groups = [
            group for group in possible if self._builds.keys() >= {entry.dump_id for entry in group.members}
        ]

    def without(self, steps: Steps) -> Steps:
        """The steps without them, and without what needs them."""
        ours = {entry.dump_id for group in self._groups for entry in group.entries}
        kept = [
            [entry for entry in entries if entry.dump_id not in ours]
            for entries in (steps.others, steps.foreign_keys, steps.after_foreign_keys)
        ]
        return steps._replace(others=kept[0], foreign_keys=kept[1], after_foreign_keys=kept[2])

    def make(self, connection: Any, attempt_of: Callable[[], Attempt]) -> list[dict[str, Any]]:
        """Build those that are not there, in a session that is in no transaction; what is left to do."""
        left_to_do: list[dict[str, Any]] = []
        for group in self._groups:
            reasons = {
                entry.dump_id: self._complete(connection, self._builds[entry.dump_id])
                for entry in group.members
                if not self._builds[entry.dump_id].partitioned
            }
            failed = {dump_id: reason for dump_id, reason in reasons.items() if reason is not None}
            left_to_do += self._join(connection, group, failed, attempt_of)
        return left_to_do

    def _complete(self, connection: Any, build: Build) -> Optional[str]:
        """Build one index, and make a key of it; why that cannot be."""
        there = rows(connection, THERE, (build.name, build.table))
        connection.commit()
        made = not there or not there[0]["valid"]
        if made:
            reason = build_index(connection, build)
            if reason is not None:
                return reason
        if not build.key or (there and there[0]["is_key"]):
            return None
        reason = self._make_key(connection, build)
        if reason is not None and made:
            with _alone(connection):
                reason += _drop(connection, build)
        elif reason is not None:
            reason += f"; the index {build.name} was there before and stays"
        return reason

    def _make_key(self, connection: Any, build: Build) -> Optional[str]:
        """Make a key of an index that is there; why that cannot be."""
        locks = Locks(connection)

        def work() -> Optional[str]:
            mark(connection, self._context.plan["incident"])
            locks.take([Lock(build.table, "ACCESS EXCLUSIVE")])
            nullable = value(connection, NULLABLE, (build.name,)) if build.primary else None
            if nullable:
                return f"{nullable} is not NOT NULL, which a primary key needs"
            errors: list[Any] = []
            with savepoint(connection, errors.append):
                execute(connection, build.key)
            return server_message(errors[0]) if errors else None

        return patiently(connection, work, locks=locks)

    def _join(
        self, connection: Any, group: Group, failed: Mapping[int, str], attempt_of: Callable[[], Attempt]
    ) -> list[dict[str, Any]]:
        """Make what is made of the parts, and what hangs on all of them, in one transaction; what is left to do."""
        keys = ForeignKeys(self._context, group.foreign_keys)
        parts = [build for build in self._of(group) if build.partitioned]
        tops = {build.table for build in parts}
        wanted = [Lock(table, "ACCESS EXCLUSIVE", tree=True) for table in sorted(tops)]
        locks = Locks(connection)
        descriptions = [
            (build, statement)
            for build in self._of(group)
            if build.entry.dump_id not in failed
            for statement in self._descriptions(build)
        ]
        described = [Lock(build.table, lock_for(statement)) for build, statement in descriptions]

        def work() -> list[dict[str, Any]]:
            mark(connection, self._context.plan["incident"])
            attempt = attempt_of()
            for build in self._of(group):
                if build.entry.dump_id in failed:
                    attempt.refuse(build.entry, failed[build.entry.dump_id], build.command)
                elif failed and build.partitioned:
                    command = statements_of(self._dump.script([build.entry]))
                    attempt.refuse(build.entry, NEEDS_ANOTHER, command)
            made = [] if failed else [build.entry for build in parts if not self._is_there(connection, build)]
            attempt.prepare([[*made, *group.hanging]])
            locks.take([*(wanted if made else []), *described, *keys.locks()])
            left_to_do = [entry for item in descriptions for entry in self._describe(connection, *item)]
            attempt.make([*made, *group.hanging])
            left_to_do += keys.add(connection)
            attempt.make([entry for entry in group.after if entry not in keys.late(group.after)])
            return [*(item.left() for item in attempt.refused), *left_to_do]

        left_to_do = patiently(connection, work, locks=locks)
        left_to_do += keys.finish(connection, keys.late(group.after), attempt_of)
        return left_to_do + [entry for build in parts for entry in self._incomplete(connection, build)]

    def _of(self, group: Group) -> list[Build]:
        return [self._builds[entry.dump_id] for entry in group.members]

    @staticmethod
    def _is_there(connection: Any, build: Build) -> bool:
        return bool(rows(connection, THERE, (build.name, build.table)))

    def _descriptions(self, build: Build) -> Sequence[str]:
        """What else is said of an index: statistics of its expressions, whether the table is clustered by it."""
        if build.key or build.partitioned:
            return () if build.partitioned else build.more
        script = statements_of(self._dump.script([build.entry])).strip()
        begin = f"{build.definition};"
        # Names may hold what looks like the end of a statement, so this stays one.
        return [rest] if script.startswith(begin) and (rest := script[len(begin) :].strip()) else []

    def _describe(self, connection: Any, build: Build, statement: str) -> list[dict[str, Any]]:
        """Say it, in the caller's transaction; what is left to do."""
        errors: list[Any] = []
        with savepoint(connection, errors.append):
            execute(connection, statement)
        kind, name = build.entry.description.lower(), self._dump.identity(build.entry)
        command = f"{statement.rstrip(';')};"
        return [left(kind, name, server_message(error), command, lost=True) for error in errors]

    def _incomplete(self, connection: Any, build: Build) -> list[dict[str, Any]]:
        """The index of a partitioned table that some partition has no part of."""
        without = value(connection, WITHOUT, (build.name,))
        connection.commit()
        if not without:
            return []
        reason = (
            f"partitions that came after the incident lack it: {without}. Build it on each CONCURRENTLY, then attach "
            "these (ALTER INDEX … ATTACH PARTITION)"
        )
        return [left(build.entry.description.lower(), self._dump.identity(build.entry), reason, lost=True)]


def _caged(context: Context, dump: SchemaDump) -> set[int]:
    """Dump ids of what is made as another than we or a superuser."""
    production = context.production.connect()
    try:
        others = {role for role in {whom.role for whom in dump.run_as.values()} if is_another(production, role)}
    finally:
        production.close()
    return {dump_id for dump_id, whom in dump.run_as.items() if whom.role in others}


def lock_for(statement: str) -> str:
    """What a statement that describes an index locks its table with, at the most (tablecmds.c)."""
    return "ACCESS EXCLUSIVE" if "REPLICA IDENTITY" in statement else "SHARE UPDATE EXCLUSIVE"


@contextmanager
def _alone(connection: Any, patience: str = PATIENCE) -> Iterator[None]:
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
    """Build one index anew, in a session that is in no transaction; why that cannot be."""
    with _alone(connection, patience):
        execute(connection, "SELECT pg_catalog.set_config('default_tablespace', %s, false)", (build.tablespace,))
        for _attempt in range(ATTEMPTS):
            # What a killed run left, or an attempt.
            remains = _drop(connection, build)
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
        return reason + _drop(connection, build)


def _drop(connection: Any, build: Build) -> str:
    """Drop an index of ours; what to do, for people, where others keep us from it."""
    statement = f"DROP INDEX CONCURRENTLY {build.name}"
    for _attempt in range(ATTEMPTS):
        there = rows(connection, THERE, (build.name, build.table))
        if not there:
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


def build_of(entry: Entry, item: Mapping[str, Any], tablespace: str) -> Build:
    """What one row of ``DEFINITIONS`` says."""
    name, table = quote_name(item["schema"], item["name"]), quote_name(item["table_schema"], item["table"])
    key, more = "", []
    if item["key"]:
        key = f"ALTER TABLE ONLY {table} ADD CONSTRAINT {quote_ident(item['conname'])} "
        key += f"{'PRIMARY KEY' if item['key'] == 'p' else 'UNIQUE'} USING INDEX {quote_ident(item['name'])}"
        key += " DEFERRABLE" if item["condeferrable"] else ""
        key += " INITIALLY DEFERRED" if item["condeferred"] else ""
        more += [f"ALTER TABLE {table} CLUSTER ON {quote_ident(item['name'])}"] if item["clustered"] else []
        if item["identity"]:
            more.append(f"ALTER TABLE ONLY {table} REPLICA IDENTITY USING INDEX {quote_ident(item['name'])}")
    return Build(
        entry, name, table, item["partitioned"], item["definition"], tablespace, key, item["key"] == "p", tuple(more)
    )
