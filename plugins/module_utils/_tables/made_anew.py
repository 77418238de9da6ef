# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables that get their rows back, and were made anew, or had columns dropped and made again: what they lack since.

Rows alone do not make such a table what it was: without its grants an application does not read it, without its row
security everybody does. Whether a newer definition is meant nobody knows, so that what is other is told and left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.lookup import find_relations
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_literal,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows
from ansible_collections.dbre.recovery.plugins.module_utils._tables.known import without_known
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left
from ansible_collections.dbre.recovery.plugins.module_utils._tables.lost_columns import made_again
from ansible_collections.dbre.recovery.plugins.module_utils._tables.privileges import described_grants, grants_of

COLUMNS = """
SELECT attnum::int AS number, attname::text AS name FROM pg_catalog.pg_attribute
WHERE attrelid = %s::oid AND attnum > 0 AND NOT attisdropped
"""
ROLES = "SELECT rolname::text AS name FROM pg_catalog.pg_roles"
CHILDREN = """
SELECT n.nspname AS schema, c.relname AS name, pn.nspname AS parent_schema, p.relname AS parent
FROM pg_catalog.pg_inherits i
JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND NOT c.relispartition
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class p ON p.oid = i.inhparent JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
WHERE i.inhparent = ANY(%s::oid[]) AND NOT i.inhrelid = ANY(%s::oid[])
ORDER BY 1, 2, i.inhseqno
"""
TAKEN_OFF = """
SELECT 1 FROM pg_catalog.pg_class c, pg_catalog.pg_class p
WHERE c.oid = pg_catalog.to_regclass(%s) AND p.oid = pg_catalog.to_regclass(%s)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid AND i.inhparent = p.oid)
"""
REPLICA_IDENTITIES = {"n": "NOTHING", "f": "FULL", "d": "DEFAULT"}


def tables_made_anew(production: Any, side: Any, relations: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """Those of a load plan's tables that were, in production, by their OIDs in the recovered instance.

    One that was made anew, and has a copy beside, is somebody else's; one with columns that were made again is not.
    """
    tables = [item for item in relations if item["kind"] in ("r", "p") and item["action"] != "place"]
    here = find_relations(production, tables)
    found = {}
    for item in tables:
        present = here.get((item["schema"], item["name"]))
        if present is None:
            continue
        whole = item["state"] == "recreated" and item["action"] != "beside"
        if whole or made_again(production, side, present["oid"], item["oid"]):
            found[item["oid"]] = present
    return found


def lacking(
    production: Any,
    side: Any,
    tables: Mapping[int, Mapping[str, Any]],
    left_to_do: Sequence[Mapping[str, Any]],
    tables_of: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Entries of ``left_to_do`` for what of these tables is not as it was and is not told in ``left_to_do`` already."""
    before = fingerprint.definitions(side, sorted(tables))
    now = fingerprint.definitions(production, [item["oid"] for item in tables.values()])
    by_name = {name: item["oid"] for name, item in before.items()}
    for prints in (before, now):
        for item in prints.values():
            item["columns"].sort(key=lambda column: str(column["name"]))
    known = [entry["object"] for entry in left_to_do]
    entries = []
    different = fingerprint.difference(before, now, known)
    parts = [item for item in different if isinstance(item["recovered"], list)]
    told = [item for item in parts if item not in without_known(parts, left_to_do, tables_of)]
    for item in [item for item in different if item not in told]:
        relation, what = item["relation"], item["property"]
        there = by_name[relation]
        command = _command(production, side, there, tables[there], what, before[relation])
        was, present = _shown(item["recovered"], item["production"])
        reason = (
            f"just before the damage: {was}; now: {present}. The table, or a column of it, was made anew, and this was "
            "left as it is. Where that is not meant, make it as it was"
        )
        entries.append(left(what.replace("_", " "), relation, reason, command, lost=True))
    return entries


def _shown(was: Any, present: Any) -> tuple[str, str]:
    """Two values as people read them; of lists only what the other lacks."""
    if isinstance(was, list) and isinstance(present, list):
        was, present = ([item for item in one if item not in other] for one, other in ((was, present), (present, was)))
    return _text(was), _text(present)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return "; ".join(map(_text, value)) or "nothing of this"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items() if item not in (None, "", False))
    return "none" if value is None else str(value)


def _command(
    production: Any, side: Any, there: int, here: Mapping[str, Any], what: str, definition: Mapping[str, Any]
) -> str | None:
    """What makes one property as it was, where that is one statement."""
    table = quote_name(definition["schema"], definition["name"])
    if what == "grants":
        return _grant(production, side, there, here["oid"])
    value = definition.get(what)
    if what == "comment":
        return f"COMMENT ON TABLE {table} IS {quote_literal(value)};" if value is not None else None
    if what == "row_security":
        return f"ALTER TABLE {table} {'ENABLE' if value else 'DISABLE'} ROW LEVEL SECURITY;"
    if what == "force_row_security":
        return f"ALTER TABLE {table} {'FORCE' if value else 'NO FORCE'} ROW LEVEL SECURITY;"
    if what == "owner":
        return f"ALTER TABLE {table} OWNER TO {quote_ident(str(value))};"
    if what == "replica_identity" and value in REPLICA_IDENTITIES:
        return f"ALTER TABLE {table} REPLICA IDENTITY {REPLICA_IDENTITIES[value]};"
    return None


def _grant(production: Any, side: Any, there: int, here: int) -> str | None:
    """The grants that a table had and has no more; columns are told by their names."""
    names = [
        {row["number"]: row["name"] for row in rows(connection, COLUMNS, (oid,))}
        for connection, oid in ((side, there), (production, here))
    ]
    found = [
        {
            (of_columns.get(row["objsubid"], ""), row["grantee"], row["privilege"], row["grantable"]): row
            for row in grants_of(connection, [oid]).values()
        }
        for (connection, oid), of_columns in zip(((side, there), (production, here)), names)
    ]
    gone = [row for key, row in found[0].items() if key not in found[1]]
    roles = {row["name"] for row in rows(production, ROLES)}
    return "\n".join(entry["command"] for entry in described_grants(side, gone, roles)) or None


def no_longer_inherited(production: Any, side: Any, relations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Entries for children of tables that come back which the damage, or somebody since, took off them."""
    came_back = [item["oid"] for item in relations if item["action"] == "place"]
    links = rows(side, CHILDREN, (came_back, came_back))
    entries = []
    for item in links:
        names = quote_name(item["schema"], item["name"]), quote_name(item["parent_schema"], item["parent"])
        if rows(production, TAKEN_OFF, names):
            child, parent = (
                display_name(item["schema"], item["name"]),
                display_name(item["parent_schema"], item["parent"]),
            )
            reason = (
                f"{child} was a child of {parent} just before the damage, and is none now, so that its rows are not "
                "seen through it. The command makes it one again"
            )
            command = f"ALTER TABLE {names[0]} INHERIT {names[1]};"
            entries.append(left("inheritance", f"{parent} on {child}", reason, command, lost=True))
    return entries
