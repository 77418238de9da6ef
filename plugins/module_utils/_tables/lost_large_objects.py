# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which large objects rows of recovered tables name and production has no more, and which of them come back.

A row can name any large object: whoever may write a column of type oid can fill it with numbers of other people's. What
these unlinked on purpose must not come back for that. So it matters who unlinked one:

- The damage did where the recovered instance says so. That stands just before the COMMIT of the transaction that did
  the damage, so that all that this wrote is in its pages already, unseen but for ``xmax``. Of a large object that it
  unlinked, the row in pg_largeobject_metadata has its number there, and so has the one in pg_shdepend that names the
  owner. (What only changed grants replaces the first alone.) That holds for a paused instance, for one that was
  promoted, and for a standby, and WAL need not be read once more.
- Where nothing says so (a moment that was given instead of a transaction, a dump, RDS, another transaction), anybody
  may have. Then one comes back only where whoever planted its number gains nothing: it belongs to the owner of the
  table, or to a role that the owner can act as anyway, and so could have kept or made it himself; or to a member of the
  owner, where that is a group that nobody logs in as. (Before PostgreSQL 16 whoever logs in as a role may make anybody
  a member of it, asked or not.) Others who may write into the table cannot be told apart, but what they name then
  belongs to the table's own people. The rest is named in the plan, and left to people with a command.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import force_statements
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import needs_cage
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident, quote_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value

# OIDs in one query.
ASKED_AT_ONCE = 10000

KNOWN = """
SELECT asked.oid FROM unnest(%s::int8[]) AS asked(oid)
WHERE EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid = asked.oid::oid)
"""
NEXT = """
SELECT oid::int8 AS oid FROM pg_catalog.pg_largeobject_metadata WHERE oid > %s::int8::oid ORDER BY 1 LIMIT %s
"""
LEAVES = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name
FROM (SELECT %(oid)s::oid AS oid UNION SELECT relid::oid FROM pg_catalog.pg_partition_tree(%(oid)s::oid)) AS tree
JOIN pg_catalog.pg_class c ON c.oid = tree.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' ORDER BY 2, 3
"""
# Without a row in pg_shdepend it belongs to who initdb made, and then no grants mean that none were changed.
COMES_BACK = """
SELECT m.oid::int8 AS oid,
       (m.xmax::text::int8 = ANY(%(xids)s::int8[])
        AND coalesce((SELECT s.xmax::text::int8 = ANY(%(xids)s::int8[]) FROM pg_catalog.pg_shdepend s
                      WHERE s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d
                                      WHERE d.datname = pg_catalog.current_database())
                        AND s.classid = 'pg_catalog.pg_largeobject'::regclass AND s.objid = m.oid AND s.deptype = 'o'),
                     m.lomacl IS NULL))
       OR m.lomowner = t.relowner
       OR pg_catalog.pg_has_role(t.relowner, m.lomowner, 'MEMBER')
       OR NOT h.rolcanlogin AND NOT o.rolsuper AND pg_catalog.pg_has_role(m.lomowner, t.relowner, 'MEMBER') AS back
FROM pg_catalog.pg_largeobject_metadata m
JOIN pg_catalog.pg_class t ON t.oid = %(table)s::oid
JOIN pg_catalog.pg_roles h ON h.oid = t.relowner JOIN pg_catalog.pg_roles o ON o.oid = m.lomowner
WHERE m.oid IN (SELECT asked.oid::oid FROM unnest(%(oids)s::int8[]) AS asked(oid))
"""
# A role that is no superuser may not read it everywhere. ``stored`` is what they take as they are compressed there.
SIZES = """
SELECT coalesce(sum(ends), 0)::int8 AS bytes, coalesce(sum(stored), 0)::int8 AS stored
FROM (SELECT max(pageno::int8 * (pg_catalog.current_setting('block_size')::int8 / 4)
                 + pg_catalog.octet_length(data)) AS ends,
             sum(pg_catalog.pg_column_size(data) + 28) AS stored
      FROM pg_catalog.pg_largeobject {which} GROUP BY loid) AS one
"""
OF_THESE = "WHERE loid IN (SELECT asked.oid::oid FROM unnest(%s::int8[]) AS asked(oid))"
MAY_READ = "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')"
OWNERS = """
SELECT pg_catalog.pg_get_userbyid(m.lomowner)::text AS owner, pg_catalog.array_agg(m.oid::int8 ORDER BY m.oid) AS oids
FROM pg_catalog.pg_largeobject_metadata m
WHERE m.oid IN (SELECT asked.oid::oid FROM unnest(%s::int8[]) AS asked(oid)) GROUP BY 1 ORDER BY 1
"""


EVERY = """
SELECT count(*) AS count,
       coalesce(pg_catalog.array_agg(DISTINCT pg_catalog.pg_get_userbyid(lomowner)::text), '{}') AS owners
FROM pg_catalog.pg_largeobject_metadata
"""


class LostLargeObjects(NamedTuple):
    """OIDs of large objects that production lacks: those that come ``back``, and those ``left`` to people."""

    back: list[int]
    left: list[int]


def parts_of(oids: Sequence[int]) -> list[list[int]]:
    """``oids``, as many at a time as go into one query."""
    return [list(oids[first : first + ASKED_AT_ONCE]) for first in range(0, len(oids), ASKED_AT_ONCE)]


def _known(connection: Any, oids: Sequence[int]) -> set[int]:
    """Those of ``oids`` that are large objects there."""
    return {row["oid"] for part in parts_of(oids) for row in rows(connection, KNOWN, (part,))}


def _gone(production: Any, side: Any) -> set[int]:
    """Large objects of the recovered instance that production has no more; most databases have none."""
    found: set[int] = set()
    last = 0
    while part := [row["oid"] for row in rows(side, NEXT, (last, ASKED_AT_ONCE))]:
        found |= set(part) - _known(production, part)
        last = part[-1]
    return found


def _named(side: Any, relation: Mapping[str, Any]) -> dict[int, set[int]]:
    """Large objects that rows of one table of the recovered instance name, in columns of type oid or a domain of it.

    By OID of the table, or of each partition: they may have owners of their own.
    """
    every = fingerprint.columns_of(side, [relation["oid"]])[relation["oid"]]
    columns = [quote_ident(column["name"]) for column in every if column["base_name"] == "oid"]
    if not columns:
        return {}
    caged = needs_cage(side, relation["oid"], written=False)
    for statement in force_statements(side, [relation["oid"]])[0]:
        execute(side, statement)
    found: dict[int, set[int]] = {}
    for leaf in rows(side, LEAVES, {"oid": relation["oid"]}):
        table = quote_name(leaf["schema"], leaf["name"])
        named = found.setdefault(leaf["oid"], set())
        for column in columns:
            if caged:
                # To query that table would run code of its owner as us; COPY of a plain column does not.
                text = io.StringIO()
                with side.cursor() as cursor:
                    cursor.copy_expert(f"COPY {table} ({column}) TO STDOUT", text)
                given = {int(line) for line in text.getvalue().split("\n") if line.isdigit()}
                named |= _known(side, sorted(given))
            else:
                query = (
                    f"SELECT DISTINCT m.oid::int8 AS oid FROM ONLY {table} t "
                    f"JOIN pg_catalog.pg_largeobject_metadata m ON m.oid = t.{column}"
                )
                named |= {row["oid"] for row in rows(side, query)}
    return found


def lost_large_objects(
    production: Any, side: Any, relations: Iterable[Mapping[str, Any]], xids: Sequence[int]
) -> LostLargeObjects:
    """Those that rows of ``relations`` of a load plan name. ``xids`` are known to have done the damage."""
    gone = _gone(production, side)
    named: set[int] = set()
    back: set[int] = set()
    for relation in relations:
        if not gone or relation["action"] == "none" or relation["kind"] not in ("r", "p"):
            continue
        for table, oids in _named(side, relation).items():
            wanted = sorted((oids & gone) - back)
            named |= set(wanted)
            for part in parts_of(wanted):
                asked = {"table": table, "oids": part, "xids": [xid & 0xFFFFFFFF for xid in xids]}
                back |= {row["oid"] for row in rows(side, COMES_BACK, asked) if row["back"]}
    return LostLargeObjects(sorted(back), sorted(named - back))


def by_owner(side: Any, oids: Sequence[int]) -> dict[str, list[int]]:
    """``oids`` by the name of the role that they belong to."""
    found: dict[str, list[int]] = {}
    for part in parts_of(oids):
        for row in rows(side, OWNERS, (part,)):
            found.setdefault(row["owner"], []).extend(row["oids"])
    return found


def size_of(side: Any, oids: Sequence[int]) -> dict[str, Any]:
    """``{count, bytes, stored, owners}``; bytes are null where we may not look."""
    sizes: dict[str, Any] = {"bytes": None, "stored": None}
    if not oids or value(side, MAY_READ):
        parts = [rows(side, SIZES.format(which=OF_THESE), (part,))[0] for part in parts_of(oids)]
        sizes = {key: sum(int(part[key]) for part in parts) for key in sizes}
    return {"count": len(oids), **sizes, "owners": sorted(by_owner(side, oids))}


def large_objects_of(
    production: Any, side: Any, relations: Iterable[Mapping[str, Any]], xids: Sequence[int]
) -> dict[str, Any]:
    """What a load plan says of large objects: those that come back, those ``left``, and by which ``xids`` it knows."""
    found = lost_large_objects(production, side, relations, xids)
    return {**size_of(side, found.back), "left": size_of(side, found.left), "xids": list(xids)}


def every_large_object(side: Any) -> dict[str, Any]:
    """The same of a database that was lost as a whole: all come back."""
    sizes = rows(side, SIZES.format(which=""))[0] if value(side, MAY_READ) else {"bytes": None, "stored": None}
    return {**rows(side, EVERY)[0], **sizes, "left": size_of(side, []), "xids": []}
