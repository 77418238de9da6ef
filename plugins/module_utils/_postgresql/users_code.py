# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether rows of a table can be touched without running what users wrote.

The answer is no unless all that the server runs is known to be harmless: immutable functions of its own, or of an
extension written in C. Even the server's own functions are not, when they are not immutable: query_to_xml() runs any
SQL, lo_export() writes files. Nor is a domain of others that rows are written to: it may get a check meanwhile, since
ALTER DOMAIN ... ADD CHECK ... NOT VALID waits for nobody (UpdateDomainConstraintRef() in
src/backend/utils/cache/typcache.c).

What a superuser, or who we are, put into a table of his own is trusted. What he uses of others there is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows, value

# Nodes of expressions (pg_node_tree) that do nothing but to call the functions and operators they name. Before
# PostgreSQL 16 some are called by shorter names (src/backend/nodes/outfuncs.c).
HARMLESS_NODES = frozenset(
    {
        *("VAR", "CONST", "FUNCEXPR", "NAMEDARGEXPR", "OPEXPR", "DISTINCTEXPR", "NULLIFEXPR", "SCALARARRAYOPEXPR"),
        *("BOOLEXPR", "RELABELTYPE", "COERCEVIAIO", "ARRAYCOERCEEXPR", "COLLATEEXPR", "COLLATE", "NULLTEST"),
        *("CASEEXPR", "CASE", "CASEWHEN", "WHEN", "CASETESTEXPR", "ARRAYEXPR", "ARRAY", "COALESCEEXPR", "COALESCE"),
        *("MINMAXEXPR", "MINMAX", "BOOLEANTEST", "COERCETODOMAINVALUE"),
    }
)
NODE = re.compile(r"\{([A-Z_0-9]+)")
FUNCTION = re.compile(r":(?:funcid|opfuncid|hashfuncid|negfuncid) (\d+)")
OPERATOR = re.compile(r":opno (\d+)")
TYPE = re.compile(
    r":(?:vartype|consttype|funcresulttype|opresulttype|resulttype|array_typeid|element_typeid|casetype|coalescetype"
    r"|minmaxtype|typeId) (\d+)"
)

# Expressions that are run, or of which at least constant parts are, when a row is written or a query is planned.
EXPRESSIONS = """
WITH tree AS (
  SELECT %(oid)s::oid AS oid UNION SELECT relid::oid FROM pg_catalog.pg_partition_tree(%(oid)s::oid)
), above AS (
  SELECT oid FROM tree UNION SELECT relid::oid FROM pg_catalog.pg_partition_ancestors(%(oid)s::oid)
)
SELECT k.conbin::text AS tree FROM tree JOIN pg_catalog.pg_constraint k ON k.conrelid = tree.oid AND k.contype = 'c'
UNION ALL
SELECT d.adbin::text FROM tree
JOIN pg_catalog.pg_attribute a ON a.attrelid = tree.oid AND a.attgenerated <> '' AND NOT a.attisdropped
JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
UNION ALL
SELECT e FROM tree JOIN pg_catalog.pg_index x ON x.indrelid = tree.oid
CROSS JOIN LATERAL unnest(ARRAY[x.indexprs::text, x.indpred::text]) AS e WHERE e IS NOT NULL
UNION ALL
SELECT pg_catalog.to_jsonb(s) ->> 'stxexprs' FROM tree JOIN pg_catalog.pg_statistic_ext s ON s.stxrelid = tree.oid
WHERE pg_catalog.to_jsonb(s) ->> 'stxexprs' IS NOT NULL
UNION ALL
SELECT p.partexprs::text FROM above JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = above.oid
WHERE p.partexprs IS NOT NULL
"""
# A view's query, or a foreign server's idea of one. Triggers and rules are for those who write to see to.
NO_TABLE = """
WITH tree AS (
  SELECT %(oid)s::oid AS oid UNION SELECT relid::oid FROM pg_catalog.pg_partition_tree(%(oid)s::oid)
)
SELECT 1 FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid WHERE c.relkind NOT IN ('r', 'p', 'm')
"""
COLUMN_TYPES = """
SELECT DISTINCT a.atttypid::int8 AS type FROM pg_catalog.pg_attribute a
WHERE a.attnum > 0 AND NOT a.attisdropped
  AND (a.attrelid = %(oid)s::oid OR a.attrelid IN (SELECT relid FROM pg_catalog.pg_partition_tree(%(oid)s::oid)))
"""
# Roles from whom something must be kept.
OTHERS = "SELECT oid FROM pg_catalog.pg_roles WHERE NOT rolsuper AND rolname <> current_user"
# Types within types, what runs when a value of one is made from its text or its parts, and who may change that.
TYPES = f"""
WITH RECURSIVE found AS (
  SELECT unnest(%s::oid[]) AS oid
  UNION
  SELECT inner_type.oid FROM found JOIN pg_catalog.pg_type t ON t.oid = found.oid
  CROSS JOIN LATERAL (
    SELECT t.typbasetype UNION ALL SELECT t.typelem
    UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
              WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid
    UNION ALL SELECT r.rngtypid FROM pg_catalog.pg_range r
              WHERE t.typtype = 'm' AND (pg_catalog.to_jsonb(r) ->> 'rngmultitypid')::oid = t.oid
  ) AS inner_type(oid)
  WHERE inner_type.oid <> 0
)
SELECT k.conbin::text AS tree, NULL::int8 AS function, false AS domain_of_others
FROM found JOIN pg_catalog.pg_constraint k ON k.contypid = found.oid AND k.contype = 'c'
UNION ALL
SELECT NULL, r.rngcanonical::oid::int8, false FROM found JOIN pg_catalog.pg_range r ON r.rngtypid = found.oid
WHERE r.rngcanonical <> 0
UNION ALL
SELECT NULL, NULL, true FROM found JOIN pg_catalog.pg_type t ON t.oid = found.oid
WHERE t.typtype = 'd' AND t.typowner IN ({OTHERS})
"""
HARMFUL_FUNCTIONS = """
SELECT 1
FROM (SELECT unnest(%(functions)s::oid[]) AS oid
      UNION ALL SELECT o.oprcode FROM pg_catalog.pg_operator o WHERE o.oid = ANY(%(operators)s::oid[])) AS called
LEFT JOIN pg_catalog.pg_proc p ON p.oid = called.oid
LEFT JOIN pg_catalog.pg_language l ON l.oid = p.prolang
LEFT JOIN pg_catalog.pg_roles r ON r.oid = p.proowner
WHERE NOT coalesce(p.provolatile = 'i' AND (p.oid < 16384 OR l.lanname IN ('internal', 'c') AND r.rolsuper), false)
LIMIT 1
"""
FUNCTIONS_OF_OTHERS = f"""
SELECT 1
FROM (SELECT unnest(%(functions)s::oid[]) AS oid
      UNION ALL SELECT o.oprcode FROM pg_catalog.pg_operator o WHERE o.oid = ANY(%(operators)s::oid[])) AS called
LEFT JOIN pg_catalog.pg_proc p ON p.oid = called.oid
WHERE p.oid IS NULL OR p.proowner IN ({OTHERS})
LIMIT 1
"""
# What the query of a view uses, and those of the views that it reads.
USED = """
WITH RECURSIVE used AS (
  SELECT 'pg_catalog.pg_rewrite'::regclass::oid AS classid, oid AS objid FROM pg_catalog.pg_rewrite WHERE ev_class = %s
  UNION
  SELECT more.classid, more.objid FROM used CROSS JOIN LATERAL (
    SELECT d.refclassid AS classid, d.refobjid AS objid FROM pg_catalog.pg_depend d
    WHERE used.classid = 'pg_catalog.pg_rewrite'::regclass AND d.classid = used.classid AND d.objid = used.objid
    UNION ALL
    SELECT 'pg_catalog.pg_rewrite'::regclass, r.oid FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_rewrite r ON r.ev_class = c.oid
    WHERE used.classid = 'pg_catalog.pg_class'::regclass AND c.oid = used.objid AND c.relkind = 'v'
    UNION ALL
    SELECT 'pg_catalog.pg_proc'::regclass, o.oprcode::oid FROM pg_catalog.pg_operator o
    WHERE used.classid = 'pg_catalog.pg_operator'::regclass AND o.oid = used.objid
  ) AS more
)
SELECT t.relname AS kind, used.objid::int8 AS oid, c.oid::regclass::text AS name, c.relkind, c.relrowsecurity
FROM used JOIN pg_catalog.pg_class t ON t.oid = used.classid
LEFT JOIN pg_catalog.pg_class c ON used.classid = 'pg_catalog.pg_class'::regclass AND c.oid = used.objid
"""
CODE_OF_OTHERS = f"""
SELECT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE proowner IN ({OTHERS}))
    OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE typtype = 'd' AND typowner IN ({OTHERS}))
"""


def calls_of(trees: Iterable[str]) -> tuple[set[int], set[int], set[int], bool]:
    """Functions, operators and types (OIDs) that expressions name, and whether all their nodes are known.

    ``trees`` are texts of pg_node_tree. Names in them cannot hide a node: outToken() in src/backend/nodes/outfuncs.c
    escapes braces, so that they can at most look like one too many.
    """
    functions: set[int] = set()
    operators: set[int] = set()
    types: set[int] = set()
    known = True
    for tree in trees:
        known = known and HARMLESS_NODES.issuperset(NODE.findall(tree))
        functions.update(int(oid) for oid in FUNCTION.findall(tree))
        operators.update(int(oid) for oid in OPERATOR.findall(tree))
        types.update(int(oid) for oid in TYPE.findall(tree))
    # An operator whose function was not looked up yet, or that has no hash function.
    return functions - {0}, operators - {0}, types - {0}, known


def _are_harmless(connection: Any, trees: Iterable[str], types: Iterable[int], harmful: str, written: bool) -> bool:
    """Whether expressions, and types whose values are ``written``, call no ``harmful`` functions (a query)."""
    functions, operators, waiting, known = calls_of(trees)
    waiting |= set(types)
    seen: set[int] = set()
    while waiting and known:
        seen |= waiting
        within = rows(connection, TYPES, (sorted(waiting),))
        if written and any(row["domain_of_others"] for row in within):
            return False
        more = calls_of(row["tree"] for row in within if row["tree"])
        functions |= more[0] | {row["function"] for row in within if row["function"]}
        operators |= more[1]
        waiting = more[2] - seen
        known = known and more[3]
    called = {"functions": sorted(functions), "operators": sorted(operators)}
    return known and value(connection, harmful, called) is None


def _runs(connection: Any, oid: int, harmful: str, written: bool) -> bool:
    if value(connection, NO_TABLE, {"oid": oid}) is not None:
        return True
    trees = [row["tree"] for row in rows(connection, EXPRESSIONS, {"oid": oid})]
    types = [row["type"] for row in rows(connection, COLUMN_TYPES, {"oid": oid})]
    return not _are_harmless(connection, trees, types, harmful, written)


def runs_users_code(connection: Any, oid: int, written: bool = True) -> bool:
    """Whether touching rows of a table, or planning a query on it, may run what a user wrote, triggers and rules apart.

    Unless rows are ``written``, that is what the planning of a query runs, and more where that is simpler to tell. The
    answer lasts as long as a lock that keeps others from changing the table (SHARE UPDATE EXCLUSIVE).
    """
    return _runs(connection, oid, HARMFUL_FUNCTIONS, written)


def runs_others_code(connection: Any, oid: int, written: bool = True) -> bool:
    """The same of a table that belongs to us or to a superuser: whether it may run what others wrote."""
    return _runs(connection, oid, FUNCTIONS_OF_OTHERS, written)


def view_runs_others_code(connection: Any, oid: int) -> bool:
    """Whether to run the query of a view that belongs to us or to a superuser runs functions or domains of others.

    What the tables that it reads may run when a query is planned is for the caller to ask, see relations_of_view().
    """
    used = rows(connection, USED, (oid,))
    called = {"functions": [row["oid"] for row in used if row["kind"] == "pg_proc"], "operators": []}
    types = [row["oid"] for row in used if row["kind"] == "pg_type"]
    theirs = value(connection, FUNCTIONS_OF_OTHERS, called) is not None
    return theirs or not _are_harmless(connection, [], types, FUNCTIONS_OF_OTHERS, written=True)


def relations_of_view(connection: Any, oid: int) -> list[dict[str, Any]]:
    """Relations that the query of a view reads: oid, name (SQL), relkind, relrowsecurity."""
    return [row for row in rows(connection, USED, (oid,)) if row["kind"] == "pg_class" and row["oid"] != oid]


def others_have_code(connection: Any) -> bool:
    """Whether there is any function or domain in the database that belongs to others than us and superusers."""
    return bool(value(connection, CODE_OF_OTHERS))


def is_harmless_type(connection: Any, oid: int, written: bool = True) -> bool:
    """Whether values of a type are made from their text without running what a user wrote."""
    return _are_harmless(connection, [], [oid], HARMFUL_FUNCTIONS, written)


# Objects whose definition holds constants that are read by the input function of a type which is not the server's own,
# or as what the columns of another table are now: the bounds of a partition. What such a type runs when that is read
# can be changed, and another type can take its name.
WITH_CONSTANTS = f"""
WITH named AS (
  SELECT DISTINCT d.classid, d.objid, d.objsubid FROM pg_catalog.pg_depend d
  JOIN pg_catalog.pg_type t ON t.oid = d.refobjid
  WHERE d.refclassid = 'pg_catalog.pg_type'::regclass AND t.oid >= 16384
    AND (NOT %(of_others)s OR t.typowner IN ({OTHERS}))
), expressions AS (
  SELECT classid, objid FROM named
  WHERE classid IN ('pg_catalog.pg_attrdef'::regclass, 'pg_catalog.pg_constraint'::regclass,
                    'pg_catalog.pg_policy'::regclass, 'pg_catalog.pg_rewrite'::regclass,
                    'pg_catalog.pg_statistic_ext'::regclass, 'pg_catalog.pg_trigger'::regclass)
), relations AS (
  SELECT c.oid, c.relkind FROM named JOIN pg_catalog.pg_class c ON c.oid = named.objid AND c.relkind IN ('i', 'I', 'p')
  WHERE named.classid = 'pg_catalog.pg_class'::regclass AND named.objsubid = 0
), bounded AS (
  SELECT p.partrelid AS oid FROM pg_catalog.pg_partitioned_table p
  JOIN pg_catalog.pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = ANY(p.partattrs::int2[])
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  WHERE t.oid >= 16384 AND (NOT %(of_others)s OR t.typowner IN ({OTHERS}))
  UNION SELECT oid FROM relations WHERE relkind = 'p'
), found AS (
  SELECT classid, objid FROM expressions
  UNION SELECT 'pg_catalog.pg_class'::regclass, oid FROM relations
  UNION SELECT 'pg_catalog.pg_class'::regclass, i.inhrelid FROM bounded
        JOIN pg_catalog.pg_inherits i ON i.inhparent = bounded.oid
  UNION SELECT 'pg_catalog.pg_constraint'::regclass, k.oid FROM relations
        JOIN pg_catalog.pg_constraint k ON k.conindid = relations.oid AND k.contype = 'x'
  UNION SELECT 'pg_catalog.pg_class'::regclass, d.adrelid FROM expressions e
        JOIN pg_catalog.pg_attrdef d ON e.classid = 'pg_catalog.pg_attrdef'::regclass AND d.oid = e.objid
  UNION SELECT CASE WHEN k.conrelid <> 0 THEN 'pg_catalog.pg_class'::regclass ELSE 'pg_catalog.pg_type'::regclass END,
               CASE WHEN k.conrelid <> 0 THEN k.conrelid ELSE k.contypid END FROM expressions e
        JOIN pg_catalog.pg_constraint k ON e.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = e.objid
  UNION SELECT 'pg_catalog.pg_class'::regclass, r.ev_class FROM expressions e
        JOIN pg_catalog.pg_rewrite r ON e.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = e.objid
             AND r.ev_type = '1'
  UNION SELECT 'pg_catalog.pg_proc'::regclass, p.oid FROM named
        JOIN pg_catalog.pg_proc p ON named.classid = 'pg_catalog.pg_proc'::regclass AND p.oid = named.objid
             AND (p.prokind = 'a' OR p.proargdefaults IS NOT NULL
                  OR pg_catalog.to_jsonb(p) ->> 'prosqlbody' IS NOT NULL)
  UNION SELECT 'pg_catalog.pg_type'::regclass, t.oid FROM named
        JOIN pg_catalog.pg_type t ON named.classid = 'pg_catalog.pg_type'::regclass AND t.oid = named.objid
             AND t.typtype = 'd' AND t.typdefaultbin IS NOT NULL
)
SELECT DISTINCT found.classid::int8 AS catalog, found.objid::int8 AS oid FROM found
"""


def objects_with_constants(connection: Any, of_others: bool = False) -> set[tuple[int, int]]:
    """Objects (catalog OID, OID) of a database that cannot be defined without reading constants of users' types.

    With ``of_others`` of types only that belong to others than us and superusers.

    Even a type that runs nothing now may run something when the definition is read again: its owner may give it a
    check, or put another type in its place.
    """
    return {(row["catalog"], row["oid"]) for row in rows(connection, WITH_CONSTANTS, {"of_others": of_others})}


PLAIN_TYPE = """
WITH RECURSIVE base AS (
  SELECT t.oid, t.typtype, t.typbasetype, t.typtypmod, 0 AS depth, NULL::int4 AS modifier
  FROM pg_catalog.pg_type t WHERE t.oid = pg_catalog.to_regtype(%s)
  UNION ALL
  SELECT t.oid, t.typtype, t.typbasetype, t.typtypmod, base.depth + 1, base.typtypmod
  FROM base JOIN pg_catalog.pg_type t ON base.typtype = 'd' AND t.oid = base.typbasetype
)
SELECT oid::int8 AS oid, pg_catalog.format_type(oid, modifier) AS name FROM base WHERE typtype <> 'd' OR depth = 0
ORDER BY depth
"""


def plain_type(connection: Any, name: str) -> str:
    """A type (SQL) that holds the values of type ``name`` and runs nothing of users when they come in.

    The type itself, the one that a domain is made of, or text.
    """
    found = rows(connection, PLAIN_TYPE, (name,))
    if found and is_harmless_type(connection, found[0]["oid"]):
        return name
    return str(found[-1]["name"]) if found and is_harmless_type(connection, found[-1]["oid"]) else "text"
