# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name, lost_quotes
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows

RELATIONS = """
SELECT n.nspname AS schema, c.relname AS name, c.oid::int8 AS oid, c.relkind AS kind
FROM unnest(%(schemas)s::text[], %(names)s::text[]) WITH ORDINALITY AS wanted(schema, name, n)
JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
ORDER BY wanted.n
"""


EVERY_SCHEMA = "SELECT nspname AS name FROM pg_catalog.pg_namespace"
EVERY_RELATION = """
SELECT n.nspname AS schema, c.relname AS name
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
"""


def refuse_lost_quotes(connection: Any, relations: Sequence[str], schemas: Sequence[str]) -> None:
    """Raise RecoveryError when names that the user wrote without quotes fit two things in the database by case."""
    if not relations and not schemas:
        return
    namespaces = [(item["name"],) for item in rows(connection, EVERY_SCHEMA)]
    known = [(item["schema"], item["name"]) for item in rows(connection, EVERY_RELATION)]
    lost, word = lost_quotes(schemas, namespaces), "dr_schemas"
    if not lost:
        lost, word = lost_quotes(relations, known), "dr_tables"
    for name, fits in lost.items():
        either = " or ".join(f"-e {shlex.quote(json.dumps({word: [one]}))}" for one in fits)
        raise RecoveryError(
            f"{name} was given without quotes, and database {connection.info.dbname} has {' and '.join(fits)}. SQL "
            "would take the one in lower case, but Ansible takes outer quotes away (-e name='\"X\"' is X). Nothing was "
            f"changed. Say which one is meant: {either}"
        )


def find_relations(connection: Any, relations: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Those of ``relations`` (``{schema, name}``) that exist, by schema and name, with oid and kind."""
    found = rows(
        connection,
        RELATIONS,
        {"schemas": [item["schema"] for item in relations], "names": [item["name"] for item in relations]},
    )
    return {(item["schema"], item["name"]): item for item in found}


def find_schemas(connection: Any, schemas: Sequence[str]) -> dict[str, int]:
    """OIDs of those of ``schemas`` that exist."""
    query = "SELECT nspname, oid::int8 FROM pg_catalog.pg_namespace WHERE nspname = ANY(%s)"
    return {item["nspname"]: item["oid"] for item in rows(connection, query, (list(schemas),))}


def require_known(found: Iterable[Any], wanted: Iterable[Any], what: str, connection: Any) -> None:
    """Raise RecoveryError when something the user named is not in the database of ``connection``."""
    known = set(found)
    unknown = [item for item in wanted if item not in known]
    if unknown:
        names = ", ".join(
            display_name(*item) if isinstance(item, tuple) else display_name(None, item) for item in unknown
        )
        where = (
            f"database {connection.info.dbname} at {connection.info.host or 'the socket'}, port {connection.info.port}"
        )
        raise RecoveryError(
            f"{what} {names} is not in {where}. Nothing was changed. Check the spelling (quoted as in SQL) and, where "
            "this is a recovered instance, its target: it must lie before the incident and after the thing was made."
        )
