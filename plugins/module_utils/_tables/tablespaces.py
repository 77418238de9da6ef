# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lost relations whose tablespace is gone too: they come back in the default one, and can be moved later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name

# An index behind a constraint is dumped with the constraint.
HOMES = """
SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid::int8 AS catalog, c.oid::int8 AS oid,
       'pg_catalog.pg_constraint'::pg_catalog.regclass::oid::int8 AS constraint_catalog, k.oid::int8 AS constraint,
       n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind, t.spcname::text AS tablespace
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_tablespace t ON t.oid = c.reltablespace
LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = c.oid AND k.contype IN ('p', 'u', 'x')
WHERE c.relkind IN ('r', 'p', 'm', 'i', 'I') AND t.spcname = ANY(%s)
ORDER BY 5, 6
"""
HOME_OF_DATABASE = """
SELECT d.datname::text AS name, t.spcname::text AS tablespace
FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace
WHERE d.datname = pg_catalog.current_database() AND t.spcname = ANY(%s)
"""
STATEMENTS = {"m": "MATERIALIZED VIEW", "i": "INDEX", "I": "INDEX"}


def without_home(side: Any, gone: Sequence[str]) -> set[tuple[int, int]]:
    """Relations and constraints ``(catalog oid, oid)`` of the recovered instance in the tablespaces ``gone``."""
    found: set[tuple[int, int]] = set()
    for row in rows(side, HOMES, (list(gone),)) if gone else []:
        found.add((row["catalog"], row["oid"]))
        if row["constraint"] is not None:
            found.add((row["constraint_catalog"], row["constraint"]))
    return found


def moved(side: Any, oids: Sequence[int] | None, gone: Sequence[str]) -> list[dict[str, Any]]:
    """What is to be moved later, of the lost relations ``oids`` or the whole database: ``{name, reason, command}``."""
    if not gone:
        return []
    things = [
        (
            row["tablespace"],
            display_name(row["schema"], row["name"]),
            f"{STATEMENTS.get(row['kind'], 'TABLE')} {quote_name(row['schema'], row['name'])}",
        )
        for row in rows(side, HOMES, (list(gone),))
        if oids is None or row["oid"] in oids
    ]
    if oids is None:
        things += [
            (row["tablespace"], f"database {row['name']}", f"DATABASE {quote_ident(row['name'])}")
            for row in rows(side, HOME_OF_DATABASE, (list(gone),))
        ]
    return [
        {
            "name": f"{display_name(None, tablespace)} on {shown}",
            "reason": f"the tablespace does not exist on {host_name()} any more; it comes back in the default one. "
            "Once there is such a tablespace again, the command moves it, locked meanwhile",
            "command": f"ALTER {thing} SET TABLESPACE {quote_ident(tablespace)};",
        }
        for tablespace, shown, thing in things
    ]
