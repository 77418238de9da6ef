# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Act as the owner of a table, without a way out for the code that the owner put there.

Whoever writes rows of a table runs its checks, its types and its index expressions, and whoever only plans a query on
it runs the constant parts of these, all as himself. SET ROLE is no cage, since that code may RESET ROLE; nor is a
SECURITY DEFINER function, which may leave a cursor WITH HOLD or a deferred trigger behind that runs as us at commit.
REFRESH MATERIALIZED VIEW is one: the server runs it as the view's owner in a security-restricted operation, in which
all of that is refused and all settings end with it (RefreshMatViewByOid() in src/backend/commands/matview.c,
GetUserIdAndSecContext() in src/backend/utils/init/miscinit.c). So the SQL stands in a function, which a materialized
view calls that belongs to the owner.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import queries
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    quote_ident,
    quote_literal,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.settings import SAFE_PATH
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.users_code import runs_users_code

# Schemas that are gone before anybody else can see them.
PREFIX = "dbre_cage_"

OWNER = """
SELECT r.rolname AS owner FROM pg_catalog.pg_class c JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
WHERE c.oid = %s::oid
"""
OF_OTHERS = """
SELECT NOT r.rolsuper AND r.rolname <> current_user FROM pg_catalog.pg_roles r WHERE r.rolname = %s
"""
NAMED = """
SELECT pg_catalog.pg_get_userbyid(c.relowner) AS owner, n.nspname AS schema FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = pg_catalog.to_regclass(%s)
"""
FORCED = "SELECT relrowsecurity AND relforcerowsecurity FROM pg_catalog.pg_class WHERE oid = %s::oid"
MAY_OPEN = """
SELECT NOT pg_catalog.current_setting('transaction_read_only')::bool
   AND pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
   AND pg_catalog.pg_has_role(relowner, 'USAGE') AND pg_catalog.pg_has_role(relowner, 'MEMBER')
FROM pg_catalog.pg_class WHERE oid = %s::oid
"""
DRESSED = """
SELECT 1 FROM pg_catalog.pg_index WHERE indrelid = pg_catalog.to_regclass(%s)
UNION ALL SELECT 1 FROM pg_catalog.pg_statistic_ext WHERE stxrelid = pg_catalog.to_regclass(%s)
"""
LACKING = {
    "SCHEMA": "SELECT NOT pg_catalog.has_schema_privilege(%s::name, %s, %s)",
    "TABLE": "SELECT NOT pg_catalog.has_table_privilege(%s::name, %s, %s)",
    "TABLESPACE": "SELECT NOT pg_catalog.has_tablespace_privilege(%s::name, %s, %s)",
}


def owner_of(connection: Any, oid: int) -> str:
    """The role that a relation belongs to."""
    return str(queries.value(connection, OWNER, (oid,)))


def is_another(connection: Any, role: str) -> bool:
    """Whether the code of a role must be kept from acting as us: all but our own and that of superusers."""
    return bool(queries.value(connection, OF_OTHERS, (role,)))


def needs_cage(connection: Any, oid: int) -> bool:
    """Whether touching rows of a relation may run what another than we or a superuser wrote; see runs_users_code()."""
    return is_another(connection, owner_of(connection, oid)) and runs_users_code(connection, oid)


def may_open(connection: Any, oid: int) -> bool:
    """Whether we can act as the owner of a relation without its code acting as us."""
    return bool(queries.value(connection, MAY_OPEN, (oid,)))


class Owner:
    """SQL as a role that is ours or a superuser, from whom nothing is kept."""

    def __init__(self, connection: Any, role: str) -> None:
        self.connection = connection
        self.role = role
        self.schema = f"{PREFIX}{secrets.token_hex(8)}"
        self._lent: list[str] = []

    def open(self) -> None:
        """Make room for tables of ours that the role may be let see, in the caller's transaction."""
        queries.execute(self.connection, f"CREATE SCHEMA {self.schema}")

    def close(self) -> None:
        """Remove everything."""
        for statement in reversed(self._lent):
            queries.execute(self.connection, statement)
        queries.execute(self.connection, f"DROP SCHEMA {self.schema} CASCADE")

    def lend(self, kind: str, name: str, privileges: Sequence[str]) -> None:
        """Let the role use a ``TABLE`` or ``SCHEMA`` (an SQL name), where it may not, until the end."""
        for privilege in privileges:
            if queries.value(self.connection, LACKING[kind], (self.role, _plain(kind, name), privilege)):
                role = quote_ident(self.role)
                queries.execute(self.connection, f"GRANT {privilege} ON {kind} {name} TO {role}")
                if PREFIX not in name:
                    self._lent.append(f"REVOKE {privilege} ON {kind} {name} FROM {role}")

    def bring(self, schema: str, name: str) -> str:
        """Bring a table of ours where the role may read it, until the end; its SQL name there."""
        inside = f"{self.schema}.{quote_ident(name)}"
        queries.execute(self.connection, f"ALTER TABLE {quote_name(schema, name)} SET SCHEMA {self.schema}")
        self._lent.append(f"ALTER TABLE {inside} SET SCHEMA {quote_ident(schema)}")
        if is_another(self.connection, self.role):
            self.lend("TABLE", inside, ["SELECT"])
            self._lent.append(f"REVOKE ALL ON {inside} FROM {quote_ident(self.role)}")
        return inside

    def execute(self, statement: str, search_path: str = "") -> None:
        """Run statements."""
        if search_path:
            self._set_path(search_path)
        queries.execute(self.connection, statement)
        if search_path:
            self._set_path(SAFE_PATH)

    def execute_each(self, scripts: Sequence[str]) -> None:
        """Run scripts. Code that one of them runs does not change what names mean in the next."""
        path = f"SELECT pg_catalog.set_config('search_path', {quote_literal(SAFE_PATH)}, true);\n"
        self.execute("\n;".join(f"{path}{script}" for script in scripts))

    def _set_path(self, path: str) -> None:
        queries.execute(self.connection, "SELECT pg_catalog.set_config('search_path', %s, true)", (path,))

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Result of a query whose columns are numbers and text."""
        return queries.rows(self.connection, query)

    def value(self, query: str) -> Any:
        """First column of the first row; None when there is no row."""
        return next((next(iter(row.values())) for row in self.rows(query)), None)


class Direct(Owner):
    """SQL as we are, on what runs no code of others."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection, "")

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def lend(self, kind: str, name: str, privileges: Sequence[str]) -> None:
        pass

    def bring(self, schema: str, name: str) -> str:
        return quote_name(schema, name)


class Caged(Owner):
    """SQL as a role whose code must stay its own."""

    def open(self) -> None:
        """Make the function and the view, which nobody sees before the end of the caller's transaction."""
        super().open()
        role, schema = quote_ident(self.role), self.schema
        # To be given something in a schema a role must be allowed to make it there, unless a superuser gives it.
        for statement in (
            f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}",
            f"CREATE FUNCTION {schema}.run() RETURNS json LANGUAGE sql AS 'SELECT NULL::json'",
            f"GRANT EXECUTE ON FUNCTION {schema}.run() TO {role}",
            f"CREATE MATERIALIZED VIEW {schema}.done AS SELECT {schema}.run() AS answer WITH NO DATA",
            f"ALTER MATERIALIZED VIEW {schema}.done OWNER TO {role}",
        ):
            queries.execute(self.connection, statement)

    def execute(self, statement: str, search_path: str = "") -> None:
        """Run statements, each as soon as those before it are done."""
        # Functions that the statements call see the path; their own names are all qualified.
        path = f"SELECT pg_catalog.set_config('search_path', {quote_literal(search_path)}, true);\n"
        self._run(f"{path if search_path else ''}{statement}\n;SELECT NULL::pg_catalog.json")

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Result of a query whose columns are numbers and text."""
        self._run(f"SELECT pg_catalog.json_agg(q) FROM ({query}) AS q")
        # The view is the role's. Its code cannot have changed it while it was in use, but may have given it an index,
        # of which the planning of our query would run a part.
        view = f"{self.schema}.done"
        if queries.value(self.connection, DRESSED, (view, view)) is not None:
            raise RecoveryError(
                f"code of role {self.role} tampered with the recovery while "
                "its rows were read. Nothing was changed. Look at the functions of that role before anything else."
            )
        return list(queries.value(self.connection, f"SELECT answer FROM {view}") or [])

    def _run(self, body: str) -> None:
        function = f"CREATE OR REPLACE FUNCTION {self.schema}.run() RETURNS json LANGUAGE sql AS"
        queries.execute(self.connection, f"{function} {quote_literal(body)}")
        queries.execute(self.connection, f"REFRESH MATERIALIZED VIEW {self.schema}.done")


def _plain(kind: str, name: str) -> str:
    """What the server's functions take: a schema or tablespace by its name itself, a table as SQL writes it."""
    return name if kind == "TABLE" else name[1:-1].replace('""', '"')


@contextmanager
def acting_as(connection: Any, role: str, schemas: Sequence[str] = ()) -> Iterator[Owner]:
    """Act as ``role``, who may look into ``schemas`` (names), in the caller's transaction, which must be rolled back
    when this raises."""
    owner = Caged(connection, role) if is_another(connection, role) else Owner(connection, role)
    owner.open()
    for schema in schemas:
        owner.lend("SCHEMA", quote_ident(schema), ["USAGE"])
    yield owner
    owner.close()


def execute_as_owner(connection: Any, table: str, statement: str, referenced: str | None = None) -> None:
    """Run a statement about a table (SQL) that may run code of its owner, in the caller's transaction.

    He may have a foreign key to the table ``referenced`` for which he would have no right any more; the key that comes
    back gives him no less.
    """
    found = queries.rows(connection, NAMED, (table,))
    if not found:
        queries.execute(connection, statement)
        return
    with acting_as(connection, found[0]["owner"], [found[0]["schema"]]) as owner:
        for other in queries.rows(connection, NAMED, (referenced,)):
            owner.lend("SCHEMA", quote_ident(other["schema"]), ["USAGE"])
            owner.lend("TABLE", str(referenced), ["REFERENCES"])
        owner.execute(statement)


@contextmanager
def acting_as_owner(connection: Any, oid: int, schema: str, privileges: Sequence[str] = ()) -> Iterator[Owner]:
    """Act as the owner of a relation in ``schema``, who may have taken ``privileges`` on it even from himself.

    Where row security binds even him, the table is locked until the end of the transaction.
    """
    with ExitStack() as stack:
        owner = stack.enter_context(acting_as(connection, owner_of(connection, oid), [schema]))
        name = str(queries.value(connection, "SELECT %s::oid::regclass::text", (oid,)))
        owner.lend("TABLE", name, privileges)
        forced = isinstance(owner, Caged) and queries.value(connection, FORCED, (oid,))
        if forced:
            queries.execute(connection, f"ALTER TABLE ONLY {name} NO FORCE ROW LEVEL SECURITY")
        yield owner
        if forced:
            queries.execute(connection, f"ALTER TABLE ONLY {name} FORCE ROW LEVEL SECURITY")
