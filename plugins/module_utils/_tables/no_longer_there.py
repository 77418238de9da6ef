# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hung on tables that production still has, and is not there any more: indexes, constraints, triggers, views.

A transaction that deletes rows may drop an index, too. Whoever merges rows into a table of now cannot know whether
that, or somebody since, on purpose, took it: it is told, with what makes it again, and never made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows

# A constraint that has an index is told once. A check is evaluated by whoever adds it: its functions shall run as the
# owner of the table, as those of indexes and foreign keys do anyway. An index is built while others write.
DEFINITIONS = """
SELECT w.class::int8 AS classid, w.oid::int8 AS objid,
       w.class = 'pg_catalog.pg_class'::regclass
         AND EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = w.oid AND k.contype IN ('p', 'u', 'x'))
         AS of_constraint,
       CASE w.class
         WHEN 'pg_catalog.pg_class'::regclass THEN
           (SELECT CASE WHEN t.relkind = 'p' THEN pg_catalog.pg_get_indexdef(i.indexrelid)
                   ELSE pg_catalog.regexp_replace(pg_catalog.pg_get_indexdef(i.indexrelid),
                                                  '^CREATE (UNIQUE )?INDEX ', 'CREATE \\1INDEX CONCURRENTLY ') END
            FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class t ON t.oid = i.indrelid WHERE i.indexrelid = w.oid)
         WHEN 'pg_catalog.pg_constraint'::regclass THEN
           (SELECT pg_catalog.format(CASE k.contype WHEN 'c' THEN 'SET ROLE %%2$I; %%1$s; RESET ROLE' ELSE '%%1$s' END,
                                     k.altered, k.owner)
            FROM (SELECT k.oid, k.contype, pg_catalog.pg_get_userbyid(c.relowner) AS owner,
                         pg_catalog.format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', k.conrelid::regclass, k.conname,
                                           pg_catalog.pg_get_constraintdef(k.oid)) AS altered
                  FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid) AS k
            WHERE k.oid = w.oid)
         WHEN 'pg_catalog.pg_trigger'::regclass THEN pg_catalog.pg_get_triggerdef(w.oid)
         WHEN 'pg_catalog.pg_statistic_ext'::regclass THEN pg_catalog.pg_get_statisticsobjdef(w.oid)
         WHEN 'pg_catalog.pg_attrdef'::regclass THEN
           (SELECT pg_catalog.format('ALTER TABLE %%s ALTER COLUMN %%I SET DEFAULT %%s', d.adrelid::regclass, a.attname,
                                     pg_catalog.pg_get_expr(d.adbin, d.adrelid))
            FROM pg_catalog.pg_attrdef d
            JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum AND a.attgenerated = ''
            WHERE d.oid = w.oid)
       END AS definition
FROM unnest(%s::oid[], %s::oid[]) AS w(class, oid)
"""
REASON = (
    "it was there just before the damage and is not now: the damage took it, or somebody did since. It was not put back"
)


def no_longer_there(side: Any, objects: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Entries for ``left_to_do`` out of ``objects`` of a closure with their states; definitions are from ``side``.

    Where one statement does not make it again, the side instance stays for its definition.
    """
    gone = [
        item
        for item in objects
        if item["state"] == "missing" and not (item["objsubid"] or item["member"] or item["implied"])
        # NOT NULL is no object of its own before PostgreSQL 18.
        if item["contype"] != "n" and item["type"] != "user mapping"
    ]
    if not gone:
        return []
    wanted = [[item[part] for item in gone] for part in ("classid", "objid")]
    found = {(row["classid"], row["objid"]): row for row in rows(side, DEFINITIONS, wanted)}
    entries = []
    for item in gone:
        row = found[item["classid"], item["objid"]]
        if row["of_constraint"]:
            continue
        command = row["definition"] and f"{row['definition']};"
        entries.append(
            {
                "kind": item["type"],
                "name": item["identity"],
                "reason": REASON if command else f"{REASON}; its definition is in the side instance",
                "command": command,
                "lost": True,
                "needs_side_instance": not command,
            }
        )
    return entries
