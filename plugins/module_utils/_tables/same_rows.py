# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which row of one table is which of another, by the primary key, and whether both are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows

# With the operator by which the key itself tells its values apart; our search_path does not lead to one of a user's.
PRIMARY_KEY = """
SELECT a.attname AS name, coalesce(
         (SELECT pg_catalog.format('OPERATOR(%%I.%%s)', n.nspname, o.oprname)
          FROM pg_catalog.pg_opclass c
          JOIN pg_catalog.pg_am am ON am.oid = c.opcmethod AND am.amname = 'btree'
          JOIN pg_catalog.pg_amop op ON op.amopfamily = c.opcfamily AND op.amopstrategy = 3
           AND op.amoplefttype = c.opcintype AND op.amoprighttype = c.opcintype
          JOIN pg_catalog.pg_operator o ON o.oid = op.amopopr
          JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
          WHERE c.oid = key.class), '=') AS operator
FROM pg_catalog.pg_index i
CROSS JOIN LATERAL ROWS FROM (unnest(i.indkey::int2[]), unnest(i.indclass::oid[])) WITH ORDINALITY
  AS key(number, class, n)
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = key.number
WHERE i.indrelid = %s::oid AND i.indisprimary AND key.n <= i.indnkeyatts ORDER BY key.n
"""


def primary_key(connection: Any, oid: int) -> dict[str, str]:
    """Columns of a table's primary key in order, each with its equality operator in SQL; empty without one."""
    return {row["name"]: row["operator"] for row in rows(connection, PRIMARY_KEY, (oid,))}


def comparable(column: Mapping[str, Any], value: str) -> str:
    """SQL expression that is the same for the same values of a column; types without equality become text."""
    if column["base_name"] in fingerprint.PLAIN_TYPES:
        return value
    return f'{fingerprint.as_text(value, column)} COLLATE "C"'


def same_row(columns: Sequence[Mapping[str, Any]], one: str, other: str) -> str:
    """SQL condition: all stored columns of the two rows are the same."""
    sides = [[comparable(column, f"{row}.{quote_ident(column['name'])}") for column in columns] for row in (one, other)]
    return f"ROW({', '.join(sides[0])}) IS NOT DISTINCT FROM ROW({', '.join(sides[1])})"
