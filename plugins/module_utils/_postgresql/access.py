# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role that is no superuser needs to put back what belongs to others, and how it gets that for a while.

It becomes a member of the owners, and gives every membership back as it was. All of this is nothing for a superuser.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident, quote_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value

INSUFFICIENT_PRIVILEGE = "42501"
INVALID_GRANT_OPERATION = "0LP01"
# Is always the owner of the database, and can have no other members.
DATABASE_OWNER = "pg_database_owner"
# Since PostgreSQL 14: may read also what belongs to superusers.
READER = "pg_read_all_data"

OWNERS = """
SELECT s.classid::int8 AS classid, s.objid::int8 AS objid, pg_catalog.pg_get_userbyid(s.refobjid) AS owner
FROM pg_catalog.pg_shdepend s
WHERE s.refclassid = 'pg_catalog.pg_authid'::regclass AND s.deptype = 'o'
  AND s.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND (%(everything)s
       OR (s.classid::int8, s.objid::int8) IN (SELECT * FROM unnest(%(classes)s::int8[], %(objects)s::int8[])))
"""

# Grants are made anew in the name of those who made them.
GRANTORS = """
SELECT DISTINCT pg_catalog.pg_get_userbyid(item.grantor) AS grantor
FROM (SELECT 'pg_catalog.pg_class'::regclass::oid::int8 AS classid, oid::int8 AS objid, relacl AS acl
      FROM pg_catalog.pg_class
      UNION ALL SELECT 'pg_catalog.pg_class'::regclass::oid::int8, attrelid::int8, attacl FROM pg_catalog.pg_attribute
      UNION ALL SELECT 'pg_catalog.pg_proc'::regclass::oid::int8, oid::int8, proacl FROM pg_catalog.pg_proc
      UNION ALL SELECT 'pg_catalog.pg_type'::regclass::oid::int8, oid::int8, typacl FROM pg_catalog.pg_type
      UNION ALL SELECT 'pg_catalog.pg_namespace'::regclass::oid::int8, oid::int8, nspacl FROM pg_catalog.pg_namespace
     ) AS granted
CROSS JOIN LATERAL pg_catalog.aclexplode(granted.acl) AS item
WHERE %(everything)s
   OR (granted.classid, granted.objid) IN (SELECT * FROM unnest(%(classes)s::int8[], %(objects)s::int8[]))
"""

# Relations of production that are altered, or whose owner must allow what hangs on them: parents of lost partitions and
# of lost children, tables that lost foreign keys point to, tables that lose or get rows and their foreign keys' others.
TOUCHED = """
SELECT n.nspname AS schema, c.relname AS name
FROM (SELECT unnest(%(relations)s::oid[]) AS oid
      UNION SELECT inhparent FROM pg_catalog.pg_inherits WHERE inhrelid = ANY(%(relations)s::oid[])
      UNION SELECT confrelid FROM pg_catalog.pg_constraint WHERE oid = ANY(%(constraints)s::oid[])
      UNION SELECT unnest(ARRAY[conrelid, confrelid]) FROM pg_catalog.pg_constraint
            WHERE contype = 'f' AND (conrelid = ANY(%(existing)s::oid[]) OR confrelid = ANY(%(existing)s::oid[]))
     ) AS touched
JOIN pg_catalog.pg_class c ON c.oid = touched.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
"""

OWNERS_IN_PRODUCTION = """
SELECT pg_catalog.pg_get_userbyid(c.relowner) AS owner
FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS asked(schema, name)
JOIN pg_catalog.pg_namespace n ON n.nspname = asked.schema
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = asked.name
UNION
SELECT pg_catalog.pg_get_userbyid(pubowner) FROM pg_catalog.pg_publication WHERE pubname = ANY(%(publications)s)
UNION
-- The owner of a schema in which we, or the owners of what comes back, may make nothing.
SELECT pg_catalog.pg_get_userbyid(n.nspowner) FROM pg_catalog.pg_namespace n
WHERE n.nspname = ANY(%(used)s) AND NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
   OR n.nspname = ANY(%(filled)s) AND NOT pg_catalog.has_schema_privilege(n.oid, 'CREATE')
   OR EXISTS (SELECT FROM unnest(%(filled)s::text[], %(fillers)s::text[]) AS pair(schema, owner)
              JOIN pg_catalog.pg_roles r ON r.rolname = pair.owner
              WHERE pair.schema = n.nspname AND NOT pg_catalog.has_schema_privilege(r.oid, n.oid, 'CREATE'))
UNION
SELECT pg_catalog.pg_get_userbyid(datdba) FROM pg_catalog.pg_database
WHERE datname = pg_catalog.current_database() AND NOT pg_catalog.has_database_privilege(oid, 'CREATE')
"""

LACKING = """
SELECT r.rolname AS role FROM pg_catalog.pg_roles r
WHERE r.rolname = ANY(%(roles)s) AND NOT r.rolsuper AND r.rolname <> current_user
  AND NOT (pg_catalog.pg_has_role(r.oid, 'USAGE') AND pg_catalog.pg_has_role(r.oid, '{become}'))
ORDER BY 1
"""

MEMBERSHIPS = """
SELECT pg_catalog.pg_get_userbyid(m.grantor) AS grantor, {options} AS options
FROM pg_catalog.pg_auth_members m
WHERE m.roleid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %(role)s)
  AND m.member = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user)
"""
_OPTIONS = re.compile(r"INHERIT (?:TRUE|FALSE), SET (?:TRUE|FALSE)")
OPTIONS_16 = (
    "'INHERIT ' || CASE WHEN m.inherit_option THEN 'TRUE' ELSE 'FALSE' END || ', SET ' "
    "|| CASE WHEN m.set_option THEN 'TRUE' ELSE 'FALSE' END"
)

MAY_GRANT = """
SELECT r.rolname AS name FROM pg_catalog.pg_roles r
WHERE r.rolcanlogin AND NOT r.rolsuper AND r.rolname <> current_user
  AND ({creates} OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
                            WHERE g.rolname = %(role)s AND m.member = r.oid AND m.admin_option))
ORDER BY 1
"""

LARGE_OBJECTS_OF_SUPERUSERS = """
SELECT count(*) FROM pg_catalog.pg_largeobject_metadata l JOIN pg_catalog.pg_roles r ON r.oid = l.lomowner
WHERE r.rolsuper
"""

SECURED = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid = ANY(%s::oid[]) AND relrowsecurity)"

# Row security hides rows from an owner only where it is forced. From others it does, too, but those cannot lift it.
HIDDEN = """
SELECT n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY(%s::oid[]) AND c.relkind IN ('r', 'p') AND c.relforcerowsecurity
  AND (pg_catalog.row_security_active(c.oid) OR %s AND c.relrowsecurity) AND pg_catalog.pg_has_role(c.relowner, 'USAGE')
ORDER BY c.oid
"""


def is_superuser(connection: Any) -> bool:
    """Whether the session may do everything."""
    return bool(value(connection, "SELECT pg_catalog.current_setting('is_superuser')::bool"))


def user_of(connection: Any) -> str:
    """The role of the session."""
    return str(value(connection, "SELECT current_user"))


# Memberships


def _lacking(connection: Any, roles: Iterable[str]) -> list[str]:
    # Since PostgreSQL 16 inheriting a role's rights and becoming it are two things.
    become = "SET" if connection.server_version >= 160000 else "MEMBER"
    return [row["role"] for row in rows(connection, LACKING.format(become=become), {"roles": list(roles)})]


def _memberships(connection: Any, role: str) -> dict[str, str]:
    options = OPTIONS_16 if connection.server_version >= 160000 else "''"
    found = rows(connection, MEMBERSHIPS.format(options=options), {"role": role})
    return {row["grantor"]: row["options"] for row in found}


def _undo(connection: Any, role: str, user: str, before: Mapping[str, str]) -> list[dict[str, Any]] | None:
    """What brings the memberships of ``user`` in ``role`` back to what they were ``before``, tried out.

    Each is ``{grantor, options}``; without ``options`` the membership goes.

    None when there are none: what cannot be given back is not borrowed. A managed service may grant in the name of a
    role of its own, and let us revoke that only without saying so.
    """
    named, plain = [], []
    for grantor, options in _memberships(connection, role).items():
        if before.get(grantor) == options:
            continue
        named.append({"grantor": grantor, "options": before.get(grantor)})
        plain.append({"grantor": None, "options": before.get(grantor)})
    for undo in (named, plain) if connection.server_version >= 160000 else (plain,):
        if _restores(connection, role, user, undo, before):
            return undo
    return None


def _undo_statement(role: str, user: str, undo: Mapping[str, Any]) -> str:
    """One statement; what is to be undone may have been read, so that only options that there are go into it."""
    statement = f"REVOKE {quote_ident(role)} FROM {quote_ident(user)}"
    if undo["options"] is not None:
        if not _OPTIONS.fullmatch(undo["options"]):
            raise RecoveryError(f"a membership has no options {undo['options']!r}; what names them is not ours")
        statement = f"GRANT {quote_ident(role)} TO {quote_ident(user)} WITH {undo['options']}"
    return statement + (f" GRANTED BY {quote_ident(undo['grantor'])}" if undo["grantor"] is not None else "")


def _restores(
    connection: Any, role: str, user: str, undo: Sequence[Mapping[str, Any]], before: Mapping[str, str]
) -> bool:
    execute(connection, "SAVEPOINT dbre_undo")
    try:
        for item in undo:
            execute(connection, _undo_statement(role, user, item))
        return _memberships(connection, role) == before
    except connection.DatabaseError as error:
        if error.pgcode not in (INSUFFICIENT_PRIVILEGE, INVALID_GRANT_OPERATION):
            raise
        return False
    finally:
        execute(connection, "ROLLBACK TO SAVEPOINT dbre_undo")


def try_to_become(connection: Any, roles: Iterable[str]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Become a member of ``roles``, in the caller's transaction.

    Returns what was borrowed, each ``{role, user, undo}`` for :func:`give_back`, and what could not be,
    each ``{name, reason, command}``.
    """
    borrowed, missing = [], []
    user = user_of(connection)
    new = connection.server_version >= 160000
    for role in _lacking(connection, roles):
        before = _memberships(connection, role)
        grant = f"GRANT {quote_ident(role)} TO {quote_ident(user)}{' WITH INHERIT TRUE, SET TRUE' if new else ''}"
        reason, undo = None, None
        execute(connection, "SAVEPOINT dbre_member")
        try:
            execute(connection, grant)
            undo = _undo(connection, role, user, before)
            if undo is None:
                reason = "what would be granted could not be revoked again"
            elif _lacking(connection, [role]):
                reason = f"role {user} does not inherit; ALTER ROLE {quote_ident(user)} INHERIT"
        except connection.DatabaseError as error:
            if error.pgcode not in (INSUFFICIENT_PRIVILEGE, INVALID_GRANT_OPERATION):
                raise
            reason = server_message(error)
        if reason is None:
            borrowed.append({"role": role, "user": user, "undo": undo})
        else:
            execute(connection, "ROLLBACK TO SAVEPOINT dbre_member")
            by = _who_may_grant(connection, role)
            missing.append({"name": role, "reason": reason, "command": f"{grant};", "by": by})
        execute(connection, "RELEASE SAVEPOINT dbre_member")
    return borrowed, missing


def _who_may_grant(connection: Any, role: str) -> str:
    creates = "r.rolcreaterole" if connection.server_version < 160000 else "false"
    able = [row["name"] for row in rows(connection, MAY_GRANT.format(creates=creates), {"role": role})]
    return " or ".join([*(quote_ident(name) for name in able), "a superuser"])


def become(connection: Any, roles: Iterable[str]) -> list[dict[str, Any]]:
    """Become a member of all ``roles``, in the caller's transaction; what was borrowed. RecoveryError when refused."""
    borrowed, missing = try_to_become(connection, roles)
    if missing:
        refuse(user_of(connection), missing)
    return borrowed


def refuse(user: str, missing: Sequence[Mapping[str, str]]) -> None:
    """Raise RecoveryError that names the roles ``user`` cannot become, and who must run what."""
    names = ", ".join(quote_ident(item["name"]) for item in missing)
    reasons = "; ".join(sorted({item["reason"] for item in missing}))
    commands = " ".join(f"{item['command']} (as {item['by']})" for item in missing)
    raise RecoveryError(
        f"role {quote_ident(user)} is no superuser and cannot become {names}, who owns what is asked for or what that "
        f"hangs on: {reasons}. Nothing was changed. Run, then run again: {commands}",
        missing_memberships=list(missing),
    )


def give_back(connection: Any, borrowed: Iterable[Mapping[str, Any]]) -> None:
    """Give back what was borrowed, in the caller's transaction."""
    for item in borrowed:
        # Somebody may have dropped the role meanwhile.
        if value(connection, "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = %s", (item["role"],)):
            for undo in item["undo"]:
                execute(connection, _undo_statement(item["role"], item["user"], undo))


def become_owners(connection: Any) -> None:
    """Become a member of every owner, for good: in a recovered instance, which is thrown away.

    What cannot be had (and all, in an instance that is read-only) is left to the statement that needs it.
    """
    if not is_superuser(connection) and not value(connection, "SELECT pg_catalog.pg_is_in_recovery()"):
        query = (
            "SELECT DISTINCT pg_catalog.pg_get_userbyid(refobjid) AS owner FROM pg_catalog.pg_shdepend "
            "WHERE refclassid = 'pg_catalog.pg_authid'::regclass AND deptype = 'o'"
        )
        try_to_become(connection, [*(row["owner"] for row in rows(connection, query)), READER])
    connection.commit()


def server_message(error: Any) -> str:
    """What the server said, in one line."""
    parts = [getattr(error.diag, name, None) for name in ("message_primary", "message_detail")]
    return ": ".join(part for part in parts if part) or str(error).strip()


# What a plan needs


def needs_of(
    production: Any,
    side: Any,
    objects: Sequence[Mapping[str, Any]],
    relations: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Roles to become for putting back ``objects`` and for loading ``relations`` of a load plan.

    ``roles``; ``owners``, pairs ``[schema, role]`` of what comes back; ``missing_memberships``, those that cannot be
    had. All are empty for a superuser.
    """
    if is_superuser(production):
        return {"roles": [], "owners": [], "missing_memberships": []}
    wanted = {
        "everything": False,
        "classes": [item["classid"] for item in objects],
        "objects": [item["objid"] for item in objects],
    }
    owner_of = {(row["classid"], row["objid"]): row["owner"] for row in rows(side, OWNERS, wanted)}
    owners = sorted(
        {
            (item["schema"], owner_of[item["classid"], item["objid"]])
            for item in objects
            if item["schema"] and (item["classid"], item["objid"]) in owner_of
        }
    )
    existing = [item["oid"] for item in relations if item["action"] in ("merge", "replace")]
    touched = rows(
        side,
        TOUCHED,
        {
            "relations": [*{item[key] for item in objects for key in ("relation", "index_of") if item[key]}, *existing],
            "constraints": [item["objid"] for item in objects if item["catalog"] == "pg_constraint"],
            "existing": existing,
        },
    )
    roles = set(owner_of.values())
    roles |= {row["grantor"] for row in rows(side, GRANTORS, wanted)}
    here = rows(
        production,
        OWNERS_IN_PRODUCTION,
        {
            "schemas": [item["schema"] for item in touched],
            "names": [item["name"] for item in touched],
            "publications": [
                item["args"][0] for item in objects if item["type"] in ("publication relation", "publication namespace")
            ],
            "used": [item["schema"] for item in relations if item["action"] != "none"],
            "filled": [schema for schema, unused in owners],
            "fillers": [owner for unused, owner in owners],
        },
    )
    roles |= {row["owner"] for row in here}
    return {**_borrowable(production, roles), "owners": [list(pair) for pair in owners]}


def needs_of_database(admin: Any, side: Any) -> dict[str, Any]:
    """The same for a whole database, that of ``side``; a superuser needs nothing."""
    if is_superuser(admin):
        return {"roles": [], "owners": [], "missing_memberships": []}
    if not value(admin, "SELECT rolcreatedb FROM pg_catalog.pg_roles WHERE rolname = current_user"):
        user = user_of(admin)
        raise RecoveryError(
            f"role {quote_ident(user)} may not create databases. Nothing was changed. As one who may: "
            f"ALTER ROLE {quote_ident(user)} CREATEDB; then run again."
        )
    large = value(side, LARGE_OBJECTS_OF_SUPERUSERS)
    if large:
        raise RecoveryError(
            f"{large} large objects of the database belong to superusers, and only a superuser can make them so again. "
            "Nothing was changed. Give them to another role in the recovered instance, or run as a superuser."
        )
    wanted: dict[str, Any] = {"everything": True, "classes": [], "objects": []}
    roles = {row["owner"] for row in rows(side, OWNERS, wanted)}
    roles |= {row["grantor"] for row in rows(side, GRANTORS, wanted)}
    query = "SELECT pg_catalog.pg_get_userbyid(datdba) FROM pg_catalog.pg_database WHERE datname = current_database()"
    roles.add(value(side, query))
    return {**_borrowable(admin, roles), "owners": []}


def _borrowable(production: Any, roles: Collection[str]) -> dict[str, Any]:
    """Names of ``roles`` that are no superusers, and which of them we cannot become; leaves production unchanged."""
    owner = "SELECT pg_catalog.pg_get_userbyid(datdba) FROM pg_catalog.pg_database WHERE datname = current_database()"
    names = {value(production, owner) if role == DATABASE_OWNER else role for role in roles}
    query = "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname = ANY(%s) AND NOT rolsuper ORDER BY 1"
    found = [row["rolname"] for row in rows(production, query, (sorted(names),))]
    try:
        missing = try_to_become(production, found)[1]
    finally:
        production.rollback()
    return {"roles": found, "missing_memberships": missing}


# What lasts for one transaction


@contextmanager
def room_for_owners(
    connection: Any, owners: Iterable[Sequence[str]], in_database: Collection[str] = ()
) -> Iterator[None]:
    """Let ``owners`` (pairs of schema and role) own things in these schemas, in the caller's transaction only.

    The roles ``in_database`` may own what is in no schema.

    Only a superuser can give a thing to a role that could not have made it there itself.
    """
    query = (
        "SELECT n.nspname AS schema, r.rolname AS role "
        "FROM unnest(%s::text[], %s::text[]) AS pair(schema, role) "
        "JOIN pg_catalog.pg_namespace n ON n.nspname = pair.schema JOIN pg_catalog.pg_roles r ON r.rolname = pair.role "
        "WHERE NOT pg_catalog.has_schema_privilege(r.oid, n.oid, 'CREATE') ORDER BY 1, 2"
    )
    pairs = list(owners)
    lacking = rows(connection, query, ([pair[0] for pair in pairs], [pair[1] for pair in pairs])) if pairs else []
    rooms = [(f"SCHEMA {quote_ident(item['schema'])}", quote_ident(item["role"])) for item in lacking]
    query = (
        "SELECT rolname AS role FROM pg_catalog.pg_roles WHERE rolname = ANY(%s) "
        "AND NOT pg_catalog.has_database_privilege(oid, pg_catalog.current_database(), 'CREATE') ORDER BY 1"
    )
    database = f"DATABASE {quote_ident(value(connection, 'SELECT pg_catalog.current_database()'))}"
    rooms += [(database, quote_ident(item["role"])) for item in rows(connection, query, (list(in_database),))]
    for place, role in rooms:
        execute(connection, f"GRANT CREATE ON {place} TO {role}")
    yield
    for place, role in rooms:
        execute(connection, f"REVOKE CREATE ON {place} FROM {role}")


def forced_tables(connection: Any, oids: Sequence[int], as_owner: bool = False) -> list[str]:
    """Those of the tables (SQL) whose row security hides rows even from their owner; see :func:`force_statements`."""
    return [quote_name(item["schema"], item["name"]) for item in rows(connection, HIDDEN, (list(oids), as_owner))]


def force_statements(connection: Any, oids: Sequence[int], as_owner: bool = False) -> tuple[list[str], list[str]]:
    """Statements that show us all rows of tables whose row security binds even their owner, and that undo it.

    ``as_owner``: show them to the owner, whom we act as where we ourselves see them all.
    """
    tables = forced_tables(connection, oids, as_owner)
    return (
        [f"ALTER TABLE ONLY {table} NO FORCE ROW LEVEL SECURITY" for table in tables],
        [f"ALTER TABLE ONLY {table} FORCE ROW LEVEL SECURITY" for table in tables],
    )


def seeing_all(connection: Any, oids: Sequence[int]) -> tuple[list[str], list[str]]:
    """Statements in the transaction of a command for people that let it see all rows of tables, and that end it.

    Else who is no superuser would keep, remove and compare only the rows that row security shows him. Whom it binds
    even so, since none of the tables is his, gets an error.
    """
    if not value(connection, SECURED, (list(oids),)):
        return [], []
    show, hide = force_statements(connection, oids)
    # A table with triggers that wait for the end of the transaction cannot be altered.
    return ["SET LOCAL row_security = off", *show], [*(["SET CONSTRAINTS ALL IMMEDIATE"] if hide else []), *hide]
