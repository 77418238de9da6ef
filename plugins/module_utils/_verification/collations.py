# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Collations whose library sorts otherwise than when indexes were built.

Those indexes are to be rebuilt, and nothing is lost.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows

DEFAULT = 100  # pg_collation's OID of "default", the collation of the database
COLLATIONS = """
SELECT c.oid::int8 AS oid, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.collname) AS what,
       c.collversion AS recorded, pg_catalog.pg_collation_actual_version(c.oid) AS actual
FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
WHERE c.collversion IS DISTINCT FROM pg_catalog.pg_collation_actual_version(c.oid) AND c.collversion IS NOT NULL
  AND EXISTS (SELECT FROM pg_catalog.pg_depend d
              WHERE d.refclassid = 'pg_catalog.pg_collation'::pg_catalog.regclass AND d.refobjid = c.oid)
ORDER BY 2
"""
DATABASE_COLLATION = f"""
SELECT {DEFAULT}::int8 AS oid, 'database ' || datname AS what, datcollversion AS recorded,
       pg_catalog.pg_database_collation_actual_version(oid) AS actual
FROM pg_catalog.pg_database
WHERE datname = pg_catalog.current_database() AND datcollversion IS NOT NULL
  AND datcollversion IS DISTINCT FROM pg_catalog.pg_database_collation_actual_version(oid)
"""
# Hashes of text do not depend on its order.
INDEXES = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, i.indisunique AS unique,
       pg_catalog.pg_relation_filepath(c.oid) AS path
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid AND c.relkind = 'i'
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_am m ON m.oid = c.relam
WHERE m.amname <> 'hash' AND (
  %(oid)s::oid = ANY(i.indcollation::oid[])
  OR EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
             AND d.objid = c.oid AND d.refclassid = 'pg_catalog.pg_collation'::pg_catalog.regclass
             AND d.refobjid = %(oid)s::oid))
ORDER BY 2, 3
"""
RANGES = """
SELECT n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_partitioned_table p
JOIN pg_catalog.pg_class c ON c.oid = p.partrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE p.partstrat = 'r' AND %(oid)s::oid = ANY(p.partcollation::oid[]) ORDER BY 1, 2
"""


class Changed(NamedTuple):
    """A collation that is no longer the one that was recorded."""

    oid: int
    what: str
    """``database shop``, or the collation's name in SQL."""
    recorded: str
    actual: str

    def refresh(self, database: str) -> str:
        """The statement that records what is there now, once all that was sorted by it is rebuilt."""
        if self.oid == DEFAULT:
            return f"ALTER DATABASE {quote_ident(database)} REFRESH COLLATION VERSION"
        return f"ALTER COLLATION {self.what} REFRESH VERSION"


def changed_collations(connection: Any) -> list[Changed]:
    """Those of a database that something in it uses. PostgreSQL 14 and older keep none of the database itself."""
    found = rows(connection, DATABASE_COLLATION) if connection.server_version >= 150000 else []
    return [Changed(**row) for row in found + rows(connection, COLLATIONS)]


def sorted_by(connection: Any, collation: Changed) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Indexes that are sorted by a collation, and tables whose rows are in partitions by it."""
    asked = {"oid": collation.oid}
    return rows(connection, INDEXES, asked), rows(connection, RANGES, asked)
