# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep, in a side instance, the rows of tables as transactions found them and as they left them.

Replay pauses just before a commit. What the transaction deleted or updated is still visible there, and carries a mark
(xmax), as rows have that were only locked. Then replay goes on by this one record. What it inserted or updated carries
its number (xmin), and what was only locked its mark. So both pauses together tell what it did, and little else is read.
Of several transactions each has its two pauses, in the order of their commits.

All pauses but the last are read-only, so what they show waits in files. Rows go through them as text of the server's
own types, and where planning a query would run code of users, COPY reads the whole table without one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional, TypedDict

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import needs_cage
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_literal,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import SideRecovery
from ansible_collections.dbre.recovery.plugins.module_utils._tables.copy import plain_columns
from ansible_collections.dbre.recovery.plugins.module_utils._tables.event_triggers import silence_event_triggers
from ansible_collections.dbre.recovery.plugins.module_utils._tables.same_rows import primary_key, same_row

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


class Transaction(TypedDict):
    """Position of its COMMIT record, its number and those of its subtransactions, OIDs of the tables it changed."""

    lsn: str
    xids: list[int]
    relations: list[int]


class Images:
    """Both images of the tables of transactions: ``wanted`` is {database, transactions}, in the order of their commits.

    What several did to a row becomes one change: from how the first of them found it to how the last of them left it.
    """

    def __init__(self, recovery: SideRecovery, wanted: Mapping[str, Any]) -> None:
        self.recovery = recovery
        self.instance = recovery.instance
        self.database = str(wanted["database"])
        self.transactions: list[Transaction] = [
            {"lsn": str(one["lsn"]), "xids": list(map(int, one["xids"])), "relations": list(map(int, one["relations"]))}
            for one in wanted["transactions"]
        ]
        self.oids = sorted({oid for one in self.transactions for oid in one["relations"]})

    @property
    def _state(self) -> int | str:
        """How many pauses are in files, or that all is kept."""
        found: int | str = self.recovery.marker.get("images", 0)
        return found

    def _note(self, state: int | str) -> None:
        self.recovery.marker["images"] = state
        self.instance.write_marker(self.recovery.marker)

    def _file(self, image: str, oid: int) -> str:
        return self.instance.below(f"image-{image}-{oid}")

    def _images(self) -> Iterator[tuple[str, Transaction]]:
        """What each pause shows, and of which transaction."""
        for number, one in enumerate(self.transactions):
            yield f"before_{number}", one
            yield f"after_{number}", one

    def move_past(self) -> None:
        """From the pause before the first transaction to that just after the last one.

        What is seen on the way is in files then, but for what the last pause shows.
        """
        marker, pauses = self.recovery.marker, list(self._images())
        self._require_boundary()
        done = self._state if isinstance(self._state, int) else len(pauses)
        for number in range(done, len(pauses) - 1):
            image, transaction = pauses[number]
            self.recovery.pause()
            replay = marker.get("replay")
            self._save(image, transaction)
            self.instance.stop(marker)
            # At the same position inclusive, replay ends with the record that stands there.
            following, past = pauses[number + 1][1]["lsn"], number % 2 == 0
            marker.setdefault("asked_target", marker["target"])
            marker["target"] = {**marker["target"], "value": following, "exclusive": not past}
            marker["settings"]["recovery_target_lsn"] = following
            marker["settings"]["recovery_target_inclusive"] = "on" if past else "off"
            marker["replay"] = replay
            self._note(number + 1)
        replay = marker.get("replay")
        self.recovery.pause()
        marker["replay"] = replay
        reached, last = marker["reached"]["lsn"], self.transactions[-1]["lsn"]
        if parse_lsn(reached) <= parse_lsn(last):
            raise RecoveryError(
                f"replay at {self.instance.path} on {self.instance.host} stands at {reached}, still before the "
                f"transaction whose COMMIT record is at {last}. Production was not touched. Remove the side "
                "instance (state=absent) and restore again."
            )

    def _require_boundary(self) -> None:
        target = self.recovery.marker.get("asked_target", self.recovery.marker["target"])
        positions = [parse_lsn(one["lsn"]) for one in self.transactions]
        begins = target["type"] == "lsn" and target.get("exclusive") and positions[:1] == [parse_lsn(target["value"])]
        if not begins or positions != sorted(set(positions)):
            told = ", ".join(one["lsn"] for one in self.transactions)
            raise RecoveryError(
                "what a transaction did can only be told from just before its COMMIT record: the target must be the "
                f"first of those positions, exclusive, and they must be in order. The target is {target}, the "
                f"positions are {told}. Production was not touched."
            )

    def keep(self) -> bool:
        """Have both images as tables, once the instance can be written; whether that changed anything."""
        if self._state == "kept":
            return False
        last = len(self.transactions) - 1
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
            self._save(f"after_{last}", self.transactions[last])
            for image, one in self._images():
                for item in self._tables(connection, one["relations"]):
                    self._load(connection, image, item["oid"])
            for oid in self.oids:
                numbers = [number for number, one in enumerate(self.transactions) if oid in one["relations"]]
                compose(connection, oid, numbers, self._stored(connection, oid))
            connection.commit()
        finally:
            connection.close()
        self._note("kept")
        for image, one in self._images():
            for oid in one["relations"]:
                os.unlink(self._file(image, oid))
        return True

    def _session(self) -> Any:
        # Until it is promoted, a database has the name that it had then.
        connection = self.recovery.session(self.recovery.marker.get("database_there") or self.database)
        connection.autocommit = False
        execute(connection, "SET lock_timeout = '10s'")
        connection.commit()
        return connection

    def _tables(self, connection: Any, oids: Sequence[int]) -> list[dict[str, Any]]:
        found = rows(connection, TABLES, (list(oids),))
        missing = set(oids) - {item["oid"] for item in found}
        if missing:
            raise RecoveryError(
                f"database {self.database} of the side instance at {self.instance.path} on {self.instance.host} has no "
                f"tables with OID {', '.join(map(str, sorted(missing)))}. Production was not touched."
            )
        return found

    def _save(self, image: str, transaction: Transaction) -> None:
        condition = locked_or_written()
        if image.startswith("after"):
            condition += f" OR {written_by(transaction['xids'])}"
        connection = self._session()
        try:
            for item in self._tables(connection, transaction["relations"]):
                self._require_same_columns(connection, item)
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

    def _require_same_columns(self, connection: Any, item: Mapping[str, Any]) -> None:
        """Rows from before a change of a table's columns and from after it are no two images of one thing."""
        columns = [[one["name"], one["type"]] for one in self._stored(connection, item["oid"])]
        known = self.recovery.marker.setdefault("image_columns", {}).setdefault(str(item["oid"]), columns)
        if columns != known:
            raise RecoveryError(
                f"the columns of {display_name(item['schema'], item['name'])} were changed between the transactions, "
                "so that they cannot be taken back together. Production was not touched. Take them back one after the "
                "other, the newest first, each with its own incident."
            )

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


def compose(connection: Any, oid: int, numbers: Sequence[int], columns: Sequence[Mapping[str, Any]]) -> None:
    """Have what the transactions ``numbers`` did to one table as one change, in tables ``before`` and ``after``.

    Rows that somebody else changed between two of them are in a table ``between``, where there are any: as in
    ``before`` or ``after``, or where they are in neither, as the last of the transactions found them.
    """

    def table(image: str, number: Optional[int] = None) -> str:
        return f"{SCHEMA}.{image}_{oid}" if number is None else f"{SCHEMA}.{image}_{number}_{oid}"

    if len(numbers) == 1:
        for image in ("before", "after"):
            execute(connection, f"ALTER TABLE {table(image, numbers[0])} RENAME TO {image}_{oid}")
        return
    key = [quote_ident(name) for name in primary_key(connection, oid)]
    if not key:
        name = rows(connection, TABLES, ([oid],))[0]
        raise RecoveryError(
            f"{display_name(name['schema'], name['name'])} had no primary key then, so that what several "
            "transactions did to one row cannot be told. Production was not touched. Take them back one after the "
            "other, the newest first, each with its own incident."
        )
    named = [f"k{at}" for at in range(len(key))]
    steps, ends, broken = table("steps"), table("ends"), table("broken")

    def on(one: str, other: str, mine: Sequence[str] = key, theirs: Sequence[str] = key) -> str:
        return " AND ".join(f"{one}.{a} = {other}.{b}" for a, b in zip(mine, theirs))

    each = " UNION ALL ".join(
        f"SELECT {number} AS step, {', '.join(f'coalesce(b.{a}, a.{a}) AS {n}' for a, n in zip(key, named))} "
        f"FROM {table('before', number)} b FULL JOIN {table('after', number)} a ON {on('b', 'a')} "
        f"WHERE b.{key[0]} IS NULL OR a.{key[0]} IS NULL OR NOT {same_row(columns, 'b', 'a')}"
        for number in numbers
    )
    keys = ", ".join(named)
    execute(
        connection,
        f"CREATE TABLE {steps} AS SELECT *, lead(step) OVER (PARTITION BY {keys} ORDER BY step) AS following "
        f"FROM ({each}) AS each",
    )
    execute(
        connection,
        f"CREATE TABLE {ends} AS SELECT {keys}, min(step) AS begin, max(step) AS final FROM {steps} GROUP BY {keys}",
    )
    execute(connection, f"CREATE TABLE {broken} AS SELECT {keys}, begin AS found_by FROM {ends} WHERE false")
    for image, end in (("before", "begin"), ("after", "final")):
        execute(connection, f"CREATE TABLE {table(image)} AS SELECT * FROM {table(image, numbers[0])} WHERE false")
        for number in numbers:
            execute(
                connection,
                f"INSERT INTO {table(image)} SELECT s.* FROM {table(image, number)} s "
                f"JOIN {ends} e ON {on('s', 'e', key, named)} WHERE e.{end} = {number}",
            )
    for at, earlier in enumerate(numbers):
        for later in numbers[at + 1 :]:
            execute(
                connection,
                f"INSERT INTO {broken} SELECT {', '.join(f's.{n}' for n in named)}, {later} FROM {steps} s "
                f"LEFT JOIN {table('after', earlier)} a ON {on('a', 's', key, named)} "
                f"LEFT JOIN {table('before', later)} b ON {on('b', 's', key, named)} "
                f"WHERE s.step = {earlier} AND s.following = {later} AND (a.{key[0]} IS NULL) <> (b.{key[0]} IS NULL) "
                f"OR s.step = {earlier} AND s.following = {later} AND a.{key[0]} IS NOT NULL "
                f"AND NOT {same_row(columns, 'a', 'b')}",
            )
    if value(connection, f"SELECT EXISTS (SELECT FROM {broken})"):
        is_broken = f"EXISTS (SELECT FROM {broken} x WHERE {on('s', 'x', key, named)})"
        execute(
            connection,
            f"CREATE TABLE {table('between')} AS SELECT * FROM {table('before')} s WHERE {is_broken} UNION ALL "
            f"SELECT * FROM {table('after')} s WHERE {is_broken} "
            f"AND NOT EXISTS (SELECT FROM {table('before')} b WHERE {on('b', 's')})",
        )
        # Of a row that the first made and the last deleted, all that is left is what somebody else made of it between.
        absent = " AND ".join(
            f"NOT EXISTS (SELECT FROM {table(image)} b WHERE {on('b', 's')})" for image in ("between", "after")
        )
        for later in reversed(numbers):
            execute(
                connection,
                f"INSERT INTO {table('between')} SELECT s.* FROM {table('before', later)} s "
                f"WHERE EXISTS (SELECT FROM {broken} x WHERE {on('s', 'x', key, named)} AND x.found_by = {later}) "
                f"AND {absent}",
            )
