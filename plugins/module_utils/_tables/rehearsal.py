# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find out what a role that is no superuser may not make, and whom others will wait for, before it matters."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import (
    INSUFFICIENT_PRIVILEGE,
    is_superuser,
    room_for_owners,
    try_to_become,
    user_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server, host_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import Attempt, Refused, make_early
from ansible_collections.dbre.recovery.plugins.module_utils._tables.default_privileges import (
    without_default_privileges,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.event_triggers import silence_event_triggers
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import Context, encoding_of
from ansible_collections.dbre.recovery.plugins.module_utils._tables.publish import (
    Steps,
    steps_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.put_back import existing_table
from ansible_collections.dbre.recovery.plugins.module_utils._tables.tablespaces import without_home
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import SchemaDump, statements_of
from ansible_collections.dbre.recovery.plugins.module_utils._tables.waits import waits_of

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


def rehearse(production: Server, side: Server, plan: dict[str, Any]) -> dict[str, Any]:
    """The plan with the waits for it, without what this role may not make, which is left to do.

    Refuses a plan that cannot work at all.

    Makes the lost objects, without their rows, in a transaction that is rolled back. What production uses is not
    touched, and so not locked: for things on surviving tables it is enough to be their owner.
    """
    if plan["staging_database"] or "left_out" in plan:
        return plan
    plan = {**plan, "waits": waits_of(production, side, plan)}
    if plan["missing_roles"] or plan["missing_memberships"]:
        return plan
    connection = production.connect(plan["database"])
    directory = tempfile.mkdtemp(prefix="dbre-recovery-")
    try:
        plan = {**plan, "left_out": []}
        silence_event_triggers(connection)
        if is_superuser(connection):
            return plan
        context = Context(production, side, plan)
        try_to_become(connection, context.roles)
        for item in plan["relations"]:
            if item["action"] in ("merge", "replace"):
                existing_table(context, item, encoding_of(connection)).check(connection)
        if not plan["objects"]:
            return plan
        dump = SchemaDump(side, context.side_database, directory)
        session = side.connect(context.side_database)
        try:
            dump.without_home = without_home(session, plan["missing_tablespaces"])
        finally:
            session.close()
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
    forbidden = [item for item in attempt.refused if item.sqlstate == INSUFFICIENT_PRIVILEGE]
    if forbidden:
        first = forbidden[0]
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
    # What does not fit is left to the recovery, which tries more than this.
    refused: list[Refused] = []
    for item in attempt.refused:
        if item.sqlstate == INSUFFICIENT_PRIVILEGE or any(
            other.entry.dump_id in item.entry.depends for other in refused
        ):
            refused.append(item)
    return refused + _on_closed_tables(connection, context, dump, steps)


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
