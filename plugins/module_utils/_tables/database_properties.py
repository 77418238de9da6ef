# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs to a database itself and was changed at or after the target: it stays with the damaged database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._guard.containment import READ_ONLY, parse_settings
from ansible_collections.dbre.recovery.plugins.module_utils._guard.marker import read_marker, with_marker
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_literal,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left

PROPERTIES = """
SELECT d.datname::text AS name, pg_catalog.pg_get_userbyid(d.datdba)::text AS owner, d.datconnlimit::int AS most,
       d.datistemplate AS template, pg_catalog.shobj_description(d.oid, 'pg_database') AS comment
FROM pg_catalog.pg_database d WHERE d.datname = ANY(%s)
"""
SETTINGS = """
SELECT d.datname::text AS name, r.rolname::text AS role, s.setconfig AS config
FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole WHERE d.datname = ANY(%s) AND (s.setrole = 0 OR r.oid IS NOT NULL)
"""
# What the owner has goes with being the owner.
GRANTS = """
SELECT d.datname::text AS name, r.rolname::text AS role, a.privilege_type::text AS privilege,
       a.is_grantable AS grantable
FROM pg_catalog.pg_database d
CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) AS a
LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
WHERE d.datname = ANY(%s) AND a.grantee <> d.datdba AND (a.grantee = 0 OR r.oid IS NOT NULL)
"""
# Settings whose values are lists of names (GUC_LIST_QUOTE): pg_db_role_setting has them as they are written in SQL.
LISTS = (
    *("local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries"),
    *("temp_tablespaces", "unix_socket_directories"),
)
REASON = (
    "was changed at or after the target, by the damage or by somebody since, and is now as it was just before: "
    "it was {now} in the damaged database, and is {then}. The command makes it what it was there"
)


def changed_properties(connection: Any, database: str, kept: str) -> list[dict[str, Any]]:
    """Entries of ``left_to_do`` for what is other in the damaged database (``kept``, by now) than in ``database``."""
    names = ([database, kept],)
    found = {row["name"]: row for row in rows(connection, PROPERTIES, names)}
    if len(found) < len(names[0]):
        return []
    settings = {name: _settings(rows(connection, SETTINGS, names), name) for name in names[0]}
    grants = {name: _grants(rows(connection, GRANTS, names), name) for name in names[0]}
    connection.commit()
    if read_marker(found[database]["comment"]) is not None:
        # Kept read-only for now, which the end of the incident undoes.
        for of_database in settings.values():
            of_database.pop(("", READ_ONLY), None)
    comments = {name: with_marker(row["comment"], None) for name, row in found.items()}
    target = quote_ident(database)
    entries = [
        *_plain(f"ALTER DATABASE {target}", found[database], found[kept]),
        *_comment(target, comments[database], comments[kept]),
        *_changed_settings(target, settings[database], settings[kept]),
        *_changed_grants(target, grants[database], grants[kept]),
    ]
    shown = display_name(None, database)
    return [
        left(
            "database property", f"{what} of {shown}", f"the {what} {REASON.format(now=now, then=then)}", sql, lost=True
        )
        for what, now, then, sql in entries
    ]


_Change = tuple[str, Any, Any, str]


def _plain(alter: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> list[_Change]:
    changes = (
        ("owner", "owner", f"{alter} OWNER TO {quote_ident(there['owner'])};"),
        ("most", "limit of connections", f"{alter} CONNECTION LIMIT {there['most']};"),
        ("template", "template flag", f"{alter} IS_TEMPLATE {str(there['template']).lower()};"),
    )
    return [(what, there[key], here[key], sql) for key, what, sql in changes if here[key] != there[key]]


def _comment(target: str, here: str | None, there: str | None) -> list[_Change]:
    if here == there:
        return []
    text = "NULL" if there is None else quote_literal(there)
    return [("comment", there or "none", here or "none", f"COMMENT ON DATABASE {target} IS {text};")]


def _settings(found: Sequence[Mapping[str, Any]], name: str) -> dict[tuple[str, str], str]:
    return {
        (row["role"] or "", setting): text
        for row in found
        if row["name"] == name
        for setting, text in parse_settings(row["config"]).items()
    }


def _changed_settings(
    target: str, here: Mapping[tuple[str, str], str], there: Mapping[tuple[str, str], str]
) -> list[_Change]:
    changes: list[_Change] = []
    for role, name in sorted({*here, *there}):
        now, then = there.get((role, name)), here.get((role, name))
        if now == then:
            continue
        alter = f"ALTER ROLE {quote_ident(role)} IN DATABASE {target}" if role else f"ALTER DATABASE {target}"
        setting = ".".join(quote_ident(part) for part in name.split("."))
        text = now if now is not None and name.lower() in LISTS else quote_literal(now or "")
        sql = f"{alter} RESET {setting};" if now is None else f"{alter} SET {setting} TO {text};"
        what = f"setting {name}" + (f" of role {role}" if role else "")
        changes.append((what, "not set" if now is None else now, "not set" if then is None else then, sql))
    return changes


def _grants(found: Sequence[Mapping[str, Any]], name: str) -> set[tuple[str, str, bool]]:
    return {(row["role"] or "", row["privilege"], row["grantable"]) for row in found if row["name"] == name}


def _changed_grants(target: str, here: set[tuple[str, str, bool]], there: set[tuple[str, str, bool]]) -> list[_Change]:
    changes: list[_Change] = []
    for role, privilege, grantable in sorted(there - here):
        to = quote_ident(role) if role else "PUBLIC"
        sql = f"GRANT {privilege} ON DATABASE {target} TO {to}" + (" WITH GRANT OPTION;" if grantable else ";")
        changes.append((f"privilege {privilege} of {role or 'PUBLIC'}", "granted", "not", sql))
    kept = {(role, privilege) for role, privilege, _grantable in there}
    for role, privilege, _grantable in sorted(here - there):
        if (role, privilege) not in kept:
            sql = f"REVOKE {privilege} ON DATABASE {target} FROM {quote_ident(role) if role else 'PUBLIC'};"
            changes.append((f"privilege {privilege} of {role or 'PUBLIC'}", "not granted", "granted", sql))
    return changes
