# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes and keys that fell from tables which were not lost: built when all else is back, while production writes.

CREATE INDEX CONCURRENTLY stands outside of transactions, so that a killed run leaves an index that is not valid; it
waits for transactions that are older than itself, but nobody who reads or writes waits for it (CREATE INDEX in
PostgreSQL's documentation, "Building Indexes Concurrently"). A key is made of its index in a moment (ALTER TABLE, "ADD
table_constraint_using_index"), the index of a partitioned table of those of its partitions (ALTER INDEX, "ATTACH
PARTITION"), some of them at a time. What needs a key, the foreign keys of others and what is said of it, follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import server_message
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import Lock, Locks, patiently
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import (
    NEEDS_ANOTHER,
    Attempt,
    Transactions,
    savepoint,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.concurrent_index import (
    There,
    alone,
    build_index,
    drop_index,
    what_is_there,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.foreign_keys import ForeignKeys
from ansible_collections.dbre.recovery.plugins.module_utils._tables.index_groups import (
    Build,
    Group,
    find_builds,
    part_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.journal import read_journal
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import Context
from ansible_collections.dbre.recovery.plugins.module_utils._tables.publish import Steps
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import Entry, SchemaDump, statements_of

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
# Which indexes are parts of others already.
ATTACHED = """
SELECT pair.part FROM unnest(%s::text[], %s::text[]) AS pair(part, whole) JOIN pg_catalog.pg_inherits i
  ON i.inhrelid = pg_catalog.to_regclass(pair.part) AND i.inhparent = pg_catalog.to_regclass(pair.whole)
"""
# The kind of journal entries that name what we began to build, which is then ours whatever a killed run made of it.
BEGUN = "index"
# How many partitions are locked at a time: the server looks at all others for each that is attached.
BATCH = 20


class Part(NamedTuple):
    """What is done of an index or key after it was built: it is described, and attached to that of the table above."""

    build: Build
    descriptions: Sequence[str]
    attachments: Sequence[Entry]

    @property
    def locks(self) -> list[Lock]:
        """The locks under which that is done. To attach an index locks it, and whoever uses its table uses it."""
        wanted = [Lock(self.build.table, lock_for(statement)) for statement in self.descriptions]
        return [*wanted, *(Lock(self.build.table, "ACCESS EXCLUSIVE") for _entry in self.attachments)]


class IndexBuilds:
    """The indexes and keys of surviving tables that can be built while production writes."""

    def __init__(self, context: Context, dump: SchemaDump, steps: Steps) -> None:
        self._context = context
        self._dump = dump
        self._groups, self._builds = find_builds(context, dump, steps)
        # Addresses of what earlier runs began to build, and this one.
        self._begun: set[tuple[int, int]] = set()

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
        if not self._groups:
            return []
        journal = read_journal(connection, self._context.staging)
        connection.commit()
        self._begun = {(item["catalog"], item["oid"]) for item in journal.get(BEGUN, [])}
        left_to_do: list[dict[str, Any]] = []
        for group in self._groups:
            transactions = Transactions(connection, self._context.plan["incident"], attempt_of)
            failed = self._unlike_tops(connection, group) or self._failed(connection, group)
            left_to_do += self._make_tops(connection, group, failed, transactions)
            left_to_do += self._join(connection, group, failed, transactions)
            left_to_do += self._follow(connection, group, transactions, attempt_of)
            for build in self._of(group):
                left_to_do += self._incomplete(connection, build) if build.partitioned else []
        return left_to_do

    def _of(self, group: Group) -> list[Build]:
        return [self._builds[entry.dump_id] for entry in group.members]

    def _failed(self, connection: Any, group: Group) -> dict[int, str]:
        """Complete those of tables that hold rows; why some cannot be, by dump id."""
        reasons = {
            build.entry.dump_id: self._complete(connection, build) for build in self._of(group) if not build.partitioned
        }
        return {dump_id: reason for dump_id, reason in reasons.items() if reason is not None}

    def _unlike_tops(self, connection: Any, group: Group) -> dict[int, str]:
        """Why what is in the place of those of partitioned tables cannot become these, by dump id."""
        reasons = {
            build.entry.dump_id: self._unlike(build, what_is_there(connection, build))
            for build in self._of(group)
            if build.partitioned
        }
        connection.commit()
        found = {dump_id: reason for dump_id, reason in reasons.items() if reason is not None}
        parts = [build.entry.dump_id for build in self._of(group) if not build.partitioned]
        return {**dict.fromkeys(parts, NEEDS_ANOTHER), **found} if found else {}

    def _unlike(self, build: Build, there: Optional[There]) -> Optional[str]:
        """Why what is there cannot become an index or key.

        An expression may be written in another way when it was read once more, so that ours may look unlike itself.
        """
        return None if there is None or _address(build) in self._begun else there.unlike(build)

    def _begin(self, connection: Any, builds: Sequence[Build]) -> None:
        """Note, in the caller's transaction, that what will be there is ours."""
        for build in builds:
            if _address(build) not in self._begun:
                self._context.journal(connection, BEGUN, dict(zip(("catalog", "oid"), _address(build))))

    def _complete(self, connection: Any, build: Build) -> Optional[str]:
        """Build one index, and make a key of it; why that cannot be."""
        there = what_is_there(connection, build)
        connection.commit()
        unlike = self._unlike(build, there)
        if unlike is not None:
            return unlike
        valid = there is not None and there.valid
        if not valid:

            def begin() -> None:
                mark(connection, self._context.plan["incident"])
                self._begin(connection, [build])

            patiently(connection, begin)
            self._begun.add(_address(build))
            reason = build_index(connection, build)
            if reason is not None:
                return reason
        if not build.key or (there is not None and there.constraint is not None):
            return None
        reason = self._make_key(connection, build)
        if reason is not None and not valid:
            with alone(connection):
                reason += drop_index(connection, build)
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

    def _make_tops(
        self, connection: Any, group: Group, failed: Mapping[int, str], transactions: Transactions
    ) -> list[dict[str, Any]]:
        """Make those of partitioned tables, still without parts, unless others have ``failed``; what is left to do."""
        tops = [build for build in self._of(group) if build.partitioned]
        made = [] if failed else [build for build in tops if what_is_there(connection, build) is None]
        connection.commit()
        if not (made or failed):
            return []

        def work(attempt: Attempt) -> list[dict[str, Any]]:
            for build in self._of(group):
                whole = statements_of(self._dump.script([build.entry])) if failed and build.partitioned else ""
                if build.entry.dump_id in failed or whole:
                    reason = failed.get(build.entry.dump_id, NEEDS_ANOTHER)
                    attempt.refuse(build.entry, reason, whole or build.command)
            self._begin(connection, made)
            attempt.make([build.entry for build in made])
            return []

        left_to_do = transactions.run(
            [lock_on_top(connection, build) for build in made], [build.entry for build in made], work
        )
        self._begun |= {_address(build) for build in made}
        return left_to_do

    def _join(
        self, connection: Any, group: Group, failed: Mapping[int, str], transactions: Transactions
    ) -> list[dict[str, Any]]:
        """Describe them, and attach those of partitions, some at a time; what is left to do."""
        left_to_do: list[dict[str, Any]] = []
        parts = self._parts(connection, group, failed, transactions)
        for number in range(0, len(parts), BATCH):
            batch = parts[number : number + BATCH]
            attachments = [entry for part in batch for entry in part.attachments]

            def work(attempt: Attempt, batch: Sequence[Part] = batch) -> list[dict[str, Any]]:
                left_to_do = [
                    entry
                    for part in batch
                    for statement in part.descriptions
                    for entry in self._describe(connection, part.build, statement)
                ]
                attempt.make([entry for part in batch for entry in part.attachments])
                return left_to_do

            left_to_do += transactions.run([lock for part in batch for lock in part.locks], attachments, work)
        return left_to_do

    def _parts(
        self, connection: Any, group: Group, failed: Mapping[int, str], transactions: Transactions
    ) -> list[Part]:
        """From the lowest up: what becomes complete with its last part locks that of the table above."""
        above: dict[int, int] = {}
        attachments: dict[int, Entry] = {}
        for entry in _attachable(group, transactions):
            lower, upper = part_of(entry, group.members)
            above[lower.dump_id], attachments[lower.dump_id] = upper.dump_id, entry
        pairs = [[self._builds[dump_id].name for dump_id in side] for side in (above.keys(), above.values())]
        attached = {row["part"] for row in rows(connection, ATTACHED, tuple(pairs))}
        connection.commit()
        parts = []
        for build in self._of(group):
            own = [attachments[build.entry.dump_id]] if build.entry.dump_id in attachments else []
            descriptions = [] if build.entry.dump_id in failed else self._descriptions(build)
            part = Part(build, descriptions, [] if build.name in attached else own)
            parts += [part] if part.descriptions or part.attachments else []

        def depth(part: Part) -> int:
            steps, dump_id = 0, part.build.entry.dump_id
            while dump_id in above:
                steps, dump_id = steps + 1, above[dump_id]
            return steps

        return sorted(parts, key=depth, reverse=True)

    def _follow(
        self, connection: Any, group: Group, transactions: Transactions, attempt_of: Callable[[], Attempt]
    ) -> list[dict[str, Any]]:
        """Comments, and the foreign keys that need them; what is left to do."""
        attachable = _attachable(group, transactions)
        rest = [entry for entry in group.hanging if entry not in attachable]
        if not (rest or group.foreign_keys):
            return []
        keys = ForeignKeys(self._context, group.foreign_keys)
        late = keys.late(group.after)

        def work(attempt: Attempt) -> list[dict[str, Any]]:
            attempt.make(rest)
            left_to_do = keys.add(connection)
            attempt.make([entry for entry in group.after if entry not in late])
            return left_to_do

        left_to_do = transactions.run(keys.locks(), rest, work)
        left_to_do += keys.violations(connection)
        return left_to_do + keys.finish(connection, late, attempt_of)

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


def _address(build: Build) -> tuple[int, int]:
    return build.entry.catalog, build.entry.oid


def _attachable(group: Group, transactions: Transactions) -> list[Entry]:
    """The attachments of which nothing was refused that they need."""
    refused = {item.entry.dump_id for item in transactions.refused}
    return [
        entry for entry in group.hanging if entry.description == "INDEX ATTACH" and refused.isdisjoint(entry.depends)
    ]


def lock_on_top(connection: Any, build: Build) -> Lock:
    """What the index or key of a partitioned table, still without parts, is made under.

    Since PostgreSQL 18 a primary key looks for NOT NULL on the partitions (ATPrepAddPrimaryKey() in tablecmds.c).
    """
    if not build.key:
        return Lock(build.table, "SHARE")
    return Lock(build.table, "ACCESS EXCLUSIVE", tree=build.primary and connection.server_version >= 180000)


def lock_for(statement: str) -> str:
    """What a statement that describes an index locks its table with, at the most (tablecmds.c)."""
    return "ACCESS EXCLUSIVE" if "REPLICA IDENTITY" in statement else "SHARE UPDATE EXCLUSIVE"
