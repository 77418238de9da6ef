# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exchange the rows of tables that production has for those they had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import force_statements
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import Direct
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import Lock, Locks
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.owners import Owners, Parents, each_as_its_owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.references import (
    firing_triggers,
    hold_parents,
    incoming_keys,
    match,
    orphans,
    outgoing_keys,
    silence,
    source_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.aside import Aside
from ansible_collections.dbre.recovery.plugins.module_utils._tables.existing import ExistingTable, show_all
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import require_equal

SAMPLE = 5


class Exchange:
    """The rows of linked tables, whose copies are in staging, exchanged for those they had.

    Only rows that are not as they were are touched; see aside.py for how they are found while nobody waits.
    """

    def __init__(self, tables: Sequence[ExistingTable]) -> None:
        self._tables = tables
        self._asides = [Aside(table) for table in tables]

    def prepare(self, connection: Any) -> None:
        """Do what takes long, in the caller's transaction; nothing where it would hold up readers."""
        _begin(connection, self._tables)
        oids = [table.oid(connection) for table in self._tables]
        if force_statements(connection, oids)[0] or force_statements(connection, oids, as_owner=True)[0]:
            return
        for table in self._tables:
            table.check(connection)
        with each_as_its_owner(connection, []) as owners:
            for oid, table, aside in zip(oids, self._tables, self._asides):
                owner = owners.of(oid, table.schema)
                aside.prepared = aside.fill(connection, owner, owner.bring(table.staging, table.copy_name))

    def run(self, connection: Any, locks: Locks) -> None:
        """Exchange the rows, in the caller's transaction with its locks, while nobody else writes to the tables."""
        tables = self._tables
        _begin(connection, tables)
        execute(connection, "SET LOCAL session_replication_role = 'replica'")
        locks.take(Lock(table.true, "EXCLUSIVE", tree=table.own == table.true) for table in tables)
        for table in tables:
            table.check(connection)
        oids = [table.oid(connection) for table in tables]
        with each_as_its_owner(connection, oids) as owners:
            self._exchange(connection, oids, owners, locks)
        for table, aside in zip(tables, self._asides):
            execute(connection, f"DROP TABLE {table.copy}")
            aside.drop_compared(connection)

    def _exchange(self, connection: Any, oids: Sequence[int], owners: Owners, locks: Locks) -> None:
        tables, asides = self._tables, self._asides
        whom = [owners.of(oid, table.schema) for oid, table in zip(oids, tables)]
        outgoing, incoming = outgoing_keys(connection, oids), incoming_keys(connection, oids)
        keys = {key["oid"]: key for key in [*outgoing, *incoming]}
        others = {key[end] for key in keys.values() for end in ("relation", "other_relation")}
        hide = show_all(connection, sorted({*oids, *others}), locks)
        # Writers wait for the lock that we have in any case.
        off, on = silence(firing_triggers(connection, oids))
        for statement in off:
            execute(connection, statement)
        copies = [owner.bring(table.staging, table.copy_name) for table, owner in zip(tables, whom)]
        for aside, owner, copy in zip(asides, whom, copies):
            aside.catch_up(connection, owner, copy)
        removed = {
            oid: aside.remove(connection, owner, _columns(incoming, oid, "other_columns"))
            for oid, aside, owner in zip(oids, asides, whom)
        }
        for oid, aside, owner, copy in zip(oids, asides, whom, copies):
            aside.write(connection, owner, copy, _columns(outgoing, oid, "columns"))
        ours = str(value(connection, "SELECT pg_catalog.pg_current_xact_id()::xid::text"))
        from_us, to_us = ({key["oid"] for key in found} for found in (outgoing, incoming))
        for key in keys.values():
            held = key["oid"] in from_us
            children = [self._written(key, oids, ours)] if held else []
            if key["oid"] in to_us and removed.get(key["root"], any(removed.values())):
                children.append(self._pointing(key, oids, owners))
            if children:
                _require_parents(connection, tables, key, owners, f"({' UNION ALL '.join(children)})", held)
        for table, aside, owner in zip(tables, asides, whom):
            loaded = aside.content(connection, owner, ours)
            require_equal(table.shown, table.recovered, loaded)
            table.set_sequences(connection)
            what = f"rows of {table.shown} that were there until they were replaced"
            kept = table.keep(connection, table.derived("_replaced"), what)
            found = {
                "rows": loaded["rows"],
                "checksum_production": loaded["checksum"],
                "replaced": {"rows": aside.count(), "table": kept},
            }
            table.note(connection, found)
        for statement in [*on, *hide]:
            execute(connection, statement)

    def _written(self, key: Mapping[str, Any], oids: Sequence[int], ours: str) -> str:
        """Query: columns of a foreign key in the rows that we wrote."""
        aside = dict(zip(oids, self._asides)).get(key["relation"])
        if aside is not None:
            return f"SELECT {_fields(key)} FROM {aside.inside('_written')} f"
        return f"SELECT {_fields(key)} FROM {source_of(key)} f WHERE f.xmin = '{ours}'::xid"

    def _pointing(self, key: Mapping[str, Any], oids: Sequence[int], owners: Owners) -> str:
        """Query: columns of a foreign key in rows that may point to what was removed, and may be there again."""
        parent = dict(zip(oids, self._asides)).get(key["root"])
        query = f"SELECT {_fields(key)} FROM {source_of(key)} f"
        if parent is None or not _are_direct(key, owners):
            return query
        return f"{query} WHERE EXISTS (SELECT FROM {parent.inside('_removed')} t WHERE {match(key)})"

    def finish(self, connection: Any) -> None:
        """Make the tables that stay, in the caller's transaction; what a killed run did not come to."""
        _begin(connection, self._tables)
        for aside in self._asides:
            aside.finish(connection)


def _begin(connection: Any, tables: Sequence[ExistingTable]) -> None:
    context = tables[0].context
    mark(connection, context.plan["incident"])
    # What is looked at while writers wait was just read; it must not go through files.
    execute(connection, "SET LOCAL random_page_cost = 1")
    execute(connection, "SELECT pg_catalog.set_config('work_mem', %s, true)", (context.maintenance_work_mem,))


def _columns(keys: Sequence[Mapping[str, Any]], oid: int, end: str) -> list[str]:
    """Columns of a table that foreign keys have at one ``end``."""
    return sorted({name for key in keys if key["root"] == oid for name in key[end]})


def _fields(key: Mapping[str, Any]) -> str:
    return ", ".join(f"f.{quote_ident(name)}" for name in key["columns"])


def _are_direct(key: Mapping[str, Any], owners: Owners) -> bool:
    """Whether no table of a foreign key runs code of users."""
    ends = (owners.of(key["relation"], key["schema"]), owners.of(key["other_relation"], key["other_schema"]))
    return all(isinstance(owner, Direct) for owner in ends)


def _require_parents(
    connection: Any, tables: Sequence[ExistingTable], key: Mapping[str, Any], owners: Owners, source: str, ours: bool
) -> None:
    """Raise RecoveryError when rows of ``source`` (SQL, with the columns of a foreign key) would break it."""
    child = owners.of(key["relation"], key["schema"])
    if _are_direct(key, owners):
        if ours:
            hold_parents(connection, key, source)
        condition = orphans(key)
    else:
        apart = Parents(connection, key, child, owners.of(key["other_relation"], key["other_schema"]))
        apart.hold(source)
        condition = apart.orphans()
    orphaned = f"FROM {source} f WHERE {condition}"
    count = child.value(f"SELECT count(*) {orphaned}")
    if count:
        # Columns without names would overwrite each other in a row.
        shown = (fingerprint.shown_text(f"f.{quote_ident(name)}") for name in key["columns"])
        fields = ", ".join(f"{text} AS c{number}" for number, text in enumerate(shown))
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
