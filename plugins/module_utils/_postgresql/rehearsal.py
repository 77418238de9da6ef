# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find out what a role that is no superuser may not make, before it matters."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import (
    INSUFFICIENT_PRIVILEGE,
    is_superuser,
    room_for_owners,
    said,
    try_to_become,
    user_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.existing import ExistingTable
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.load import Context, encoding_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.plan import left
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.publish import (
    Steps,
    steps_of,
    without_default_privileges,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.recover import make_early
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server, host_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.toc import Entry, SchemaDump, statements_of

# Surviving relations whose owner we cannot stand in for; REFERENCES is all that a foreign key asks of the other table.
CLOSED_TABLES = """
SELECT asked.oid FROM unnest(%(oids)s::int8[], %(schemas)s::text[], %(names)s::text[]) AS asked(oid, schema, name)
JOIN pg_catalog.pg_namespace n ON n.nspname = asked.schema
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = asked.name
WHERE NOT pg_catalog.pg_has_role(c.relowner, 'USAGE')
"""
NAMES_OF = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY(%s::oid[])
"""
REFERENCED = """
SELECT oid::int8 AS oid, confrelid::int8 AS other FROM pg_catalog.pg_constraint WHERE oid = ANY(%s::oid[])
"""


class Refused(NamedTuple):
    """An entry of a dump that the server did not let us make, why, and the SQL that makes it."""

    entry: Entry
    name: str
    reason: str
    command: str

    def left(self) -> dict[str, Any]:
        """The entry of ``left_to_do``."""
        return left(self.entry.description.lower(), self.name, self.reason, self.command)


class Attempt:
    """Makes entries of a dump in the caller's transaction, all but those that this role may not make.

    All are tried at once; only where that is refused, halves are, so that what is refused is found in a few steps.
    """

    def __init__(self, connection: Any, dump: SchemaDump, refused: Sequence[Entry] = ()) -> None:
        self._connection = connection
        self._dump = dump
        self._without = {entry.dump_id for entry in refused}
        self._user = user_of(connection)
        self.refused: list[Refused] = []

    def make(self, entries: Sequence[Entry]) -> None:
        """Definitions among ``entries``."""
        self._make(entries, self._dump.script)

    def grant(self, entries: Sequence[Entry]) -> None:
        """Grants among ``entries``."""
        self._make(entries, self._dump.grants)

    def apply(self, entries: Sequence[Entry], script_of: Callable[[Sequence[Entry]], bytes]) -> None:
        """``entries`` as ``script_of`` writes them, one by one."""
        for entry in entries:
            self._make([entry], script_of)

    def _make(self, entries: Sequence[Entry], script_of: Callable[..., bytes]) -> None:
        possible = []
        for entry in entries:
            if entry.dump_id in self._without:
                continue
            if self._without.isdisjoint(entry.depends):
                possible.append(entry)
            elif script := script_of([entry]):
                self._refuse(entry, "it needs something that cannot be made either", script)
        script = script_of(possible) if possible else b""
        if not script:
            return
        execute(self._connection, "SAVEPOINT dbre_attempt")
        try:
            execute(self._connection, script)
        except self._connection.DatabaseError as error:
            if not self._is_refusal(error, possible):
                raise
            execute(self._connection, "ROLLBACK TO SAVEPOINT dbre_attempt")
            execute(self._connection, "RELEASE SAVEPOINT dbre_attempt")
            if len(possible) == 1:
                self._refuse(possible[0], f"{said(error)} (role {self._user} is no superuser)", script)
            else:
                middle = len(possible) // 2
                self._make(possible[:middle], script_of)
                self._make(possible[middle:], script_of)
        else:
            execute(self._connection, "RELEASE SAVEPOINT dbre_attempt")

    def _is_refusal(self, error: Any, entries: Sequence[Entry]) -> bool:
        """Whether this role may not do it; a managed service has words of its own for extensions it does not know."""
        if error.pgcode == INSUFFICIENT_PRIVILEGE:
            return True
        extension = any(entry.description == "EXTENSION" for entry in entries)
        return extension and not isinstance(error, self._connection.OperationalError)

    def _refuse(self, entry: Entry, reason: str, script: bytes) -> None:
        self._without.add(entry.dump_id)
        self.refused.append(Refused(entry, self._dump.identity(entry), reason, statements_of(script)))


def rehearse(production: Server, side: Server, plan: dict[str, Any]) -> dict[str, Any]:
    """The plan without what this role may not make, which is left to do; refuses a plan that cannot work at all.

    Makes the lost objects, without their rows, in a transaction that is rolled back. What production uses is not
    touched, and so not locked: for things on surviving tables it is enough to be their owner.
    """
    missing = plan["missing_roles"] or plan["missing_tablespaces"] or plan["missing_memberships"]
    if plan["staging_database"] or missing or "left_out" in plan:
        return plan
    connection = production.connect(plan["database"])
    directory = tempfile.mkdtemp(prefix="dbre-recovery-")
    try:
        plan = {**plan, "left_out": []}
        if is_superuser(connection):
            return plan
        context = Context(production, side, plan)
        try_to_become(connection, context.roles)
        for item in plan["relations"]:
            if item["action"] in ("merge", "replace"):
                ExistingTable(context, item, encoding_of(connection)).check(connection)
        if not plan["objects"]:
            return plan
        dump = SchemaDump(side, context.side_database, directory)
        return _without(plan, _refused(connection, context, dump))
    finally:
        connection.rollback()
        connection.close()
        shutil.rmtree(directory, ignore_errors=True)


def _refused(connection: Any, context: Context, dump: SchemaDump) -> list[Refused]:
    plan = context.plan
    loaded = [item["oid"] for item in plan["relations"] if item["action"] == "place" and item["kind"] == "r"]
    steps = steps_of(context, dump.entries, loaded)
    attempt = Attempt(connection, dump)
    execute(connection, f"CREATE SCHEMA IF NOT EXISTS {quote_ident(context.staging)}")
    make_early(connection, lambda: context.owners, steps.early, attempt.make)
    if attempt.refused:
        first = attempt.refused[0]
        raise RecoveryError(
            f"{first.entry.description.lower()} {first.name} cannot be put back on {host_name()}: "
            f"{first.reason}. Nothing was changed. Have it allowed, or run as a superuser. "
            f"What was refused: {first.command}"
        )
    for entries in steps.indexes.values():
        attempt.make(entries)
    with without_default_privileges(connection), room_for_owners(connection, context.owners):
        attempt.make(steps.own)
    attempt.grant(steps.own)
    return attempt.refused + _on_closed_tables(connection, context, dump, steps)


def _on_closed_tables(connection: Any, context: Context, dump: SchemaDump, steps: Steps) -> list[Refused]:
    """What hangs on surviving tables of owners that we cannot stand in for."""
    by_address = {(item["classid"], item["objid"]): item for item in context.plan["objects"]}
    by_id = {entry.dump_id: entry for entry in dump.entries}
    session = context.side.connect(context.side_database)
    try:
        entries = [*steps.others, *steps.foreign_keys]
        ids = [entry.oid for entry in entries]
        tables: dict[int, set[int]] = {}
        for entry in entries:
            item: Mapping[str, Any] = by_address.get((entry.catalog, entry.oid), {})
            needed = [by_id[number] for number in entry.depends if number in by_id]
            found = {needs.oid for needs in needed if needs.description == "TABLE"}
            found.add(item.get("index_of") or item.get("relation") or 0)
            tables[entry.dump_id] = found - {0}
        for row in rows(session, REFERENCED, (ids,)):
            for entry in steps.foreign_keys:
                if entry.oid == row["oid"]:
                    tables[entry.dump_id].add(row["other"])
        names = rows(session, NAMES_OF, (sorted({oid for oids in tables.values() for oid in oids}),))
    finally:
        session.close()
    asked = {
        "oids": [item["oid"] for item in names],
        "schemas": [item["schema"] for item in names],
        "names": [item["name"] for item in names],
    }
    closed = {row["oid"] for row in rows(connection, CLOSED_TABLES, asked)}
    reason = f"it hangs on a table of a superuser (role {user_of(connection)} is none)"
    return [
        Refused(entry, dump.identity(entry), reason, statements_of(dump.script([entry])))
        for entry in entries
        if not tables[entry.dump_id].isdisjoint(closed)
    ]


def _without(plan: dict[str, Any], refused: Sequence[Refused]) -> dict[str, Any]:
    addresses = {(item.entry.catalog, item.entry.oid) for item in refused}
    return {
        **plan,
        "objects": [item for item in plan["objects"] if (item["classid"], item["objid"]) not in addresses],
        "left_out": [[item.entry.description, item.entry.label] for item in refused if not item.entry.catalog],
        "left_to_do": [*plan["left_to_do"], *(item.left() for item in refused)],
    }
