# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One table of a transaction that is taken back: its rows before and after, and what production has of them now.

A row that production still has as the transaction left it becomes what it was. One that was changed since is a
conflict, and stays. What is to be done is written into a table beside (the preview), row by row, before it is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import server_message
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import Owner
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_literal,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import savepoint
from ansible_collections.dbre.recovery.plugins.module_utils._tables.copy import plain_columns
from ansible_collections.dbre.recovery.plugins.module_utils._tables.replication import Unpublished
from ansible_collections.dbre.recovery.plugins.module_utils._tables.row_versions import FIXED
from ansible_collections.dbre.recovery.plugins.module_utils._tables.same_rows import comparable, primary_key, same_row
from ansible_collections.dbre.recovery.plugins.module_utils._tables.unique_keys import unique_keys

CHECKS = """
SELECT 'constraint ' || k.conname AS name, pg_catalog.pg_get_expr(k.conbin, k.conrelid) AS condition
FROM pg_catalog.pg_constraint k WHERE k.conrelid = %(oid)s::oid AND k.contype = 'c'
UNION
SELECT 'NOT NULL of column ' || a.attname, pg_catalog.quote_ident(a.attname) || ' IS DISTINCT FROM NULL'
FROM pg_catalog.pg_attribute a
WHERE a.attrelid = %(oid)s::oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND a.attgenerated = ''
"""
SAMPLE = 5
# How often rows are tried when a table refuses some: enough for two of a million.
TRIES = 80
# Why a row stays as it is.
CHANGED = "changed since"
DELETED = "deleted since"
MADE_AGAIN = "made again since"
TAKEN = "a unique key: production has another row with the same values"
BETWEEN = "another transaction changed it between those that are taken back"
MOVED = "it may be what a row became whose former key another row has now"
WORDS = ("seq", "operation", "inverse", "conflict", "later_xid")


@dataclass(frozen=True)
class Touched:
    """A table of production whose rows a transaction changed. ``schema`` and ``name`` are those of now."""

    oid: int
    schema: str
    name: str
    columns: Sequence[Mapping[str, Any]]
    key: Mapping[str, str]

    @classmethod
    def of(cls, connection: Any, oid: int, schema: str, name: str) -> Touched:
        """The table as production has it; a key of generated columns, which no image has, tells no row from another."""
        columns, key = fingerprint.columns_of(connection, [oid])[oid], primary_key(connection, oid)
        generated = {column["name"] for column in columns if column["generated"]}
        return cls(oid, schema, name, columns, {} if generated & key.keys() else key)

    @property
    def shown(self) -> str:
        """Its name, for people."""
        return display_name(self.schema, self.name)

    @property
    def true(self) -> str:
        """Its name in SQL."""
        return quote_name(self.schema, self.name)

    @property
    def own(self) -> str:
        """Its own rows, in SQL."""
        return f"ONLY {self.true}"

    @property
    def stored(self) -> list[Mapping[str, Any]]:
        """Columns that are not computed."""
        return [column for column in self.columns if not column["generated"]]

    @property
    def keys(self) -> str:
        """Columns of its primary key."""
        return ", ".join(quote_ident(name) for name in self.key)

    def on_key(self, one: str, other: str) -> str:
        """SQL condition: two rows have the same primary key."""
        pairs = ((f"{one}.{quote_ident(name)}", f"{other}.{quote_ident(name)}") for name in self.key)
        return " AND ".join(f"{mine} {sign} {theirs}" for (mine, theirs), sign in zip(pairs, self.key.values()))

    def words(self) -> dict[str, str]:
        """Names of the preview's columns beside those of the key."""
        prefix = ""
        while any(name.startswith(f"{prefix}{word}") for name in self.key for word in WORDS):
            prefix += "dbre_"
        return {word: f"{prefix}{word}" for word in WORDS}


@dataclass(frozen=True)
class Images:
    """Tables in ``schema`` with the rows as the transaction found them and as it left them, and the preview.

    Of several transactions, ``between`` has the rows that somebody else changed in the meantime, where there are any.
    """

    schema: str
    before: str
    after: str
    preview: str
    between: Optional[str] = None


class Reversal:
    """One table, in the caller's transaction, from the image ``after`` to the image ``before``."""

    def __init__(self, connection: Any, owner: Owner, table: Touched, images: Images) -> None:
        self.connection, self.owner, self.table, self.images = connection, owner, table, images
        plain = plain_columns(connection, table.stored)
        definitions = {column["name"]: item.definition for column, item in zip(table.stored, plain)}
        self.backs = [(column, item.back) for column, item in zip(table.stored, plain)]
        self.fields = ", ".join(quote_ident(column["name"]) for column in table.stored)
        self.values = ", ".join(f"s.{back}" for _column, back in self.backs)
        words = table.words()
        self.seq, self.operation, self.inverse, self.conflict, self.later = words.values()
        preview = quote_name(images.schema, images.preview)
        execute(connection, f"DROP TABLE IF EXISTS {preview}")
        execute(
            connection,
            f"CREATE TABLE {preview} ({self.seq} int8 GENERATED ALWAYS AS IDENTITY, {self.operation} text, "
            f"{self.inverse} text, {', '.join(definitions[name] for name in table.key)}, {self.conflict} text, "
            f"{self.later} int8)",
        )
        self._hidden = Unpublished(connection, images.schema, preview)
        self.preview = owner.bring(images.schema, images.preview)
        self.before = owner.bring(images.schema, images.before)
        self.after = owner.bring(images.schema, images.after)
        self.between = owner.bring(images.schema, images.between) if images.between else None
        owner.lend("TABLE", self.preview, ["SELECT", "INSERT", "UPDATE"])

    def find(self, preview: str = "") -> None:
        """Find what is to be done, row by row; with an earlier ``preview`` only with rows that it was done with."""
        table = self.table
        fixed = {row["name"] for row in rows(self.connection, FIXED, {"oid": table.oid})}
        kept = [column for column in table.stored if column["name"] in fixed]
        self.changing = [column["name"] for column in table.stored if column["name"] not in fixed]
        update = "true" if self.changing and None not in fixed else "false"
        if kept and update == "true":
            update = same_row(kept, "s", "b")
        done = ""
        if preview:
            done = (
                f" AND EXISTS (SELECT FROM {preview} u WHERE {table.on_key('u', 's')} "
                f"AND u.{self.conflict} IS NULL AND u.{self.inverse} <> 'NONE')"
            )
        into = f"INSERT INTO {self.preview} ({self.operation}, {self.inverse}, {table.keys})"
        keys = ", ".join(f"s.{quote_ident(name)}" for name in table.key)
        for operation, inverse, here, there in (
            ("INSERT", "DELETE", self.after, self.before),
            ("DELETE", "INSERT", self.before, self.after),
        ):
            self.owner.execute(
                f"{into} SELECT '{operation}', '{inverse}', {keys} FROM {here} s "
                f"WHERE NOT EXISTS (SELECT FROM {there} b WHERE {table.on_key('b', 's')}){done} ORDER BY {keys}"
            )
        if self.between is not None:
            # Made by one of the transactions, changed by somebody else, and deleted by another of them: see compare().
            absent = " AND ".join(
                f"NOT EXISTS (SELECT FROM {image} b WHERE {table.on_key('b', 's')})"
                for image in (self.before, self.after)
            )
            self.owner.execute(
                f"{into} SELECT 'DELETE', 'INSERT', {keys} FROM {self.between} s WHERE {absent} ORDER BY {keys}"
            )
        self.owner.execute(
            f"{into} SELECT 'UPDATE', CASE WHEN {update} THEN 'UPDATE' ELSE 'DELETE, INSERT' END, {keys} "
            f"FROM {self.before} s JOIN {self.after} b ON {table.on_key('b', 's')} "
            f"WHERE NOT {same_row(table.stored, 's', 'b')}{done} ORDER BY {keys}"
        )
        for statement in (
            f"ALTER TABLE {self.preview} ADD PRIMARY KEY ({table.keys})",
            f"ANALYZE {self.preview}",
        ):
            execute(self.connection, statement)

    @property
    def found(self) -> str:
        """What transactions found, in SQL: the rows ``before``, and those that came and went between."""
        if self.between is None:
            return self.before
        passing = (
            f"SELECT * FROM {self.between} b "
            f"WHERE NOT EXISTS (SELECT FROM {self.before} s WHERE {self.table.on_key('s', 'b')})"
        )
        return f"(SELECT * FROM {self.before} UNION ALL {passing})"

    def hold(self) -> None:
        """Lock the rows of production that are meant, until the commit."""
        self.owner.execute(
            f"SELECT count(*) FROM (SELECT FROM {self.table.own} p JOIN {self.preview} u "
            f"ON {self.table.on_key('p', 'u')} FOR UPDATE OF p) AS held"
        )

    def compare(self) -> None:
        """Mark what production does not have any more as the transaction left it."""
        table = self.table
        found = f"FROM {table.own} p WHERE {table.on_key('p', 'u')}"
        absent = f"NOT EXISTS (SELECT {found})"

        def mark(changes: str, condition: str, more: str = "") -> None:
            self.owner.execute(
                f"UPDATE {self.preview} u SET {changes}{more} WHERE u.{self.conflict} IS NULL AND {condition}"
            )

        if self.between is not None:
            changed = f"EXISTS (SELECT FROM {self.between} s WHERE {table.on_key('s', 'u')})"
            mark(f"{self.conflict} = {quote_literal(BETWEEN)}", changed)
        none = f"{self.inverse} = 'NONE'"
        mark(none, f"u.{self.operation} = 'INSERT' AND {absent}")
        mark(f"{self.conflict} = {quote_literal(DELETED)}", f"u.{self.operation} = 'UPDATE' AND {absent}")
        joined = f"{table.on_key('p', 'u')} AND {table.on_key('s', 'u')}"
        source = f" FROM {table.own} p, {{}} s"
        later = f"{self.later} = p.xmin::pg_catalog.text::pg_catalog.int8"
        mark(
            none,
            f"u.{self.operation} IN ('UPDATE', 'DELETE') AND {joined} AND {same_row(table.stored, 's', 'p')}",
            source.format(self.before),
        )
        pending = f"u.{self.inverse} <> 'NONE'"
        mark(
            f"{self.conflict} = {quote_literal(MADE_AGAIN)}, {later}",
            f"{pending} AND u.{self.operation} = 'DELETE' AND {table.on_key('p', 'u')}",
            f" FROM {table.own} p",
        )
        mark(
            f"{self.conflict} = {quote_literal(CHANGED)}, {later}",
            f"{pending} AND u.{self.operation} IN ('UPDATE', 'INSERT') AND {joined} "
            f"AND NOT {same_row(table.stored, 's', 'p')}",
            source.format(self.after),
        )
        self.keep_moved()

    def keep_moved(self) -> None:
        """Leave what the transaction made where that may be all there is of a row that cannot go back.

        A row that got another key is one that was deleted and one that was made, with the same values but for the key.
        Where its values were changed, too, the keys alone tell, as they are ordered, if as many were made as went.
        """
        others = [column for column in self.table.stored if column["name"] not in self.table.key]
        values = ", ".join(comparable(column, f"s.{quote_ident(column['name'])}") for column in others)
        moved = f"UPDATE {self.preview} u SET {self.conflict} = {quote_literal(MOVED)}"
        rest = "true"
        if others:
            made = (
                f"SELECT u.{self.seq} AS seq, ROW({values}) AS content, "
                f"row_number() OVER (PARTITION BY ROW({values}) ORDER BY u.{self.seq}) AS number "
                f"FROM {self.preview} u JOIN {self.after} s ON {self.table.on_key('s', 'u')} "
                f"WHERE u.{self.inverse} = 'DELETE' "
                f"AND (u.{self.conflict} IS NULL OR u.{self.conflict} = {quote_literal(MOVED)})"
            )
            gone = (
                f"FROM {self.preview} u JOIN {self.found} s ON {self.table.on_key('s', 'u')} "
                f"WHERE u.{self.operation} = 'DELETE' AND u.{self.conflict} IS NOT NULL"
            )
            self.owner.execute(
                f"{moved} FROM ({made}) AS made, "
                f"(SELECT ROW({values}) AS content, count(*) AS count {gone} GROUP BY ROW({values})) AS gone "
                f"WHERE u.{self.seq} = made.seq AND u.{self.conflict} IS NULL "
                f"AND made.content IS NOT DISTINCT FROM gone.content AND made.number <= gone.count"
            )
            rest = (
                f"NOT gone.seq IN (SELECT u.{self.seq} {gone} AND EXISTS (SELECT FROM ({made}) AS made "
                f"WHERE made.content IS NOT DISTINCT FROM ROW({values})))"
            )
        numbered = (
            f"(SELECT u.{self.seq} AS seq, u.{self.operation} AS operation, u.{self.conflict} AS conflict, "
            f"row_number() OVER (PARTITION BY u.{self.operation} ORDER BY u.{self.seq}) AS number, "
            f"count(*) OVER (PARTITION BY u.{self.operation}) AS of "
            f"FROM {self.preview} u WHERE u.{self.operation} IN ('INSERT', 'DELETE'))"
        )
        self.owner.execute(
            f"{moved} FROM {numbered} AS made JOIN {numbered} AS gone "
            f"ON gone.number = made.number AND gone.of = made.of WHERE made.operation = 'INSERT' "
            f"AND gone.operation = 'DELETE' AND gone.conflict IS NOT NULL AND u.{self.seq} = made.seq "
            f"AND u.{self.conflict} IS NULL AND u.{self.inverse} = 'DELETE' AND {rest}"
        )

    def pending(self, row: str = "u") -> str:
        """SQL condition: what a row of the preview says is to be done."""
        return f"{row}.{self.conflict} IS NULL AND {row}.{self.inverse} <> 'NONE'"

    def delete(self) -> None:
        """Delete what the transaction made, and what cannot become what it was while others have its values."""
        self.owner.execute(
            f"DELETE FROM {self.table.own} p USING {self.preview} u WHERE {self.table.on_key('p', 'u')} "
            f"AND {self.pending()} AND u.{self.inverse} LIKE 'DELETE%'"
        )

    def restore(self, numbers: Optional[tuple[int, int]] = None) -> None:
        """Give rows the values that they had, and put back those that are gone; all, or from one number to another."""
        table, pending = self.table, self.pending()
        if numbers is not None:
            pending += f" AND u.{self.seq} BETWEEN {numbers[0]} AND {numbers[1]}"
        if self.changing:
            backs = {column["name"]: back for column, back in self.backs}
            changes = ", ".join(f"{quote_ident(name)} = s.{backs[name]}" for name in self.changing)
            self.owner.execute(
                f"UPDATE {table.own} p SET {changes} FROM {self.before} s JOIN {self.preview} u "
                f"ON {table.on_key('s', 'u')} WHERE {table.on_key('p', 's')} AND {pending} "
                f"AND u.{self.inverse} = 'UPDATE'"
            )
        # Not where a key is checked later, which the server does not take here; doubled() finds these.
        later = any(key.deferrable for key in unique_keys(self.connection, table.oid))
        passing_over = "" if later else " ON CONFLICT DO NOTHING"
        self.owner.execute(
            f"INSERT INTO {table.true} ({self.fields}) OVERRIDING SYSTEM VALUE SELECT {self.values} "
            f"FROM {self.before} s JOIN {self.preview} u ON {table.on_key('s', 'u')} "
            f"WHERE {pending} AND u.{self.inverse} LIKE '%INSERT'{passing_over}"
        )

    def mark_refused(self) -> None:
        """Mark rows that a check refuses which is there now, so that they do not keep all others from going back."""
        names = ", ".join(f"{back} AS {quote_ident(column['name'])}" for column, back in self.backs)
        was = f"(SELECT {names} FROM {self.before} s) AS s"
        for check in rows(self.connection, CHECKS, {"oid": self.table.oid}):
            with savepoint(self.connection, lambda _error: None):
                self.owner.execute(
                    f"UPDATE {self.preview} u SET {self.conflict} = {quote_literal(check['name'] + ' refuses it')} "
                    f"WHERE {self.pending()} AND u.{self.inverse} <> 'DELETE' AND ({self.table.keys}) IN "
                    f"(SELECT {self.table.keys} FROM {was} WHERE NOT ({check['condition']}))"
                )

    def try_restore(self, numbers: Optional[tuple[int, int]] = None) -> str:
        """As restore(), but for a table that refuses rows as they were; why it does."""
        said: list[str] = []
        with savepoint(self.connection, lambda error: said.append(server_message(error))):
            self.restore(numbers)
        return "".join(said)

    def refusing(self) -> dict[int, str]:
        """{number of a row: why} of those that the table refuses, where it did not take all at once.

        Halves of what is refused are tried as often as may be while others wait for us; what is left then is refused
        whole. Nothing where all halves are taken.
        """
        query = (
            f"SELECT {self.seq} AS seq FROM {self.preview} u WHERE {self.pending()} AND u.{self.inverse} <> 'DELETE' "
            f"ORDER BY 1"
        )
        found: dict[int, str] = {}
        waiting = deque([[row["seq"] for row in rows(self.connection, query)]])
        tries = 0
        while waiting:
            part = waiting.popleft()
            said = self.try_restore((part[0], part[-1])) if part else ""
            tries += 1
            if said and len(part) > 1 and tries < TRIES:
                middle = len(part) // 2
                waiting += [part[:middle], part[middle:]]
            elif said:
                more = " (or a row that was to go back with it)" if len(part) > 1 else ""
                found.update(dict.fromkeys(part, f"{said}{more}"))
        return found

    def doubled(self) -> dict[int, str]:
        """{number of a row: why} of those whose values another row has, where the key would be checked later.

        Such checks are triggers, which do not fire in a session that is a replica.
        """
        found: dict[int, str] = {}
        for key in unique_keys(self.connection, self.table.oid):
            if key.deferrable:
                query = (
                    f"SELECT u.{self.seq} AS seq FROM {self.preview} u WHERE {self.pending()} "
                    f"AND u.{self.inverse} <> 'DELETE' AND {key.doubled(self.table, 'u')}"
                )
                found.update({row["seq"]: TAKEN for row in self.owner.rows(query)})
        return found

    def refused(self) -> dict[int, str]:
        """{number of a row: why} of those that are not as they were, after all was done."""
        table = self.table
        query = (
            f"SELECT u.{self.seq} AS seq, EXISTS (SELECT FROM {table.own} p WHERE {table.on_key('p', 'u')}) AS there "
            f"FROM {self.preview} u JOIN {self.before} s ON {table.on_key('s', 'u')} WHERE {self.pending()} "
            f"AND NOT EXISTS (SELECT FROM {table.own} p WHERE {table.on_key('p', 's')} "
            f"AND {same_row(table.stored, 's', 'p')})"
        )
        found = {row["seq"]: MADE_AGAIN if row["there"] else TAKEN for row in self.owner.rows(query)}
        return {**found, **self.doubled()}

    def set_apart(self, refused: Mapping[int, str]) -> None:
        """Make conflicts of rows by their numbers."""
        reasons: dict[str, list[int]] = {}
        for number, reason in refused.items():
            reasons.setdefault(reason, []).append(number)
        for reason, numbers in reasons.items():
            execute(
                self.connection,
                f"UPDATE {self.preview} SET {self.conflict} = %s WHERE {self.seq} = ANY(%s) "
                f"AND {self.conflict} IS NULL",
                (reason, numbers),
            )

    def finish(self) -> dict[str, Any]:
        """What the preview says, in numbers; it stays, unseen by subscribers."""
        counted = rows(
            self.connection,
            f"SELECT {self.operation} AS operation, {self.inverse} AS inverse, {self.conflict} AS conflict, count(*) "
            f"FROM {self.preview} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        )
        texts = ", ".join(fingerprint.shown_text(quote_ident(name)) for name in self.table.key)
        sample = rows(
            self.connection,
            f"SELECT ARRAY[{texts}] AS key, {self.operation} AS operation, {self.conflict} AS conflict, "
            f"{self.later} AS later_xid FROM {self.preview} WHERE {self.conflict} IS NOT NULL "
            f"ORDER BY {self.seq} LIMIT {SAMPLE}",
        )
        self._hidden.filled(self.preview)
        done = [item for item in counted if item["conflict"] is None and item["inverse"] != "NONE"]
        conflicts = [item for item in counted if item["conflict"] is not None]
        reasons = sorted({item["conflict"] for item in conflicts})
        return {
            "schema": self.table.schema,
            "name": self.table.name,
            "oid": self.table.oid,
            "action": "undo",
            "rows": sum(item["count"] for item in done),
            "reverted": {
                operation.lower(): sum(item["count"] for item in done if item["operation"] == operation)
                for operation in ("INSERT", "UPDATE", "DELETE")
            },
            "already": sum(item["count"] for item in counted if item["inverse"] == "NONE"),
            "conflicts": {
                reason: sum(item["count"] for item in conflicts if item["conflict"] == reason) for reason in reasons
            },
            "key": list(self.table.key),
            "sample": sample,
        }
