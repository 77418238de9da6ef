# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lost children of tables that are still there: nobody sees their rows through the parent before they are complete.

Taken off its parent, a child would have its columns and constraints as its own, for good (RemoveInheritance() in
src/backend/commands/tablecmds.c). So an empty stand-in of the parent is put in between: as long as one parent is left,
what is inherited stays inherited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import server_message
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name, quote_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import savepoint
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left

LIVING_PARENTS = """
WITH made AS (SELECT pg_catalog.to_regclass(name) AS oid FROM unnest(%s::text[]) AS name)
SELECT n.nspname AS schema, c.relname AS name, pn.nspname AS parent_schema, p.relname AS parent, p.oid::int8 AS oid
FROM pg_catalog.pg_inherits i JOIN made ON made.oid = i.inhrelid
JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND NOT c.relispartition
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class p ON p.oid = i.inhparent JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
WHERE NOT i.inhparent IN (SELECT oid FROM made WHERE oid IS NOT NULL)
ORDER BY c.oid, i.inhseqno
"""


def hide_from_parents(connection: Any, staging: str, relations: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Take the ``relations`` that were just made off their living parents, in the caller's transaction; what was done.

    In the transaction that made them, so that nobody has seen them there.
    """
    names = [quote_name(item["schema"], item["name"]) for item in relations]
    found = rows(connection, LIVING_PARENTS, (names,))
    stand_ins: dict[int, str] = {}
    for item in found:
        child, parent = quote_name(item["schema"], item["name"]), quote_name(item["parent_schema"], item["parent"])
        if item["oid"] not in stand_ins:
            stand_ins[item["oid"]] = f"dbre_parent_{item['oid']}"
            table = quote_name(staging, stand_ins[item["oid"]])
            execute(connection, f"CREATE TABLE {table} (LIKE {parent} INCLUDING CONSTRAINTS INCLUDING GENERATED)")
        execute(connection, f"ALTER TABLE {child} INHERIT {quote_name(staging, stand_ins[item['oid']])}")
        execute(connection, f"ALTER TABLE {child} NO INHERIT {parent}")
    return [{**item, "stand_in": stand_ins[item["oid"]]} for item in found]


def show_to_parents(
    connection: Any, staging: str, hidden: Sequence[Mapping[str, Any]], staying: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Put children back to their parents, in the caller's transaction; what a parent does not take any more.

    ``staying`` are the children whose place was taken meanwhile: they are left where they are.
    """
    left_to_do: list[dict[str, Any]] = []
    stand_ins = sorted({item["stand_in"] for item in hidden})
    for item in hidden:
        if (item["schema"], item["name"]) in staying:
            stand_ins = [name for name in stand_ins if name != item["stand_in"]]
            continue
        child, parent = quote_name(item["schema"], item["name"]), quote_name(item["parent_schema"], item["parent"])
        statement = f"ALTER TABLE {child} INHERIT {parent}"

        def failed(error: Any, item: Mapping[str, Any] = item, statement: str = statement) -> None:
            shown = display_name(item["schema"], item["name"])
            name = f"{display_name(item['parent_schema'], item['parent'])} on {shown}"
            reason = f"{server_message(error)}. The rows of {shown} are not seen through its parent"
            left_to_do.append(left("inheritance", name, reason, f"{statement};", lost=True))

        with savepoint(connection, failed):
            execute(connection, statement)
        execute(connection, f"ALTER TABLE {child} NO INHERIT {quote_name(staging, item['stand_in'])}")
    for name in stand_ins:
        execute(connection, f"DROP TABLE {quote_name(staging, name)}")
    return left_to_do
