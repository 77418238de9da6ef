# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Columns that went from tables that are still there, alone or with a type or an extension, and their data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import force_statements, server_message
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import Owner, execute_as_owner, needs_cage
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import Lock, Locks, patiently
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    is_given,
    quote_ident,
    quote_literal,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.owners import each_as_its_owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.references import (
    firing_triggers,
    locks_to_silence,
    silence,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import is_passing, savepoint
from ansible_collections.dbre.recovery.plugins.module_utils._tables.copy import (
    carried,
    column_list,
    copy_options,
    copy_table,
    plain_columns,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.existing import LEAVES
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import Context
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plain import printed
from ansible_collections.dbre.recovery.plugins.module_utils._tables.same_rows import same_row

# What belongs to a column beside its values; an option is named as ALTER TABLE ... SET does.
ADORNED = """
SELECT a.attname::text AS name, a.attstattarget AS statistics, a.attoptions AS options,
       CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END
         AS storage,
       a.attstorage <> t.typstorage AS stored_otherwise,
       pg_catalog.col_description(a.attrelid, a.attnum) AS comment
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s::oid AND a.attnum > 0 AND NOT a.attisdropped
"""
GRANTED = """
SELECT a.attname::text AS name, acl.privilege_type AS privilege, acl.is_grantable AS grantable, r.rolname::text AS role
FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) AS acl
LEFT JOIN pg_catalog.pg_roles r ON r.oid = acl.grantee
WHERE a.attrelid = %s::oid AND a.attnum > 0 AND (acl.grantee = 0 OR r.oid IS NOT NULL)
ORDER BY 1, 2, 4
"""
COMPRESSIONS = {"p": "pglz", "l": "lz4"}

# Rows in one short transaction, so that writers of the same rows wait for moments only.
BATCH = 5000


class LostColumns:
    """Puts the lost columns of one table back and fills them by key, in batches, without firing triggers."""

    def __init__(self, context: Context, item: Mapping[str, Any], encoding: str) -> None:
        self.context = context
        self.item = item
        self.encoding = encoding
        self.true = quote_name(item["schema"], item["name"])
        self.shown = display_name(item["schema"], item["name"])
        self.copy_name = f"dbre_columns_{item['oid']}"
        self.copy = quote_name(context.staging, self.copy_name)
        # How values of the copy become those of the table, by column.
        self.values: dict[str, str] = {}
        self.unadorned: list[dict[str, Any]] = []
        self.only = "" if item["kind"] == "p" else "ONLY "
        side = context.side.connect(context.side_database)
        try:
            every = fingerprint.columns_of(side, [item["oid"]])[item["oid"]]
            self.order = [column["name"] for column in every]
            self.before = force_statements(side, [item["oid"]])[0]
            self.adorned = {row["name"]: row for row in rows(side, ADORNED, (item["oid"],))}
            self.granted = rows(side, GRANTED, (item["oid"],))
        finally:
            side.close()
        self.lost = [column for column in every if column["name"] in item["columns"]]
        self.filled = [column for column in self.lost if not column["generated"]]
        self.key = [column for column in every if column["name"] in item["key"]]

    def run(self) -> None:
        """Everything; what is left to do is in the journal."""
        connection = self.context.session()
        try:
            locks = Locks(connection)
            left_to_do = patiently(connection, lambda: self._add(connection, locks), locks=locks)
            self.filled = [column for column in self.filled if column["name"] not in left_to_do]
            total = self._copy(connection) if self.filled else 0
            for first in range(1, total + 1, BATCH):
                self.context.watch.wait()
                patiently(connection, partial(self._fill, connection, first, locks), locks=locks)
                self.context.progress.say("fill", min(first + BATCH - 1, total), total, "rows")
            entries = [*left_to_do.values(), *self.unadorned, *self._not_null(connection)]
            patiently(connection, lambda: self._end(connection, total, entries))
        finally:
            connection.close()

    def _begin(self, connection: Any) -> None:
        mark(connection, self.context.plan["incident"])

    def _whole_table(self) -> Lock:
        return Lock(self.true, "ACCESS EXCLUSIVE", tree=True)

    def _add_statement(self, column: Mapping[str, Any]) -> str:
        text = f"ALTER TABLE {self.true} ADD COLUMN IF NOT EXISTS {quote_ident(column['name'])} {column['type']}"
        if column["collation"]:
            text += " COLLATE " + ".".join(quote_ident(part) for part in column["collation"].split(".", 1))
        return text

    def _add(self, connection: Any, locks: Locks) -> dict[str, dict[str, Any]]:
        """Add the columns, empty; what cannot be added, by name."""
        self._begin(connection)
        locks.take([self._whole_table()])
        self.unadorned = []
        found: dict[str, dict[str, Any]] = {}
        for column in self.lost:
            name = f"{column['name']} on {self.shown}"
            if column["generated"] == "s":
                reason = (
                    "the server computes it, and rewrites the whole table for that. At a quiet time, run the command"
                )
                statement = f"{self._add_statement(column)} GENERATED ALWAYS AS ({column['default']}) STORED"
                command = printed(connection, self.true, statement)
                found[column["name"]] = left("generated column", name, reason, command, lost=True)
                continue
            statement = self._add_statement(column)
            if column["generated"]:
                statement += f" GENERATED ALWAYS AS ({column['default']}) VIRTUAL"

            def failed(error: Any, column: Any = column, name: str = name, statement: str = statement) -> None:
                stored, command = not column["generated"], printed(connection, self.true, statement)
                reason = server_message(error) + (". Its values are in the side instance" if stored else "")
                found[column["name"]] = left(
                    "table column", name, reason, command, lost=True, needs_side_instance=stored
                )

            with savepoint(connection, failed):
                # A domain's check is run for rows without a value.
                execute_as_owner(connection, self.true, statement)
            if column["name"] not in found:
                self.unadorned += self._adorn(connection, column)
        return found

    def _adorn(self, connection: Any, column: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Give a column that is empty yet what belonged to it; what cannot be given."""
        refused: list[dict[str, Any]] = []
        shown = f"{column['name']} on {self.shown}"
        for statement in self._adornments(column):

            def failed(error: Any, statement: str = statement) -> None:
                refused.append(left("table column", shown, server_message(error), f"{statement};", lost=True))

            with savepoint(connection, failed):
                execute_as_owner(connection, self.true, statement)
        return refused

    def _adornments(self, column: Mapping[str, Any]) -> Iterator[str]:
        was, name = self.adorned[column["name"]], quote_ident(column["name"])
        change = f"ALTER TABLE {self.true} ALTER COLUMN {name}"
        if was["stored_otherwise"]:
            yield f"{change} SET STORAGE {was['storage']}"
        if column["compression"]:
            yield f"{change} SET COMPRESSION {COMPRESSIONS[column['compression']]}"
        if was["statistics"] is not None and was["statistics"] >= 0:
            yield f"{change} SET STATISTICS {was['statistics']}"
        if was["options"]:
            yield f"{change} SET ({', '.join(was['options'])})"
        if was["comment"] is not None:
            yield f"COMMENT ON COLUMN {self.true}.{name} IS {quote_literal(was['comment'])}"
        for item in self.granted:
            if item["name"] == column["name"]:
                to = "PUBLIC" if item["role"] is None else quote_ident(item["role"])
                option = " WITH GRANT OPTION" if item["grantable"] else ""
                yield f"GRANT {item['privilege']} ({name}) ON {self.true} TO {to}{option}"

    def _copy(self, connection: Any) -> int:
        """Key and lost columns of the recovered instance, numbered, beside; how many rows."""
        self._begin(connection)
        columns = [*self.key, *self.filled]
        plain = plain_columns(connection, columns)
        self.values = {column["name"]: item.back for column, item in zip(columns, plain)}
        definitions = ", ".join(item.definition for item in plain)
        execute(connection, f"DROP TABLE IF EXISTS {self.copy}")
        execute(
            connection,
            f"CREATE UNLOGGED TABLE {self.copy} ({definitions}, dbre_n bigint GENERATED ALWAYS AS IDENTITY UNIQUE)",
        )
        taken = carried(columns, fingerprint.columns_of_table(connection, self.copy))
        whole = [{**column, "generated": ""} for column in taken]
        fields = column_list(whole)
        for source in self._sources(fields):
            copy_table(
                connection,
                self.context.side,
                self.context.side_database,
                f"COPY {source} TO STDOUT {copy_options(whole, self.encoding)}",
                f"COPY {self.copy}{fields} FROM STDIN {copy_options(whole, self.encoding)}",
                self.context.tell,
                self.before,
            )
        execute(connection, f"ANALYZE {self.copy}")
        total = int(value(connection, f"SELECT coalesce(max(dbre_n), 0) FROM {self.copy}"))
        connection.commit()
        return total

    def _sources(self, fields: str) -> list[str]:
        """What COPY reads: a query, but where that would run parts of index expressions, the tables with the rows."""
        side = self.context.side.connect(self.context.side_database)
        try:
            if needs_cage(side, self.item["oid"], written=False):
                return [f"{row['name']}{fields}" for row in rows(side, LEAVES, {"oid": self.item["oid"]})]
        finally:
            side.close()
        return [f"(SELECT {fields[2:-1]} FROM {self.only}{self.true})"]

    @contextmanager
    def _owner(self, connection: Any) -> Iterator[tuple[Owner, str]]:
        """The table's owner, and the copy where he may read it."""
        oid = int(value(connection, "SELECT pg_catalog.to_regclass(%s)::oid::int8", (self.true,)))
        with each_as_its_owner(connection, []) as owners:
            owner = owners.of(oid, self.item["schema"])
            yield owner, owner.bring(self.context.staging, self.copy_name)

    def _same_key(self) -> str:
        names = [quote_ident(column["name"]) for column in self.key]
        return " AND ".join(f"t.{name} = s.{name}" for name in names)

    def _fill(self, connection: Any, first: int, locks: Locks) -> None:
        """One batch. A value that production has written meanwhile stays."""
        self._begin(connection)
        execute(connection, "SET LOCAL session_replication_role = 'replica'")
        oid = value(connection, "SELECT pg_catalog.to_regclass(%s)::oid::int8", (self.true,))
        firing = firing_triggers(connection, [oid])
        off, on = silence(firing)
        names = [quote_ident(column["name"]) for column in self.filled]
        changes = ", ".join(
            f"{name} = coalesce(t.{name}, s.{self.values[column['name']]})" for name, column in zip(names, self.filled)
        )
        needed = " OR ".join(f"NOT {is_given('t.' + name)} AND {is_given('s.' + name)}" for name in names)
        locks.take(locks_to_silence(firing))
        for statement in off:
            execute(connection, statement)
        with self._owner(connection) as (owner, copy):
            owner.execute(
                f"UPDATE {self.only}{self.true} t SET {changes} FROM {copy} s "
                f"WHERE s.dbre_n BETWEEN {first} AND {first + BATCH - 1} AND {self._same_key()} AND ({needed})"
            )
        for statement in on:
            execute(connection, statement)

    def _not_null(self, connection: Any) -> list[dict[str, Any]]:
        """Make columns NOT NULL that were, without reading the table under a lock that others wait for."""
        entries = []
        for column in self.filled:
            if not column["not_null"]:
                continue
            name, check = quote_ident(column["name"]), quote_ident(f"dbre_not_null_{self.item['oid']}")
            table, command = f"ALTER TABLE {self.true}", f"ALTER TABLE {self.true} ALTER COLUMN {name} SET NOT NULL"
            try:
                self._alter(connection, f"{table} ADD CONSTRAINT {check} CHECK ({is_given(name)}) NOT VALID")
                self._alter(connection, f"{table} VALIDATE CONSTRAINT {check}", whole=False)
                self._alter(connection, f"{command}, DROP CONSTRAINT {check}")
            except connection.DatabaseError as error:
                if is_passing(error):
                    raise
                self._alter(connection, f"{table} DROP CONSTRAINT IF EXISTS {check}")
                shown = f"{column['name']} on {self.shown}"
                why = server_message(error)
                reason = f"rows that came after the incident have no value, so that it is not NOT NULL: {why}"
                entries.append(left("table column", shown, reason, printed(connection, self.true, command), lost=True))
                connection.rollback()
        return entries

    def _alter(self, connection: Any, statement: str, whole: bool = True) -> None:
        locks = Locks(connection)

        def work() -> None:
            self._begin(connection)
            locks.take([self._whole_table()] if whole else [])
            # To know whether another check implies this one, the server runs constant parts of all.
            execute_as_owner(connection, self.true, statement)

        patiently(connection, work, locks=locks)

    def _end(self, connection: Any, total: int, entries: Sequence[Mapping[str, Any]]) -> None:
        """Note what was done and what was read back, in the transaction that removes the copy."""
        self._begin(connection)
        result = {
            "schema": self.item["schema"],
            "name": self.item["name"],
            "oid": self.item["oid"],
            "action": "columns",
            "rows": 0,
            "checksum_side": "0",
            "checksum_production": "0",
            "columns": [column["name"] for column in self.filled],
            "seconds": {},
        }
        if self.filled:
            result.update(self._read_back(connection))
            entries = [*entries, *self._without_row(total - int(result["rows"]) - int(result["own_values"]))]
            execute(connection, f"DROP TABLE IF EXISTS {self.copy}")
        entries = [*entries, *self._moved(connection)]
        self.context.journal(connection, "table", result)
        for entry in entries:
            self.context.journal(connection, "refused", {"entry": None, "left": entry})

    def _read_back(self, connection: Any) -> dict[str, Any]:
        """Rows and checksum of both ends, without the rows that production has given values of their own meanwhile."""
        columns = [*self.key, *self.filled]
        own = " OR ".join(
            f"{is_given('t.' + quote_ident(column['name']))} AND NOT {same_row([column], 't', 's')}"
            for column in self.filled
        )
        found: dict[str, Any] = {}
        with self._owner(connection) as (owner, copy):
            joined = f"FROM {self.only}{self.true} t JOIN {copy} s ON {self._same_key()}"
            for end, alias in (("side", "s"), ("production", "t")):
                fields = ", ".join(f"{alias}.{quote_ident(column['name'])}" for column in columns)
                source = f"(SELECT {fields} {joined} WHERE NOT ({own})) AS p"
                (content,) = owner.rows(fingerprint.checksum_query(source, columns, connection.server_version))
                found[f"checksum_{end}"] = str(content["checksum"])
                found["rows"] = content["rows"]
            found["own_values"] = owner.value(f"SELECT count(*) {joined} WHERE {own}")
        return found

    def _moved(self, connection: Any) -> list[dict[str, Any]]:
        """Say when the columns are in another order now: a column that is added is the last one."""
        now = [column["name"] for column in fingerprint.columns_of_table(connection, self.true)]
        if [name for name in now if name in self.order] == [name for name in self.order if name in now]:
            return []
        reason = (
            f"a column that comes back is the last one, so that the order is now {', '.join(now)}. All values are "
            "there; but SELECT *, and COPY and INSERT without a list of columns, go by it: name the columns there"
        )
        return [left("order of columns", self.shown, reason)]

    def _without_row(self, count: int) -> list[dict[str, Any]]:
        """Rows of before that production has no more: lost, too, where rows were asked for; else perhaps on purpose."""
        if not count:
            return []
        names = ", ".join(column["name"] for column in self.filled)
        return [
            left(
                "rows",
                self.shown,
                f"{counted(count, 'row')} with values of {names} cannot be found in production any more. If they were "
                "lost, too, bring them back with another incident id, the same target and dr_load=merge",
                lost=self.context.plan["load"] != "beside",
                rows=count,
            )
        ]
