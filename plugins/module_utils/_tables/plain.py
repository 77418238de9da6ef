# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables that cannot be made or filled as they were: the rows come first, what does not fit is left to do by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import server_message
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import (
    acting_as,
    execute_as_owner,
    is_another,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_literal,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import savepoint
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left

TABLE = """
SELECT c.relpersistence AS persistence, c.relkind AS kind, pg_catalog.pg_get_userbyid(c.relowner) AS owner,
       CASE WHEN c.relkind = 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END AS partition_key,
       c.reloptions AS options,
       ARRAY(SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(p.relname)
             FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
             JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace
             WHERE i.inhrelid = c.oid AND NOT c.relispartition ORDER BY i.inhseqno) AS parents
FROM pg_catalog.pg_class c WHERE c.oid = %s::oid
"""
CHECKS = """
SELECT k.conname AS name, pg_catalog.pg_get_constraintdef(k.oid) AS definition FROM pg_catalog.pg_constraint k
WHERE k.conrelid = %s::oid AND k.contype = 'c' AND k.conislocal ORDER BY 1
"""
UNKNOWN_TYPES = """
SELECT name FROM unnest(%s::text[]) AS name WHERE pg_catalog.to_regtype(name) IS NULL
"""
# Of types that are gone, those that can be made out of their labels.
GONE_ENUMS = """
SELECT DISTINCT pg_catalog.format_type(e.oid, NULL) AS name, pg_catalog.pg_get_userbyid(e.typowner) AS owner,
       ARRAY(SELECT l.enumlabel::text FROM pg_catalog.pg_enum l WHERE l.enumtypid = e.oid ORDER BY l.enumsortorder)
         AS labels
FROM unnest(%s::text[]) AS gone(name) JOIN pg_catalog.pg_type t ON t.oid = pg_catalog.to_regtype(gone.name)
JOIN pg_catalog.pg_type e ON e.oid = CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE t.oid END
WHERE e.typtype = 'e' ORDER BY 1
"""
LABELS = """
SELECT DISTINCT n.nspname AS schema, t.typname AS name, e.oid::int8 AS oid, e.enumlabel AS label
FROM unnest(%s::text[], %s::text[]) AS given(schema, name) JOIN pg_catalog.pg_namespace n ON n.nspname = given.schema
JOIN pg_catalog.pg_type t ON t.typnamespace = n.oid AND t.typname = given.name
JOIN pg_catalog.pg_enum e ON e.enumtypid = t.oid
"""
# What sessions of the owner have, as ALTER ROLE and ALTER DATABASE set it; the nearest one goes before.
SEARCH_PATH = """
SELECT pg_catalog.replace(coalesce((
    SELECT pg_catalog.substr(setting, 13)
    FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) AS setting
    WHERE setting LIKE 'search\\_path=%%' AND s.setrole IN (0, c.relowner)
      AND s.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database
                                WHERE datname = pg_catalog.current_database()))
    ORDER BY (s.setrole <> 0) AND (s.setdatabase <> 0) DESC, s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1),
    (SELECT boot_val FROM pg_catalog.pg_settings WHERE name = 'search_path')),
    '"$user"', pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner)))
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)
"""


OWNER = """
SELECT pg_catalog.pg_get_userbyid(relowner)::text AS owner FROM pg_catalog.pg_class
WHERE oid = pg_catalog.to_regclass(%s)
"""


class Part(NamedTuple):
    """Something of a table that is made after its rows, if it fits: what it is, its name, and the SQL.

    With a ``table`` (SQL), it may run code of its owner.
    """

    kind: str
    name: str
    statement: str
    table: str | None = None


def own_search_path(connection: Any, table: str) -> str:
    """The search_path under which sessions of a table's owner work; ``table`` is an SQL name."""
    return str(value(connection, SEARCH_PATH, (table,)))


def printed(connection: Any, table: str, statement: str) -> str:
    """``statement``, which may run code of a table's owner, as it is told to people: a superuser runs it as the owner.

    ``table`` is an SQL name.
    """
    owner = value(connection, OWNER, (table,))
    if owner is None or not is_another(connection, owner):
        return f"{statement};"
    return f"SET ROLE {quote_ident(owner)}; {statement}; RESET ROLE;"


def make_parts(connection: Any, parts: Sequence[Part], why: str = "") -> list[dict[str, Any]]:
    """Make each of ``parts`` in the caller's transaction; entries of ``left_to_do`` for those that do not fit."""
    left_to_do: list[dict[str, Any]] = []
    for part in parts:

        def failed(error: Any, part: Part = part) -> None:
            reason = f"{why}{server_message(error)}"
            command = printed(connection, part.table, part.statement) if part.table else f"{part.statement};"
            left_to_do.append(left(part.kind, part.name, reason, command, lost=True))

        with savepoint(connection, failed):
            if part.table is None:
                execute(connection, part.statement)
            else:
                execute_as_owner(connection, part.table, part.statement)
    return left_to_do


def _column(column: Mapping[str, Any], unknown: set[str], generated: bool) -> str:
    kind = (column["base_type"] or "text") if column["type"] in unknown else column["type"]
    text = f"{quote_ident(column['name'])} {kind}"
    if column["collation"] and column["type"] not in unknown:
        text += " COLLATE " + ".".join(quote_ident(part) for part in column["collation"].split(".", 1))
    if generated and column["generated"]:
        text += f" GENERATED ALWAYS AS ({column['default']}) {'VIRTUAL' if column['generated'] == 'v' else 'STORED'}"
    return text + (" NOT NULL" if column["not_null"] else "")


def make_plain(connection: Any, side: Any, relation: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Make a table of the recovered instance without what does not fit any more, in the caller's transaction.

    Entries of ``left_to_do`` for all that is missing; None when not even that can be made. A column whose type is
    gone becomes one of text, or of what its domain was made of.
    """
    table = quote_name(relation["schema"], relation["name"])
    shown = display_name(relation["schema"], relation["name"])
    about = rows(side, TABLE, (relation["oid"],))[0]
    columns = fingerprint.columns_of(side, [relation["oid"]])[relation["oid"]]
    types = sorted({column["type"] for column in columns})
    unknown = {row["name"] for row in rows(connection, UNKNOWN_TYPES, (types,))}

    def create(generated: bool) -> str:
        definitions = ", ".join(_column(column, unknown, generated) for column in columns)
        partitioned = f" PARTITION BY {about['partition_key']}" if about["partition_key"] else ""
        return f"CREATE {'UNLOGGED ' if about['persistence'] == 'u' else ''}TABLE {table} ({definitions}){partitioned}"

    left_to_do: list[dict[str, Any]] = [
        left(
            "type",
            item["name"],
            "it is gone; the command makes it as it was",
            f"CREATE TYPE {item['name']} AS ENUM ({', '.join(map(quote_literal, item['labels']))}); "
            f"ALTER TYPE {item['name']} OWNER TO {quote_ident(item['owner'])};",
            lost=True,
        )
        for item in rows(side, GONE_ENUMS, (sorted(unknown),))
    ]
    left_to_do += [
        left(
            "table column",
            f"{column['name']} on {shown}",
            f"its type {column['type']} is gone, so that its values came back as {column['base_type'] or 'text'}. "
            "When there is such a type again, run the command",
            _back_to_type(table, column),
            lost=True,
        )
        for column in columns
        if column["type"] in unknown
    ]
    refused: list[Any] = []
    with savepoint(connection, refused.append), acting_as(connection, about["owner"], [relation["schema"]]) as owner:
        owner.lend("SCHEMA", quote_ident(relation["schema"]), ["CREATE"])
        owner.execute(create(True))
    if refused:
        error = refused.pop()
        with savepoint(connection, refused.append):
            execute(connection, create(False))
        if refused:
            return None
        left_to_do += [
            _not_generated(shown, table, column, server_message(error)) for column in columns if column["generated"]
        ]
    parts = [Part("owner", f"owner on {shown}", f"ALTER TABLE {table} OWNER TO {quote_ident(about['owner'])}")]
    parts += [
        Part("storage option", f"{option} on {shown}", f"ALTER TABLE {table} SET ({option})")
        for option in about["options"] or []
    ]
    parts += [
        Part(
            "default value",
            f"{column['name']} on {shown}",
            f"ALTER TABLE ONLY {table} ALTER COLUMN {quote_ident(column['name'])} SET DEFAULT {column['default']}",
            table,
        )
        for column in columns
        if column["default"] and not column["generated"]
    ]
    parts += [
        Part("check constraint", f"{check['name']} on {shown}", _add_check(table, check), table)
        for check in rows(side, CHECKS, (relation["oid"],))
    ]
    parts += [
        Part("inheritance", f"{parent} on {shown}", f"ALTER TABLE {table} INHERIT {parent}")
        for parent in about["parents"]
    ]
    return left_to_do + make_parts(connection, parts)


def _add_check(table: str, check: Mapping[str, Any]) -> str:
    return f"ALTER TABLE {table} ADD CONSTRAINT {quote_ident(check['name'])} {check['definition']}"


def _back_to_type(table: str, column: Mapping[str, Any], labels: Sequence[Mapping[str, Any]] = ()) -> str:
    name = quote_ident(column["name"])
    now = " ".join(f"WHEN {quote_literal(item['was'])} THEN {quote_literal(item['label'])}" for item in labels)
    text = f"(CASE {name} {now} ELSE {name} END)" if labels else name
    return f"ALTER TABLE {table} ALTER COLUMN {name} TYPE {column['type']} USING {text}::{column['type']};"


def _renamed_labels(
    connection: Any, side: Any, columns: Sequence[Mapping[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """By column, the labels of its enum that were renamed since: a label keeps its OID."""
    enums = [column for column in columns if column["typtype"] == "e"]
    names = ([column["type_schema"] for column in enums], [column["typname"] for column in enums])
    was = {row["oid"]: row["label"] for row in rows(side, LABELS, names)}
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows(connection, LABELS, names):
        if was.get(row["oid"], row["label"]) != row["label"]:
            for column in enums:
                if (column["type_schema"], column["typname"]) == (row["schema"], row["name"]):
                    found.setdefault(column["name"], []).append({**row, "was": was[row["oid"]]})
    return found


def _not_generated(shown: str, table: str, column: Mapping[str, Any], why: str) -> dict[str, Any]:
    name = quote_ident(column["name"])
    return left(
        "generated column",
        f"{column['name']} on {shown}",
        f"its values came back, but the server does not compute new ones: {why}. Mend that, then run the command",
        f"ALTER TABLE {table} DROP COLUMN {name}, "
        f"ADD COLUMN {name} {column['type']} GENERATED ALWAYS AS ({column['default']}) STORED;",
        lost=True,
    )


class Loosened:
    """A staged table without what can refuse rows: checks, generation of columns, types made by users."""

    def __init__(self, connection: Any, side: Any, relation: Mapping[str, Any], table: str, why: str) -> None:
        """Loosen ``table`` (an SQL name) of ``relation`` in the caller's transaction; ``why`` is what refused rows."""
        self._connection = connection
        shown = display_name(relation["schema"], relation["name"])
        oid = value(connection, "SELECT pg_catalog.to_regclass(%s)::oid::int8", (table,))
        columns = fingerprint.columns_of(connection, [oid])[oid]
        labels = _renamed_labels(connection, side, columns)
        self._parts: list[Part] = []
        self._left: list[dict[str, Any]] = []
        for check in rows(connection, CHECKS, (oid,)):
            execute(connection, f"ALTER TABLE {table} DROP CONSTRAINT {quote_ident(check['name'])}")
            self._parts.append(Part("check constraint", f"{check['name']} on {shown}", _add_check(table, check), table))
        changes = []
        for column in columns:
            name = quote_ident(column["name"])
            if column["generated"] == "s":
                changes.append(f"ALTER COLUMN {name} DROP EXPRESSION")
                self._left.append(_not_generated(shown, table, column, why))
            elif not column["builtin"] and not column["generated"]:
                changes += [f"ALTER COLUMN {name} DROP DEFAULT"] if column["default"] else []
                changes.append(f"ALTER COLUMN {name} TYPE {column['base_type'] or 'text'}")
                back = _back_to_type(table, column, labels.get(column["name"], []))[:-1]
                self._parts.insert(0, Part("table column", f"{column['name']} on {shown}", back, table))
                if column["default"]:
                    default = f"ALTER TABLE ONLY {table} ALTER COLUMN {name} SET DEFAULT {column['default']}"
                    self._parts.append(Part("default value", f"{column['name']} on {shown}", default, table))
        if changes:
            execute(connection, f"ALTER TABLE {table} {', '.join(changes)}")

    def tighten(self) -> list[dict[str, Any]]:
        """Make what was loosened as it was, where the rows allow it; entries of ``left_to_do`` for the rest."""
        return self._left + make_parts(self._connection, self._parts)
