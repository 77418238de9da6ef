# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put the rows that production lacks back into tables that it has, and leave all others as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import Direct
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import Lock, Locks
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_literal,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.owners import (
    Owners,
    Parents,
    each_as_its_owner,
    hold_definitions,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.references import (
    firing_triggers,
    hold_parents,
    locks_to_silence,
    orphans,
    outgoing_keys,
    parents_first,
    shown_key,
    silence,
    source_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.by_hand import (
    by_hand,
    is_quiet,
    surroundings,
    what_it_runs,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.existing import ExistingTable, show_all
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left
from ansible_collections.dbre.recovery.plugins.module_utils._tables.lost_columns import made_again
from ansible_collections.dbre.recovery.plugins.module_utils._tables.page_rows import leave_behind
from ansible_collections.dbre.recovery.plugins.module_utils._tables.replication import Unpublished, create_kept
from ansible_collections.dbre.recovery.plugins.module_utils._tables.same_rows import same_row
from ansible_collections.dbre.recovery.plugins.module_utils._tables.unique_keys import (
    UniqueKey,
    computable,
    locks_for_deferrable,
    passing_over,
    unique_keys,
)

SAMPLE = 5

CONSTRAINTS = """
SELECT 'constraint ' || k.conname AS name, pg_catalog.pg_get_expr(k.conbin, k.conrelid) AS condition
FROM pg_catalog.pg_constraint k WHERE k.conrelid = %(oid)s::oid AND k.contype = 'c'
UNION
SELECT 'NOT NULL of column ' || a.attname, pg_catalog.quote_ident(a.attname) || ' IS DISTINCT FROM NULL'
FROM pg_catalog.pg_attribute a
WHERE a.attrelid = %(oid)s::oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull
"""


class Merged:
    """One table of a merge, within its transaction."""

    def __init__(self, connection: Any, table: ExistingTable, owners: Owners) -> None:
        self.connection = connection
        self.table = table
        self.oid = table.oid(connection)
        self.owners = owners
        # For the commands that are left to people: before we see all and keep triggers from firing.
        self.around = surroundings(connection, self.oid, is_quiet(connection, self.oid))
        self.owner = owners.of(self.oid, table.schema)
        # Where the owner of the table may read it, too, until we are done.
        self.copy = self.owner.bring(table.staging, table.copy_name)
        # Keys of the rows that production lacked, and why such a row is not put back.
        lacked = table.derived("_lacked")
        execute(
            connection,
            f"CREATE UNLOGGED TABLE {quote_name(table.staging, lacked)} AS "
            f"SELECT {table.keys}, NULL::text AS {self._reason(table)} FROM {self.copy} LIMIT 0",
        )
        self.lacked = self.owner.bring(table.staging, lacked)
        self.owner.lend("TABLE", self.lacked, ["INSERT", "UPDATE"])
        self.reason = self._reason(table)
        unique = unique_keys(connection, self.oid)
        self.unique = computable(unique, table.copied_columns)
        self.apart = [key.name for key in unique if key not in self.unique and key.deferrable]
        self.parents: dict[int, Parents] = {}
        # To be dropped when all are back in staging.
        self.dropped: list[str] = []

    @staticmethod
    def _reason(table: ExistingTable) -> str:
        name = "reason"
        while name in table.key:
            name += "_"
        return quote_ident(name)

    def find(self) -> None:
        """Find what production lacks."""
        table = self.table
        self.owner.execute(
            f"INSERT INTO {self.lacked} ({table.keys}) SELECT {table.keys} FROM {self.copy} s "
            f"WHERE NOT EXISTS (SELECT FROM {table.own} p WHERE {table.on_key('p', 's')})"
        )
        execute(self.connection, f"ALTER TABLE {self.lacked} ADD PRIMARY KEY ({table.keys})")
        execute(self.connection, f"ANALYZE {self.lacked}")

    def refuse_by_new_constraints(self) -> None:
        """Mark the rows that constraints refuse which the table did not have when they were in it."""
        side = self.table.context.side.connect(self.table.context.side_database)
        try:
            known = {row["condition"] for row in rows(side, CONSTRAINTS, {"oid": self.table.relation["oid"]})}
        finally:
            side.close()
        for constraint in rows(self.connection, CONSTRAINTS, {"oid": self.oid}):
            if constraint["condition"] not in known:
                self._mark(
                    f"{constraint['name']}, which the table did not have before, refuses them",
                    f"({self.table.keys}) IN (SELECT {self.table.keys} FROM {self.table.as_it_was(self.copy)} "
                    f"WHERE NOT ({constraint['condition']}))",
                )

    def _mark(self, reason: str, condition: str, source: str = "") -> int:
        count = f"SELECT count(*) FROM {self.lacked} WHERE {self.reason} IS NOT NULL"
        before = value(self.connection, count)
        self.owner.execute(
            f"UPDATE {self.lacked} i SET {self.reason} = {quote_literal(reason)}{source} "
            f"WHERE i.{self.reason} IS NULL AND {condition}"
        )
        return int(value(self.connection, count)) - int(before)

    def insert(self) -> None:
        """Insert what production lacks, but what another unique key keeps out."""
        table, end = self.table, "ON CONFLICT DO NOTHING"
        if self.apart:
            raise RecoveryError(
                f"{table.shown} on {host_name()} cannot be merged: its deferrable key {', '.join(self.apart)} is of "
                "computed columns, which can be computed only in the table itself. The table was not changed. Run "
                "again with dr_load=beside and another incident id, and take the rows from the copy."
            )
        wanted = f"EXISTS (SELECT FROM {self.lacked} i WHERE i.{self.reason} IS NULL AND {table.on_key('i', 's')})"
        if any(key.deferrable for key in self.unique):
            # Nobody writes to the table any more.
            for key in self.unique:
                self._mark_met(key)
            end = f"AND {self._absent('s')}"
        self.owner.execute(table.insert_statement(self.copy, f"WHERE {wanted} {end}"))

    def _absent(self, row: str) -> str:
        return f"NOT EXISTS (SELECT FROM {self.table.own} p WHERE {self.table.on_key('p', row)})"

    def _mark_met(self, key: UniqueKey) -> None:
        """Mark the rows that are not there because production has others in their place."""
        table = self.table
        what = "values that exclude theirs" if key.exclusion else "the same values"
        self._mark(
            f"{key.shown}: production has other rows with {what}",
            f"{self._absent('i')} AND {key.meets(table, 'i', table.as_it_was(self.copy))}",
        )

    def hold_parents(self, key: Mapping[str, Any]) -> None:
        """Keep the rows that ours point to by a foreign key from being deleted before our commit."""
        ours = f"(SELECT f.* FROM {source_of(key)} f JOIN {self.lacked} i ON {self.table.on_key('i', 'f')})"
        parent = self.owners.of(key["other_relation"], key["other_schema"])
        if isinstance(self.owner, Direct) and isinstance(parent, Direct):
            hold_parents(self.connection, key, ours)
        else:
            self.parents[key["oid"]] = Parents(self.connection, key, self.owner, parent)
            self.parents[key["oid"]].hold(ours)

    def take_back_orphans(self, key: Mapping[str, Any]) -> int:
        """Take back those of our rows whose foreign key points nowhere; how many."""
        shown = display_name(key["other_schema"], key["other_table"])
        apart = self.parents.get(key["oid"])
        if apart is not None:
            # Those of the parent's rows that are ours may have been taken back meanwhile.
            apart.look()
        found = self._mark(
            f"foreign key {shown_key(key)}: {shown} does not have the rows they point to",
            f"{self.table.on_key('i', 'f')} AND {orphans(key) if apart is None else apart.orphans()}",
            f" FROM {source_of(key)} f",
        )
        if found:
            self.owner.execute(
                f"DELETE FROM {source_of(key)} f USING {self.lacked} i "
                f"WHERE i.{self.reason} IS NOT NULL AND {self.table.on_key('i', 'f')}"
            )
        return found

    def explain(self) -> None:
        """Mark the rows that were not inserted with the unique key that kept them out."""
        absent = self._absent("i")
        query = f"SELECT 1 AS found FROM {self.lacked} i WHERE {self.reason} IS NULL AND {absent} LIMIT 1"
        if not self.owner.value(query):
            return
        for key in self.unique:
            self._mark_met(key)
        self._mark("a unique index or exclusion constraint: production has other rows in their place", absent)

    def finish(self) -> None:
        """Keep what differs and what does not fit beside, and note what was done."""
        table, connection = self.table, self.connection
        unfit_name, differs_name = table.derived("_not_fitting"), table.derived("_differs")
        unfit, differs = quote_name(table.staging, unfit_name), quote_name(table.staging, differs_name)
        reasons = {
            row["reason"]: row["count"]
            for row in rows(
                connection,
                f"SELECT {self.reason} AS reason, count(*) FROM {self.lacked} WHERE {self.reason} IS NOT NULL "
                "GROUP BY 1 ORDER BY 1",
            )
        }
        unfit_rows = f"JOIN {self.lacked} i ON {table.on_key('i', 's')} WHERE i.{self.reason} IS NOT NULL"
        for statement in create_kept(
            connection, table.staging, unfit_name, f"SELECT s.* FROM {self.copy} s {unfit_rows}"
        ):
            execute(connection, statement)
        execute(connection, f"CREATE TABLE {differs} AS SELECT * FROM {self.copy} LIMIT 0")
        hidden = Unpublished(connection, table.staging, differs)
        inside = self.owner.bring(table.staging, differs_name)
        self.owner.lend("TABLE", inside, ["INSERT", "SELECT"])
        self.owner.execute(
            f"INSERT INTO {inside} SELECT s.* FROM {self.copy} s JOIN {table.own} p ON {table.on_key('p', 's')} "
            f"WHERE NOT {same_row(table.stored, 's', 'p')}"
        )
        hidden.filled(inside)
        lacked = value(connection, f"SELECT count(*) FROM {self.lacked}")
        differing = value(connection, f"SELECT count(*) FROM {inside}")
        again = self._columns_made_again()
        damaged = self._as_the_incident_left_them(inside, again)
        made_here = self._keep_what_the_incident_made()
        not_fitting = sum(reasons.values())
        texts = ", ".join(fingerprint.shown_text(quote_ident(name)) for name in table.key)
        sample = [
            list(row.values())
            for source in (inside, unfit)
            for row in rows(connection, f"SELECT {texts} FROM {source} ORDER BY {table.keys} LIMIT {SAMPLE}")
        ][:SAMPLE]
        # On damaged pages nothing was written.
        newer = (
            0
            if table.pages
            else self.owner.value(
                f"SELECT count(*) FROM {table.own} p "
                f"WHERE NOT EXISTS (SELECT FROM {self.copy} s WHERE {table.on_key('p', 's')})"
                f"{f' AND {table.ranges.condition}' if table.ranges else ''}"
            )
        )
        kept = {
            differs_name: (differing, f"rows of {table.shown} as they were, where production's differ"),
            unfit_name: (not_fitting, f"rows of {table.shown} that do not fit into it any more"),
        }
        shown = {}
        for name, (count, what) in kept.items():
            place = inside if name == differs_name else quote_name(table.staging, name)
            if count:
                execute(connection, f"ALTER TABLE {place} ADD PRIMARY KEY ({table.keys})")
                shown[name] = table.keep(connection, name, what)
            else:
                self.dropped.append(quote_name(table.staging, name))
        self.dropped += [table.copy, quote_name(table.staging, table.derived("_lacked"))]
        table.set_sequences(connection)
        over = passing_over(self.unique, table, table.as_it_was(unfit))
        runs = what_it_runs(connection, self.oid, self.around.quiet)
        left_to_do = [
            left(
                "rows",
                table.shown,
                f"{counted(count, 'row')} of before the incident did not come back: {reason}. To be found in "
                f"{shown[unfit_name]}; when they fit, run the command, which passes over those that do not{runs}",
                by_hand(self.around, [table.insert_statement(unfit, over)]),
                lost=True,
                rows=count,
            )
            for reason, count in reasons.items()
        ]
        if differing:
            others = "which is right where the application changed them since"
            if damaged:
                rest = f", and {differing - damaged} of them others, {others}" if differing > damaged else ""
                how = f"without what was in {', '.join(again)}, dropped and made again" if again else ""
                others = f"{damaged} of them {how or 'as its own transaction left them'}{rest}"
            left_to_do.append(
                left(
                    "rows",
                    table.shown,
                    f"other values than before the incident: {counted(differing, 'row')}, {others}. Production's were "
                    f"left as they are; as they were, they are in {shown[differs_name]}. The command puts these in "
                    f"their place{runs}",
                    by_hand(self.around, [self._update_statement(differs)]),
                    lost=damaged > 0,
                    rows=damaged or differing,
                )
            )
        left_to_do += made_here
        checksum = fingerprint.checksum_query(table.own, table.copied_columns, connection.server_version)
        table.note(
            connection,
            {
                "rows": lacked - not_fitting,
                "checksum_production": self.owner.rows(checksum)[0]["checksum"],
                "left_to_do": left_to_do,
                "merged": {
                    "inserted": lacked - not_fitting,
                    "copied": (table.part.inside if table.part else table.recovered)["rows"],
                    "deleted_since": None,
                    "differing": differing,
                    "damaged": damaged,
                    "not_fitting": not_fitting,
                    "reasons": reasons,
                    "newer_in_production": newer,
                    "table": shown.get(differs_name),
                    "not_fitting_table": shown.get(unfit_name),
                    "key": list(table.key),
                    "sample": sample,
                },
            },
        )

    def _by_the_incident(self, row: str) -> str:
        """SQL condition: the transaction that did the damage wrote this version of a row; empty where none is known."""
        xids = ", ".join(f"'{xid & 0xFFFFFFFF}'" for xid in self.table.context.plan.get("xids", []))
        return f"{row}.xmin::text IN ({xids})" if xids else ""

    def _columns_made_again(self) -> list[str]:
        side = self.table.context.side.connect(self.table.context.side_database)
        try:
            return made_again(self.connection, side, self.oid, self.table.relation["oid"])
        finally:
            side.close()

    def _as_the_incident_left_them(self, differing: str, again: Sequence[str]) -> int:
        """How many of the rows that differ nobody has written since the transaction that did the damage.

        And where columns were dropped and made ``again``, how many lack what was in them: no row was written for that.
        """
        table = self.table
        lacking = [column for column in table.stored if column["name"] in again]
        conditions = [self._by_the_incident("p"), f"NOT {same_row(lacking, 's', 'p')}" if lacking else ""]
        if not any(conditions):
            return 0
        return int(
            self.owner.value(
                f"SELECT count(*) FROM {differing} s JOIN {table.own} p ON {table.on_key('p', 's')} "
                f"WHERE {' OR '.join(filter(None, conditions))}"
            )
        )

    def _keep_what_the_incident_made(self) -> list[dict[str, Any]]:
        """Tell the rows that were not there before and that the damage made: a row that got another key is one.

        What it was is back, so that it is there twice. Their keys are kept, where they are of the server's own types.
        """
        table, connection = self.table, self.connection
        by_it = self._by_the_incident("p")
        if not by_it:
            return []
        new = f"{by_it} AND NOT EXISTS (SELECT FROM {self.copy} s WHERE {table.on_key('p', 's')})"
        new += f" AND {table.ranges.condition}" if table.ranges else ""
        count = int(self.owner.value(f"SELECT count(*) FROM {table.own} p WHERE {new}"))
        if not count:
            return []
        reason = (
            f"{counted(count, 'row')} of now that the damage made: it gave rows other keys, whose rows of before are "
            "back, so that they are there twice, or it made rows anew. They were left as they are"
        )
        command = None
        if all(column["builtin"] for column in table.columns if column["name"] in table.key):
            name = table.derived("_made")
            place = quote_name(table.staging, name)
            execute(connection, f"CREATE TABLE {place} AS SELECT {table.keys} FROM {self.copy} LIMIT 0")
            hidden = Unpublished(connection, table.staging, place)
            inside = self.owner.bring(table.staging, name)
            self.owner.lend("TABLE", inside, ["INSERT", "SELECT"])
            self.owner.execute(f"INSERT INTO {inside} SELECT {table.keys} FROM {table.own} p WHERE {new}")
            hidden.filled(inside)
            shown = table.keep(connection, name, f"keys of rows of {table.shown} that the damage made")
            theirs, copy = f"{table.on_key('p', 's')} AND {by_it}", quote_name(table.staging, table.derived("_taken"))
            reason += f"; their keys are in {shown}. The command takes those away that nobody has written since, and "
            reason += f"keeps a copy of them beside{what_it_runs(connection, self.oid, self.around.quiet)}"
            save = f"CREATE TABLE {copy} AS SELECT p.* FROM {table.own} p JOIN {place} s ON {theirs}"
            delete = f"DELETE FROM {table.own} p USING {place} s WHERE {theirs}"
            command = by_hand(self.around, [delete], [save])
        return [left("removal of rows that the damage made in", table.shown, reason, command, lost=True, rows=count)]

    def _update_statement(self, source: str) -> str:
        table = self.table
        names = [
            quote_ident(column["name"])
            for column in table.stored
            if column["name"] not in table.key and column["identity"] != "a"
        ]
        changes = ", ".join(f"{name} = s.{name}" for name in names)
        return f"UPDATE {table.own} p SET {changes} FROM {table.as_it_was(source)} WHERE {table.on_key('p', 's')}"


def merge_tables(connection: Any, tables: Sequence[ExistingTable], locks: Locks) -> None:
    """Merge linked tables, whose copies are in staging, in the caller's transaction with its locks.

    In a session that is a replica: triggers have done their work when the rows were new, and foreign keys are looked
    at over all tables at the end, so that circles are no hindrance.
    """
    mark(connection, tables[0].context.plan["incident"])
    execute(connection, "SET LOCAL session_replication_role = 'replica'")
    hold_definitions(connection, [table.own for table in tables])
    for table in tables:
        table.check(connection)
    locks.take(Lock(table.true, "ACCESS EXCLUSIVE") for table in tables if table.pages)
    for table in tables:
        if table.pages:
            leave_behind(connection, table.relation, table.true, table.pages)
    dropped: list[str] = []
    with each_as_its_owner(connection, [table.oid(connection) for table in tables]) as owners:
        merged = [Merged(connection, table, owners) for table in tables]
        keys = outgoing_keys(connection, [item.oid for item in merged])
        others = {key[end] for key in keys for end in ("relation", "other_relation")}
        hide = show_all(connection, sorted({*(item.oid for item in merged), *others}), locks)
        for item in merged:
            item.find()
            item.refuse_by_new_constraints()
        by_oid = {item.oid: item for item in merged}
        order = parents_first(list(by_oid), [(key["root"], key["other_relation"]) for key in keys])
        # As late as can be: it holds up those who write to the table.
        firing = firing_triggers(connection, list(by_oid))
        off, on = silence(firing)
        late = locks_for_deferrable(connection, [(item.oid, item.table.true) for item in merged])
        locks.take([*locks_to_silence(firing), *late])
        for statement in off:
            execute(connection, statement)
        for oid in order:
            by_oid[oid].insert()
        for key in keys:
            by_oid[key["root"]].hold_parents(key)
        while sum(by_oid[key["root"]].take_back_orphans(key) for key in keys):
            pass
        for oid in order:
            by_oid[oid].explain()
            by_oid[oid].finish()
            dropped += by_oid[oid].dropped
        for statement in [*on, *hide]:
            execute(connection, statement)
    execute(connection, f"DROP TABLE {', '.join(dropped)}")
