# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Large objects that rows of recovered tables name, and that went with them."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted, size
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import (
    give_back,
    server_message,
    try_to_become,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import psql_with
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident, quote_literal
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import savepoint
from ansible_collections.dbre.recovery.plugins.module_utils._tables.default_privileges import (
    without_default_privileges,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import Context
from ansible_collections.dbre.recovery.plugins.module_utils._tables.lost_large_objects import (
    MAY_READ,
    by_owner,
    lost_large_objects,
    size_of,
)

CHUNK = 8 << 20
# Objects in one transaction.
BATCH = 200
# Objects that one command makes.
IN_A_COMMAND = 1000

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
# What is not stored within a large object is read as zeros; its last page says where it ends.
END = """
SELECT (pageno::int8 * (pg_catalog.current_setting('block_size')::int8 / 4) + pg_catalog.octet_length(data))::int8
FROM pg_catalog.pg_largeobject WHERE loid = %s::oid ORDER BY pageno DESC LIMIT 1
"""
PAGES = """
SELECT (pageno::int8 * size)::int8 AS at, data
FROM pg_catalog.pg_largeobject, LATERAL (SELECT pg_catalog.current_setting('block_size')::int8 / 4 AS size) AS page
WHERE loid = %(oid)s::oid AND pageno >= %(first)s / size AND pageno < %(after)s / size ORDER BY pageno
"""
# Run in the recovered instance, it writes the SQL for production.
REMAKE = (
    "SELECT format('SELECT lo_from_bytea(%s, decode(%L, ''hex'')); ALTER LARGE OBJECT %s OWNER TO %I;', oid, "
    "encode(lo_get(oid), 'hex'), oid, pg_get_userbyid(lomowner)) FROM pg_largeobject_metadata WHERE oid = ANY ("
)


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


def remake_command(side: str, production: str, oids: Iterable[int]) -> str:
    """A command that makes large objects with their owners; ``side`` and ``production`` are those of psql."""
    query = f"{REMAKE}'{{{','.join(map(str, oids))}}}') ORDER BY oid"
    return f"{side} -At -c {shlex.quote(query)} | {production} -q -1 -v ON_ERROR_STOP=1 -o /dev/null"


def pieces_of(side: Any, oid: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of a large object."""
    offset = 0
    while piece := bytes(value(side, "SELECT pg_catalog.lo_get(%s::oid, %s, %s)", (oid, offset, CHUNK))):
        yield offset, piece
        offset += len(piece)


def pages_of(side: Any, oid: int) -> Iterator[tuple[int, bytes]]:
    """The same out of its pages: for pg_read_all_data, which is not asked what a large object's own grants say."""
    end = value(side, END, (oid,)) or 0
    for offset in range(0, end, CHUNK):
        piece = bytearray(min(CHUNK, end - offset))
        for page in rows(side, PAGES, {"oid": oid, "first": offset, "after": offset + CHUNK}):
            at = page["at"] - offset
            piece[at : at + len(page["data"])] = page["data"]
        yield offset, bytes(piece)


class LargeObjects:
    """Puts large objects back that the rows of recovered tables name, where production has them no more."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def put_back(self) -> list[dict[str, Any]]:
        """All that come back, each with its rights. Returns what is left to do; more of it is in the journal."""
        side = self.context.side.connect(self.context.side_database)
        try:
            connection = self.context.session()
            try:
                xids = (self.context.plan.get("large_objects") or {}).get("xids") or []
                found = lost_large_objects(connection, side, self.context.plan["relations"], xids)
                connection.rollback()
                may_read = bool(value(side, MAY_READ))
                for first in range(0, len(found.back), BATCH):
                    self.context.watch.wait()
                    self._make(connection, side, found.back[first : first + BATCH], may_read)
                    connection.commit()
                    done = min(first + BATCH, len(found.back))
                    self.context.progress.say("large objects", done, len(found.back), "objects")
            finally:
                connection.close()
            return self._left(side, found.left)
        finally:
            side.close()

    def _left(self, side: Any, oids: Sequence[int]) -> list[dict[str, Any]]:
        """What is left to do for those that nothing says the damage took, by owner."""
        found = []
        there = psql_with(self.context.side.login, self.context.side_database)
        here = psql_with(self.context.production.login, self.context.database)
        for owner, theirs in by_owner(side, oids).items():
            for first in range(0, len(theirs), IN_A_COMMAND):
                part = theirs[first : first + IN_A_COMMAND]
                about = size_of(side, part)
                many = "" if about["bytes"] is None else f" ({size(about['bytes'])})"
                reason = (
                    f"rows that are back name {counted(len(part), 'large object')}{many} of this role, who has no part "
                    "in those tables, and nothing says that the damage took them: they may be gone on purpose. "
                    "Ask the owner; the command brings them back, without grants to others"
                )
                name = f"{part[0]}{' to ' + str(part[-1]) if len(part) > 1 else ''} of {owner}"
                command = remake_command(there, here, part)
                found.append(left("large object", name, reason, command, lost=True, needs_side_instance=True))
        return found

    def _make(self, connection: Any, side: Any, oids: Sequence[int], may_read: bool) -> None:
        mark(connection, self.context.plan["incident"])
        # Their owners need not own anything else that comes back. Whom we cannot become is in what is left to do.
        borrowed = try_to_become(connection, by_owner(side, oids))[0]
        entries: list[dict[str, Any]] = []
        with without_default_privileges(connection):
            for oid in oids:
                unreadable = self._unreadable(side, oid)
                if unreadable and not may_read:
                    entries += unreadable
                    continue
                execute(connection, "SELECT pg_catalog.lo_create(%s::oid)", (oid,))
                self._fill(connection, oid, (pages_of if unreadable else pieces_of)(side, oid))
                for about in rows(side, RIGHTS, (oid,)):
                    statements = rights_of(oid, about, rows(side, GRANTS, (oid,)))
                    entries += self._give(connection, oid, statements)
        give_back(connection, borrowed)
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

    def _fill(self, connection: Any, oid: int, pieces: Iterable[tuple[int, bytes]]) -> None:
        """Copy and compare, piece by piece."""
        for offset, data in pieces:
            execute(connection, "SELECT pg_catalog.lo_put(%s::oid, %s, %s)", (oid, offset, data))
            query = "SELECT encode(pg_catalog.sha256(pg_catalog.lo_get(%s::oid, %s, %s)), 'hex')"
            if value(connection, query, (oid, offset, CHUNK)) != hashlib.sha256(data).hexdigest():
                raise RecoveryError(
                    f"large object {oid} on {host_name()} is not what the recovered instance has, from byte {offset} "
                    "on. It was not kept, and nothing was published. Run again with the same incident id."
                )
            self.context.tell(len(data))

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
