# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import try_to_become
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows

# What DROP ... CASCADE of the roots removes: everything that depends on them, and whatever owns a thing thus reached
# (a view's rule is internal to the view, a member of an extension to the extension), as findDependentObjects() in
# src/backend/catalog/dependency.c walks pg_depend. A column (objsubid) carries only its own dependents away.
DEPENDENTS = """
WITH RECURSIVE lost(classid, objid, objsubid) AS (
    SELECT root.classid, root.objid, root.objsubid
    FROM unnest(%(classes)s::oid[], %(objects)s::oid[], %(columns)s::int[]) AS root(classid, objid, objsubid)
  UNION
    SELECT next.classid, next.objid, next.objsubid
    FROM lost CROSS JOIN LATERAL (
        SELECT d.classid, d.objid, d.objsubid FROM pg_catalog.pg_depend d
        WHERE d.refclassid = lost.classid AND d.refobjid = lost.objid
          AND (lost.objsubid = 0 OR d.refobjsubid = lost.objsubid)
      UNION ALL
        SELECT d.refclassid, d.refobjid, d.refobjsubid FROM pg_catalog.pg_depend d
        WHERE d.classid = lost.classid AND d.objid = lost.objid AND d.objsubid = lost.objsubid
          AND d.deptype IN ('i', 'e')
    ) AS next
)
"""

# What these need in order to be: types, functions, operators, collations, extensions; never a relation or a schema.
NEEDED = """
WITH RECURSIVE lost(classid, objid, objsubid) AS (
    SELECT root.classid, root.objid, root.objsubid
    FROM unnest(%(classes)s::oid[], %(objects)s::oid[], %(columns)s::int[]) AS root(classid, objid, objsubid)
  UNION
    SELECT d.refclassid, d.refobjid, d.refobjsubid
    FROM lost JOIN pg_catalog.pg_depend d
      ON d.classid = lost.classid AND d.objid = lost.objid AND d.objsubid = lost.objsubid
    WHERE d.refclassid NOT IN ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_namespace'::regclass)
)
"""

SHOWN = """
SELECT DISTINCT lost.classid::int8 AS classid, lost.objid::int8 AS objid, lost.objsubid,
       class.relname AS catalog, id.type, id.schema, id.name, id.identity,
       address.object_names AS names, address.object_args AS args,
       rel.relkind AS kind, rel.relpersistence AS persistence,
       CASE WHEN class.relname = 'pg_class' THEN lost.objid
            WHEN class.relname = 'pg_constraint' THEN con.conrelid
            WHEN class.relname = 'pg_trigger' THEN tg.tgrelid
            WHEN class.relname = 'pg_policy' THEN pol.polrelid
            WHEN class.relname = 'pg_rewrite' THEN rw.ev_class
            WHEN class.relname = 'pg_attrdef' THEN def.adrelid
            WHEN class.relname = 'pg_statistic_ext' THEN stx.stxrelid
       END::int8 AS relation,
       ix.indrelid::int8 AS index_of,
       con.contype,
       coalesce(tg.tgparentid <> 0, false) AS copied,
       coalesce(typ.typelem <> 0 AND typ.typcategory = 'A' OR typrel.relkind <> 'c', false) AS implied,
       EXISTS (SELECT FROM pg_catalog.pg_depend m WHERE m.classid = lost.classid AND m.objid = lost.objid
               AND m.deptype = 'e') AS member
FROM lost
JOIN pg_catalog.pg_class class ON class.oid = lost.classid
CROSS JOIN LATERAL pg_catalog.pg_identify_object(lost.classid, lost.objid, lost.objsubid) AS id
CROSS JOIN LATERAL pg_catalog.pg_identify_object_as_address(lost.classid, lost.objid, lost.objsubid) AS address
LEFT JOIN pg_catalog.pg_class rel ON class.relname = 'pg_class' AND rel.oid = lost.objid
LEFT JOIN pg_catalog.pg_index ix ON class.relname = 'pg_class' AND ix.indexrelid = lost.objid
LEFT JOIN pg_catalog.pg_constraint con ON class.relname = 'pg_constraint' AND con.oid = lost.objid
LEFT JOIN pg_catalog.pg_trigger tg ON class.relname = 'pg_trigger' AND tg.oid = lost.objid
LEFT JOIN pg_catalog.pg_trigger above ON above.oid = tg.tgparentid
LEFT JOIN pg_catalog.pg_constraint tgcon ON tgcon.oid = tg.tgconstraint
LEFT JOIN pg_catalog.pg_policy pol ON class.relname = 'pg_policy' AND pol.oid = lost.objid
LEFT JOIN pg_catalog.pg_rewrite rw ON class.relname = 'pg_rewrite' AND rw.oid = lost.objid
LEFT JOIN pg_catalog.pg_attrdef def ON class.relname = 'pg_attrdef' AND def.oid = lost.objid
LEFT JOIN pg_catalog.pg_type typ ON class.relname = 'pg_type' AND typ.oid = lost.objid
LEFT JOIN pg_catalog.pg_class typrel ON typrel.oid = typ.typrelid
LEFT JOIN pg_catalog.pg_statistic_ext stx ON class.relname = 'pg_statistic_ext' AND stx.oid = lost.objid
WHERE id.type IS NOT NULL
  -- What the server makes and names by itself: TOAST, the triggers behind foreign keys, copies on partitions (but for
  -- those of triggers that are enabled otherwise than the parent's, which a dump has, too).
  AND id.schema IS DISTINCT FROM 'pg_toast'
  AND NOT coalesce(CASE WHEN tg.tgparentid = 0 OR tgcon.contype = 'f' THEN tg.tgisinternal
                        ELSE tg.tgenabled = above.tgenabled END, false)
  AND NOT coalesce(con.contype = 'f' AND con.conparentid <> 0, false)
  AND NOT coalesce(rw.rulename = '_RETURN', false)
  AND coalesce(typrel.relkind <> 't', true)
  -- pg_get_object_address() does not know the relation behind a composite type, nor columns of views.
  AND coalesce(rel.relkind <> 'c', true)
  AND (lost.objsubid = 0 OR coalesce(rel.relkind IN ('r', 'p', 'f'), false))
ORDER BY 1, 2, 3
"""

# Looks a name up as the server itself does. Errors of class 42 and 3F mean that no such thing is there; any other
# error (a lock that cannot be had, no memory, a schema we may not look into) is no answer and goes up. Not every
# address that the server gives is one it takes back (22023): an operator with one operand has one argument, and
# pg_get_object_address() wants two. Such a thing is looked for in its catalogue.
LOOKUP = """
CREATE FUNCTION pg_temp.dbre_find(kind text, names text[], args text[], catalog oid, identity text) RETURNS int8
LANGUAGE plpgsql AS $dbre$
DECLARE
    state text;
    found int8;
BEGIN
    RETURN (SELECT address.objid::int8 FROM pg_catalog.pg_get_object_address(kind, names, args) AS address);
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE;
    IF state = '22023' THEN
        EXECUTE pg_catalog.format(
            'SELECT oid::int8 FROM %s WHERE (pg_catalog.pg_identify_object(%s, oid, 0)).identity = $1',
            catalog::pg_catalog.regclass, catalog
        ) INTO found USING identity;
        RETURN found;
    END IF;
    IF left(state, 2) IN ('42', '3F') AND state <> '42501' THEN
        RETURN NULL;
    END IF;
    RAISE;
END
$dbre$
"""

STATES = """
SELECT given.n::int AS n,
       pg_temp.dbre_find(
           given.kind, given.names::text[], given.args::text[], given.classid::oid, given.identity
       ) AS by_name,
       (pg_catalog.pg_identify_object(given.classid::oid, given.objid::oid, 0)).identity AS by_oid,
       (pg_catalog.pg_identify_object(given.classid::oid, given.objid::oid, 0)).type AS type_by_oid
FROM ROWS FROM (unnest(%(n)s::int[]), unnest(%(kinds)s::text[]), unnest(%(names)s::text[]), unnest(%(args)s::text[]),
                unnest(%(identities)s::text[]), unnest(%(classes)s::int8[]), unnest(%(objects)s::int8[]))
     AS given(n, kind, names, args, identity, classid, objid)
"""

# Owners of schemas that we may not look into.
CLOSED = """
SELECT DISTINCT pg_catalog.pg_get_userbyid(n.nspowner) AS owner FROM pg_catalog.pg_namespace n
WHERE n.nspname = ANY(%s) AND NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
"""


LOOKED_UP_AT_ONCE = 1000


def catalog_oids(connection: Any) -> dict[str, int]:
    """OIDs of the catalogues roots are in."""
    query = (
        "SELECT relname, oid::int8 FROM pg_catalog.pg_class WHERE oid IN ('pg_catalog.pg_class'::regclass, "
        "'pg_catalog.pg_namespace'::regclass, 'pg_catalog.pg_type'::regclass)"
    )
    return {item["relname"]: item["oid"] for item in rows(connection, query)}


def closure(
    side: Any,
    relations: Iterable[int],
    schemas: Iterable[int],
    columns: Iterable[tuple[int, int]] = (),
    types: Iterable[int] = (),
    others: Iterable[tuple[int, int]] = (),
) -> list[dict[str, Any]]:
    """Everything ``DROP ... CASCADE`` of these OIDs takes with it, the roots included, from the side instance.

    ``columns`` are pairs of a relation's OID and a column's number, ``others`` of a catalogue's OID and an object's.

    Each object: classid, objid, objsubid, catalog (``pg_class``), type and identity as pg_identify_object() says,
    ``relation`` (OID of the table it is part of, or itself), kind (relkind), contype, ``copied`` (the
    trigger of a partition, which comes with the parent's, but is enabled otherwise), ``implied`` (a row or array type,
    which comes with what it belongs to), ``member`` (made by its extension).
    """
    catalogs = catalog_oids(side)
    roots = [(catalogs["pg_class"], oid, 0) for oid in relations]
    roots += [(catalogs["pg_namespace"], oid, 0) for oid in schemas]
    roots += [(catalogs["pg_class"], oid, number) for oid, number in columns]
    roots += [(catalogs["pg_type"], oid, 0) for oid in types]
    roots += [(catalog, oid, 0) for catalog, oid in others]
    return _walk(side, DEPENDENTS, roots)


def needed_by(side: Any, items: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What objects of a closure need in order to be, and they themselves; relations and schemas left out."""
    return _walk(side, NEEDED, [(item["classid"], item["objid"], item["objsubid"]) for item in items])


def _walk(side: Any, walk: str, roots: Sequence[tuple[int, int, int]]) -> list[dict[str, Any]]:
    if not roots:
        return []
    classes, objects, columns = ([root[place] for root in roots] for place in range(3))
    return rows(side, walk + SHOWN, {"classes": classes, "objects": objects, "columns": columns})


def state_of(item: Mapping[str, Any], found: Mapping[str, Any], same_lineage: bool = True) -> str:
    """State in production of one object of the closure.

    ``missing``; ``present``: the same object (OIDs are stable in one lineage); ``renamed``: the same object under
    another name; ``recreated``: another object has its name. Where OIDs cannot be compared, a name that is there is
    ``present``.
    """
    if not same_lineage:
        return "missing" if found["by_name"] is None else "present"
    if found["by_name"] is None:
        return "renamed" if found["by_oid"] is not None and found["type_by_oid"] == item["type"] else "missing"
    return "present" if found["by_name"] == item["objid"] else "recreated"


def compare(production: Any, objects: Sequence[dict[str, Any]], same_lineage: bool = True) -> None:
    """Set ``state`` of each object as it is in production now (see :func:`state_of`); leaves production unchanged.

    Columns (objsubid <> 0) are looked up like all else: ``missing`` is a column that is gone.
    """
    asked = [(number, item) for number, item in enumerate(objects) if item["names"] is not None]
    # What is part of a table has no schema of its own, but is looked up by the table's.
    schemas = sorted({name for unused, item in asked for name in (item["schema"], *item["names"][:1]) if name})
    # A look locks what it finds until the transaction ends, and a server has room for some thousands of locks.
    for first in range(0, len(asked), LOOKED_UP_AT_ONCE):
        part = asked[first : first + LOOKED_UP_AT_ONCE]
        try:
            execute(production, "SET LOCAL lock_timeout = '2s'")
            try_to_become(production, [row["owner"] for row in rows(production, CLOSED, (schemas,))])
            execute(production, LOOKUP)
            answers = rows(
                production,
                STATES,
                {
                    "n": [number for number, unused in part],
                    "kinds": [item["type"] for unused, item in part],
                    "names": [array_literal(item["names"]) for unused, item in part],
                    "args": [array_literal(item["args"]) for unused, item in part],
                    "identities": [item["identity"] for unused, item in part],
                    "classes": [item["classid"] for unused, item in part],
                    "objects": [item["objid"] for unused, item in part],
                },
            )
        finally:
            production.rollback()
        for answer in answers:
            objects[answer["n"]]["state"] = state_of(objects[answer["n"]], answer, same_lineage)
    gone = {
        item["objid"]
        for unused, item in asked
        if item["catalog"] == "pg_class" and not item["objsubid"] and item["state"] == "missing"
    }
    for _unused, item in asked:
        if item["index_of"] in gone:
            # An index that has its name is one of another table.
            item["state"] = "missing"


def array_literal(values: Iterable[str] | None) -> str:
    """A text array as PostgreSQL writes it, so that arrays of different lengths can travel as one array of texts."""
    quoted = ['"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in values or []]
    return "{" + ",".join(quoted) + "}"
