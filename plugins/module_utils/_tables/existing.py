# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A table that production has, and its rows as they were: what is common to the ways of putting them to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import (
    INSUFFICIENT_PRIVILEGE,
    force_statements,
    forced_tables,
    user_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import needs_cage
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import LOCKED, Lock, Locks, patiently
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    derived_name,
    display_name,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.owners import (
    each_as_its_owner,
    hold_definitions,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.references import STATES, firing_rules
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.copy import (
    carried,
    column_list,
    copy_options,
    copy_table,
    plain_columns,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.journal import JOURNAL
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import (
    Context,
    recovered_content,
    require_equal,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.page_rows import (
    PageRows,
    on_blocks,
    require_repairable,
    unreadable,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.publish import set_sequences
from ansible_collections.dbre.recovery.plugins.module_utils._tables.ranges import (
    PAGES,
    Difference,
    Division,
    bounds_query,
    compare,
    key_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.replication import Unpublished
from ansible_collections.dbre.recovery.plugins.module_utils._tables.same_rows import primary_key

# Tables with rows of their own: partitions, or the table itself, whose children by inheritance are not meant.
LEAVES = """
SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS name
FROM (SELECT %(oid)s::oid AS oid UNION SELECT relid::oid FROM pg_catalog.pg_partition_tree(%(oid)s::oid)) AS tree
JOIN pg_catalog.pg_class c ON c.oid = tree.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' ORDER BY 1
"""


ELSEWHERE = """
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_class c WHERE c.relkind = 'f'
  AND (c.oid = %(oid)s::oid OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree(%(oid)s::oid))))
"""


def is_elsewhere(connection: Any, oid: int) -> bool:
    """Whether rows of a table or of its partitions are on another server, where a DELETE would delete them."""
    return bool(value(connection, ELSEWHERE, {"oid": oid}))


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
        self.own = self.true if relation["kind"] == "p" else f"ONLY {self.true}"
        # Of recovered rows, on their way into the table; or to stay, beside it.
        self.copy_name = self.derived("" if relation["action"] == "beside" else "_recovered")
        self.copy = quote_name(self.staging, self.copy_name)
        side = context.side.connect(context.side_database)
        try:
            self.columns = fingerprint.columns_of(side, [relation["oid"]])[relation["oid"]]
            self.key = primary_key(side, relation["oid"])
            self.before = force_statements(side, [relation["oid"]])[0]
            self.sequences = fingerprint.sequences_numbering(side, [relation["oid"]])
        finally:
            side.close()
        self.stored = [column for column in self.columns if not column["generated"]]
        self.fields = ", ".join(quote_ident(column["name"]) for column in self.stored)
        self.keys = ", ".join(quote_ident(name) for name in self.key)
        # What the copy has, how its values become the table's, and whether only the rows themselves can be read there.
        self.copied_columns: Sequence[Mapping[str, Any]] = self.columns
        self.values = self.named_values = self.fields
        self.unreadable = False
        self.recovered: Mapping[str, Any] = {}
        # Where it differs from production's: no other rows are copied.
        self.ranges: Optional[Difference] = None
        # Or the pages that production cannot read.
        self.pages: Optional[PageRows] = None

    def derived(self, suffix: str) -> str:
        """Name of a table of ours in staging, where other tables of the same schema may stand under their own names."""
        others = {item["name"] for item in self.context.plan["relations"] if item["schema"] == self.schema}
        return derived_name(self.name, suffix, {JOURNAL, *(others if suffix else ())})

    def on_key(self, one: str, other: str) -> str:
        """SQL condition: two rows have the same primary key."""
        pairs = ((f"{one}.{quote_ident(name)}", f"{other}.{quote_ident(name)}") for name in self.key)
        return " AND ".join(f"{mine} {sign} {theirs}" for (mine, theirs), sign in zip(pairs, self.key.values()))

    def check(self, connection: Any) -> None:
        """Refuse what cannot work, before anything is changed."""
        if self.relation["action"] == "beside":
            return
        self._require_replica(connection)
        oid = self.oid(connection)
        if is_elsewhere(connection, oid):
            raise RecoveryError(
                f"{self.shown} on {host_name()} has rows on another server by now (a foreign table), which were to be "
                "exchanged there, too. The table was not changed. Run again with another incident id, so that it is "
                "planned anew."
            )
        self._require_no_rules(connection, oid)
        differing = self.differing_columns(connection, oid)
        if differing:
            raise RecoveryError(
                f"the columns of {self.shown} on {host_name()} are not those it had before the incident "
                f"({', '.join(differing)}). The table was not changed. Run again with dr_load=beside and another "
                "incident id, and take the rows from the copy.",
                columns=differing,
            )
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
        execute(connection, "RELEASE SAVEPOINT dbre_replica")

    def _require_no_rules(self, connection: Any, oid: int) -> None:
        """Refuse a table whose rules would rewrite our statements: to disable one would hold up all readers."""
        rules = firing_rules(connection, [oid])
        if rules:
            names = ", ".join(f"{quote_ident(rule['name'])} (ENABLE {STATES[rule['enabled']]})" for rule in rules)
            commands = " ".join(f"ALTER TABLE {self.true} ENABLE RULE {quote_ident(rule['name'])};" for rule in rules)
            raise RecoveryError(
                f"rules of {self.shown} on {host_name()} would act on the rows that are put back: {names}. The table "
                "was not changed. Let them act for sessions of the application only, which locks the table for a "
                f"moment, and run again with the same incident id: {commands}",
                rules=[rule["name"] for rule in rules],
            )

    def differing_columns(self, connection: Any, oid: int) -> list[str]:
        """Names of columns that production's table and the recovered one do not have alike."""
        keys = ("name", "type", "generated")
        here = {tuple(column[key] for key in keys) for column in fingerprint.columns_of(connection, [oid])[oid]}
        return sorted({item[0] for item in here ^ {tuple(column[key] for key in keys) for column in self.columns}})

    def oid(self, connection: Any) -> int:
        """OID of production's table."""
        return int(value(connection, "SELECT %s::regclass::oid::int8", (self.true,)))

    def prepare(self) -> None:
        """Load the recovered rows into a plain table in staging, proved equal, in a transaction of its own."""
        side = self.context.side.connect(self.context.side_database, fingerprint.parallel_settings(self.context.cores))
        try:
            self.unreadable = needs_cage(side, self.relation["oid"], written=False)
            self.copied_columns = self.stored if self.unreadable else self.columns
            leaves = [row["name"] for row in rows(side, LEAVES, {"oid": self.relation["oid"]})]
            if self.relation.get("damaged_pages"):
                self.pages = self._on_pages(side)
                self.recovered = self.pages.whole
            elif not self.unreadable:
                self.ranges = self._compare(side) if self.relation["action"] == "merge" else None
                self.recovered = self.ranges.whole if self.ranges else self._recovered(side)
        finally:
            side.close()
        connection = self.context.loading_session()
        try:
            mark(connection, self.context.plan["incident"])
            # A killed run may have left one.
            execute(connection, f"DROP TABLE IF EXISTS {self.copy}")
            self._copy(connection, leaves)
            self.copied(connection)
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
        finally:
            connection.close()

    @property
    def part(self) -> Optional[Difference | PageRows]:
        """Which rows are copied; None for all."""
        return self.pages or self.ranges

    def _on_pages(self, side: Any) -> PageRows:
        """The rows of the pages that production cannot read, in transactions that are not committed."""
        connection = self.context.loading_session()

        def look() -> list[int]:
            hold_definitions(connection, [self.own])
            require_repairable(connection, self.relation, self.true)
            return unreadable(connection, self.true, self.relation["damaged_pages"]["blocks"])

        try:
            blocks = patiently(connection, look)
        finally:
            connection.close()
        whole = self._recovered(side)
        inside = fingerprint.content(side, f"(SELECT * FROM {self.own} WHERE {on_blocks(blocks)}) AS t", self.columns)
        return PageRows(blocks, whole, inside)

    def _recovered(self, side: Any) -> dict[str, Any]:
        return recovered_content(side, self.relation["oid"], self.own, self.columns)

    def _compare(self, side: Any) -> Optional[Difference]:
        """Where production's rows are others, in transactions that are not committed; None where that is not told."""
        key = key_of(self.columns, self.key)
        if key is None:
            return None
        for statement in self.before:
            execute(side, statement)
        pages = value(side, PAGES, {"oid": self.relation["oid"]})
        bounds = value(side, bounds_query(key, self.own, int(pages)))
        if bounds is None:
            return None
        by = Division(key, bounds)
        production = self._production_by(by)
        if production is None:
            return None
        found = compare(by, rows(side, by.query(self.own, self.columns, side.server_version)), production)
        return self._split(side, found) if found.worth_splitting else found

    def _split(self, side: Any, found: Difference) -> Difference:
        """The ranges that differ in smaller ones; as they are where production's cannot be had without waiting."""
        finer = Division(found.division.key, value(side, found.division.finer_query(self.own, found.differing)))
        production = self._production_by(finer, found.condition)
        if production is None:
            return found
        query = finer.query(self.own, self.columns, side.server_version, found.condition)
        return found.split(finer, rows(side, query), production)

    def _production_by(self, by: Division, condition: Optional[str] = None) -> Optional[list[dict[str, Any]]]:
        """Production's rows by ranges, as their owner sees them; None where they cannot be had without waiting.

        ``condition`` (SQL) is for those of them that are counted.
        """
        connection = self.context.loading_session()
        try:
            Locks(connection).begin()
            oid = self.oid(connection)
            if self.differing_columns(connection, oid) or forced_tables(connection, [oid], as_owner=True):
                return None
            with each_as_its_owner(connection, []) as owners:
                query = by.query(self.own, self.columns, connection.server_version, condition)
                return owners.of(oid, self.schema).rows(query)
        except connection.OperationalError as error:
            if error.pgcode in LOCKED:
                return None
            raise
        finally:
            connection.rollback()
            connection.close()

    def copied(self, connection: Any) -> None:
        """What belongs into the transaction that makes the copy."""

    def _copy(self, connection: Any, leaves: Sequence[str]) -> None:
        """A plain table with the recovered rows. Takes no lock on production's table, and runs nothing of its owner."""
        plain = plain_columns(connection, self.copied_columns)
        back = {column["name"]: item.back for column, item in zip(self.copied_columns, plain)}
        self.values = ", ".join(back[column["name"]] for column in self.stored)
        self.named_values = ", ".join(f"{text} AS {quote_ident(name)}" for name, text in back.items())
        # One that goes again need not be safe from a crash, and no subscriber may see it.
        kind = "TABLE" if self.relation["action"] == "beside" else "UNLOGGED TABLE"
        execute(connection, f"CREATE {kind} {self.copy} ({', '.join(item.definition for item in plain)})")
        hidden = Unpublished(connection, self.staging, self.copy)
        taken = carried(self.copied_columns, fingerprint.columns_of_table(connection, self.copy))
        whole = [{**column, "generated": ""} for column in taken]
        fields = column_list(whole)
        # A query would run the constant parts of index expressions.
        wanted = f" WHERE {self.part.condition}" if self.part else ""
        sources = [f"(SELECT {fields[2:-1]} FROM {self.own}{wanted})"]
        if self.unreadable:
            sources = [f"{name}{fields}" for name in leaves]
        for number, source in enumerate(sources):
            copy_table(
                connection,
                self.context.side,
                self.context.side_database,
                f"COPY {source} TO STDOUT {copy_options(whole, self.encoding)}",
                f"COPY {self.copy} FROM STDIN {copy_options(whole, self.encoding, freeze=number == 0)}",
                self.context.tell,
                self.before,
            )
        hidden.filled(self.copy)
        if self.key:
            execute(connection, f"ALTER TABLE {self.copy} ADD PRIMARY KEY ({self.keys})")
        execute(connection, f"ANALYZE {self.copy}")
        loaded = fingerprint.content(connection, self.copy, self.copied_columns)
        if self.unreadable:
            self.recovered = loaded
        expected = self.part.inside if self.part else self.recovered
        require_equal(display_name(self.staging, self.copy_name), expected, loaded)

    def note(self, connection: Any, found: Mapping[str, Any]) -> dict[str, Any]:
        """Write the result to the journal, in the transaction that makes it true."""
        result = {
            "schema": self.schema,
            "name": self.name,
            "oid": self.relation["oid"],
            "action": self.relation["action"],
            "checksum_side": self.recovered["checksum"],
            "seconds": {},
            "left_to_do": [],
            **found,
        }
        self.context.journal(connection, "table", result)
        return result

    def keep(self, connection: Any, name: str, what: str) -> str:
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

    def insert_statement(self, source: str, condition: str = "") -> str:
        """SQL that inserts rows ``s`` of ``source``."""
        return (
            f"INSERT INTO {self.true} ({self.fields}) OVERRIDING SYSTEM VALUE SELECT {self.values} FROM {source} s"
            f"{' ' if condition else ''}{condition}"
        )

    def as_it_was(self, copy: str) -> str:
        """The rows of ``copy`` (SQL), each value as one of the table's own types; only for its owner."""
        return f"(SELECT {self.named_values} FROM {copy}) AS s"

    def set_sequences(self, connection: Any) -> None:
        """Bring the sequences that number the table's rows forward, in the caller's transaction."""
        oid = self.relation["oid"]
        set_sequences(connection, [item for item in self.context.plan["sequences"] if item["relation"] == oid])


def show_all(connection: Any, oids: Sequence[int], locks: Locks) -> list[str]:
    """Let us see all rows of tables, in the caller's transaction; statements that undo it.

    Only where row security binds even the owner, whom we act for: the table is then locked until the commit.
    """
    locks.take(Lock(table, "ACCESS EXCLUSIVE") for table in forced_tables(connection, oids))
    show, hide = force_statements(connection, oids)
    for statement in show:
        execute(connection, statement)
    return hide
