# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take back what transactions did to rows, in one transaction, and that again when it was wrong."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import (
    INSUFFICIENT_PRIVILEGE,
    is_superuser,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import Locks, patiently
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    derived_name,
    display_name,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.owners import (
    Owners,
    each_as_its_owner,
    hold_definitions,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.references import (
    firing_rules,
    firing_triggers,
    incoming_keys,
    locks_to_silence,
    outgoing_keys,
    silence,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server, host_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.copy import copy_table, plain_columns
from ansible_collections.dbre.recovery.plugins.module_utils._tables.event_triggers import (
    refuse_event_triggers,
    silence_event_triggers,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.existing import show_all
from ansible_collections.dbre.recovery.plugins.module_utils._tables.journal import (
    JOURNAL,
    is_of_another,
    make_journal,
    read_journal,
    require_own,
    write_journal,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import LOCAL_COMMIT, encoding_of
from ansible_collections.dbre.recovery.plugins.module_utils._tables.moved_rows import keep_moved_between_partitions
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plan import staging_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.recover import lock_incident
from ansible_collections.dbre.recovery.plugins.module_utils._tables.replication import Unpublished
from ansible_collections.dbre.recovery.plugins.module_utils._tables.reversal import Images, Reversal, Touched
from ansible_collections.dbre.recovery.plugins.module_utils._tables.reversal_keys import without_parent, without_row
from ansible_collections.dbre.recovery.plugins.module_utils._tables.unique_keys import locks_for_deferrable

IMAGES = "dbre_images"
TABLES = """
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY(%s::oid[]) AND c.relkind = 'r' ORDER BY 1
"""
COLUMNS = """
SELECT attname AS name FROM pg_catalog.pg_attribute
WHERE attrelid = pg_catalog.to_regclass(%s) AND attnum > 0 AND NOT attisdropped
"""
PARTITIONS = "SELECT relid::oid::int8 AS oid FROM pg_catalog.pg_partition_tree(%s::oid::regclass)"
# Why rows of a table stay beside.
KEPT = {
    "before": "as the transaction found them",
    "after": "as the transaction left them",
    "between": "that somebody else changed between the transactions",
}
# What the preview is called that was carried out, and that of taking it back.
UNDO, REDO = "_undo", "_redo"


class Undo:
    """Transactions of one database. The images of their tables come from the recovered instance, and stay."""

    def __init__(
        self,
        production: Server,
        database: str,
        incident: str,
        oids: Sequence[int],
        progress: Optional[Progress] = None,
        reached: Optional[Mapping[str, Any]] = None,
    ) -> None:
        self.production, self.database, self.incident = production, database, incident
        self.oids = sorted(set(oids))
        self.staging = staging_name(incident)
        self.progress = progress or Progress(None)
        # The moment of the recovered instance.
        self.reached = reached
        self._known: dict[int, str] = {}

    # Sessions

    def _session(self) -> Any:
        connection = self.production.connect(self.database, LOCAL_COMMIT)
        refuse_event_triggers(connection, silence_event_triggers(connection))
        if is_superuser(connection):
            # Many rows are compared in files.
            execute(connection, "SET temp_file_limit = -1")
            connection.commit()
        return connection

    def preview(self, side: Server) -> dict[str, Any]:
        """Bring the images, and tell row by row what would be done; nothing of production's is changed."""
        return self._work(side, None)

    def carry_out(self, side: Server) -> dict[str, Any]:
        """Take the transaction back. Once done, it stays done."""
        return self._work(side, "undone")

    def take_back(self) -> dict[str, Any]:
        """Take the undo itself back, out of what it kept beside."""
        return self._work(None, "redone")

    def _work(self, side: Optional[Server], end: Optional[str]) -> dict[str, Any]:
        admin = self.production.connect(settings=LOCAL_COMMIT)
        connection = None
        try:
            lock_incident(admin, self.staging, self.production.application_name)
            connection = self._session()
            journal = read_journal(connection, self.staging)
            connection.commit()
            plan = journal["plan"][-1] if journal.get("plan") else {}
            if "undone" in journal:
                require_own(plan, self.reached)
            elif is_of_another(plan, self.reached):
                # A preview of what was asked for before; nothing was done by it.
                journal = self._forget(connection)
            if end == "redone" and "undone" not in journal:
                raise RecoveryError(
                    f"nothing of incident {self.incident} in database {self.database} on {host_name()} was undone, so "
                    "that there is nothing to take back. Nothing was changed."
                )
            if end is not None and end in journal:
                return {"changed": False, **journal[end][-1]}
            changed = False
            if side is not None and "images" not in journal:
                self._bring(connection, side, bool(journal))
                changed = True
            if end is None and "undone" in journal:
                return {"changed": changed, **journal["undone"][-1]}
            began = time.monotonic()
            locks = Locks(connection)
            found = patiently(connection, lambda: self._reverse(connection, locks, end), locks=locks)
            found["seconds"] = {"undo": round(time.monotonic() - began, 2)}
            return {"changed": changed or end is not None, **found}
        finally:
            self.progress.end()
            if connection is not None:
                connection.close()
            admin.close()

    def _forget(self, connection: Any) -> dict[str, list[dict[str, Any]]]:
        def work() -> None:
            mark(connection, self.incident)
            execute(connection, f"DROP SCHEMA {quote_ident(self.staging)} CASCADE")

        patiently(connection, work)
        return {}

    # Images

    def _tables(self, connection: Any) -> list[Touched]:
        found = rows(connection, TABLES, (self.oids,))
        missing = set(self.oids) - {item["oid"] for item in found}
        if missing:
            raise RecoveryError(
                "of the tables whose rows the transaction changed, those with OID "
                f"{', '.join(map(str, sorted(missing)))} are not in database {self.database} on {host_name()} any "
                "more. Nothing was changed. Bring them back with dr-table-drop first, or name those that are to be "
                "undone (dr_tables)."
            )
        return [Touched.of(connection, item["oid"], item["schema"], item["name"]) for item in found]

    def _names(self, tables: Sequence[Touched], broken: Collection[int]) -> dict[int, Images]:
        """Names of our tables; two schemas may have tables of one name."""
        found = {}
        for table in tables:
            same = [other for other in tables if other.name == table.name]
            name = table.name if len(same) == 1 else f"{table.name}_{table.oid}"
            before, after, undo, between = (
                derived_name(name, suffix, {JOURNAL}) for suffix in ("_before", "_after", UNDO, "_between")
            )
            found[table.oid] = Images(self.staging, before, after, undo, between if table.oid in broken else None)
        return found

    def _bring(self, connection: Any, side: Server, made: bool) -> None:
        """Make the schema of the incident, and in it both images of each table, in one transaction."""
        there = side.connect(self.database)
        try:
            tables = self._tables(connection)
            for table in tables:
                then = fingerprint.columns_of(there, [table.oid])[table.oid]
                _require_same_columns(table, then)
            _require_keys(tables)
            broken = {
                table.oid
                for table in tables
                if value(there, "SELECT pg_catalog.to_regclass(%s) IS NOT NULL", (f"{IMAGES}.between_{table.oid}",))
            }
        finally:
            there.close()
        names = self._names(tables, broken)

        def work() -> None:
            mark(connection, self.incident)
            if not made:
                execute(connection, f"CREATE SCHEMA {quote_ident(self.staging)}")
                make_journal(connection, self.staging)
            plan: dict[str, Any] = {"incident": self.incident, "database": self.database, "staging_schemas": {}}
            plan.update({"oids": self.oids, "reached": self.reached})
            write_journal(connection, self.staging, "plan", plan)
            for table in tables:
                self.progress.say("bring rows", tables.index(table), len(tables), "tables")
                own = names[table.oid]
                for image, name in (("before", own.before), ("after", own.after), ("between", own.between)):
                    if name is not None:
                        self._bring_image(connection, side, table, image, name)
            entry = {
                str(oid): {"before": one.before, "after": one.after, "preview": one.preview, "between": one.between}
                for oid, one in names.items()
            }
            write_journal(connection, self.staging, "images", entry)

        patiently(connection, work)

    def _bring_image(self, connection: Any, side: Server, table: Touched, image: str, name: str) -> None:
        target = quote_name(self.staging, name)
        plain = plain_columns(connection, table.stored)
        execute(connection, f"CREATE TABLE {target} ({', '.join(item.definition for item in plain)})")
        hidden = Unpublished(connection, self.staging, target)
        fields = ", ".join(quote_ident(column["name"]) for column in table.stored)
        options = f"WITH (ENCODING '{encoding_of(connection)}')"
        copy_table(
            connection,
            side,
            self.database,
            f"COPY (SELECT {fields} FROM {IMAGES}.{image}_{table.oid}) TO STDOUT {options}",
            f"COPY {target} ({fields}) FROM STDIN {options}",
        )
        hidden.filled(target)
        execute(connection, f"ALTER TABLE {target} ADD PRIMARY KEY ({table.keys}); ANALYZE {target}")
        shown = display_name(self.staging, name)
        reason = f"rows of {table.shown} {KEPT[image]}"
        self._keep(connection, name, shown, reason)

    def _keep(self, connection: Any, name: str, shown: str, reason: str) -> None:
        entry = {
            "type": "table",
            "object": shown,
            "reason": reason,
            "command": f"DROP TABLE {quote_name(self.staging, name)};",
            "schema": self.staging,
            "name": name,
        }
        write_journal(connection, self.staging, "kept", entry)

    # Undo

    def _reverse(self, connection: Any, locks: Locks, end: Optional[str]) -> dict[str, Any]:
        """All tables, in the caller's transaction. Without ``end`` it is only told what would be done."""
        mark(connection, self.incident)
        _be_replica(connection)
        journal = read_journal(connection, self.staging)
        entry = journal["images"][-1]
        oids = [oid for oid in self.oids if str(oid) in entry] or sorted(map(int, entry))
        self.oids = oids
        tables = self._tables(connection)
        _require_keys(tables)
        hold_definitions(connection, [table.own for table in tables])
        for table in tables:
            self._require_known_columns(connection, table, entry[str(table.oid)])
        self._require_no_rules(connection, tables)
        with each_as_its_owner(connection, oids) as owners:
            keys = outgoing_keys(connection, oids), incoming_keys(connection, oids)
            others = {key[part] for key in (*keys[0], *keys[1]) for part in ("relation", "other_relation")}
            hide = show_all(connection, sorted({*oids, *others}), locks)
            reversals = [
                Reversal(connection, owners.of(table.oid, table.schema), table, self._images(entry, table, end))
                for table in tables
            ]
            for one in reversals:
                earlier = ""
                if end == "redone":
                    earlier = one.owner.bring(self.staging, entry[str(one.table.oid)]["preview"])
                self.progress.say("compare", reversals.index(one), len(reversals), "tables")
                one.find(earlier)
            if end is not None:
                firing = firing_triggers(connection, oids)
                off, on = silence(firing)
                late = locks_for_deferrable(connection, [(table.oid, table.true) for table in tables])
                locks.take([*locks_to_silence(firing), *late])
                for statement in off:
                    execute(connection, statement)
                for one in reversals:
                    one.hold()
            for one in reversals:
                one.compare()
            keep_moved_between_partitions(connection, reversals)
            if end is not None:
                self.progress.say("undo", 0, len(reversals), "tables")
                _apply(connection, owners, reversals, *keys)
            found = [one.finish() for one in reversals]
            for statement in [*(on if end is not None else []), *hide]:
                execute(connection, statement)
        result = self._result(connection, tables, entry, found, end)
        if end is not None:
            write_journal(connection, self.staging, end, result)
        return result

    def _images(self, entry: Mapping[str, Any], table: Touched, end: Optional[str]) -> Images:
        names = entry[str(table.oid)]
        if end != "redone":
            return Images(self.staging, names["before"], names["after"], names["preview"], names["between"])
        redo = names["preview"][: -len(UNDO)] + REDO
        return Images(self.staging, names["after"], names["before"], redo)

    def _require_known_columns(self, connection: Any, table: Touched, names: Mapping[str, Any]) -> None:
        """Refuse a table with columns that the rows of before and after do not have, and so could lose."""
        image = quote_name(self.staging, names["before"])
        known = {row["name"] for row in rows(connection, COLUMNS, (image,))}
        new = [column["name"] for column in table.stored if column["name"] not in known]
        if new:
            raise RecoveryError(
                f"{table.shown} on {host_name()} got columns since its rows were brought ({', '.join(new)}), or "
                "others were renamed. Nothing was changed. Rename such back and run again with the same incident id, "
                f"or take what is needed from {display_name(self.staging, names['before'])} and "
                f"{display_name(self.staging, names['after'])}, which have the rows as the transaction found and left "
                "them."
            )

    def _require_no_rules(self, connection: Any, tables: Sequence[Touched]) -> None:
        rules = firing_rules(connection, [table.oid for table in tables])
        if rules:
            commands = " ".join(
                f"ALTER TABLE {quote_name(rule['schema'], rule['table'])} ENABLE RULE {quote_ident(rule['name'])};"
                for rule in rules
            )
            raise RecoveryError(
                f"rules on {host_name()} would act on the rows that are taken back: "
                f"{', '.join(rule['name'] for rule in rules)}. Nothing was changed. Let them act for sessions of the "
                f"application only, and run again with the same incident id: {commands}"
            )

    def _result(
        self,
        connection: Any,
        tables: Sequence[Touched],
        entry: Mapping[str, Any],
        found: Sequence[Mapping[str, Any]],
        end: Optional[str],
    ) -> dict[str, Any]:
        relations, left_to_do = [], []
        for table, item in zip(tables, found):
            images = self._images(entry, table, end)
            name = images.preview
            found_or_left = "left" if end == "redone" else "found"
            shown = display_name(self.staging, name)
            relations.append({**item, "preview": shown})
            if end is not None:
                self._keep(connection, name, shown, f"what was done with each row of {table.shown}")
            conflict = table.words()["conflict"]
            images_shown = [display_name(self.staging, one) for one in (images.before, images.between) if one]
            left_to_do += [
                left(
                    "rows",
                    table.shown,
                    f"{counted(count, 'row')} stayed as they are: {reason}. They are in {shown}; as the transaction "
                    f"{found_or_left} them in {' and '.join(images_shown)}",
                    f"SELECT * FROM {quote_name(self.staging, name)} WHERE {conflict} IS NOT NULL;",
                    lost=True,
                    rows=count,
                )
                for reason, count in item["conflicts"].items()
            ]
        kept = read_journal(connection, self.staging).get("kept", [])
        return {"relations": relations, "left_to_do": left_to_do, "kept": kept, "seconds": {}}


def _apply(
    connection: Any,
    owners: Owners,
    reversals: Sequence[Reversal],
    outgoing: Sequence[Mapping[str, Any]],
    incoming: Sequence[Mapping[str, Any]],
) -> None:
    """Do what the previews say; what then does not fit becomes a conflict, and all is done again without it."""
    by_oid = {one.table.oid: one for one in reversals}
    for one in reversals:
        one.mark_refused()
    while True:
        execute(connection, "SAVEPOINT dbre_undo")
        for one in reversals:
            one.delete()
        said = {one: one.try_restore() for one in reversals}
        refused = {one.table.oid: one.refusing() for one, reason in said.items() if reason}
        if not any(refused.values()):
            refused = {one.table.oid: one.refused() for one in reversals}
        # Only then: what does not go back itself is not there now for those that point to it, and will be.
        if not any(refused.values()):
            for key in outgoing:
                refused[key["root"]].update(without_parent(connection, owners, key, by_oid[key["root"]]))
            for key in incoming:
                for oid in _pointed_to(connection, key, by_oid):
                    refused[oid].update(without_row(connection, owners, key, by_oid[oid]))
        if not any(refused.values()):
            execute(connection, "RELEASE SAVEPOINT dbre_undo")
            return
        execute(connection, "ROLLBACK TO SAVEPOINT dbre_undo")
        execute(connection, "RELEASE SAVEPOINT dbre_undo")
        for oid, found in refused.items():
            by_oid[oid].set_apart(found)
            by_oid[oid].keep_moved()
        keep_moved_between_partitions(connection, reversals)


def _pointed_to(connection: Any, key: Mapping[str, Any], oids: Collection[int]) -> list[int]:
    """Those of ``oids`` that a foreign key points to: one itself, or as partitions of what it points to."""
    if key["root"] is not None:
        return [key["root"]]
    return [row["oid"] for row in rows(connection, PARTITIONS, (key["other_relation"],)) if row["oid"] in oids]


def _be_replica(connection: Any) -> None:
    """Keep triggers and foreign keys from acting on rows that are not new."""
    try:
        execute(connection, "SET LOCAL session_replication_role = 'replica'")
    except connection.ProgrammingError as error:
        if error.pgcode != INSUFFICIENT_PRIVILEGE:
            raise
        user = quote_ident(connection.info.user)
        raise RecoveryError(
            f"role {user} on {host_name()} may not set session_replication_role, so that triggers would fire on the "
            f"rows that are taken back. Nothing was changed. As a superuser: GRANT SET ON PARAMETER "
            f"session_replication_role TO {user}; or run as a superuser, again with the same incident id."
        ) from error


def _require_same_columns(table: Touched, then: Sequence[Mapping[str, Any]]) -> None:
    parts = ("name", "type", "generated")
    differing = {tuple(column[part] for part in parts) for column in table.columns} ^ {
        tuple(column[part] for part in parts) for column in then
    }
    if differing:
        names = ", ".join(sorted({item[0] for item in differing}))
        raise RecoveryError(
            f"the columns of {table.shown} on {host_name()} are not those it had when the transaction changed it "
            f"({names}). Nothing was changed. Undo that first, or take its rows out of dr-table-drop with "
            "dr_load=beside."
        )


def _require_keys(tables: Sequence[Touched]) -> None:
    without = [table.shown for table in tables if not table.key]
    if without:
        raise RecoveryError(
            f"{', '.join(without)} on {host_name()} has no primary key, or a generated one, so that no row can be told "
            "from another. Nothing was changed. Name the tables that are to be undone (dr_tables), or take the rows of "
            "this one out of dr-table-drop with dr_load=beside."
        )
