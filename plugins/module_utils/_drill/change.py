# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An UPDATE without WHERE, as a migration that went wrong would do it: by the tables' owner, with all that he wrote.

Checks, triggers and index expressions of the owner run in it, so the session is his and nobody else's: there is no
superuser in it to return to.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._drill.copy import CopyInstance
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_config import render_ident
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import system_user

with suppress(ImportError):  # connect() says so
    import psycopg2

# Columns by which no row is found and no other is meant, those first that may be empty.
COLUMNS = """
SELECT a.attname AS name, NOT a.attnotnull AS nullable, t.typcategory AS category
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
  AND a.attgenerated = '' AND a.attidentity = ''
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid AND a.attnum = ANY(i.indkey::int2[]))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = a.attrelid AND a.attnum = ANY(k.conkey)
                  AND k.contype <> 'n')
ORDER BY a.attnotnull, a.attnum
"""
# Of a column that must not be empty, by the category of its type (pg_type.typcategory).
WRONG = {"N": "{} + 1", "S": "''", "B": "NOT {}", "D": "{} + interval '1 day'"}
MAY_LOG_IN = "SELECT rolcanlogin FROM pg_catalog.pg_roles WHERE rolname = %s"


def session_of(instance: CopyInstance, marker: Mapping[str, Any], admin: Any, owner: str, database: str) -> Any:
    """A session in the copy that is its owner's from the beginning; ``admin`` is the superuser's there."""
    if owner != marker["superuser"]:
        if not value(admin, MAY_LOG_IN, (owner,)):
            execute(admin, f"ALTER ROLE {quote_ident(owner)} LOGIN")
        user = system_user()
        write_atomically(
            instance.below("pg_ident.conf"), render_ident(user, marker["superuser"]) + render_ident(user, owner)
        )
        execute(admin, "SELECT pg_catalog.pg_reload_conf()")
        admin.commit()
    login: Any = {"login_unix_socket": instance.run_dir, "login_port": marker["port"], "login_user": owner}
    for attempt in range(50):
        try:
            return connect(login, database, application_name="dbre.recovery drill")
        except RecoveryError:
            if attempt == 49:
                raise
            time.sleep(0.1)  # the server has not read its files yet
    raise AssertionError("unreachable")


def change(session: Any, table: Mapping[str, str]) -> int:
    """Make one column of every row wrong; how many there were. RecoveryError where none can be."""
    name = quote_name(table["schema"], table["name"])
    for column in rows(session, COLUMNS, (name,)):
        quoted = quote_ident(column["name"])
        wrong = "NULL" if column["nullable"] else WRONG.get(column["category"], "").format(quoted)
        if not wrong:
            continue
        execute(session, "SAVEPOINT before")
        try:
            done = execute(session, f"UPDATE {name} SET {quoted} = {wrong} WHERE {quoted} IS DISTINCT FROM {wrong}")
        except psycopg2.Error:
            done = 0
        if done:
            return done
        execute(session, "ROLLBACK TO SAVEPOINT before")
    raise RecoveryError(
        f"no row of {display_name(table['schema'], table['name'])} can be changed: it is empty, or every column is a "
        "key or guarded. Nothing was changed. Name another table, or dr_damage=delete."
    )
