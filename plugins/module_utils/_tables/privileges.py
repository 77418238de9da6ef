# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which privileges a transaction took from objects that are still there, as DROP OWNED does beside what it drops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import display_name, quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows

# Every object that has privileges: catalogue, its columns for them and for the owner, and the letter of acldefault().
HOLDERS = (
    ("pg_class", "relacl", "relowner", "CASE relkind WHEN 'S' THEN 's' ELSE 'r' END"),
    ("pg_namespace", "nspacl", "nspowner", "'n'"),
    ("pg_proc", "proacl", "proowner", "'f'"),
    ("pg_type", "typacl", "typowner", "'T'"),
    ("pg_language", "lanacl", "lanowner", "'l'"),
    ("pg_foreign_server", "srvacl", "srvowner", "'S'"),
    ("pg_foreign_data_wrapper", "fdwacl", "fdwowner", "'F'"),
    ("pg_largeobject_metadata", "lomacl", "lomowner", "'L'"),
    ("pg_database", "datacl", "datdba", "'d'"),
)
# A row's xmin stays what it was when the row is frozen.
EXPLODED = """
SELECT h.catalog::text AS catalog, h.objid::int8 AS objid, h.objsubid::int AS objsubid, h.xmin::text::int8 AS xmin,
       coalesce(r.rolname, 'PUBLIC')::text AS grantee, (r.oid IS NOT NULL) AS is_role,
       a.privilege_type::text AS privilege, a.is_grantable AS grantable
FROM ({holders}) AS h
CROSS JOIN LATERAL pg_catalog.aclexplode(h.acl) AS a
LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
WHERE (r.oid IS NOT NULL OR a.grantee = 0)
"""
COLUMNS = """
SELECT 'pg_class' AS catalog, attrelid AS objid, attnum AS objsubid, attacl AS acl, xmin
FROM pg_catalog.pg_attribute WHERE attacl IS NOT NULL AND NOT attisdropped
"""
# The rows themselves, with or without privileges.
ALIVE = """
SELECT h.catalog::text AS catalog, h.objid::int8 AS objid, h.objsubid::int AS objsubid, h.xmin::text::int8 AS xmin
FROM ({holders}) AS h WHERE h.objid = ANY(%s::oid[])
"""
IDENTITIES = """
SELECT o.type, o.identity, w.number, a.attname::text AS column
FROM ROWS FROM (pg_catalog.unnest(%(catalogs)s::text[]), pg_catalog.unnest(%(objects)s::int8[]),
                pg_catalog.unnest(%(columns)s::int4[])) WITH ORDINALITY AS w(catalog, objid, objsubid, number)
CROSS JOIN LATERAL pg_catalog.pg_identify_object(
  -- The server knows large objects as those of the catalogue that holds their pages.
  (SELECT c.oid FROM pg_catalog.pg_class c
   WHERE c.relname = CASE w.catalog WHEN 'pg_largeobject_metadata' THEN 'pg_largeobject' ELSE w.catalog END
   AND c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace), w.objid::oid, 0) AS o
LEFT JOIN pg_catalog.pg_attribute a
  ON w.catalog = 'pg_class' AND w.objsubid > 0 AND a.attrelid = w.objid::oid AND a.attnum = w.objsubid
ORDER BY w.number
"""
DEFAULTS = """
SELECT d.oid::int8 AS oid, o.rolname::text AS creator, n.nspname::text AS schema, d.defaclobjtype::text AS kind,
       coalesce(r.rolname, 'PUBLIC')::text AS grantee, (r.oid IS NOT NULL) AS is_role,
       a.privilege_type::text AS privilege, a.is_grantable AS grantable
FROM pg_catalog.pg_default_acl d
JOIN pg_catalog.pg_roles o ON o.oid = d.defaclrole
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace
CROSS JOIN LATERAL pg_catalog.aclexplode(d.defaclacl) AS a
LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
WHERE r.oid IS NOT NULL OR a.grantee = 0
"""
# By the name of the policy and its table, with what makes it again. Roles are told by their names.
POLICIES = """
SELECT p.polname::text AS name, p.polrelid::int8 AS oid, n.nspname::text AS schema, c.relname::text AS table,
       p.xmin::text::int8 AS xmin,
       ARRAY(SELECT r.rolname::text FROM pg_catalog.pg_roles r WHERE r.oid = ANY (p.polroles) ORDER BY 1) AS roles,
       CASE WHEN p.polpermissive THEN '' ELSE ' AS RESTRICTIVE' END
         || CASE p.polcmd WHEN 'r' THEN ' FOR SELECT' WHEN 'a' THEN ' FOR INSERT' WHEN 'w' THEN ' FOR UPDATE'
                          WHEN 'd' THEN ' FOR DELETE' ELSE '' END AS kind,
       coalesce(' USING (' || pg_catalog.pg_get_expr(p.polqual, p.polrelid) || ')', '')
         || coalesce(' WITH CHECK (' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) || ')', '') AS conditions
FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
"""
# What production has where nobody has set default privileges (pg_default_acl has no row), and who is there.
BUILT_IN = """
SELECT o.rolname::text AS creator, k.kind::text AS kind, coalesce(r.rolname, 'PUBLIC')::text AS grantee,
       a.privilege_type::text AS privilege
FROM pg_catalog.pg_roles o
CROSS JOIN (VALUES ('r', 'r'), ('S', 's'), ('f', 'f'), ('T', 'T'), ('n', 'n')) AS k(kind, letter)
CROSS JOIN LATERAL pg_catalog.aclexplode(pg_catalog.acldefault(k.letter::"char", o.oid)) AS a
LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
WHERE o.rolname = ANY(%s)
"""
PRESENT = """
SELECT (SELECT pg_catalog.array_agg(rolname::text) FROM pg_catalog.pg_roles) AS roles,
       (SELECT pg_catalog.array_agg(nspname::text) FROM pg_catalog.pg_namespace) AS schemas
"""
# The words of GRANT for the types of pg_identify_object.
WORDS = {
    "table": "TABLE",
    "view": "TABLE",
    "materialized view": "TABLE",
    "foreign table": "TABLE",
    "sequence": "SEQUENCE",
    "schema": "SCHEMA",
    "function": "FUNCTION",
    "procedure": "PROCEDURE",
    "aggregate": "FUNCTION",
    "type": "TYPE",
    "language": "LANGUAGE",
    "server": "FOREIGN SERVER",
    "foreign-data wrapper": "FOREIGN DATA WRAPPER",
    "large object": "LARGE OBJECT",
    "database": "DATABASE",
}
DEFAULT_WORDS = {"r": "TABLES", "S": "SEQUENCES", "f": "FUNCTIONS", "T": "TYPES", "n": "SCHEMAS", "L": "LARGE OBJECTS"}


def _holders(explicit: bool) -> str:
    selects = []
    for catalog, acl, owner, letter in HOLDERS:
        value = acl if explicit else f'coalesce({acl}, pg_catalog.acldefault(({letter})::"char", {owner}))'
        here = [f"{acl} IS NOT NULL"] if explicit else []
        if catalog == "pg_database":
            here.append("datname = pg_catalog.current_database()")
        where = f" WHERE {' AND '.join(here)}" if here else ""
        selects.append(
            f"SELECT '{catalog}' AS catalog, oid AS objid, 0 AS objsubid, {value} AS acl, xmin "
            f"FROM pg_catalog.{catalog}{where}"
        )
    return " UNION ALL ".join([*selects, COLUMNS])


def grants_of(
    connection: Any, objects: Sequence[int] | None = None
) -> dict[tuple[str, int, int, str, str], dict[str, Any]]:
    """Privileges by catalogue, OID, column number, grantee and privilege.

    Those that were granted; of ``objects``, where given, those of their owners and PUBLIC by default, too.
    """
    query = EXPLODED.format(holders=_holders(objects is None))
    found = (
        rows(connection, query)
        if objects is None
        else rows(connection, f"{query} AND h.objid = ANY(%s::oid[])", (objects,))
    )
    return {_key(row): row for row in found}


def _key(row: Mapping[str, Any]) -> tuple[str, int, int, str, str]:
    return (row["catalog"], row["objid"], row["objsubid"], row["grantee"], row["privilege"])


def lost_grants(production: Any, side: Any, xids: Sequence[int]) -> tuple[list[dict[str, Any]], set[str]]:
    """Entries ``{name, reason, command, lost}`` for privileges that the transactions ``xids`` took from living objects.

    That it was they is known by the ``xmin`` of the row that lacks them. Where another transaction has written the row
    since, a privilege counts as taken when its role lost others for certain. What somebody else revoked is not told.
    Both servers have the same OIDs. Also returns the roles that lost any.
    """
    before = grants_of(side)
    # Not of all that production has: the catalogues may be large.
    have = grants_of(production, sorted({row["objid"] for row in before.values()}))
    missing = [
        row for key, row in before.items() if key not in have or (row["grantable"] and not have[key]["grantable"])
    ]
    # A column that went comes back with its own.
    of_columns = "pg_catalog.pg_attribute WHERE attnum > 0 AND NOT attisdropped"
    columns = f"SELECT 'pg_class', attrelid, attnum, xmin FROM {of_columns}"
    selects = [
        f"SELECT '{catalog}' AS catalog, oid AS objid, 0 AS objsubid, xmin FROM pg_catalog.{catalog}"
        for catalog, *_rest in HOLDERS
    ]
    here = rows(
        production,
        ALIVE.format(holders=" UNION ALL ".join([*selects, columns])),
        ([row["objid"] for row in missing],),
    )
    written = {(row["catalog"], row["objid"], row["objsubid"]): row["xmin"] for row in here}
    short = {xid & 0xFFFFFFFF for xid in xids}
    alive = [(row, written[_key(row)[:3]]) for row in missing if _key(row)[:3] in written]
    for_certain = {row["grantee"] for row, xmin in alive if xmin in short}
    gone = [row for row, xmin in alive if row["grantee"] in for_certain]
    return described_grants(side, gone, _present(production)["roles"]), for_certain


def _present(production: Any) -> dict[str, set[str]]:
    (found,) = rows(production, PRESENT)
    return {name: set(found[name] or ()) for name in ("roles", "schemas")}


def described_grants(side: Any, gone: Sequence[Mapping[str, Any]], roles: set[str]) -> list[dict[str, Any]]:
    """One entry for each object and grantee; the commands, run by the owner or a superuser, give all back."""
    if not gone:
        return []
    arguments = {
        "catalogs": [row["catalog"] for row in gone],
        "objects": [row["objid"] for row in gone],
        "columns": [row["objsubid"] for row in gone],
    }
    known = [{**row, **name} for row, name in zip(gone, rows(side, IDENTITIES, arguments)) if name["type"] in WORDS]
    by_grant = itemgetter("type", "identity", "grantee", "is_role")
    entries = []
    for (kind, identity, grantee, is_role), group in groupby(sorted(known, key=by_grant), by_grant):
        of_grant = list(group)
        to = quote_ident(grantee) if is_role else "PUBLIC"
        commands = [
            f"GRANT {', '.join(sorted(map(_privilege, same)))} ON {WORDS[kind]} {identity} TO {to}"
            + (" WITH GRANT OPTION;" if grantable else ";")
            for grantable in (False, True)
            for same in [[row for row in of_grant if row["grantable"] == grantable]]
            if same
        ]
        entries.append(_entry(f"{kind} {identity}", grantee, is_role, of_grant, commands, roles))
    return entries


def _privilege(row: Mapping[str, Any]) -> str:
    return f"{row['privilege']} ({quote_ident(row['column'])})" if row.get("column") else str(row["privilege"])


def _entry(
    where: str,
    grantee: str,
    is_role: bool,
    of_grant: Iterable[Mapping[str, Any]],
    commands: Sequence[str],
    roles: set[str],
    lost: bool = True,
) -> dict[str, Any]:
    what = ", ".join(sorted(map(_privilege, of_grant)))
    reason = f"the same transaction took {what} from {grantee}"
    if not lost:
        reason = f"{grantee} had {what} just before the damage; that it is gone may be meant, nothing tells who did it"
    if is_role and grantee not in roles:
        reason += f". Role {grantee} does not exist any more"
        commands = [f"CREATE ROLE {quote_ident(grantee)} NOLOGIN;", *commands]
    return {"name": f"{grantee} on {where}", "reason": reason, "command": "\n".join(commands), "lost": lost}


def lost_default_privileges(production: Any, side: Any, robbed: set[str]) -> list[dict[str, Any]]:
    """Entries like those of ``lost_grants`` for default privileges that are gone, of roles and schemas that are not.

    A row that is gone does not tell who removed it: it counts as lost where its roles are among ``robbed``, which lost
    other privileges for certain.
    """
    before = rows(side, DEFAULTS)
    present = _present(production)
    before = [
        row
        for row in before
        if row["kind"] in DEFAULT_WORDS
        and row["creator"] in present["roles"]
        and (row["schema"] is None or row["schema"] in present["schemas"])
    ]
    if not before:
        return []
    name = itemgetter("creator", "schema", "kind")
    now = rows(production, DEFAULTS)
    have = {(*name(row), row["grantee"], row["privilege"], row["grantable"]) for row in now}
    set_here = {name(row) for row in now}
    built_in = {
        (row["creator"], None, row["kind"], row["grantee"], row["privilege"])
        for row in rows(production, BUILT_IN, (sorted({row["creator"] for row in before}),))
    }
    gone = [
        row
        for row in before
        if (*name(row), row["grantee"], row["privilege"], row["grantable"]) not in have
        and (name(row) in set_here or (*name(row), row["grantee"], row["privilege"]) not in built_in)
    ]

    def by_grant(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return (row["creator"], row["schema"] or "", row["kind"], row["grantee"], row["grantable"], row["is_role"])

    entries = []
    for (creator, schema, kind, grantee, grantable, is_role), group in groupby(sorted(gone, key=by_grant), by_grant):
        of_grant = list(group)
        words = DEFAULT_WORDS[kind]
        where = f" IN SCHEMA {quote_ident(schema)}" if schema else ""
        to = quote_ident(grantee) if is_role else "PUBLIC"
        command = (
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {quote_ident(creator)}{where} "
            f"GRANT {', '.join(sorted(map(_privilege, of_grant)))} ON {words} TO {to}"
            + (" WITH GRANT OPTION;" if grantable else ";")
        )
        shown = f"default privileges of {creator} for {words.lower()}" + (f" in schema {schema}" if schema else "")
        lost = not robbed.isdisjoint({creator, grantee})
        entries.append(_entry(shown, grantee, is_role, of_grant, [command], present["roles"], lost))
    return entries


def lost_privileges(production: Any, side: Any, xids: Sequence[int]) -> list[dict[str, Any]]:
    """All of it; nothing where the transaction is not known."""
    if not xids:
        return []
    entries, robbed = lost_grants(production, side, xids)
    return [*entries, *lost_default_privileges(production, side, robbed)]


def lost_policies(production: Any, side: Any, xids: Sequence[int], told: set[tuple[int, str]]) -> list[dict[str, Any]]:
    """Entries for policies of living tables that lost roles by the transactions ``xids``, or went with their only role.

    A policy that is gone does not tell who removed it: it counts where its roles are among those that lost others for
    certain. ``told`` are policies (OID of the table, name) that are told or come back otherwise.
    """
    if not xids:
        return []
    before = [row for row in rows(side, POLICIES) if row["roles"] and (row["oid"], row["name"]) not in told]
    if not before:
        return []
    have = {(row["oid"], row["name"]): row for row in rows(production, POLICIES)}
    tables = "SELECT oid::int8 AS oid FROM pg_catalog.pg_class WHERE oid = ANY(%s::oid[])"
    alive = {row["oid"] for row in rows(production, tables, ([row["oid"] for row in before],))}
    short = {xid & 0xFFFFFFFF for xid in xids}
    robbed = set(lost_grants(production, side, xids)[1])
    changed = []
    for row in before:
        present = have.get((row["oid"], row["name"]))
        gone = {*row["roles"]} - {*(present["roles"] if present else ())}
        if present and gone and present["xmin"] in short:
            robbed |= gone
            changed.append((row, gone, False))
        elif row["oid"] in alive and not present:
            changed.append((row, gone, True))
    roles = _present(production)["roles"]
    entries = []
    for row, gone, whole in changed:
        if whole and robbed.isdisjoint(gone):
            continue
        table = f"{quote_ident(row['schema'])}.{quote_ident(row['table'])}"
        to = ", ".join(quote_ident(role) for role in row["roles"])
        policy = f"POLICY {quote_ident(row['name'])} ON {table}"
        command = f"CREATE {policy}{row['kind']} TO {to}{row['conditions']};" if whole else f"ALTER {policy} TO {to};"
        making = [f"CREATE ROLE {quote_ident(role)} NOLOGIN;" for role in row["roles"] if role not in roles]
        reason = f"it was for {', '.join(sorted(gone))}, too, which the same transaction took from it"
        if whole:
            reason = f"it was only for {', '.join(row['roles'])}, and went when the same transaction took all from them"
        name = f"{row['name']} on {display_name(row['schema'], row['table'])}"
        entries.append({"name": name, "reason": reason, "command": "\n".join([*making, command]), "lost": True})
    return entries
