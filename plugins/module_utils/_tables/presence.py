# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether tables are there and hold a row, without reading more of them than that takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import try_to_become
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.fingerprint import (
    READ_AS,
    as_table,
    rows_as_owner,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.lookup import find_relations
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows

# A relation and its inheritance children, each of which is read by itself; a partitioned table is read as one.
FAMILY = """
WITH RECURSIVE family AS (
  SELECT %s::oid AS oid
  UNION SELECT i.inhrelid FROM family JOIN pg_catalog.pg_inherits i ON i.inhparent = family.oid
        JOIN pg_catalog.pg_class p ON p.oid = i.inhparent AND p.relkind = 'r'
)
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind,
       pg_catalog.pg_get_userbyid(c.relowner) AS owner, c.relrowsecurity AS row_security,
       c.relforcerowsecurity AS force_row_security
FROM family JOIN pg_catalog.pg_class c ON c.oid = family.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
ORDER BY c.oid
"""
ADVICE = "Log in as that owner (login_user)."


def presence(connection: Any, relations: Sequence[Mapping[str, str]]) -> dict[str, dict[str, bool]]:
    """Of each of ``relations``, by its name as shown to people, whether it ``exists`` and is ``filled``.

    What has no rows of its own (a view, a sequence, a table elsewhere) is not read and counts as filled. Tables are
    read as their owners, as a member of them, so the caller must not commit; RecoveryError where that cannot be.
    """
    found = find_relations(connection, relations)
    seen = {}
    for item in relations:
        relation = found.get((item["schema"], item["name"]))
        family = rows(connection, FAMILY, (relation["oid"],)) if relation else []
        name = display_name(item["schema"], item["name"])
        seen[name] = {"exists": relation is not None, "filled": any(_has_row(connection, one) for one in family)}
    return seen


def _has_row(connection: Any, item: Mapping[str, Any]) -> bool:
    if item["kind"] not in ("r", "p", "m"):
        return True
    try_to_become(connection, [row["owner"] for row in rows(connection, READ_AS, {"oids": [item["oid"]]})])
    query = f"SELECT EXISTS (SELECT FROM {as_table(item)}) AS found"
    return bool(rows_as_owner(connection, item, query, ADVICE)[0]["found"])
