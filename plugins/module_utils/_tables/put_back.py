# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of tables that production has: those linked by foreign keys go back together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import Locks, patiently
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.references import linked, outgoing_keys
from ansible_collections.dbre.recovery.plugins.module_utils._tables.beside import CopyBeside
from ansible_collections.dbre.recovery.plugins.module_utils._tables.existing import ExistingTable
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import Context
from ansible_collections.dbre.recovery.plugins.module_utils._tables.merge import merge_tables
from ansible_collections.dbre.recovery.plugins.module_utils._tables.replace import Exchange

# INSERT ... ON CONFLICT can meet one while a unique index is built CONCURRENTLY, as its manual warns.
UNIQUE_VIOLATION = "23505"


def existing_table(context: Context, relation: Mapping[str, Any], encoding: str) -> ExistingTable:
    """The table of one relation of a load plan, which production has."""
    kind = CopyBeside if relation["action"] == "beside" else ExistingTable
    return kind(context, relation, encoding)


def linked_tables(connection: Any, tables: Sequence[ExistingTable]) -> list[list[ExistingTable]]:
    """Those to be merged or replaced, in groups that no foreign key of production leads out of."""
    by_oid = {table.oid(connection): table for table in tables if table.relation["action"] != "beside"}
    keys = outgoing_keys(connection, list(by_oid))
    groups = linked(list(by_oid), [(key["root"], key["other_relation"]) for key in keys])
    return [[by_oid[oid] for oid in group] for group in groups]


def put_back(context: Context, tables: Sequence[ExistingTable]) -> None:
    """Merge or replace linked tables, whose copies are in staging, in one transaction."""
    context.watch.wait()
    connection = context.loading_session()
    locks = Locks(connection)
    try:
        if tables[0].relation["action"] == "replace":
            exchange = Exchange(tables)
            patiently(connection, partial(exchange.prepare, connection))
            patiently(connection, partial(exchange.run, connection, locks), locks=locks)
            patiently(connection, partial(exchange.finish, connection))
        else:
            patiently(connection, partial(merge_tables, connection, tables, locks), (UNIQUE_VIOLATION,), locks)
    finally:
        connection.close()


def finish_exchange(context: Context, tables: Sequence[ExistingTable]) -> None:
    """What a run that was killed after the rows were exchanged did not come to."""
    connection = context.loading_session()
    try:
        patiently(connection, partial(Exchange(tables).finish, connection))
    finally:
        connection.close()
