# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep, in a side instance, the rows of tables as one transaction found them and as it left them.

Replay pauses just before its commit. What it deleted or updated is still visible there, and carries a mark (xmax), as
rows have that were only locked. Then replay goes on by this one record. What it inserted or updated carries its number
(xmin), and what was only locked its mark. So both pauses together tell what it did, and little else is read.

The first pause is read-only, so what it shows waits in files. Rows go through them as text of the server's own types,
and where planning a query would run code of users, COPY reads the whole table without one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import needs_cage
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    quote_ident,
    quote_literal,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import SideRecovery
from ansible_collections.dbre.recovery.plugins.module_utils._tables.copy import plain_columns
from ansible_collections.dbre.recovery.plugins.module_utils._tables.event_triggers import silence_event_triggers

SCHEMA = "dbre_images"
LOCK_NOT_AVAILABLE = "55P03"
TABLES = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY(%s::oid[]) AND c.relkind = 'r' ORDER BY 1
"""


def locked_or_written() -> str:
    """Condition: a transaction marked the row, to delete, update or lock it."""
    return "xmax <> '0'::pg_catalog.xid"


def written_by(xids: Sequence[int]) -> str:
    """Condition: the row's version was written by one of ``xids``."""
    numbers = ",".join(str(xid & 0xFFFFFFFF) for xid in xids)
    return f"xmin = ANY ('{{{numbers}}}'::pg_catalog.xid[])"


class Images:
    """Both images of the tables of one transaction: ``wanted`` is {database, xids, relations: [OID]}."""

    def __init__(self, recovery: SideRecovery, wanted: Mapping[str, Any]) -> None:
        self.recovery = recovery
        self.instance = recovery.instance
        self.database = str(wanted["database"])
        self.xids = [int(xid) for xid in wanted["xids"]]
        self.oids = [int(oid) for oid in wanted["relations"]]

    @property
    def _state(self) -> str:
        return str(self.recovery.marker.get("images", ""))

    def _note(self, state: str) -> None:
        self.recovery.marker["images"] = state
        self.instance.write_marker(self.recovery.marker)

    def _file(self, image: str, oid: int) -> str:
        return self.instance.below(f"image-{image}-{oid}")

    def move_past(self) -> None:
        """From the pause before the transaction to the pause just after it, once what the first shows is in files."""
        if self._state:
            return
        target = self.recovery.marker["target"]
        if target["type"] != "lsn" or not target.get("exclusive"):
            raise RecoveryError(
                "what a transaction did can only be told from just before its COMMIT record: the target must be that "
                f"position, exclusive, and is {target}. Production was not touched."
            )
        self.recovery.pause()
        self._save("before", locked_or_written())
        self.instance.stop(self.recovery.marker)
        replay = self.recovery.marker.get("replay")
        # At the same position inclusive, replay ends with the record that stands there.
        self.recovery.marker["target"] = {**target, "exclusive": False}
        self.recovery.marker["settings"]["recovery_target_inclusive"] = "on"
        self._note("before")
        self.recovery.pause()
        self.recovery.marker["replay"] = replay
        reached = self.recovery.marker["reached"]["lsn"]
        if parse_lsn(reached) <= parse_lsn(str(target["value"])):
            raise RecoveryError(
                f"replay at {self.instance.path} on {self.instance.host} stands at {reached}, still before the "
                f"transaction whose COMMIT record is at {target['value']}. Production was not touched. Remove the side "
                "instance (state=absent) and restore again."
            )

    def keep(self) -> bool:
        """Have both images as tables, once the instance can be written; whether that changed anything."""
        if self._state == "kept":
            return False
        connection = self._session()
        try:
            found = silence_event_triggers(connection)
            connection.autocommit = True
            for item in found:
                if item["fires"]:
                    execute(connection, f"ALTER EVENT TRIGGER {quote_ident(item['name'])} DISABLE")
            connection.autocommit = False
            # What production's owners may have put there is of no use to anybody here.
            execute(connection, f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}")
            self._save("after", f"{written_by(self.xids)} OR {locked_or_written()}")
            for item in self._tables(connection):
                for image in ("before", "after"):
                    self._load(connection, image, item["oid"])
            connection.commit()
        finally:
            connection.close()
        for image in ("before", "after"):
            for oid in self.oids:
                os.unlink(self._file(image, oid))
        self._note("kept")
        return True

    def _session(self) -> Any:
        # Until it is promoted, a database has the name that it had then.
        connection = self.recovery.session(self.recovery.marker.get("database_there") or self.database)
        connection.autocommit = False
        execute(connection, "SET lock_timeout = '10s'")
        connection.commit()
        return connection

    def _tables(self, connection: Any) -> list[dict[str, Any]]:
        found = rows(connection, TABLES, (self.oids,))
        missing = set(self.oids) - {item["oid"] for item in found}
        if missing:
            raise RecoveryError(
                f"database {self.database} of the side instance at {self.instance.path} on {self.instance.host} has no "
                f"tables with OID {', '.join(map(str, sorted(missing)))}. Production was not touched."
            )
        return found

    def _save(self, image: str, condition: str) -> None:
        connection = self._session()
        try:
            for item in self._tables(connection):
                self._save_table(connection, image, item, condition)
        except connection.DatabaseError as error:
            if error.pgcode != LOCK_NOT_AVAILABLE:
                raise
            raise RecoveryError(
                f"a table of the transaction is locked in the side instance at {self.instance.path} on "
                f"{self.instance.host}, by another transaction that was changing its definition just then: "
                f"{str(error).strip()}. Its rows cannot be told from here. Production was not touched. Recover its "
                "tables with dr-table-drop and dr_load=beside instead."
            ) from error
        finally:
            connection.close()

    def _save_table(self, connection: Any, image: str, item: Mapping[str, Any], condition: str) -> None:
        table = quote_name(item["schema"], item["name"])
        names = ", ".join(quote_ident(column["name"]) for column in self._stored(connection, item["oid"]))
        source = f"(SELECT {names} FROM ONLY {table} WHERE {condition})"
        if needs_cage(connection, item["oid"], written=False):
            source = f"{table} ({names})"
        encoding = quote_literal(str(value(connection, "SHOW server_encoding")))
        handle = os.open(self._file(image, item["oid"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file, connection.cursor() as cursor:
            cursor.copy_expert(f"COPY {source} TO STDOUT WITH (ENCODING {encoding})", file)

    @staticmethod
    def _stored(connection: Any, oid: int) -> list[dict[str, Any]]:
        return [column for column in fingerprint.columns_of(connection, [oid])[oid] if not column["generated"]]

    def _load(self, connection: Any, image: str, oid: int) -> None:
        plain = plain_columns(connection, self._stored(connection, oid))
        table = f"{SCHEMA}.{image}_{oid}"
        execute(connection, f"CREATE TABLE {table} ({', '.join(item.definition for item in plain)})")
        encoding = quote_literal(str(value(connection, "SHOW server_encoding")))
        with open(self._file(image, oid), "rb") as file, connection.cursor() as cursor:
            cursor.copy_expert(f"COPY {table} FROM STDIN WITH (ENCODING {encoding})", file)
