# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of several owners in one transaction, each touched as its own, so that none gets at what is another's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import (
    Direct,
    Owner,
    acting_as_owner,
    is_another,
    may_open,
    needs_cage,
    owner_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import is_given, quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.references import (
    checked,
    has_parent,
    match,
    parent_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.users_code import (
    runs_others_code,
    runs_users_code,
)

PRIVILEGES = ["SELECT", "INSERT", "UPDATE", "DELETE"]


class Owners:
    """Whom to be for each table, in the caller's transaction."""

    def __init__(self, connection: Any, stack: ExitStack, held: Iterable[int]) -> None:
        self._connection = connection
        self._stack = stack
        self._held = set(held)
        self._known: dict[int, Owner] = {}

    def of(self, oid: int, schema: str) -> Owner:
        """Who touches a table. One that is not held by a lock may get users' code at any moment, so it has some."""
        if oid not in self._known:
            self._known[oid] = self._find(oid, schema)
        return self._known[oid]

    def _find(self, oid: int, schema: str) -> Owner:
        direct = Direct(self._connection)
        if not is_another(self._connection, owner_of(self._connection, oid)):
            if not runs_others_code(self._connection, oid):
                return direct
            return self._stack.enter_context(acting_as_owner(self._connection, oid, schema, PRIVILEGES))
        # Who may read a table but is no member of its owner has no cage for its code, and few rights to lose.
        sure = oid in self._held or not may_open(self._connection, oid)
        if sure and not runs_users_code(self._connection, oid):
            return direct
        return self._stack.enter_context(acting_as_owner(self._connection, oid, schema, PRIVILEGES))


@contextmanager
def each_as_its_owner(connection: Any, held: Iterable[int]) -> Iterator[Owners]:
    """Act as the owners of tables, of which those ``held`` are locked against changes of their definitions."""
    with ExitStack() as stack:
        yield Owners(connection, stack, held)


def hold_definitions(connection: Any, tables: Iterable[str]) -> None:
    """Lock tables (SQL) so that they get no new code of users; only vacuum and DDL wait for it."""
    execute(connection, f"LOCK TABLE {', '.join(tables)} IN SHARE UPDATE EXCLUSIVE MODE")


def runs_as_owner(connection: Any, tables: Iterable[str]) -> bool:
    """Whether what is checked on the rows of several tables (SQL) must be done as an owner, until our commit."""
    names = list(tables)
    hold_definitions(connection, names)
    query = "SELECT pg_catalog.to_regclass(name)::oid::int8 AS oid FROM unnest(%s::text[]) AS name"
    return any(needs_cage(connection, row["oid"]) for row in rows(connection, query, (names,)))


class Parents:
    """The values of a foreign key that have a parent, where one of both tables has users' code.

    Each owner reads his own table only: what the child's rows point to, and which of that is there.
    """

    def __init__(self, connection: Any, key: Mapping[str, Any], child: Owner, parent: Owner) -> None:
        self._connection = connection
        self._key = key
        self._child, self._parent = child, parent
        home = parent if isinstance(child, Direct) else child
        self._wanted, self._found = (f"{home.schema}.{what}_{key['oid']}" for what in ("wanted", "found"))
        types = {
            item["name"]: item["type"]
            for item in fingerprint.columns_of(connection, [key["relation"]])[key["relation"]]
        }
        fields = ", ".join(f"{quote_ident(name)} {types[name]}" for name in key["columns"])
        for name, writer, reader in ((self._wanted, child, parent), (self._found, parent, child)):
            execute(connection, f"CREATE UNLOGGED TABLE {name} ({fields})")
            # Default privileges may have taken even from us what is ours.
            execute(connection, f"GRANT ALL ON {name} TO CURRENT_USER")
            for owner, privilege in ((writer, "INSERT"), (reader, "SELECT")):
                owner.lend("SCHEMA", quote_ident(home.schema), ["USAGE"])
                owner.lend("TABLE", name, [privilege])

    def hold(self, rows_of: str) -> None:
        """Lock the rows that the foreign key of ``rows_of`` points to, so that they stay until our commit."""
        key = self._key
        fields = ", ".join(quote_ident(name) for name in key["columns"])
        self._child.execute(
            f"INSERT INTO {self._wanted} SELECT DISTINCT {fields} FROM {rows_of} f WHERE {_present(key)}"
        )
        self._parent.execute(
            f"SELECT count(*) FROM (SELECT FROM {parent_of(key)} t "
            f"WHERE EXISTS (SELECT FROM {self._wanted} f WHERE {match(key)}) FOR KEY SHARE) AS held"
        )
        self.look()

    def look(self) -> None:
        """Find anew which parents are there."""
        key = self._key
        fields = ", ".join(quote_ident(name) for name in key["columns"])
        execute(self._connection, f"DELETE FROM {self._found}")
        self._parent.execute(f"INSERT INTO {self._found} SELECT {fields} FROM {self._wanted} f WHERE {has_parent(key)}")

    def orphans(self) -> str:
        """Condition on rows ``f`` of the child: their foreign key points nowhere."""
        mine, found = (", ".join(f"{row}.{quote_ident(name)}" for name in self._key["columns"]) for row in ("f", "p"))
        same = f'ROW({found})::text COLLATE "C" = ROW({mine})::text COLLATE "C"'
        return f"{checked(self._key)} AND NOT EXISTS (SELECT FROM {self._found} p WHERE {same})"


def _present(key: Mapping[str, Any]) -> str:
    return " AND ".join(is_given("f." + quote_ident(name)) for name in key["columns"])
