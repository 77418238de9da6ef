# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What publishing locks of the tables that production uses, known beforehand so that it can be had all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import Lock
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import Context
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import Entry

# How a surviving table is locked while something is made on it (PostgreSQL documentation, 13.3.1): all of it, but for
# these kinds of entries.
MODE_OF = {
    "INDEX": "SHARE",
    "PUBLICATION TABLE": "SHARE UPDATE EXCLUSIVE",
    "STATISTICS": "SHARE UPDATE EXCLUSIVE",
    "TRIGGER": "SHARE ROW EXCLUSIVE",
}
# Made on partitions or children, too.
OF_TREES = ("CHECK CONSTRAINT", "TRIGGER")

NAMES = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY(%s::oid[])
"""
# A partition that is attached changes what the default one may hold, and is an end of the foreign keys of its parent.
PARTNERS = """
WITH parent AS (SELECT DISTINCT pg_catalog.to_regclass(name)::oid AS oid FROM unnest(%s::text[]) AS name),
partner AS (
  SELECT p.partdefid AS oid, 'ACCESS EXCLUSIVE' AS mode FROM pg_catalog.pg_partitioned_table p
  JOIN parent ON parent.oid = p.partrelid
  UNION
  SELECT k.confrelid, 'SHARE ROW EXCLUSIVE' FROM pg_catalog.pg_constraint k
  JOIN parent ON parent.oid = k.conrelid WHERE k.contype = 'f'
  UNION
  SELECT k.conrelid, 'SHARE ROW EXCLUSIVE' FROM pg_catalog.pg_constraint k
  JOIN parent ON parent.oid = k.confrelid WHERE k.contype = 'f'
)
SELECT n.nspname AS schema, c.relname AS name, partner.mode FROM partner
JOIN pg_catalog.pg_class c ON c.oid = partner.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
"""


def locks_of_entries(context: Context, entries: Sequence[Entry]) -> list[Lock]:
    """The locks under which ``entries`` of a dump are made, on the tables that they belong to."""
    tables: Mapping[tuple[int, int], int] = {
        (item["classid"], item["objid"]): item["index_of"] or item["relation"] or 0
        for item in context.plan["objects"]
        if not item["objsubid"]
    }
    wanted = [(tables.get((entry.catalog, entry.oid), 0), entry.description) for entry in entries]
    side = context.side.connect(context.side_database)
    try:
        found = rows(side, NAMES, ([oid for oid, unused in wanted if oid],))
    finally:
        side.close()
    names = {row["oid"]: quote_name(row["schema"], row["name"]) for row in found}
    return [
        Lock(names[oid], MODE_OF.get(description, "ACCESS EXCLUSIVE"), description in OF_TREES)
        for oid, description in wanted
        if oid in names
    ]


def locks_to_attach(connection: Any, parents: Sequence[str]) -> list[Lock]:
    """The locks under which partitions are attached to living ``parents`` (SQL)."""
    partners = [
        Lock(quote_name(row["schema"], row["name"]), row["mode"], tree=True)
        for row in rows(connection, PARTNERS, (list(parents),))
    ]
    return [*(Lock(parent, "SHARE UPDATE EXCLUSIVE") for parent in parents), *partners]
