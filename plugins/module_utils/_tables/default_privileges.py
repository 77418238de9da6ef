# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put ALTER DEFAULT PRIVILEGES aside while things are made that get the grants of a dump."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident, quote_literal
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows

DEFAULT_PRIVILEGES = """
SELECT d.defaclobjtype::text AS kind, n.nspname AS schema, item.place, item.role, item.grantable, item.privileges
FROM pg_catalog.pg_default_acl d
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace
LEFT JOIN LATERAL (
    SELECT acl.place, CASE WHEN one.grantee <> 0 THEN pg_catalog.pg_get_userbyid(one.grantee) END AS role,
           one.is_grantable AS grantable, array_agg(one.privilege_type ORDER BY one.privilege_type) AS privileges
    FROM unnest({acl}) WITH ORDINALITY AS acl(item, place)
    CROSS JOIN LATERAL pg_catalog.aclexplode(ARRAY[acl.item]) AS one
    GROUP BY 1, 2, 3) AS item ON true
WHERE d.defaclrole = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = {role})
ORDER BY d.oid, item.place, item.grantable
"""
SERVER_DEFAULT = """
pg_catalog.acldefault(CASE d.defaclobjtype WHEN 'S' THEN 's' ELSE d.defaclobjtype END, d.defaclrole)
"""
KINDS = {"r": "TABLES", "S": "SEQUENCES", "f": "FUNCTIONS", "T": "TYPES", "n": "SCHEMAS", "L": "LARGE OBJECTS"}


def default_privilege_statements(
    items: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]], role_of: str | None = None
) -> list[str]:
    """Statements after which the default privileges, now ``items``, are exactly ``ours``, in their order.

    Both are rows of DEFAULT_PRIVILEGES: ``kind``, ``schema`` (None for all schemas), ``role`` (None for PUBLIC),
    ``grantable``, ``privileges`` (None where everything was taken away). They are those of ``role_of``, or our own.
    """
    whose = "" if role_of is None else f" FOR ROLE {quote_ident(role_of)}"

    def place(item: Mapping[str, Any]) -> str:
        return "" if item["schema"] is None else f" IN SCHEMA {quote_ident(item['schema'])}"

    def role(item: Mapping[str, Any]) -> str:
        return "PUBLIC" if item["role"] is None else quote_ident(item["role"])

    revoked = {
        f"ALTER DEFAULT PRIVILEGES{whose}{place(item)} REVOKE ALL ON {KINDS[item['kind']]} FROM {role(item)}": None
        for item in items
        if item["privileges"]
    }
    granted = [
        f"ALTER DEFAULT PRIVILEGES{whose}{place(item)} GRANT {', '.join(item['privileges'])} ON {KINDS[item['kind']]} "
        f"TO {role(item)}{' WITH GRANT OPTION' if item['grantable'] else ''}"
        for item in ours
        if item["privileges"]
    ]
    return [*revoked, *granted]


@contextmanager
def without_default_privileges(connection: Any, role: str | None = None) -> Iterator[None]:
    """Make what is created in the caller's transaction get the grants of the dump, and no others.

    A dump's grants start from the server's own defaults, but what we create would get production's ALTER DEFAULT
    PRIVILEGES on top. Ours, or those of a ``role`` that creates for us, are put aside, in this transaction only, so
    nobody else sees them gone.
    """
    whose = "current_user" if role is None else quote_literal(role)
    ours = rows(connection, DEFAULT_PRIVILEGES.format(acl="d.defaclacl", role=whose))
    # In all schemas, what the server grants by itself is part of them; in one schema, they only add to it.
    server = f"CASE WHEN d.defaclnamespace = 0 THEN {SERVER_DEFAULT} END"
    plain = [item for item in rows(connection, DEFAULT_PRIVILEGES.format(acl=server, role=whose)) if item["privileges"]]
    for statement in default_privilege_statements(ours, plain, role):
        execute(connection, statement)
    yield
    for statement in default_privilege_statements(plain, ours, role):
        execute(connection, statement)
