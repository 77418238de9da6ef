# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import Fingerprint, fingerprints
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError, too_large
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import become, try_to_become
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import (
    acting_as_owner,
    is_another,
    may_open,
    needs_cage,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.lookup import (
    find_relations,
    find_schemas,
    require_known,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.users_code import runs_others_code

# Types that compare byte by byte, and hold no OID. All others are compared and hashed as text: numeric keeps its scale
# that way, an enum its label, a regclass its name.
PLAIN_TYPES = frozenset(
    {"bool", "bytea", "char", "date", "int2", "int4", "int8", "time", "timestamp", "timestamptz", "uuid"}
)
TEXT_TYPES = frozenset({"text", "varchar"})
# Their own hash folds 64 bits to 32, so that -1 and 4294967295 are the same: hashint8extended() in
# src/backend/access/hash/hashfunc.c. Their bytes are hashed whole.
FOLDED_TYPES = {
    "int8": "int8send",
    "time": "time_send",
    "timestamp": "timestamp_send",
    "timestamptz": "timestamptz_send",
}
# Says how a checksum was made; one that was made in another way cannot be compared.
CHECKSUM_VERSION = "5"

COLUMNS = """
WITH RECURSIVE wanted AS (
  SELECT DISTINCT atttypid AS type, atttypmod AS modifier FROM pg_catalog.pg_attribute
  WHERE attrelid = ANY(%(oids)s::oid[]) AND attnum > 0 AND NOT attisdropped
), stripped AS (
  SELECT type, modifier AS own_modifier, type AS base, modifier FROM wanted
  UNION ALL
  SELECT s.type, s.own_modifier, t.typbasetype, t.typtypmod
  FROM stripped s JOIN pg_catalog.pg_type t ON t.oid = s.base AND t.typtype = 'd'
), bases AS (
  SELECT s.type, s.own_modifier, s.base, s.modifier, t.typname, t.typtype
  FROM stripped s JOIN pg_catalog.pg_type t ON t.oid = s.base AND t.typtype <> 'd'
), parts AS (
  SELECT DISTINCT base, base AS part FROM bases
  UNION
  SELECT p.base, inner_type.oid FROM parts p JOIN pg_catalog.pg_type t ON t.oid = p.part
  CROSS JOIN LATERAL (
    SELECT t.typbasetype UNION ALL SELECT t.typelem WHERE t.oid >= 16384
    UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
              WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid
    UNION ALL SELECT r.rngtypid FROM pg_catalog.pg_range r
              WHERE t.typtype = 'm' AND (pg_catalog.to_jsonb(r) ->> 'rngmultitypid')::oid = t.oid
  ) AS inner_type(oid)
  WHERE inner_type.oid <> 0
), binaries AS (
  SELECT p.base, pg_catalog.string_agg(
           p.part::text || coalesce('(' || (
             SELECT pg_catalog.string_agg(a.atttypid::text, ',' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
             WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) || ')', ''),
           ' ' ORDER BY p.part) AS text
  FROM parts p JOIN pg_catalog.pg_type t ON t.oid = p.part
  GROUP BY p.base
  HAVING pg_catalog.bool_and(t.typsend <> 0 AND t.typreceive <> 0 AND CASE
    WHEN t.oid < 16384 THEN t.typtype IN ('b', 'r', 'm') AND t.typname !~ '^_?reg'
    ELSE t.typtype IN ('c', 'd', 'e', 'r', 'm') OR t.typcategory = 'A' END)
)
SELECT a.attrelid::int8 AS relation, a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
       t.typname, n.nspname AS type_schema, t.typtype, t.oid < 16384 AS builtin,
       CASE WHEN b.base < 16384 THEN b.typname END AS base_name,
       CASE WHEN b.base < 16384 THEN pg_catalog.format_type(b.base, b.modifier) END AS base_type,
       CASE WHEN b.typtype = 'e' THEN 'enum' ELSE y.text END AS binary,
       a.attnotnull AS not_null, a.attgenerated AS generated, a.attidentity AS identity,
       pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS default,
       CASE WHEN a.attcollation <> t.typcollation THEN co.nspname || '.' || c.collname END AS collation,
       a.attstorage AS storage, {compression} AS compression, a.attstattarget AS statistics, a.attoptions AS options
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN bases b ON b.type = a.atttypid AND b.own_modifier = a.atttypmod
LEFT JOIN binaries y ON y.base = b.base
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
LEFT JOIN pg_catalog.pg_namespace co ON co.oid = c.collnamespace
WHERE a.attrelid = ANY(%(oids)s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
"""

DEFINITIONS = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind, c.relpersistence AS persistence,
  pg_catalog.pg_get_userbyid(c.relowner) AS owner,
  ts.spcname AS tablespace,
  c.relrowsecurity AS row_security, c.relforcerowsecurity AS force_row_security, c.relreplident AS replica_identity,
  pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS partition_bound,
  ARRAY(SELECT option FROM unnest(c.reloptions) AS option ORDER BY 1) AS options,
  pg_catalog.obj_description(c.oid, 'pg_class') AS comment,
  ARRAY(SELECT i.inhparent::regclass::text FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid ORDER BY i.inhseqno)
    AS parents,
  ARRAY(SELECT k.conname || ': ' || pg_catalog.pg_get_constraintdef(k.oid) FROM pg_catalog.pg_constraint k
        WHERE k.conrelid = c.oid AND k.contype <> 't' AND NOT (k.contype = 'f' AND k.conparentid <> 0) ORDER BY 1)
    AS constraints,
  ARRAY(SELECT k.conrelid::regclass || ' ' || k.conname || ': ' || pg_catalog.pg_get_constraintdef(k.oid)
        FROM pg_catalog.pg_constraint k
        WHERE k.confrelid = c.oid AND k.contype = 'f' AND k.conparentid = 0 ORDER BY 1) AS referenced_by,
  ARRAY(SELECT pg_catalog.pg_get_indexdef(x.indexrelid) || CASE WHEN x.indisvalid THEN '' ELSE ' INVALID' END
               || CASE WHEN x.indisclustered THEN ' CLUSTER' ELSE '' END
               || CASE WHEN x.indisreplident THEN ' REPLICA IDENTITY' ELSE '' END
        FROM pg_catalog.pg_index x WHERE x.indrelid = c.oid ORDER BY 1) AS indexes,
  ARRAY(SELECT pg_catalog.pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::text FROM pg_catalog.pg_trigger t
        WHERE t.tgrelid = c.oid AND NOT t.tgisinternal ORDER BY 1) AS triggers,
  ARRAY(SELECT p.polname || ' ' || p.polcmd::text
               || CASE WHEN p.polpermissive THEN ' permissive' ELSE ' restrictive' END
               || ' to ' || array_to_string(ARRAY(SELECT CASE role WHEN 0 THEN 'public' ELSE role::regrole::text END
                                                  FROM unnest(p.polroles) AS role ORDER BY 1), ',')
               || ' using ' || coalesce(pg_catalog.pg_get_expr(p.polqual, c.oid), '')
               || ' check ' || coalesce(pg_catalog.pg_get_expr(p.polwithcheck, c.oid), '')
        FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid ORDER BY 1) AS policies,
  ARRAY(SELECT pg_catalog.pg_get_ruledef(r.oid) || ' ' || r.ev_enabled::text FROM pg_catalog.pg_rewrite r
        WHERE r.ev_class = c.oid ORDER BY 1) AS rules,
  ARRAY(SELECT pg_catalog.pg_get_statisticsobjdef(s.oid) FROM pg_catalog.pg_statistic_ext s
        WHERE s.stxrelid = c.oid ORDER BY 1) AS statistics,
  ARRAY(SELECT p.pubname{publication_details}
        FROM pg_catalog.pg_publication_rel pr JOIN pg_catalog.pg_publication p ON p.oid = pr.prpubid
        WHERE pr.prrelid = c.oid ORDER BY 1) AS publications,
  ARRAY(SELECT item FROM (
          SELECT 'table: ' || acl::text AS item
          FROM unnest(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) AS acl
          UNION ALL
          SELECT 'column ' || a.attname || ': ' || acl::text
          FROM pg_catalog.pg_attribute a, unnest(a.attacl) AS acl
          WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS items ORDER BY 1) AS grants,
  ARRAY(SELECT a.attname || ': ' || d.description FROM pg_catalog.pg_attribute a
        JOIN pg_catalog.pg_description d ON d.classoid = 'pg_catalog.pg_class'::regclass AND d.objoid = c.oid
         AND d.objsubid = a.attnum WHERE a.attrelid = c.oid AND a.attnum > 0 ORDER BY 1) AS comments
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_tablespace ts ON ts.oid = c.reltablespace
WHERE c.oid = ANY(%s::oid[])
ORDER BY n.nspname, c.relname
"""

SEQUENCES = """
SELECT DISTINCT s.oid::int8 AS oid, n.nspname AS schema, s.relname AS name, d.refobjid::int8 AS relation,
       q.seqincrement AS increment
FROM pg_catalog.pg_class s
JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = s.oid AND d.objsubid = 0
  AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.deptype IN ('a', 'i')
WHERE s.relkind = 'S' AND (s.oid = ANY(%(oids)s::oid[]) OR d.refobjid = ANY(%(oids)s::oid[]))
ORDER BY 2, 3
"""

# Sequences that number rows of tables without being owned by them: those of what they are partitions of, which TRUNCATE
# ... CASCADE RESTART IDENTITY restarts although the parent has no file that WAL could name, and those that a default
# takes from elsewhere. Only such as we may set.
NUMBERING = """
WITH above AS (
    SELECT t.oid AS relation, up.relid::oid AS owner
    FROM unnest(%(oids)s::oid[]) AS t(oid) CROSS JOIN LATERAL pg_catalog.pg_partition_ancestors(t.oid) AS up
    WHERE up.relid <> t.oid
), used AS (
    SELECT above.relation, d.objid AS sequence FROM above
    JOIN pg_catalog.pg_depend d ON d.refobjid = above.owner AND d.refclassid = 'pg_catalog.pg_class'::regclass
    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objsubid = 0 AND d.deptype IN ('a', 'i')
  UNION
    SELECT def.adrelid, d.refobjid FROM pg_catalog.pg_attrdef def
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = def.oid
    WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND def.adrelid = ANY(%(oids)s::oid[])
)
SELECT s.oid::int8 AS oid, n.nspname AS schema, s.relname AS name, used.relation::int8 AS relation,
       q.seqincrement AS increment
FROM used
JOIN pg_catalog.pg_class s ON s.oid = used.sequence AND s.relkind = 'S'
JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
WHERE CASE WHEN pg_catalog.has_schema_privilege(n.oid, 'USAGE')
      THEN pg_catalog.has_sequence_privilege(s.oid, 'SELECT') AND pg_catalog.has_sequence_privilege(s.oid, 'UPDATE') END
ORDER BY 2, 3, 4
"""

# Pieces of the queries above that a server knows only from a version on.
COMPRESSION_14 = "a.attcompression"
PUBLICATION_15 = """ || CASE WHEN pr.prattrs IS NULL THEN '' ELSE ' columns ' || ARRAY(
            SELECT a.attname FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum = ANY (pr.prattrs::int2[]) ORDER BY 1)::text END
          || coalesce(' where ' || pg_catalog.pg_get_expr(pr.prqual, c.oid), '')"""

# Owners of relations, of sequences of theirs, and of schemas, that we may not read.
UNREADABLE = """
SELECT pg_catalog.pg_get_userbyid(c.relowner) AS owner FROM pg_catalog.pg_class c
WHERE (c.oid = ANY(%(oids)s::oid[])
       OR c.relkind = 'S' AND c.oid IN (SELECT objid FROM pg_catalog.pg_depend WHERE refobjid = ANY(%(oids)s::oid[])
                                        AND classid = 'pg_catalog.pg_class'::regclass AND deptype IN ('a', 'i')))
  AND NOT pg_catalog.has_table_privilege(c.oid, 'SELECT')
UNION
SELECT pg_catalog.pg_get_userbyid(n.nspowner) FROM pg_catalog.pg_namespace n
WHERE n.oid IN (SELECT relnamespace FROM pg_catalog.pg_class WHERE oid = ANY(%(oids)s::oid[]))
  AND NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
"""

# Whom we must be to act as the owners of relations: them, and the database's owner where we may make nothing.
READ_AS = """
SELECT pg_catalog.pg_get_userbyid(relowner) AS owner FROM pg_catalog.pg_class
WHERE oid = ANY(%(oids)s::oid[]) AND relkind IN ('r', 'p', 'm')
UNION
SELECT pg_catalog.pg_get_userbyid(datdba) FROM pg_catalog.pg_database
WHERE datname = pg_catalog.current_database() AND NOT pg_catalog.has_database_privilege(oid, 'CREATE')
"""

DEFINITIONS_ONLY = "Take the fingerprint of definitions only (checksum: false), or log in as that owner (login_user)."

PROPERTIES = tuple(
    name
    for line in (
        "kind persistence owner tablespace row_security force_row_security replica_identity partition_bound options",
        "comment comments parents columns constraints referenced_by indexes triggers policies rules statistics",
        "publications grants",
    )
    for name in line.split()
)


def columns_of(connection: Any, oids: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """Columns of relations, in order, by relation OID. Types are qualified: the search_path has no schema of users.

    ``base_name`` and ``base_type`` are the server's own type that the column's is, or that its domain is made of;
    ``binary`` says what COPY in binary carries of its values, and is None where only text does.
    """
    columns: dict[int, list[dict[str, Any]]] = {oid: [] for oid in oids}
    compression = COMPRESSION_14 if connection.server_version >= 140000 else "''"
    for column in rows(connection, COLUMNS.replace("{compression}", compression), {"oids": list(oids)}):
        columns[column["relation"]].append(column)
    return columns


def columns_of_table(connection: Any, table: str) -> list[dict[str, Any]]:
    """Columns of one table, an SQL name."""
    oid = value(connection, "SELECT pg_catalog.to_regclass(%s)::oid::int8", (table,))
    return columns_of(connection, [oid])[oid]


def as_text(value: str, column: Mapping[str, Any]) -> str:
    """SQL expression: a value of a column as its type writes it, the same only for the same values.

    A cast could be the function of the type's owner (CREATE CAST), which would then run as us; of a row, the server
    itself makes text, by the output functions of its fields. A domain has the casts of what it is made of, and no
    others.
    """
    return f"{value}::text" if column["base_name"] else f"ROW({value})::text"


def shown_text(value: str) -> str:
    """SQL expression: a value as text for people, empty for NULL, by its type's output function and never by a cast."""
    return f"pg_catalog.format('%s', {value})"


def _hashed(column: Mapping[str, Any], version_num: int) -> str:
    """SQL expression: what of one column goes into the hash of its row."""
    name = quote_ident(column["name"])
    builtin = column["base_name"]
    if version_num < 140000:
        # The text of a value over 512 MB would not fit into memory.
        return f"pg_catalog.encode(pg_catalog.sha256({name}), 'hex')" if builtin == "bytea" else as_text(name, column)
    if builtin in FOLDED_TYPES:
        return f"pg_catalog.{FOLDED_TYPES[builtin]}({name})"
    if builtin in PLAIN_TYPES:
        return name
    if builtin in TEXT_TYPES:
        return f'{name} COLLATE "C"'
    return f'{as_text(name, column)} COLLATE "C"'


def row_hash(columns: Sequence[Mapping[str, Any]], version_num: int) -> str:
    """SQL expression: a 64-bit number for one row, the same for the same values on both ends.

    A row is never written as text. The server's hash of a row is a weighted sum of its columns' hashes
    (hash_record_extended() in src/backend/utils/adt/rowtypes.c), in whose sum over a table values could change places
    unseen; so it is hashed once more. The hash of a float takes all 53 bits that it holds of the first, where that of
    an integer folds them into 32, and costs a fifth of that of a text. Both servers of a comparison have the same major
    version.
    """
    if not columns:
        return "0"
    parts = ", ".join(_hashed(column, version_num) for column in columns)
    if version_num < 140000:
        row = f'pg_catalog.hash_array_extended(ARRAY[{parts}] COLLATE "C", 0)'
    else:
        row = f"pg_catalog.hash_record_extended(ROW({parts}), 0)"
    return f"pg_catalog.hashfloat8extended(pg_catalog.float8({row}), 0)"


def checksum_query(
    table: str, columns: Sequence[Mapping[str, Any]], version_num: int, max_of: str | None = None
) -> str:
    """Query for the rows of one table: count, order-independent checksum, and the greatest value of a column."""
    # The greatest of no value at all is none, and not an empty text.
    most = f"max({quote_ident(max_of or 'none')})"
    greatest = f", CASE WHEN {most} IS NOT NULL THEN {shown_text(most)} END AS max" if max_of else ""
    return (
        f"SELECT count(*) AS rows, '{CHECKSUM_VERSION}:' || coalesce(sum({row_hash(columns, version_num)}), 0)::text "
        f"AS checksum{greatest} FROM {table}"
    )


def parallel_settings(workers: int) -> dict[str, str]:
    """Session settings with which a scan of a table is spread over ``workers`` processes.

    The planner takes ranges of a key for as many groups as there are keys, and would sort all rows for some thousand
    sums.
    """
    return {
        "enable_sort": "off",
        "max_parallel_workers_per_gather": str(workers),
        "parallel_setup_cost": "0",
        "parallel_tuple_cost": "0",
    }


def content(
    connection: Any, table: str, columns: Sequence[Mapping[str, Any]], max_of: str | None = None
) -> dict[str, Any]:
    """Rows and checksum of ``table`` (SQL, ``ONLY`` where inheritance matters), which must run no code of users."""
    try:
        return rows(connection, checksum_query(table, columns, connection.server_version, max_of))[0]
    except connection.InternalError as error:
        what = too_large(str(error))
        if not what:
            raise
        raise RecoveryError(f"the rows of {table} cannot be compared: {str(error).strip()}{what}") from error


def content_as_owner(
    connection: Any,
    oid: int,
    schema: str,
    table: str,
    columns: Sequence[Mapping[str, Any]],
    max_of: str | None = None,
) -> dict[str, Any]:
    """Rows and checksum of a table of others, in a transaction that can write."""
    with acting_as_owner(connection, oid, schema, ["SELECT"]) as owner:
        return owner.rows(checksum_query(table, columns, connection.server_version, max_of))[0]


def rows_as_owner(connection: Any, item: Mapping[str, Any], query: str, advice: str) -> list[dict[str, Any]]:
    """Result of a query on one relation, as its owner wherever the server can keep its code from acting as us.

    ``item`` has oid, schema, name, kind, owner and row security. RecoveryError with ``advice`` where that cannot be.
    """
    oid = item["oid"]
    another = is_another(connection, item["owner"])
    if not another and not runs_others_code(connection, oid, written=False):
        return rows(connection, query)
    open_to_us = may_open(connection, oid)
    # Row security may bind even the owner, but not a superuser. It binds who stands in for one.
    hidden = item["row_security"] and (item["force_row_security"] or not another)
    if open_to_us and not hidden:
        with acting_as_owner(connection, oid, item["schema"], ["SELECT"]) as owner:
            return owner.rows(query)
    if open_to_us:
        execute(connection, f"LOCK TABLE {as_table(item)} IN SHARE UPDATE EXCLUSIVE MODE")
    if needs_cage(connection, oid, written=False):
        shown = display_name(item["schema"], item["name"])
        whose = f"its owner {item['owner']}" if another else "other roles than its owner"
        where = "the server is read-only, or we may not act as that role there"
        where = "row security binds whom it could be read as" if open_to_us else where
        raise RecoveryError(
            f"the rows of {shown} cannot be read without running code of {whose} (a check, an index "
            f"expression or a type), and {where}, so that it would run with our rights. Nothing was read. {advice}",
            relation=shown,
        )
    return rows(connection, query)


def as_table(item: Mapping[str, Any]) -> str:
    """SQL name of a relation, without its inheritance children."""
    return ("ONLY " if item["kind"] == "r" else "") + quote_name(item["schema"], item["name"])


def sequences_of(connection: Any, oids: Sequence[int]) -> list[dict[str, Any]]:
    """Sequences among ``oids`` or owned by them, with their values."""
    return _with_values(connection, rows(connection, SEQUENCES, {"oids": list(oids)}))


def sequences_numbering(connection: Any, oids: Sequence[int]) -> list[dict[str, Any]]:
    """Sequences that give the rows of tables their numbers, their own or not, with their values; one for each table."""
    own = [item for item in sequences_of(connection, oids) if item["relation"] in oids]
    have = {(item["oid"], item["relation"]) for item in own}
    numbering = rows(connection, NUMBERING, {"oids": list(oids)})
    others = [item for item in numbering if (item["oid"], item["relation"]) not in have]
    return own + _with_values(connection, others)


def _with_values(connection: Any, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for sequence in found:
        query = f"SELECT last_value, is_called FROM {quote_name(sequence['schema'], sequence['name'])}"
        sequence.update(rows(connection, query)[0])
    return found


def definitions(connection: Any, oids: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Definition side of a fingerprint, by relation name as shown to people."""
    columns = columns_of(connection, oids)
    sequences = sequences_of(connection, oids)
    found: dict[str, dict[str, Any]] = {}
    publication = PUBLICATION_15 if connection.server_version >= 150000 else ""
    for item in rows(connection, DEFINITIONS.replace("{publication_details}", publication), (list(oids),)):
        oid = item["oid"]
        item["columns"] = [
            {
                key: column[key]
                for key in (
                    "name",
                    "type",
                    "not_null",
                    "default",
                    "identity",
                    "generated",
                    "collation",
                    "storage",
                    "compression",
                )
            }
            for column in columns[oid]
        ]
        item["sequences"] = {
            display_name(sequence["schema"], sequence["name"]): {
                key: sequence[key] for key in ("last_value", "is_called", "increment")
            }
            for sequence in sequences
            if sequence["relation"] == oid or sequence["oid"] == oid
        }
        found[display_name(item["schema"], item["name"])] = item
    return found


def is_behind(sequence: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a sequence would give out a number that ``other`` has already given out."""
    ahead = sequence["last_value"] - other["last_value"]
    if sequence["increment"] < 0:
        ahead = -ahead
    return bool(ahead < 0 or (ahead == 0 and other["is_called"] and not sequence["is_called"]))


def is_known(one: Any, other: Any, known: Sequence[str]) -> bool:
    """Whether all that differs between two lists of definitions is named in ``known``.

    A name is ``name on table``, or ``table in publication name``.
    """
    if not isinstance(one, list) or not isinstance(other, list):
        return False
    names = [name.split(" on ")[0] for name in known]
    differing = [str(item) for item in [*one, *other] if item not in one or item not in other]
    publications = [name.split(" in publication ")[-1] for name in known if " in publication " in name]
    return all(
        any(item.startswith(f"{name}: ") or f" {name}: " in item for name in names)
        or any(item == name or item.startswith((f"{name} columns ", f"{name} where ")) for name in publications)
        for item in differing
    )


def require_same_checksums(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Raise RecoveryError when two fingerprints have checksums that were made in different ways."""
    for name in sorted(set(one) & set(other)):
        sums = [str(item[name]["checksum"]) for item in (one, other) if "checksum" in item[name]]
        ways = {checksum.split(":")[0] if ":" in checksum else "1" for checksum in sums}
        if len(ways) > 1:
            raise RecoveryError(
                f"the checksums of {name} were made by different versions ({' and '.join(sums)}), so "
                "they tell nothing about its rows. Nothing was changed. Take the fingerprint to compare with anew, or "
                "compare definitions only (checksum: false).",
                relation=name,
            )


def difference(
    recovered: Mapping[str, Any], production: Mapping[str, Any], known: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """What differs between two fingerprints: ``[{relation, property, recovered, production}]``, empty when equal.

    A sequence differs only when production's is behind; one that is ahead has gone on and never goes back. What
    differs only in objects named in ``known`` (those left to do, which are reported as such) is left out.
    """
    known = list(known)
    found: list[dict[str, Any]] = []
    for name in sorted(set(recovered) | set(production)):
        one, other = recovered.get(name), production.get(name)
        if one is None or other is None:
            here = {"recovered": one is not None, "production": other is not None}
            found += [{"relation": name, "property": "exists", **here}] if name not in known else []
            continue
        for key in (*PROPERTIES, "rows", "checksum", "max"):
            if key in one and key in other and one[key] != other[key] and not is_known(one[key], other[key], known):
                found.append({"relation": name, "property": key, "recovered": one[key], "production": other[key]})
        for sequence, values in sorted(one.get("sequences", {}).items()):
            present = other.get("sequences", {}).get(sequence)
            if present is None or is_behind(present, values):
                found.append(
                    {"relation": name, "property": f"sequence {sequence}", "recovered": values, "production": present}
                )
    return found


def take_fingerprint(
    connection: Any,
    relations: Sequence[Mapping[str, str]],
    schemas: Sequence[str],
    *,
    checksum: bool = True,
    max_of: str | None = None,
) -> dict[str, Fingerprint]:
    """Fingerprint of ``relations`` and of all tables in ``schemas``; RecoveryError names what is not there.

    What belongs to others is read as a member of theirs, so the caller must not commit. Views have a definition only.
    Rows of a partitioned table are those of its partitions; of a table with inheritance children only its own count.
    """
    named = find_relations(connection, relations)
    require_known(named, [(item["schema"], item["name"]) for item in relations], "relation", connection)
    found_schemas = find_schemas(connection, schemas)
    require_known(found_schemas, schemas, "schema", connection)
    inside = rows(
        connection,
        "SELECT oid::int8 AS oid FROM pg_catalog.pg_class "
        "WHERE relnamespace = ANY(%s::oid[]) AND relkind IN ('r', 'p', 'f')",
        (list(found_schemas.values()),),
    )
    oids = sorted({item["oid"] for item in [*named.values(), *inside]})
    become(connection, [row["owner"] for row in rows(connection, UNREADABLE, {"oids": oids})])
    if checksum and not value(connection, "SELECT pg_catalog.current_setting('transaction_read_only')::bool"):
        try_to_become(connection, [row["owner"] for row in rows(connection, READ_AS, {"oids": oids})])
    prints = definitions(connection, oids)
    columns = columns_of(connection, oids)
    for item in prints.values():
        if checksum and item["kind"] in ("r", "p", "m"):
            has_column = any(column["name"] == max_of for column in columns[item["oid"]])
            of = max_of if has_column else None
            query = checksum_query(as_table(item), columns[item["oid"]], connection.server_version, of)
            item.update(rows_as_owner(connection, item, query, DEFINITIONS_ONLY)[0])
        del item["oid"]
    return fingerprints(prints)
