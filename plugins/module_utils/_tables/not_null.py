# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident, quote_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows

# Since PostgreSQL 18 a NOT NULL is a constraint with a name.
NAMED_FROM = 180000
NOT_NULLS = """
SELECT a.attname AS column, k.conname AS name
FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1]
WHERE k.contype = 'n' AND k.conislocal AND n.nspname = %s AND c.relname = %s
"""


def name_not_nulls(connection: Any, side: Any, relations: Iterable[Mapping[str, Any]]) -> None:
    """Give the NOT NULL constraints of tables that were just made their names, in the caller's transaction.

    A dump leaves out a name that the server would choose itself. It chooses another where a table of the same schema
    has a constraint of that name, although names must be different on one table only.
    """
    if connection.server_version < NAMED_FROM:
        return
    for item in relations:
        name = (item["schema"], item["name"])
        wanted = {row["column"]: row["name"] for row in rows(side, NOT_NULLS, name)}
        here = {row["column"]: row["name"] for row in rows(connection, NOT_NULLS, name)}
        wrong = [column for column in wanted if column in here and here[column] != wanted[column]]
        # In two steps: one may have taken the name of another.
        for step in ("away", "back"):
            for number, column in enumerate(sorted(wrong)):
                between = f"dbre_not_null_{number}"
                old, new = (here[column], between) if step == "away" else (between, wanted[column])
                execute(
                    connection,
                    f"ALTER TABLE {quote_name(*name)} RENAME CONSTRAINT {quote_ident(old)} TO {quote_ident(new)}",
                )
