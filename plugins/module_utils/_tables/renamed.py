# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Indexes that do not fit as they were, but do under another name, or as their table's owner sees functions."""

from __future__ import annotations

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    MAX_BYTES,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.settings import SAFE_PATH
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import Attempt, Refused, savepoint
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plain import own_search_path

DUPLICATE = "42P07"
ENDING = "_recovered"
INDEX = """
SELECT i.relname AS name, n.nspname AS schema, t.relname AS table, pg_catalog.pg_get_indexdef(i.oid) AS definition,
       pg_catalog.quote_ident(i.relname) AS quoted
FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_class t ON t.oid = x.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
WHERE x.indexrelid = %s::oid
"""
CONSTRAINT = """
SELECT k.conname AS name, n.nspname AS schema, t.relname AS table, pg_catalog.pg_get_constraintdef(k.oid) AS definition
FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class t ON t.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace WHERE k.oid = %s::oid
"""


def other_name(name: str) -> str:
    """A name that tells what it stands for, within a name's bytes."""
    return name.encode()[: MAX_BYTES - len(ENDING)].decode(errors="ignore") + ENDING


def make_otherwise(connection: Any, side: Any, attempt: Attempt) -> None:
    """Make indexes and constraints that ``attempt`` could not, in the caller's transaction, where there is a way."""
    for refused in list(attempt.refused):
        if refused.entry.description not in ("INDEX", "CONSTRAINT"):
            continue
        query = INDEX if refused.entry.description == "INDEX" else CONSTRAINT
        (found,) = rows(side, query, (refused.entry.oid,))
        table = quote_name(found["schema"], found["table"])
        if refused.sqlstate == DUPLICATE:
            _under_another_name(connection, attempt, refused, found, table)
        elif refused.sqlstate and refused.sqlstate.startswith("42"):
            _as_the_owner(connection, attempt, refused, table)


def _under_another_name(connection: Any, attempt: Attempt, refused: Refused, found: Any, table: str) -> None:
    name = other_name(found["name"])
    if refused.entry.description == "INDEX":
        statement = found["definition"].replace(f" INDEX {found['quoted']} ON ", f" INDEX {quote_ident(name)} ON ", 1)
    else:
        statement = f"ALTER TABLE ONLY {table} ADD CONSTRAINT {quote_ident(name)} {found['definition']}"
    errors: list[Any] = []
    with savepoint(connection, errors.append):
        execute(connection, statement)
    if not errors:
        reason = (
            f"its name is taken, so that it was made as {quote_ident(name)}. When the name is free, run the command"
        )
        command = f"ALTER INDEX {quote_name(found['schema'], name)} RENAME TO {quote_ident(found['name'])};"
        attempt.refused[attempt.refused.index(refused)] = refused._replace(reason=reason, command=command, lost=False)


def _as_the_owner(connection: Any, attempt: Attempt, refused: Refused, table: str) -> None:
    """Functions that rely on a search_path find what they need under the one of the table's owner.

    The server runs them as that owner. From PostgreSQL 17 on it builds indexes under a search_path of its own.
    """
    path = own_search_path(connection, table)
    errors: list[Any] = []
    with savepoint(connection, errors.append):
        execute(connection, "SELECT pg_catalog.set_config('search_path', %s, true)", (f"pg_catalog, {path}",))
        execute(connection, refused.command)
        execute(connection, "SELECT pg_catalog.set_config('search_path', %s, true)", (SAFE_PATH,))
    if not errors:
        attempt.withdraw(refused)
    else:
        with_path = f"SET search_path = {path};\n{refused.command}\nRESET search_path;"
        attempt.refused[attempt.refused.index(refused)] = refused._replace(command=with_path)
