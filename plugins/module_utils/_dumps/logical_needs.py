# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server must have before a dump can be restored, and the statements that make its database and roles."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_archive import Archive, Entry
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical import (
    IDENT,
    roles_named,
    tablespaces_named,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    parse_schema_list,
    quote_ident,
)

# What holds code, and what runs it when it is made or gets its rows.
CODE = ("AGGREGATE", "DOMAIN", "FUNCTION", "PROCEDURE")
RUNNING = ("CHECK CONSTRAINT", "DEFAULT", "FK CONSTRAINT", "STATISTICS", "TABLE", "TABLE ATTACH")
# Where pg_dump writes the database's own name (dumpDatabase, dumpACL and dumpComment in src/bin/pg_dump/pg_dump.c).
OF_DATABASE = re.compile(
    r"^((?:CREATE DATABASE|ALTER DATABASE|COMMENT ON DATABASE|SECURITY LABEL FOR .*? ON DATABASE"
    rf"|(?:GRANT|REVOKE) .*? ON DATABASE|ALTER ROLE {IDENT} IN DATABASE) )({IDENT})(?=[ ;])",
    re.MULTILINE,
)
# Statements of pg_dumpall --globals-only (dumpRoles, dumpRoleMembership, dumpUserConfig in pg_dumpall.c). One with a
# line break in a setting or comment goes on until a line that begins another.
BEGINS = re.compile(
    r"^(?:CREATE ROLE|ALTER ROLE|COMMENT ON ROLE|SECURITY LABEL|GRANT|CREATE TABLESPACE|SET|--|\\)", re.M
)
OF_ROLE = re.compile(rf"(?:CREATE ROLE|ALTER ROLE|COMMENT ON ROLE) ({IDENT})(?=[ ;])")
IN_DATABASE = re.compile(rf"ALTER ROLE {IDENT} IN DATABASE ")
MEMBERSHIP = re.compile(rf"GRANT ({IDENT}) TO ({IDENT})(?=[ ;])")


def is_of_database(entry: Entry) -> bool:
    """Whether an item of a dump belongs to the database itself, which pg_restore leaves out without --create."""
    if entry.desc in ("ACL", "COMMENT", "SECURITY LABEL"):
        return entry.tag.startswith("DATABASE ")
    return entry.desc in ("DATABASE", "DATABASE PROPERTIES")


def owners_of_code(entries: Sequence[Entry]) -> list[str]:
    """Roles to whom functions, domains, or tables that use them belong, whose code runs when these are restored."""
    near: set[int] = set()
    owners = set()
    # What is needed comes first.
    for entry in entries:
        if entry.desc in CODE or not near.isdisjoint(entry.deps):
            near.add(entry.dump_id)
            if entry.desc in (*CODE, *RUNNING):
                owners.add(entry.owner)
    return sorted(owners - {""})


def dump_needs(archive: Archive, kind: str) -> dict[str, Any]:
    """What restoring the archive needs, and how its database is made.

    ``{roles, tablespaces, extensions, schemas, create, owner, properties, relations, code}``: ``create`` is its CREATE
    DATABASE, ``properties`` are the statements with its settings, grants and comment, ``code`` is that of
    owners_of_code(). A dump of chosen tables needs the schemas they are in; the properties of the whole database are
    none of its business.
    """
    of_database = [entry for entry in archive.entries if is_of_database(entry)]
    own = [entry for entry in archive.entries if entry not in of_database]
    of_tables = kind == "tables"
    judged = dataclasses.replace(archive, entries=tuple(own)) if of_tables else archive
    create = next((entry for entry in of_database if entry.desc == "DATABASE"), None)
    if create is None:
        raise RecoveryError(f"pg_dump wrote no definition of the database into {archive.path}; it was not kept")
    return {
        "roles": sorted(role for role in roles_named(judged) if not role.startswith("pg_")),
        "tablespaces": tablespaces_named(judged),
        "extensions": sorted(entry.tag for entry in own if entry.desc == "EXTENSION"),
        "schemas": sorted({entry.namespace for entry in own if entry.namespace}) if of_tables else [],
        "relations": [
            [entry.namespace, entry.tag]
            for entry in own
            if entry.desc in ("TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE")
        ],
        "create": create.defn.strip(),
        "owner": create.owner,
        "properties": [] if of_tables else [entry.defn for entry in of_database if entry is not create],
        "code": owners_of_code(own),
    }


def rename_database(statements: str, old: str, new: str) -> str:
    """The statements of a database with another name for it."""

    def renamed(match: re.Match[str]) -> str:
        is_old = parse_schema_list(match.group(2)) == [old]
        return match.group(1) + (quote_ident(new) if is_old else match.group(2))

    return OF_DATABASE.sub(renamed, statements)


def _statements(script: str) -> list[str]:
    starts = [match.start() for match in BEGINS.finditer(script)] + [len(script)]
    found = [script[start:end].strip() for start, end in zip(starts, starts[1:])]
    return [text for text in found if not text.startswith(("--", "\\"))]


def _name(text: str) -> str:
    return parse_schema_list(text)[0]


def named_roles(script: str) -> list[str]:
    """The roles that a globals dump makes."""
    made = (re.match(rf"CREATE ROLE ({IDENT});", statement) for statement in _statements(script))
    return [_name(match.group(1)) for match in made if match]


def role_statements(script: str, wanted: Collection[str], existing: Collection[str]) -> tuple[list[str], list[str]]:
    """What of a globals dump makes the ``wanted`` roles: ``(statements, roles)``.

    With a role come its password, settings and memberships, and the roles it is a member of that do not exist yet.
    No statement changes a role of ``existing`` but to make a new role its member. Raises RecoveryError naming the
    roles that the script does not make.
    """
    statements = _statements(script)
    members = [(_name(m.group(1)), _name(m.group(2))) for m in map(MEMBERSHIP.match, statements) if m]
    made = set(wanted)
    while True:
        more = {group for group, member in members if member in made} - made - set(existing)
        if not more:
            break
        made |= more
    there = {_name(m.group(1)) for m in map(OF_ROLE.match, statements) if m}
    lacking = sorted(made - there)
    if lacking:
        raise RecoveryError(
            f"the globals dump does not make the roles {', '.join(lacking)}, which the dump needs. Nothing was "
            f"changed. Make them first: {make_roles(lacking)}",
            missing_roles=lacking,
        )
    chosen = []
    for statement in statements:
        of_role, membership = OF_ROLE.match(statement), MEMBERSHIP.match(statement)
        if (of_role and _name(of_role.group(1)) in made and not IN_DATABASE.match(statement)) or (
            membership and _name(membership.group(2)) in made
        ):
            chosen.append(statement)
    return chosen, sorted(made)


def make_roles(roles: Sequence[str]) -> str:
    """The commands with which a person makes roles, for messages."""
    return " ".join(f"CREATE ROLE {display_name(None, role)} NOLOGIN;" for role in roles)
