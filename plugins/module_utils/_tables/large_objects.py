# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Large objects that rows of recovered tables name, and that went with them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import force_statements, server_message
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import needs_cage
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident, quote_literal
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import savepoint
from ansible_collections.dbre.recovery.plugins.module_utils._tables.default_privileges import (
    without_default_privileges,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.existing import LEAVES
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import Context
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plan import left

CHUNK = 8 << 20
# Objects in one transaction.
BATCH = 200
# OIDs in one query.
ASKED_AT_ONCE = 10000

KNOWN = """
SELECT asked.oid FROM unnest(%s::int8[]) AS asked(oid)
WHERE EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid = asked.oid::oid)
"""
RIGHTS = """
SELECT pg_catalog.pg_get_userbyid(m.lomowner)::text AS owner, m.lomacl IS NOT NULL AS granted,
       pg_catalog.obj_description(m.oid, 'pg_largeobject') AS comment
FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid = %s::oid
"""
GRANTS = """
SELECT CASE WHEN a.grantee <> 0 THEN pg_catalog.pg_get_userbyid(a.grantee)::text END AS grantee,
       a.privilege_type::text AS privilege, a.is_grantable AS grantable
FROM pg_catalog.pg_largeobject_metadata m, pg_catalog.aclexplode(m.lomacl) AS a WHERE m.oid = %s::oid
"""


def _known(connection: Any, oids: Sequence[int]) -> set[int]:
    """Those of ``oids`` that are large objects there."""
    parts = [list(oids[first : first + ASKED_AT_ONCE]) for first in range(0, len(oids), ASKED_AT_ONCE)]
    return {row["oid"] for part in parts for row in rows(connection, KNOWN, (part,))}


def _named(side: Any, relation: Mapping[str, Any]) -> set[int]:
    """Large objects that rows of one table of the recovered instance name, in columns of type oid or a domain of it."""
    every = fingerprint.columns_of(side, [relation["oid"]])[relation["oid"]]
    columns = [quote_ident(column["name"]) for column in every if column["base_name"] == "oid"]
    if not columns:
        return set()
    caged = needs_cage(side, relation["oid"])
    for statement in force_statements(side, [relation["oid"]])[0]:
        execute(side, statement)
    found: set[int] = set()
    for table in [row["name"] for row in rows(side, LEAVES, {"oid": relation["oid"]})]:
        for column in columns:
            if caged:
                # To query that table would run code of its owner as us; COPY of a plain column does not.
                text = io.StringIO()
                with side.cursor() as cursor:
                    cursor.copy_expert(f"COPY {table} ({column}) TO STDOUT", text)
                given = {int(line) for line in text.getvalue().split("\n") if line.isdigit()}
                found |= _known(side, sorted(given))
            else:
                query = (
                    f"SELECT DISTINCT m.oid::int8 AS oid FROM ONLY {table} t "
                    f"JOIN pg_catalog.pg_largeobject_metadata m ON m.oid = t.{column}"
                )
                found |= {row["oid"] for row in rows(side, query)}
    return found


def rights_of(oid: int, about: Mapping[str, Any], grants: Iterable[Mapping[str, Any]]) -> list[str]:
    """Statements that give a new large object its owner, its grants and its comment."""
    object_name = f"LARGE OBJECT {oid}"
    statements = []
    if about["comment"] is not None:
        statements.append(f"COMMENT ON {object_name} IS {quote_literal(about['comment'])}")
    statements.append(f"ALTER {object_name} OWNER TO {quote_ident(about['owner'])}")
    if about["granted"]:
        statements.append(f"REVOKE ALL ON {object_name} FROM {quote_ident(about['owner'])}")
    for item in grants:
        grantee = "PUBLIC" if item["grantee"] is None else quote_ident(item["grantee"])
        option = " WITH GRANT OPTION" if item["grantable"] else ""
        statements.append(f"GRANT {item['privilege']} ON {object_name} TO {grantee}{option}")
    return statements


class LargeObjects:
    """Puts large objects back that the rows of recovered tables name, where production has them no more."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.relations = [item for item in context.plan["relations"] if item["action"] != "none"]

    def put_back(self) -> None:
        """All of them, each with its rights; what is left to do is in the journal."""
        side = self.context.side.connect(self.context.side_database)
        try:
            if not value(side, "SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)"):
                return
            tables = [item for item in self.relations if item["kind"] in ("r", "p")]
            named = sorted({oid for item in tables for oid in _named(side, item)})
            connection = self.context.session()
            try:
                have = _known(connection, named)
                connection.rollback()
                gone = [oid for oid in named if oid not in have]
                for first in range(0, len(gone), BATCH):
                    self.context.watch.wait()
                    self._make(connection, side, gone[first : first + BATCH])
                    connection.commit()
                    self.context.progress.say("large objects", min(first + BATCH, len(gone)), len(gone), "objects")
            finally:
                connection.close()
        finally:
            side.close()

    def _make(self, connection: Any, side: Any, oids: Sequence[int]) -> None:
        mark(connection, self.context.plan["incident"])
        entries: list[dict[str, Any]] = []
        with without_default_privileges(connection):
            for oid in oids:
                unreadable = self._unreadable(side, oid)
                if unreadable:
                    entries += unreadable
                    continue
                execute(connection, "SELECT pg_catalog.lo_create(%s::oid)", (oid,))
                self._fill(connection, side, oid)
                for about in rows(side, RIGHTS, (oid,)):
                    statements = rights_of(oid, about, rows(side, GRANTS, (oid,)))
                    entries += self._give(connection, oid, statements)
        for entry in entries:
            self.context.journal(connection, "refused", {"entry": None, "left": entry})

    @staticmethod
    def _unreadable(side: Any, oid: int) -> list[dict[str, Any]]:
        """An entry of ``left_to_do`` where the recovered instance does not let us read one."""
        found: list[dict[str, Any]] = []

        def failed(error: Any) -> None:
            reason = (
                f"rows that are back name it, and it cannot be read in the recovered instance: {server_message(error)}"
            )
            found.append(left("large object", str(oid), reason, lost=True, needs_side_instance=True))

        with savepoint(side, failed):
            value(side, "SELECT pg_catalog.lo_get(%s::oid, 0, 1)", (oid,))
        return found

    def _fill(self, connection: Any, side: Any, oid: int) -> None:
        """Copy and compare, piece by piece."""
        offset = 0
        while data := bytes(value(side, "SELECT pg_catalog.lo_get(%s::oid, %s, %s)", (oid, offset, CHUNK))):
            execute(connection, "SELECT pg_catalog.lo_put(%s::oid, %s, %s)", (oid, offset, data))
            query = "SELECT encode(pg_catalog.sha256(pg_catalog.lo_get(%s::oid, %s, %s)), 'hex')"
            if value(connection, query, (oid, offset, CHUNK)) != hashlib.sha256(data).hexdigest():
                raise RecoveryError(
                    f"large object {oid} on {host_name()} is not what the recovered instance has, from byte {offset} "
                    "on. It was not kept, and nothing was published. Run again with the same incident id."
                )
            self.context.tell(len(data))
            offset += len(data)

    @staticmethod
    def _give(connection: Any, oid: int, statements: Sequence[str]) -> list[dict[str, Any]]:
        """The rights of one; an entry of ``left_to_do`` where they cannot be given."""
        found: list[dict[str, Any]] = []

        def failed(error: Any) -> None:
            reason = f"it is back with all its bytes, but not its owner and grants: {server_message(error)}"
            found.append(left("large object", str(oid), reason, "; ".join(statements) + ";", lost=True))

        with savepoint(connection, failed):
            for statement in statements:
                execute(connection, statement)
        return found
