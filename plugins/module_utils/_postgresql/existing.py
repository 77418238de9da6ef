# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import (
    INSUFFICIENT_PRIVILEGE,
    force_statements,
    user_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.copy import copy_options, copy_table
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.load import (
    Context,
    recovered_content,
    require_equal,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.publish import (
    FOREIGN_KEYS,
    LOCK_TIMEOUT,
    patiently,
    set_sequences,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name

SAMPLE = 5

PRIMARY_KEY = """
SELECT a.attname AS name FROM pg_catalog.pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS key(number, n)
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = key.number
WHERE i.indrelid = %s::oid AND i.indisprimary AND key.n <= i.indnkeyatts ORDER BY key.n
"""

KEYS_OF = """
SELECT oid::int8 FROM pg_catalog.pg_constraint
WHERE contype = 'f' AND conparentid = 0 AND {column} = %s::oid
"""


def primary_key(connection: Any, oid: int) -> list[str]:
    """Columns of a table's primary key in order; empty without one."""
    return [row["name"] for row in rows(connection, PRIMARY_KEY, (oid,))]


def same_row(columns: Sequence[Mapping[str, Any]], one: str, other: str) -> str:
    """SQL condition: all stored columns of the two rows are the same; types without equality are compared as text."""
    fields = []
    for column in columns:
        cast = "" if column["builtin"] and column["typname"] in fingerprint.PLAIN_TYPES else '::text COLLATE "C"'
        fields.append((f"{one}.{quote_ident(column['name'])}{cast}", f"{other}.{quote_ident(column['name'])}{cast}"))
    left, right = (", ".join(pair[side] for pair in fields) for side in (0, 1))
    return f"ROW({left}) IS NOT DISTINCT FROM ROW({right})"


class ExistingTable:
    """One table that production has: a copy from the recovered instance beside it, merged into it, or in its place."""

    def __init__(self, context: Context, relation: Mapping[str, Any], encoding: str) -> None:
        self.context = context
        self.relation = relation
        self.encoding = encoding
        self.schema, self.name = relation["schema"], relation["name"]
        self.true = quote_name(self.schema, self.name)
        self.shown = display_name(self.schema, self.name)
        self.staging = context.staging_schemas[self.schema]
        # A partitioned table has its rows in its partitions; of an inheritance parent only its own rows are meant.
        self.only = "" if relation["kind"] == "p" else "ONLY "
        side = context.side.connect(context.side_database)
        try:
            self.columns = fingerprint.columns_of(side, [relation["oid"]])[relation["oid"]]
            self.key = primary_key(side, relation["oid"])
            self.before = force_statements(side, [relation["oid"]])[0]
        finally:
            side.close()
        self.stored = [column for column in self.columns if not column["generated"]]
        self.recovered: dict[str, Any] = {}

    def check(self, connection: Any) -> None:
        """Refuse what cannot work, before anything is changed."""
        if self.relation["action"] == "beside":
            return
        self._require_replica(connection)
        oid = self._oid(connection)
        self._require_same_columns(connection, oid)
        if self.relation["action"] == "merge" and (
            not self.key or sorted(primary_key(connection, oid)) != sorted(self.key)
        ):
            raise RecoveryError(
                f"{self.shown} on {host_name()} cannot be merged: it has no primary key, or not the one it had. "
                "The table was not changed. Run again with dr_load=beside and another incident id, and take the rows "
                "from the copy."
            )

    def _require_replica(self, connection: Any) -> None:
        """Refuse a role that cannot keep triggers from firing on rows that are not new."""
        execute(connection, "SAVEPOINT dbre_replica")
        try:
            execute(connection, "SET LOCAL session_replication_role = 'replica'")
        except connection.ProgrammingError as error:
            if error.pgcode != INSUFFICIENT_PRIVILEGE:
                raise
            execute(connection, "ROLLBACK TO SAVEPOINT dbre_replica")
            user = quote_ident(user_of(connection))
            allow = f"As a superuser: GRANT SET ON PARAMETER session_replication_role TO {user}; or run"
            raise RecoveryError(
                f"role {user} on {host_name()} may not set session_replication_role, so the triggers of {self.shown} "
                "would fire on the rows that are put back. The table was not changed. "
                f"{allow if connection.server_version >= 150000 else 'Run as a superuser, or run'} again with "
                "dr_load=beside and another incident id, and take the rows from the copy."
            ) from error
        execute(connection, "ROLLBACK TO SAVEPOINT dbre_replica")

    def _show_all(self, connection: Any, oid: int) -> list[str]:
        """Let us see all rows of the table and of those its foreign keys concern; statements that undo it.

        Only where row security binds even the owner, whom we act for: the table is then locked until the commit.
        """
        keys = [key for column in ("conrelid", "confrelid") for key in self._foreign_keys(connection, oid, column)]
        names = {quote_name(key[part + "schema"], key[part + "table"]) for key in keys for part in ("", "other_")}
        oids = [value(connection, "SELECT %s::regclass::oid::int8", (name,)) for name in sorted(names)]
        show, hide = force_statements(connection, [oid, *oids])
        for statement in show:
            execute(connection, statement)
        return hide

    def load(self) -> dict[str, Any]:
        """Do what the plan says in one transaction; the result."""
        side = self.context.side.connect(self.context.side_database, fingerprint.parallel_settings(self.context.cores))
        try:
            self.recovered = recovered_content(side, self.relation["oid"], self.only + self.true, self.columns)
        finally:
            side.close()
        connection = self.context.loading_session()
        try:
            self.check(connection)
            mark(connection, self.context.plan["incident"])
            if self.relation["action"] == "replace":
                return self._replace(connection)
            merge = self.relation["action"] == "merge"
            result = self._note(connection, self._merge(connection) if merge else self._beside(connection))
            connection.commit()
            return result
        except BaseException:
            connection.rollback()
            raise
        finally:
            connection.close()

    def _note(self, connection: Any, found: Mapping[str, Any]) -> dict[str, Any]:
        """Write the result to the journal, in the transaction that makes it true."""
        result = {
            "schema": self.schema,
            "name": self.name,
            "oid": self.relation["oid"],
            "action": self.relation["action"],
            "seconds": {},
            **found,
        }
        self.context.journal(connection, "table", result)
        return result

    # A plain copy

    def _copy(self, connection: Any, name: str) -> str:
        """A plain table with the recovered rows, proved equal; its SQL name. Takes no lock on production's table."""
        copy = quote_name(self.staging, name)
        definitions = []
        for column in self.columns:
            collation = column["collation"]
            text = f"{quote_ident(column['name'])} {column['type']}"
            if collation:
                text += " COLLATE " + ".".join(quote_ident(part) for part in collation.split(".", 1))
            definitions.append(text)
        execute(connection, f"CREATE TABLE {copy} ({', '.join(definitions)})")
        fields = ", ".join(quote_ident(column["name"]) for column in self.columns)
        whole = [{**column, "generated": ""} for column in self.columns]
        copy_table(
            connection,
            self.context.side,
            self.context.side_database,
            f"COPY (SELECT {fields} FROM {self.only}{self.true}) TO STDOUT {copy_options(whole, self.encoding)}",
            f"COPY {copy} FROM STDIN {copy_options(whole, self.encoding, freeze=True)}",
            self.context.tell,
            self.before,
        )
        if self.key:
            execute(
                connection, f"ALTER TABLE {copy} ADD PRIMARY KEY ({', '.join(quote_ident(key) for key in self.key)})"
            )
        execute(connection, f"ANALYZE {copy}")
        require_equal(
            display_name(self.staging, name), self.recovered, fingerprint.content(connection, copy, self.columns)
        )
        return copy

    def _keep(self, connection: Any, name: str, what: str) -> str:
        """Note that a table beside stays until the operator removes it; its name for people."""
        shown = display_name(self.staging, name)
        entry = {
            "type": "table",
            "object": shown,
            "reason": what,
            "command": f"DROP TABLE {quote_name(self.staging, name)};",
            "schema": self.staging,
            "name": name,
        }
        self.context.journal(connection, "kept", entry)
        return shown

    def _beside(self, connection: Any) -> dict[str, Any]:
        self._copy(connection, self.name)
        kept = self._keep(connection, self.name, f"copy of {self.shown} as it was before the incident")
        checksum = self.recovered["checksum"]
        return {
            "rows": self.recovered["rows"],
            "checksum_side": checksum,
            "checksum_production": checksum,
            "copy": kept,
        }

    # What merge and replace have in common

    def _require_same_columns(self, connection: Any, oid: int) -> None:
        keys = ("name", "type", "generated")
        here = [tuple(column[key] for key in keys) for column in fingerprint.columns_of(connection, [oid])[oid]]
        there = [tuple(column[key] for key in keys) for column in self.columns]
        if sorted(here) != sorted(there):
            differs = sorted({item[0] for item in set(here) ^ set(there)})
            raise RecoveryError(
                f"the columns of {self.shown} on {host_name()} are not those it had before the incident "
                f"({', '.join(differs)}). The table was not changed. Run again with dr_load=beside and another "
                "incident id, and take the rows from the copy.",
                columns=differs,
            )

    def _oid(self, connection: Any) -> int:
        return int(value(connection, "SELECT %s::regclass::oid::int8", (self.true,)))

    def _insert(self, connection: Any, source: str, condition: str = "", ending: str = "") -> int:
        fields = ", ".join(quote_ident(column["name"]) for column in self.stored)
        return execute(
            connection,
            f"INSERT INTO {self.true} ({fields}) OVERRIDING SYSTEM VALUE "
            f"SELECT {fields} FROM {source} s {condition} {ending}",
        )

    @staticmethod
    def _orphans(key: Mapping[str, Any]) -> str:
        """Condition on rows ``f`` of a table: their foreign key points nowhere (MATCH SIMPLE)."""
        other = quote_name(key["other_schema"], key["other_table"])
        fields = [f"f.{quote_ident(name)}" for name in key["columns"]]
        match = " AND ".join(f"t.{quote_ident(name)} = {field}" for field, name in zip(fields, key["other_columns"]))
        present = " AND ".join(f"{field} IS NOT NULL" for field in fields)
        return f"{present} AND NOT EXISTS (SELECT FROM {other} t WHERE {match})"

    @staticmethod
    def _hold_parents(connection: Any, key: Mapping[str, Any], rows_of: str) -> None:
        """Lock the rows that a foreign key points to, so that they stay until our commit."""
        other = quote_name(key["other_schema"], key["other_table"])
        match = " AND ".join(
            f"t.{quote_ident(name)} = f.{quote_ident(column)}"
            for column, name in zip(key["columns"], key["other_columns"])
        )
        execute(
            connection,
            f"SELECT count(*) FROM (SELECT FROM {other} t WHERE EXISTS (SELECT FROM {rows_of} f WHERE {match}) "
            "FOR KEY SHARE) AS held",
        )

    def _foreign_keys(self, connection: Any, oid: int, column: str) -> list[dict[str, Any]]:
        oids = [row["oid"] for row in rows(connection, KEYS_OF.format(column=column), (oid,))]
        return [key for key in rows(connection, FOREIGN_KEYS, (oids,)) if key["validated"]]

    def _sequences(self, connection: Any) -> None:
        oid = self.relation["oid"]
        set_sequences(connection, [item for item in self.context.plan["sequences"] if item["relation"] == oid])

    # Merge

    def _merge(self, connection: Any) -> dict[str, Any]:
        """Insert the rows that production lacks by primary key; list the rest in a table beside."""
        oid = self._oid(connection)
        source = self._copy(connection, self.name)
        differs_name = f"{self.name[:50]}_differs"
        differs = quote_name(self.staging, differs_name)
        on_key = " AND ".join(f"p.{quote_ident(name)} = s.{quote_ident(name)}" for name in self.key)
        keys = ", ".join(quote_ident(name) for name in self.key)
        inserted = quote_name(self.staging, f"{self.name[:50]}_inserted")
        execute(connection, f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        hide = self._show_all(connection, oid)
        execute(
            connection,
            f"CREATE TABLE {inserted} AS SELECT {keys} FROM {source} s "
            f"WHERE NOT EXISTS (SELECT FROM {self.true} p WHERE {on_key})",
        )
        execute(connection, f"ALTER TABLE {inserted} ADD PRIMARY KEY ({keys})")
        # Triggers have done their work when the rows were new; foreign keys are looked at below.
        execute(connection, "SET LOCAL session_replication_role = 'replica'")
        missing = f"WHERE EXISTS (SELECT FROM {inserted} p WHERE {on_key})"
        self._insert(connection, source, missing, "ON CONFLICT DO NOTHING")
        self._take_back_orphans(connection, oid, inserted)
        execute(connection, "SET LOCAL session_replication_role = 'origin'")
        back = value(
            connection, f"SELECT count(*) FROM {inserted} s WHERE EXISTS (SELECT FROM {self.true} p WHERE {on_key})"
        )
        execute(
            connection,
            f"CREATE TABLE {differs} AS SELECT s.* FROM {source} s WHERE NOT EXISTS "
            f"(SELECT FROM {self.true} p WHERE {on_key} AND {same_row(self.stored, 's', 'p')})",
        )
        count = value(connection, f"SELECT count(*) FROM {differs}")
        unfit = value(
            connection, f"SELECT count(*) FROM {differs} s WHERE NOT EXISTS (SELECT FROM {self.true} p WHERE {on_key})"
        )
        texts = ", ".join(f"{quote_ident(name)}::text" for name in self.key)
        sample = [
            list(row.values())
            for row in rows(connection, f"SELECT {texts} FROM {differs} ORDER BY {keys} LIMIT {SAMPLE}")
        ]
        newer = value(
            connection, f"SELECT count(*) FROM {self.true} p WHERE NOT EXISTS (SELECT FROM {source} s WHERE {on_key})"
        )
        execute(connection, f"DROP TABLE {source}, {inserted}")
        table = None
        if count:
            what = f"rows of {self.shown} that differ from production's or do not fit into it"
            table = self._keep(connection, differs_name, what)
        else:
            execute(connection, f"DROP TABLE {differs}")
        self._sequences(connection)
        checksum = fingerprint.content(connection, self.only + self.true, self.columns)["checksum"]
        for statement in hide:
            execute(connection, statement)
        return {
            "rows": back,
            "checksum_side": self.recovered["checksum"],
            "checksum_production": checksum,
            "merged": {
                "inserted": back,
                "differing": count - unfit,
                "not_fitting": unfit,
                "newer_in_production": newer,
                "table": table,
                "key": self.key,
                "sample": sample,
            },
        }

    def _take_back_orphans(self, connection: Any, oid: int, inserted: str) -> None:
        """Remove again the rows just inserted whose parents are gone, until all that stay have theirs."""
        on_key = " AND ".join(f"i.{quote_ident(name)} = f.{quote_ident(name)}" for name in self.key)
        keys = self._foreign_keys(connection, oid, "conrelid")
        ours = f"(SELECT f.* FROM {self.true} f JOIN {inserted} i ON {on_key})"
        for key in keys:
            self._hold_parents(connection, key, ours)
        while True:
            removed = 0
            for key in keys:
                removed += execute(
                    connection,
                    f"DELETE FROM {self.true} f USING {inserted} i WHERE {on_key} AND {self._orphans(key)}",
                )
            if not removed:
                return

    # Replace

    def _replace(self, connection: Any) -> dict[str, Any]:
        """Exchange the content in one short transaction, after the recovered rows were loaded beside in another."""
        oid = self._oid(connection)
        work_name, old_name = f"{self.name[:50]}_recovered", f"{self.name[:50]}_replaced"
        execute(connection, f"DROP TABLE IF EXISTS {quote_name(self.staging, work_name)}")
        source = self._copy(connection, work_name)
        connection.commit()

        def work() -> dict[str, Any]:
            mark(connection, self.context.plan["incident"])
            execute(connection, f"LOCK TABLE {self.true} IN EXCLUSIVE MODE")
            hide = self._show_all(connection, oid)
            outgoing = self._foreign_keys(connection, oid, "conrelid")
            incoming = self._foreign_keys(connection, oid, "confrelid")
            execute(
                connection, f"CREATE TABLE {quote_name(self.staging, old_name)} AS SELECT * FROM {self.only}{self.true}"
            )
            replaced = value(connection, f"SELECT count(*) FROM {quote_name(self.staging, old_name)}")
            execute(connection, "SET LOCAL session_replication_role = 'replica'")
            # TRUNCATE leaves no dead rows behind, but is refused for a table that foreign keys point to.
            if incoming:
                execute(connection, f"DELETE FROM {self.only}{self.true}")
            else:
                execute(connection, f"TRUNCATE {self.only}{self.true}")
            self._insert(connection, source)
            execute(connection, "SET LOCAL session_replication_role = 'origin'")
            for key in outgoing:
                self._hold_parents(connection, key, self.true)
            for key in {item["oid"]: item for item in [*outgoing, *incoming]}.values():
                self._require_parents(connection, key)
            loaded = fingerprint.content(connection, self.only + self.true, self.columns)
            require_equal(self.shown, self.recovered, loaded)
            self._sequences(connection)
            for statement in hide:
                execute(connection, statement)
            execute(connection, f"DROP TABLE {source}")
            kept = self._keep(connection, old_name, f"rows of {self.shown} that were there until they were replaced")
            return self._note(
                connection,
                {
                    "rows": loaded["rows"],
                    "checksum_side": self.recovered["checksum"],
                    "checksum_production": loaded["checksum"],
                    "replaced": {"rows": replaced, "table": kept},
                },
            )

        try:
            return dict(patiently(connection, work))
        except BaseException:
            connection.rollback()
            mark(connection, self.context.plan["incident"])
            execute(connection, f"DROP TABLE IF EXISTS {source}")
            connection.commit()
            raise

    def _require_parents(self, connection: Any, key: Mapping[str, Any]) -> None:
        table = quote_name(key["schema"], key["table"])
        orphans = f"FROM {table} f WHERE {self._orphans(key)}"
        count = value(connection, f"SELECT count(*) {orphans}")
        if count:
            fields = ", ".join(f"f.{quote_ident(name)}::text" for name in key["columns"])
            sample = [list(row.values()) for row in rows(connection, f"SELECT {fields} {orphans} LIMIT {SAMPLE}")]
            raise RecoveryError(
                f"{self.shown} on {host_name()} cannot be replaced by what it was: {count} rows of "
                f"{display_name(key['schema'], key['table'])} would break the foreign key {key['name']} "
                f"(for example {', '.join(quote_ident(name) for name in key['columns'])} = {sample[0]}). "
                "The table was not changed. Run again with dr_load=merge or dr_load=beside and another incident id.",
                foreign_key=key["name"],
                rows=count,
                sample=sample,
            )
