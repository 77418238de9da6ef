# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make it hard to drop a table by mistake: an event trigger that refuses, and privileges taken from applications."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import (
    INSUFFICIENT_PRIVILEGE,
    become,
    give_back,
    server_message,
    user_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_literal,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.trusted import require_own_schema

SCHEMA = "dbre_protection"
REFUSE = "dbre_refuse_drop"
EXTENSION_BEGIN = "dbre_extension_begin"
EXTENSION_END = "dbre_extension_end"

# What an upgrade script of an extension drops is its own affair. PostgreSQL tells an event trigger nothing about
# that, so two more triggers count how deep in ALTER EXTENSION the transaction is: upgrade scripts use it themselves.
FUNCTIONS = {
    "refuse_drop": """
DECLARE
  dropped record;
BEGIN
  IF coalesce(pg_catalog.current_setting('dbre.allow_drop', true), '') IN ('on', 'true', 'yes', '1')
     OR coalesce(pg_catalog.current_setting('dbre.in_extension', true), '') NOT IN ('', '0') THEN
    RETURN;
  END IF;
  FOR dropped IN
    SELECT d.object_type, d.object_identity
    FROM pg_catalog.pg_event_trigger_dropped_objects() d
    JOIN dbre_protection.protected p
      ON (d.object_type = 'schema' AND p.object_name IS NULL AND p.schema_name = d.object_name)
      OR (d.object_type IN ('table', 'foreign table', 'materialized view', 'view')
          AND p.schema_name = d.schema_name AND coalesce(p.object_name, d.object_name) = d.object_name)
    WHERE NOT d.is_temporary
  LOOP
    RAISE EXCEPTION '% % is protected from being dropped', dropped.object_type, dropped.object_identity
      USING ERRCODE = 'insufficient_privilege',
            HINT = 'A migration that means it: BEGIN; SET LOCAL dbre.allow_drop = ''on''; DROP ...; COMMIT;';
  END LOOP;
END
""",
    "extension_begin": """
BEGIN
  PERFORM pg_catalog.set_config('dbre.in_extension', (coalesce(
    nullif(pg_catalog.current_setting('dbre.in_extension', true), ''), '0')::int + 1)::text, true);
END
""",
    "extension_end": """
BEGIN
  PERFORM pg_catalog.set_config('dbre.in_extension', (coalesce(
    nullif(pg_catalog.current_setting('dbre.in_extension', true), ''), '0')::int - 1)::text, true);
END
""",
}
TRIGGERS = {
    REFUSE: ("sql_drop", None, "refuse_drop"),
    EXTENSION_BEGIN: ("ddl_command_start", ("ALTER EXTENSION",), "extension_begin"),
    EXTENSION_END: ("ddl_command_end", ("ALTER EXTENSION",), "extension_end"),
}


class Revoked(NamedTuple):
    """A privilege that a role was granted on a table, by real names."""

    schema: str
    name: str
    role: str
    privilege: str
    grantable: bool


def _shown(item: tuple[str, Any]) -> str:
    """A protected table, or a whole schema, for people."""
    schema, name = item
    return display_name(schema, name) if name else f"schema {display_name(None, schema)}"


class DropProtection:
    """The protection of one database: what there is, what is to be added or taken away, and the statements for it.

    ``relations`` are ``{schema, name}``, ``schemas`` real names; ``revoke`` are privileges taken from ``roles``. What
    others have protected stays: each incident protects its own tables.
    """

    def __init__(
        self,
        connection: Any,
        relations: Sequence[Mapping[str, Any]],
        schemas: Sequence[str],
        roles: Sequence[str],
        revoke: Sequence[str],
    ) -> None:
        self.connection = connection
        self.relations = sorted({(str(item["schema"]), str(item["name"])) for item in relations})
        self.schemas = sorted(set(schemas))
        self.roles = sorted(set(roles))
        self.revoke = sorted(revoke)

    def ensure(self, state: str, check_mode: bool) -> dict[str, Any]:
        self._require_event_triggers()
        require_own_schema(self.connection, SCHEMA, "", f"When nobody needs it: DROP SCHEMA {SCHEMA} CASCADE")
        there = bool(self._rows("SELECT 1 AS one FROM pg_catalog.pg_namespace WHERE nspname = %s", (SCHEMA,)))
        protected = self._protected() if there else set()
        taken = self._taken() if there else set()
        named = {*self.relations, *((schema, None) for schema in self.schemas)}
        left, kept = protected | named, taken
        commands: list[str] = []
        if state == "present":
            self._require_names()
            now = self._grants()
            kept = taken | now
            commands = self._install(there) + self._list(named - protected, set()) + self._privileges(now - taken, now)
        elif there:
            left = protected - named if named else set()
            kept = {item for item in taken if self._is_covered(item, left)}
            commands = self._privileges(set(), set(), taken - kept)
            commands += self._list(set(), protected & named) if left else self._remove()
        else:
            left = set()
        if commands and not check_mode:
            # A grant is taken back by the table's owner: from others, REVOKE does nothing and says nothing.
            tables = {(item.schema, item.name) for item in taken} | self._wanted_tables()
            borrowed = become(self.connection, self._owners(tables))
            for command in commands:
                execute(self.connection, command)
            give_back(self.connection, borrowed)
        findings = self._findings() if state == "present" else []
        self.connection.rollback() if check_mode else self.connection.commit()
        return {
            "changed": bool(commands),
            "commands": commands,
            "protected": sorted(map(_shown, left)),
            "findings": findings,
            "diff": {"before": self._text(protected, taken), "after": self._text(left, kept)},
        }

    # What there is.

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
        return rows(self.connection, query, values or None)

    def _require_event_triggers(self) -> None:
        """Find out by making one, since managed services let some roles that are no superuser."""
        function = "CREATE FUNCTION pg_temp.dbre_probe() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'"
        trigger = "CREATE EVENT TRIGGER dbre_probe ON sql_drop EXECUTE FUNCTION pg_temp.dbre_probe()"
        execute(self.connection, "SAVEPOINT dbre_probe")
        try:
            execute(self.connection, f"{function}; {trigger}")
        except self.connection.ProgrammingError as error:
            if error.pgcode != INSUFFICIENT_PRIVILEGE:
                raise
            self.connection.rollback()
            raise RecoveryError(
                f"role {user_of(self.connection)!r} may not create event triggers: {server_message(error)}. "
                "Nothing was changed. Connect as a superuser (in a managed service, as its master user); where no role "
                "may, split the ownership instead."
            ) from error
        execute(self.connection, "ROLLBACK TO SAVEPOINT dbre_probe")

    def _owners(self, tables: set[tuple[str, str]]) -> list[str]:
        names = [quote_name(schema, name) for schema, name in sorted(tables)]
        query = (
            "SELECT DISTINCT pg_catalog.pg_get_userbyid(relowner) AS owner FROM pg_catalog.pg_class "
            "WHERE oid IN (SELECT pg_catalog.to_regclass(name) FROM unnest(%s::text[]) AS name)"
        )
        return [row["owner"] for row in self._rows(query, (names,))]

    def _require_names(self) -> None:
        missing = [
            display_name(schema, name)
            for schema, name in self.relations
            if not self._rows(
                "SELECT 1 AS one WHERE pg_catalog.to_regclass(%s) IS NOT NULL", (quote_name(schema, name),)
            )
        ]
        for catalog, column, names in (("pg_namespace", "nspname", self.schemas), ("pg_roles", "rolname", self.roles)):
            known = {row["name"] for row in self._rows(f"SELECT {column}::text AS name FROM pg_catalog.{catalog}")}
            missing += [quote_ident(name) for name in names if name not in known]
        if missing:
            (found,) = self._rows("SELECT pg_catalog.current_database()::text AS name")
            raise RecoveryError(
                f"database {found['name']!r} has no {', '.join(missing)}, so that cannot be protected. Nothing was "
                "changed. Correct the names (quoted as in SQL) or the database."
            )

    def _protected(self) -> set[tuple[str, Any]]:
        found = self._rows(f"SELECT schema_name::text, object_name::text FROM {SCHEMA}.protected")
        return {(row["schema_name"], row["object_name"]) for row in found}

    def _taken(self) -> set[Revoked]:
        """Privileges that were revoked, of tables and roles that still exist."""
        found = self._rows(
            f"SELECT v.schema_name::text AS schema, v.table_name::text AS name, v.role::text, v.privilege, v.grantable"
            f" FROM {SCHEMA}.revoked v JOIN pg_catalog.pg_roles r ON r.rolname = v.role"
            " JOIN pg_catalog.pg_namespace n ON n.nspname = v.schema_name"
            " JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = v.table_name"
        )
        return {Revoked(**row) for row in found}

    def _wanted_tables(self) -> set[tuple[str, str]]:
        found = self._rows(
            "SELECT n.nspname::text AS schema, c.relname::text AS name FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f')"
        )
        tables = {(row["schema"], row["name"]) for row in found}
        return {table for table in tables if table in self.relations or table[0] in self.schemas}

    @staticmethod
    def _is_covered(item: Revoked, protected: set[tuple[str, Any]]) -> bool:
        return bool({(item.schema, item.name), (item.schema, None)} & protected)

    def _grants(self) -> set[Revoked]:
        """Privileges to be revoked that the application roles hold now, granted to them by name."""
        tables = self._wanted_tables()
        found = self._rows(
            "SELECT n.nspname::text AS schema, c.relname::text AS name, r.rolname::text AS role,"
            " a.privilege_type AS privilege, pg_catalog.bool_or(a.is_grantable) AS grantable"
            " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,"
            " pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) a"
            " JOIN pg_catalog.pg_roles r ON r.oid = a.grantee"
            " WHERE c.relkind IN ('r', 'p', 'f') AND r.rolname = ANY(%s) AND a.privilege_type = ANY(%s)"
            " GROUP BY 1, 2, 3, 4",
            (self.roles, self.revoke),
        )
        return {Revoked(**row) for row in found if (row["schema"], row["name"]) in tables}

    # What is to be done.

    def _install(self, there: bool) -> list[str]:
        commands = []
        if not there:
            commands += [
                f"CREATE SCHEMA {SCHEMA}",
                f"COMMENT ON SCHEMA {SCHEMA} IS 'Refuses DROP of protected tables and schemas'",
                f"CREATE TABLE {SCHEMA}.protected (schema_name name NOT NULL, object_name name)",
                (
                    f"CREATE TABLE {SCHEMA}.revoked"
                    " (schema_name name, table_name name, role name, privilege text, grantable boolean)"
                ),
            ]
        sources = {
            row["name"]: row["source"]
            for row in self._rows(
                "SELECT p.proname::text AS name, p.prosrc AS source FROM pg_catalog.pg_proc p"
                " JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = %s",
                (SCHEMA,),
            )
        }
        for name, body in FUNCTIONS.items():
            if sources.get(name) != body:
                commands.append(
                    f"CREATE OR REPLACE FUNCTION {SCHEMA}.{name}() RETURNS event_trigger LANGUAGE plpgsql"
                    " SECURITY DEFINER"
                    f" SET search_path = pg_catalog, pg_temp AS {quote_literal(body)}"
                )
        triggers = {
            row["name"]: row
            for row in self._rows(
                "SELECT evtname::text AS name, evtenabled::text AS enabled FROM pg_catalog.pg_event_trigger"
            )
        }
        for name, (event, tags, function) in TRIGGERS.items():
            if name not in triggers:
                when = f" WHEN TAG IN ({', '.join(map(quote_literal, tags))})" if tags else ""
                commands.append(f"CREATE EVENT TRIGGER {name} ON {event}{when} EXECUTE FUNCTION {SCHEMA}.{function}()")
            elif triggers[name]["enabled"] == "D":
                commands.append(f"ALTER EVENT TRIGGER {name} ENABLE")
        return commands

    @staticmethod
    def _list(added: set[tuple[str, Any]], removed: set[tuple[str, Any]]) -> list[str]:
        def values(item: tuple[str, Any]) -> tuple[str, str]:
            return quote_literal(item[0]), quote_literal(item[1]) if item[1] else "NULL"

        inserted = [values(item) for item in sorted(added, key=str)]
        deleted = [values(item) for item in sorted(removed, key=str)]
        return [f"INSERT INTO {SCHEMA}.protected VALUES ({schema}, {name})" for schema, name in inserted] + [
            f"DELETE FROM {SCHEMA}.protected WHERE schema_name = {schema} AND object_name IS NOT DISTINCT FROM {name}"
            for schema, name in deleted
        ]

    @staticmethod
    def _privileges(remember: set[Revoked], take: set[Revoked], grant: Iterable[Revoked] = ()) -> list[str]:
        commands = []
        for item in sorted(take):
            commands.append(
                f"REVOKE {item.privilege} ON {quote_name(item.schema, item.name)} FROM {quote_ident(item.role)} CASCADE"
            )
        for item in sorted(remember):
            texts = ", ".join(map(quote_literal, item[:4]))
            commands.append(f"INSERT INTO {SCHEMA}.revoked VALUES ({texts}, {str(item.grantable).lower()})")
        for item in sorted(grant):
            option = " WITH GRANT OPTION" if item.grantable else ""
            table, role = quote_name(item.schema, item.name), quote_ident(item.role)
            texts = " AND ".join(
                f"{column} = {quote_literal(str(value))}"
                for column, value in zip(("schema_name", "table_name", "role", "privilege"), item)
            )
            commands.append(f"GRANT {item.privilege} ON {table} TO {role}{option}")
            commands.append(f"DELETE FROM {SCHEMA}.revoked WHERE {texts}")
        return commands

    @staticmethod
    def _remove() -> list[str]:
        # Without CASCADE: what somebody else has put into the schema is not ours to drop.
        return [
            *(f"DROP EVENT TRIGGER IF EXISTS {name}" for name in TRIGGERS),
            *(f"DROP FUNCTION IF EXISTS {SCHEMA}.{name}()" for name in FUNCTIONS),
            f"DROP TABLE {SCHEMA}.protected, {SCHEMA}.revoked",
            f"DROP SCHEMA {SCHEMA}",
        ]

    # What is told.

    def _findings(self) -> list[dict[str, Any]]:
        """Application roles that can still drop or empty a protected table, and why."""
        tables = self._wanted_tables()
        found = self._rows(
            "SELECT n.nspname::text AS schema, c.relname::text AS name, r.rolname::text AS role,"
            " r.rolsuper AS superuser,"
            " pg_catalog.pg_get_userbyid(c.relowner)::text AS owner,"
            " pg_catalog.pg_get_userbyid(n.nspowner)::text AS schema_owner,"
            " pg_catalog.pg_has_role(r.oid, c.relowner, 'MEMBER') AS owns,"
            " pg_catalog.pg_has_role(r.oid, n.nspowner, 'MEMBER') AS owns_schema,"
            " ARRAY(SELECT p FROM unnest(%s::text[]) p WHERE pg_catalog.has_table_privilege(r.oid, c.oid, p)"
            " ORDER BY 1)"
            " AS may FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, pg_catalog.pg_roles r"
            " WHERE c.relkind IN ('r', 'p', 'f') AND r.rolname = ANY(%s) ORDER BY 1, 2, 3",
            (self.revoke, self.roles),
        )
        findings = []
        for row in found:
            if (row["schema"], row["name"]) not in tables:
                continue
            why = None
            if row["superuser"]:
                why = "is a superuser"
            elif row["owns"]:
                why = f"owns it (owner {row['owner']})"
            elif row["owns_schema"]:
                why = f"owns its schema (owner {row['schema_owner']})"
            elif row["may"]:
                why = f"still holds {', '.join(row['may'])} through another role or PUBLIC"
            if why:
                findings.append({"relation": display_name(row["schema"], row["name"]), "role": row["role"], "why": why})
        return findings

    @staticmethod
    def _text(protected: set[tuple[str, Any]], taken: set[Revoked]) -> str:
        lines = [f"protected {_shown(item)}" for item in protected]
        lines += [
            f"revoked {item.privilege} on {display_name(item.schema, item.name)} from {item.role}" for item in taken
        ]
        return "".join(f"{line}\n" for line in sorted(lines))
