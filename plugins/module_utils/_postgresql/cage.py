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

A table of a superuser, or of the role that we are, may use code of others: a domain, a function in an index. There a
role stands in for its owner that is made for this, owns the table as long as its rows are touched, and is gone before
anybody else can see it.
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
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.users_code import (
    OTHERS,
    others_have_code,
    relations_of_view,
    runs_others_code,
    runs_users_code,
    view_runs_others_code,
)

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
IS_SUPERUSER = "SELECT pg_catalog.current_setting('is_superuser')::bool"
MAY_MAKE_ROLES = "SELECT rolsuper OR rolcreaterole FROM pg_catalog.pg_roles WHERE rolname = current_user"
# Nobody waits for us longer because a table that we have locked whole gets another owner for a moment.
LOCKED = """
SELECT 1 FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid() AND locktype = 'relation' AND granted
  AND mode = 'AccessExclusiveLock' AND relation = %s::oid
"""
# What a role must look into that uses the code of others and the columns' types by their names.
SCHEMAS_OF_CODE = f"""
SELECT DISTINCT n.nspname AS name FROM (
  SELECT pronamespace AS oid FROM pg_catalog.pg_proc WHERE proowner IN ({OTHERS})
  UNION SELECT typnamespace FROM pg_catalog.pg_type WHERE typtype = 'd' AND typowner IN ({OTHERS})
  UNION SELECT t.typnamespace FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid IN (SELECT pg_catalog.to_regclass(name) FROM unnest(%s::text[]) AS name)
          AND a.attnum > 0 AND t.oid >= 16384
) AS used JOIN pg_catalog.pg_namespace n ON n.oid = used.oid
"""
SECURED = "SELECT relrowsecurity FROM pg_catalog.pg_class WHERE oid = %s::oid"
REGCLASS = "SELECT pg_catalog.to_regclass(%s)::oid::int8"
# Who may do what with a relation, and what is done with the rights of its owner.
STATE = """
SELECT c.oid::int8 AS oid, c.relacl::text AS grants, c.relrowsecurity AS secured, c.relforcerowsecurity AS forced,
       ARRAY(SELECT a.attnum || ' ' || a.attacl::text FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL ORDER BY a.attnum) AS columns,
       ARRAY(SELECT (pg_catalog.to_jsonb(t) - 'tgname')::text FROM pg_catalog.pg_trigger t
             WHERE t.tgrelid = c.oid AND NOT t.tgisinternal ORDER BY t.oid) AS triggers,
       ARRAY(SELECT pg_catalog.to_jsonb(p)::text FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid ORDER BY p.oid)
         AS policies,
       ARRAY(SELECT pg_catalog.to_jsonb(r)::text FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid ORDER BY r.oid)
         AS rules
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)
"""
MADE = {
    "TABLE": """
SELECT 1 FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)
   AND pg_catalog.pg_get_userbyid(c.relowner) = %s
""",
    "STATISTICS": """
WITH given AS (SELECT %s::text AS name, %s::text AS role)
SELECT 1 FROM given, pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
WHERE pg_catalog.pg_get_userbyid(s.stxowner) = given.role AND given.name IN (
  pg_catalog.format('%%I.%%I', n.nspname, s.stxname),
  '"' || pg_catalog.replace(n.nspname, '"', '""') || '"."' || pg_catalog.replace(s.stxname, '"', '""') || '"')
""",
}
# What a relation has not when it was just made.
DRESSED_UP = """
SELECT c.relacl IS NOT NULL OR c.relrowsecurity OR EXISTS (SELECT FROM pg_catalog.pg_policy WHERE polrelid = c.oid)
    OR EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL)
    OR EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)
    OR EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid
               AND (r.rulename <> '_RETURN' OR c.relkind NOT IN ('v', 'm')))
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)
"""
REFUSAL = """
DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = {}; END $$
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


def needs_cage(connection: Any, oid: int, written: bool = True) -> bool:
    """Whether touching rows of a relation may run what another than we or a superuser wrote; see runs_users_code()."""
    another = is_another(connection, owner_of(connection, oid))
    return (runs_users_code if another else runs_others_code)(connection, oid, written)


def needs_standing_in(connection: Any, oid: int) -> bool:
    """Whether a relation is ours or a superuser's, and touching it may run what others wrote."""
    return not is_another(connection, owner_of(connection, oid)) and runs_others_code(connection, oid)


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


class StandIn(Caged):
    """SQL as a role that is made for it, in place of an owner who is a superuser or ours."""

    def __init__(self, connection: Any, owner: str) -> None:
        super().__init__(connection, f"{PREFIX}{secrets.token_hex(8)}")
        self.owner = owner
        self._taken: list[tuple[str, str, list[dict[str, Any]]]] = []
        self._making: list[tuple[str, str]] = []

    def open(self) -> None:
        """Make the role, too."""
        if not queries.value(self.connection, MAY_MAKE_ROLES):
            raise RecoveryError(
                f"what belongs to role {self.owner} uses domains or functions of others, whose code would run with its "
                "rights; to keep it from that takes a role made for the purpose, which only a superuser or a role with "
                "CREATEROLE can make. Nothing was changed. Run again with the same incident id as such a role, or "
                "have those functions and domains belong to that role (ALTER DOMAIN ... OWNER TO ...)"
            )
        role = quote_ident(self.role)
        queries.execute(self.connection, f"CREATE ROLE {role} NOLOGIN NOINHERIT")
        if not queries.value(self.connection, IS_SUPERUSER):
            # Since PostgreSQL 16 who makes a role may grant it, but not become it before.
            queries.execute(self.connection, f"GRANT {role} TO CURRENT_USER")
        super().open()

    def look_into(self, tables: Sequence[str]) -> None:
        """See the types of the columns of tables (SQL), and what others made."""
        for row in queries.rows(self.connection, SCHEMAS_OF_CODE, (list(tables),)):
            self.lend("SCHEMA", quote_ident(row["name"]), ["USAGE"])

    def take(self, table: str) -> None:
        """Own a table (SQL), if there is such a one, until the end; refused by the server where others would wait."""
        oid = queries.value(self.connection, REGCLASS, (table,))
        if oid is None:
            return
        before = owner_of(self.connection, oid)
        if not queries.value(self.connection, LOCKED, (oid,)):
            refuse(
                self.connection,
                f"code of other roles that {table} uses would run with the rights of its owner {before}, or all others "
                "would wait for as long as it takes to keep it from that",
            )
        if not queries.value(self.connection, IS_SUPERUSER):
            self.lend("SCHEMA", schema_of(self.connection, oid), ["USAGE", "CREATE"])
        queries.execute(self.connection, f"ALTER TABLE {table} OWNER TO {quote_ident(self.role)}")
        self._taken.append((table, before, queries.rows(self.connection, STATE, (table,))))

    def will_make(self, kind: str, name: str) -> None:
        """Give to the owner, at the end, a ``TABLE`` or the like, or ``STATISTICS``, (SQL) that is made meanwhile."""
        self._making.append((kind, name))

    def close(self) -> None:
        """Give back what was taken, and to the owner what was to be made; whatever else the code made is removed."""
        super().close()
        role = quote_ident(self.role)
        for table, before, state in reversed(self._taken):
            if queries.rows(self.connection, STATE, (table,)) != state:
                self._was_tampered_with(table)
            queries.execute(self.connection, f"ALTER TABLE {table} OWNER TO {quote_ident(before)}")
        for kind, name in self._making:
            if queries.value(self.connection, MADE[kind], (name, self.role)) is None:
                continue
            if kind == "TABLE" and queries.value(self.connection, DRESSED_UP, (name,)):
                self._was_tampered_with(name)
            queries.execute(self.connection, f"ALTER {kind} {name} OWNER TO {quote_ident(self.owner)}")
        queries.execute(self.connection, f"DROP OWNED BY {role}")
        queries.execute(self.connection, f"DROP ROLE {role}")

    def _was_tampered_with(self, table: str) -> None:
        raise RecoveryError(
            f"code of other roles that {table} uses changed who may do what with it (a grant, a rule, a policy or a "
            "trigger) while it was recovered. Nothing of that was kept. Look at the functions and domains of others "
            "that it uses before anything else."
        )


def refuse(connection: Any, why: str) -> None:
    """Have the server refuse what must not be done, as it does for lack of a privilege."""
    queries.execute(connection, REFUSAL.format(quote_literal(why)))


def view_needs_cage(connection: Any, view: str) -> bool:
    """Whether a materialized view (SQL) of a superuser's, or of ours, cannot be filled without code of others."""
    oid = int(queries.value(connection, "SELECT pg_catalog.to_regclass(%s)::oid::int8", (view,)))
    if is_another(connection, owner_of(connection, oid)):
        return False
    tables = [row["oid"] for row in relations_of_view(connection, oid) if row["relkind"] != "v"]
    return view_runs_others_code(connection, oid) or any(needs_cage(connection, oid, written=False) for oid in tables)


def lend_what_is_read(connection: Any, owner: Owner, view: str) -> None:
    """Let a role read what a materialized view (SQL) reads; RecoveryError where row security hides rows from it."""
    oid = int(queries.value(connection, "SELECT pg_catalog.to_regclass(%s)::oid::int8", (view,)))
    for row in relations_of_view(connection, oid):
        if row["relrowsecurity"]:
            raise RecoveryError(
                f"materialized view {view} belongs to a superuser and runs code of others, which would have a "
                f"superuser's rights; as anybody else not all rows of {row['name']} could be read. Before the next "
                "dump, have the view belong to a role that is no superuser"
            )
        owner.lend("SCHEMA", schema_of(connection, row["oid"]), ["USAGE"])
        owner.lend("TABLE", row["name"], ["SELECT"])


def schema_of(connection: Any, oid: int) -> str:
    """The schema (SQL) of a relation."""
    query = (
        "SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.oid = %s::oid"
    )
    return quote_ident(str(queries.value(connection, query, (oid,))))


def _plain(kind: str, name: str) -> str:
    """What the server's functions take: a schema or tablespace by its name itself, a table as SQL writes it."""
    return name if kind == "TABLE" else name[1:-1].replace('""', '"')


@contextmanager
def acting_as(
    connection: Any, role: str, schemas: Sequence[str] = (), instead: Sequence[str] | None = None
) -> Iterator[Owner]:
    """Act as ``role``, who may look into ``schemas`` (names), in the caller's transaction, which must be rolled back
    when this raises.

    In place of a role from whom nothing is kept, another owns the tables ``instead`` (SQL) meanwhile.
    """
    if is_another(connection, role):
        owner: Owner = Caged(connection, role)
    else:
        owner = Owner(connection, role) if instead is None else StandIn(connection, role)
    owner.open()
    for schema in schemas:
        owner.lend("SCHEMA", quote_ident(schema), ["USAGE"])
    if isinstance(owner, StandIn):
        for table in instead or ():
            owner.take(table)
        owner.look_into(instead or ())
    yield owner
    owner.close()


@contextmanager
def owned_by_nobody_else(connection: Any, table: str, queue: str, will: bool) -> Iterator[None]:
    """Have a table (SQL) that we have locked whole belong to a role whose code, and that of others, has no rights.

    Unless it does anyway, or runs nothing of others and ``will`` not, by what is made on it meanwhile. Sessions of ours
    that do this side by side wait for each other at ``queue``, a table (SQL) that nobody else may lock, since they
    would meet in the same rows of catalogues.
    """
    oid = int(queries.value(connection, "SELECT pg_catalog.to_regclass(%s)::oid::int8", (table,)))
    role = owner_of(connection, oid)
    if is_another(connection, role) or not (will or runs_others_code(connection, oid)):
        yield
        return
    limit = queries.value(connection, "SELECT pg_catalog.current_setting('lock_timeout')")
    queries.execute(connection, "SET LOCAL lock_timeout = 0")
    queries.execute(connection, f"LOCK TABLE {queue} IN SHARE UPDATE EXCLUSIVE MODE")
    queries.execute(connection, "SELECT pg_catalog.set_config('lock_timeout', %s, true)", (limit,))
    with acting_as(connection, role, instead=[table]):
        yield


def execute_as_owner(connection: Any, table: str, statement: str, referenced: str | None = None) -> None:
    """Run a statement about a table (SQL) that may run code of its owner, in the caller's transaction.

    He may have a foreign key to the table ``referenced`` for which he would have no right any more; the key that comes
    back gives him no less.
    """
    found = queries.rows(connection, NAMED, (table,))
    if not found:
        queries.execute(connection, statement)
        return
    instead = [table] if others_have_code(connection) else None
    with acting_as(connection, found[0]["owner"], [found[0]["schema"]], instead) as owner:
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
        role = owner_of(connection, oid)
        name = str(queries.value(connection, "SELECT %s::oid::regclass::text", (oid,)))
        instead: list[str] | None = None
        if needs_standing_in(connection, oid):
            # Who stands in for him needs to own the table only where row security would bind him.
            instead = [name] if queries.value(connection, SECURED, (oid,)) else []
            for table in instead:
                queries.execute(connection, f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        owner = stack.enter_context(acting_as(connection, role, [schema], instead))
        if isinstance(owner, StandIn):
            owner.look_into([name])
        owner.lend("TABLE", name, privileges)
        forced = isinstance(owner, Caged) and queries.value(connection, FORCED, (oid,))
        if forced:
            queries.execute(connection, f"ALTER TABLE ONLY {name} NO FORCE ROW LEVEL SECURITY")
        yield owner
        if forced:
            queries.execute(connection, f"ALTER TABLE ONLY {name} FORCE ROW LEVEL SECURITY")
