# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exchange the rows of tables that production has for those they had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import Direct, Owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.existing import ExistingTable, show_all
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.load import require_equal
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import Lock, Locks
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.owners import Owners, Parents, each_as_its_owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.references import (
    firing_triggers,
    hold_parents,
    incoming_keys,
    orphans,
    outgoing_keys,
    silence,
    source_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.replication import Unpublished
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name

SAMPLE = 5


def replace_tables(connection: Any, tables: Sequence[ExistingTable], locks: Locks) -> None:
    """Exchange the rows of linked tables, whose copies are in staging, in the caller's transaction with its locks."""
    mark(connection, tables[0].context.plan["incident"])
    execute(connection, "SET LOCAL session_replication_role = 'replica'")
    locks.take(Lock(table.true, "EXCLUSIVE", tree=table.own == table.true) for table in tables)
    for table in tables:
        table.check(connection)
    oids = [table.oid(connection) for table in tables]
    with each_as_its_owner(connection, oids) as owners:
        _exchange(connection, tables, oids, owners, locks)
    for table in tables:
        execute(connection, f"DROP TABLE {table.copy}")


def _exchange(
    connection: Any, tables: Sequence[ExistingTable], oids: Sequence[int], owners: Owners, locks: Locks
) -> None:
    whom = [owners.of(oid, table.schema) for oid, table in zip(oids, tables)]
    outgoing, incoming = outgoing_keys(connection, oids), incoming_keys(connection, oids)
    keys = {key["oid"]: key for key in [*outgoing, *incoming]}.values()
    others = {key[end] for key in keys for end in ("relation", "other_relation")}
    hide = show_all(connection, sorted({*oids, *others}), locks)
    # Writers wait for the lock that we have in any case.
    off, on = silence(firing_triggers(connection, oids))
    for statement in off:
        execute(connection, statement)
    replaced = [_put_aside(connection, table, owner) for table, owner in zip(tables, whom)]
    for table, owner in zip(tables, whom):
        # TRUNCATE would make readers wait to our end, and show older snapshots an empty table.
        owner.execute(f"DELETE FROM {table.own}")
    for table, owner in zip(tables, whom):
        owner.execute(table.insert_statement(owner.bring(table.staging, table.copy_name)))
    ours = {key["oid"] for key in outgoing}
    for key in keys:
        _require_parents(connection, tables, key, owners, key["oid"] in ours)
    for table, owner, (count, kept) in zip(tables, whom, replaced):
        loaded = owner.rows(fingerprint.checksum_query(table.own, table.copied_columns, connection.server_version))[0]
        require_equal(table.shown, table.recovered, loaded)
        table.set_sequences(connection)
        found = {
            "rows": loaded["rows"],
            "checksum_production": loaded["checksum"],
            "replaced": {"rows": count, "table": kept},
        }
        table.note(connection, found)
    for statement in [*on, *hide]:
        execute(connection, statement)


def _put_aside(connection: Any, table: ExistingTable, owner: Owner) -> tuple[int, str]:
    name = table.derived("_replaced")
    columns = ", ".join(f"{quote_ident(column['name'])} {column['type']}" for column in table.columns)
    execute(connection, f"CREATE TABLE {quote_name(table.staging, name)} ({columns})")
    hidden = Unpublished(connection, table.staging, quote_name(table.staging, name))
    inside = owner.bring(table.staging, name)
    owner.lend("TABLE", inside, ["INSERT"])
    fields = ", ".join(quote_ident(column["name"]) for column in table.columns)
    owner.execute(f"INSERT INTO {inside} SELECT {fields} FROM {table.own}")
    hidden.filled(inside)
    count = value(connection, f"SELECT count(*) FROM {inside}")
    return count, table.keep(connection, name, f"rows of {table.shown} that were there until they were replaced")


def _require_parents(
    connection: Any, tables: Sequence[ExistingTable], key: Mapping[str, Any], owners: Owners, ours: bool
) -> None:
    child = owners.of(key["relation"], key["schema"])
    parent = owners.of(key["other_relation"], key["other_schema"])
    if isinstance(child, Direct) and isinstance(parent, Direct):
        if ours:
            hold_parents(connection, key, source_of(key))
        condition = orphans(key)
    else:
        apart = Parents(connection, key, child, parent)
        apart.hold(source_of(key))
        condition = apart.orphans()
    orphaned = f"FROM {source_of(key)} f WHERE {condition}"
    count = child.value(f"SELECT count(*) {orphaned}")
    if count:
        fields = ", ".join(fingerprint.shown_text(f"f.{quote_ident(name)}") for name in key["columns"])
        sample = [list(row.values()) for row in child.rows(f"SELECT {fields} {orphaned} LIMIT {SAMPLE}")]
        raise RecoveryError(
            f"{', '.join(table.shown for table in tables)} on {host_name()} cannot be replaced by what it was: {count} "
            f"rows of {display_name(key['schema'], key['table'])} would break the foreign key {key['name']} "
            f"(for example {', '.join(quote_ident(name) for name in key['columns'])} = {sample[0]}). "
            "Nothing was changed. Run again with dr_load=merge or dr_load=beside and another incident id.",
            foreign_key=key["name"],
            rows=count,
            sample=sample,
        )
