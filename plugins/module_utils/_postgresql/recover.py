# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import closure as closures
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import (
    INSUFFICIENT_PRIVILEGE,
    become,
    give_back,
    refuse,
    room_for_owners,
    said,
    user_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.existing import ExistingTable
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.load import Context, encoding_of, load_table
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.lookup import find_relations
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.plan import JOURNAL, left, read_journal
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.publish import (
    Attached,
    ForeignKeys,
    InlineParts,
    PartitionIdentities,
    Steps,
    patiently,
    run_script,
    set_sequences,
    steps_of,
    without_default_privileges,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.toc import Entry, SchemaDump

# Seconds to wait for the step that a killed run left behind.
LONGEST_WAIT = 3600.0
NOT_POPULATED = "55000"


def refuse_missing_globals(plan: Mapping[str, Any]) -> None:
    """Raise RecoveryError when roles or tablespaces of the lost objects are not in production."""
    roles, spaces = plan["missing_roles"], plan["missing_tablespaces"]
    if not roles and not spaces:
        return
    commands = [role["command"] for role in roles]
    commands += [f"CREATE TABLESPACE {quote_ident(space)} LOCATION '...';" for space in spaces]
    what = [f"role {display_name(None, role['name'])}" for role in roles]
    what += [f"tablespace {display_name(None, space)}" for space in spaces]
    raise RecoveryError(
        f"{', '.join(what)} own, may use or hold what was lost, but do not exist on {host_name()} any more. "
        f"Nothing was changed. Make them, then run again: {' '.join(commands)}",
        missing_roles=roles,
        missing_tablespaces=spaces,
    )


def lock_incident(connection: Any, staging: str, application_name: str, patience: float = LONGEST_WAIT) -> None:
    """Make this the only run of the incident, and end the sessions that a killed one left behind.

    The step that a killed playbook left behind on the host works on; it is waited for, ``patience`` seconds at most.
    """
    deadline = time.monotonic() + patience
    try_lock = "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended(%s, 0))"
    while not value(connection, try_lock, (staging,)):
        connection.rollback()
        if time.monotonic() > deadline:
            query = (
                "SELECT coalesce(string_agg(pid::text, ', '), '') FROM pg_catalog.pg_stat_activity "
                "WHERE application_name = %s AND pid <> pg_catalog.pg_backend_pid()"
            )
            sessions = value(connection, query, (application_name,))
            connection.rollback()
            raise RecoveryError(
                f"another run still recovers the same incident ({staging}) on {host_name()}, after {patience:.0f} s, "
                f"in sessions {sessions}. This run changed nothing. See pg_stat_activity for what they wait; end them "
                "(pg_terminate_backend) when they are stuck, then run again with the same incident id."
            )
        time.sleep(0.2)
    connection.commit()
    left_behind = (
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity "
        "WHERE application_name = %s AND pid <> pg_catalog.pg_backend_pid()"
    )
    while rows(connection, left_behind, (application_name,)):
        connection.commit()
        time.sleep(0.1)
    connection.commit()


def run_parallel(work: Sequence[Callable[[], None]], parallel: int) -> None:
    """Do all of ``work`` in ``parallel`` threads; the first error stops the taking of more and is raised."""
    waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    for item in work:
        waiting.put(item)
    errors: list[BaseException] = []

    def worker() -> None:
        while not errors:
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                item()
            except BaseException as error:  # raised in the calling thread
                errors.append(error)

    threads = [threading.Thread(target=worker, daemon=True) for unused in range(min(parallel, len(work)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def make_early(
    connection: Any,
    owners: Callable[[], Iterable[Sequence[str]]],
    entries: Sequence[Entry],
    make: Callable[[Sequence[Entry]], None],
) -> None:
    """Make what comes before the rows, in the caller's transaction: schemas, then what their owners need room for."""
    with without_default_privileges(connection):
        make([entry for entry in entries if entry.description == "SCHEMA"])
        with room_for_owners(connection, owners()):
            make([entry for entry in entries if entry.description != "SCHEMA"])


def refresh_views(connection: Any, views: Iterable[str]) -> list[dict[str, Any]]:
    """Fill materialized views as their owners see the rows, in the caller's transaction; what cannot be filled.

    An owner may not be allowed (any more) to read what the view reads: such a view was stale before, too.
    """
    left_to_do = []
    execute(connection, "SET LOCAL row_security = on")
    for view in views:
        statement = f"REFRESH MATERIALIZED VIEW {view}"
        execute(connection, "SAVEPOINT dbre_view")
        try:
            execute(connection, statement)
        except connection.DatabaseError as error:
            if error.pgcode not in (INSUFFICIENT_PRIVILEGE, NOT_POPULATED):
                raise
            execute(connection, "ROLLBACK TO SAVEPOINT dbre_view")
            reason = f"its owner cannot read what it shows, so it is empty: {said(error)}"
            left_to_do.append(left("materialized view", view, reason, f"{statement};"))
        execute(connection, "RELEASE SAVEPOINT dbre_view")
    execute(connection, "SET LOCAL row_security = off")
    return left_to_do


def give_back_borrowed(connection: Any, staging: str, incident: str) -> None:
    """Give back what the journal says was borrowed, in one transaction; nothing without a journal."""
    connection.rollback()
    borrowed = read_journal(connection, staging).get("borrowed", [])
    if borrowed:
        mark(connection, incident)
        give_back(connection, borrowed)
        execute(connection, f"DELETE FROM {quote_name(staging, JOURNAL)} WHERE kind = 'borrowed'")
    connection.commit()


class TableRecovery:
    """Puts back what a load plan says, into a database that is there."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.plan = context.plan
        self.placed = [item for item in self.plan["relations"] if item["action"] == "place"]
        self.loaded = [item for item in self.placed if item["kind"] == "r"]
        self.existing = [item for item in self.plan["relations"] if item["action"] in ("beside", "merge", "replace")]
        # A copy beside leaves production's table as it is, so there is nothing to compare.
        self.compared = [*self.placed, *(item for item in self.existing if item["action"] == "replace")]
        self.changed = False

    def run(self) -> dict[str, Any]:
        """Everything that is not done yet; the result of the module."""
        refuse_missing_globals(self.plan)
        context = self.context
        if self.plan.get("missing_memberships"):
            admin = context.production.connect()
            user = user_of(admin)
            admin.close()
            refuse(user, self.plan["missing_memberships"])
        directory = tempfile.mkdtemp(prefix="dbre-recovery-")
        admin = context.production.connect()
        main = None
        try:
            lock_incident(admin, context.staging, context.production.application_name)
            began = time.monotonic()
            dump = SchemaDump(context.side, context.side_database, directory)
            steps = self._steps(dump)
            main = self._open(admin, dump)
            journal = read_journal(main, context.staging)
            main.commit()
            if journal:
                mark(main, self.plan["incident"])
                self._note_borrowed(main, become(main, context.roles))
                main.commit()
            else:
                self._check(main)
                self.changed = True
                self._stage(main, dump, steps)
            staged = time.monotonic()
            loaded = staged
            if "published" not in journal:
                self.changed = True
                self._load(main, dump, steps, {item["oid"] for item in journal.get("table", [])})
                loaded = time.monotonic()
                self._publish(main, dump, steps)
            main = self._appear(admin, main, dump)
            published = time.monotonic()
            left_to_do = [*self.plan["left_to_do"]]
            left_to_do += ForeignKeys(context, steps.foreign_keys).validate(main)
            validated = time.monotonic()
            result = self._result(main, left_to_do)
            result["seconds"] = {
                **result["seconds"],
                "stage": round(staged - began, 2),
                "load": round(loaded - staged, 2),
                "publish": round(published - loaded, 2),
                "validate": round(validated - published, 2),
            }
            give_back_borrowed(main, context.staging, self.plan["incident"])
            return result
        except BaseException:
            # The error that is on its way says more than one of these.
            with suppress(Exception):
                if main is not None:
                    main.close()
                    main = self.context.session()
                    give_back_borrowed(main, context.staging, self.plan["incident"])
            raise
        finally:
            for connection in (main, admin):
                if connection is not None:
                    connection.close()
            shutil.rmtree(directory, ignore_errors=True)

    def _check(self, main: Any) -> None:
        """Refuse what cannot work, before anything is changed."""
        become(main, self.context.roles)
        for item in self.existing:
            ExistingTable(self.context, item, encoding_of(main)).check(main)
        main.rollback()

    def _note_borrowed(self, main: Any, borrowed: Iterable[Mapping[str, Any]]) -> None:
        """Note what is to be given back at the end of the run, or after one that was killed.

        All sessions are members of the owners meanwhile: those that load side by side would wait for each other if
        each became one in its own transaction.
        """
        for item in borrowed:
            self.context.journal(main, "borrowed", item)

    def is_done(self) -> bool:
        """Whether everything was published by an earlier run."""
        main = self.context.session()
        try:
            return "published" in read_journal(main, self.context.staging)
        finally:
            main.close()

    def _steps(self, dump: SchemaDump) -> Steps:
        return steps_of(self.context, dump.entries, [item["oid"] for item in self.loaded])

    def _open(self, admin: Any, dump: SchemaDump) -> Any:
        """A session in the database that is loaded."""
        return self.context.session()

    def _appear(self, admin: Any, main: Any, dump: SchemaDump) -> Any:
        """What publishing needs outside the database's own transaction; the session to go on with."""
        return main

    def _stage(self, main: Any, dump: SchemaDump, steps: Steps) -> None:
        """One transaction: staging schemas, journal, and the lost tables, moved away before anybody can see them."""

        def work() -> None:
            mark(main, self.plan["incident"])
            borrowed = become(main, self.context.roles)
            self._make_schemas(main)
            execute(
                main,
                f"CREATE TABLE {quote_name(self.context.staging, JOURNAL)} ("
                "id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
                "at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(), "
                "kind text NOT NULL, detail jsonb NOT NULL)",
            )
            # Default privileges may have taken even from us what is ours.
            execute(main, f"GRANT ALL ON {quote_name(self.context.staging, JOURNAL)} TO CURRENT_USER")
            self.context.journal(main, "plan", self.plan)
            self._note_borrowed(main, borrowed)
            self._make_early(main, dump, steps.early)
            for item in self._moving():
                self._move(main, item, item["schema"], self.context.staging_schemas[item["schema"]])

        patiently(main, work)

    def _make_schemas(self, main: Any) -> None:
        for schema in sorted({self.context.staging, *self.context.staging_schemas.values()}):
            execute(main, f"CREATE SCHEMA {quote_ident(schema)}")

    def _make_early(self, main: Any, dump: SchemaDump, entries: Sequence[Entry]) -> None:
        make_early(main, lambda: self.context.owners, entries, lambda chosen: run_script(main, dump.script(chosen)))

    def _moving(self) -> list[Mapping[str, Any]]:
        return [item for item in self.placed if item["kind"] in ("r", "p")]

    @staticmethod
    def _move(connection: Any, item: Mapping[str, Any], source: str, target: str) -> None:
        execute(connection, f"ALTER TABLE {quote_name(source, item['name'])} SET SCHEMA {quote_ident(target)}")

    def _load(self, main: Any, dump: SchemaDump, steps: Steps, done: set[int]) -> None:
        encoding = encoding_of(main)
        main.commit()
        everything = [*self.loaded, *self.existing]
        waiting = sorted(
            (item for item in everything if item["oid"] not in done), key=lambda item: item["bytes"], reverse=True
        )
        scripts = {
            item["oid"]: dump.script(steps.indexes[item["oid"]]) for item in waiting if item["action"] == "place"
        }
        finished = len(done)

        def load(item: Mapping[str, Any]) -> None:
            nonlocal finished
            if item["action"] == "place":
                load_table(self.context, item, scripts[item["oid"]], encoding)
            else:
                ExistingTable(self.context, item, encoding).load()
            finished += 1
            self.context.progress.say("load", finished, len(everything), "tables")

        run_parallel([partial(load, item) for item in waiting], self.context.parallel)

    def _publish(self, main: Any, dump: SchemaDump, steps: Steps) -> None:
        """One transaction in which everything appears at once: tables, views, triggers, keys, grants, sequences."""
        own, others, after = (dump.script(part) for part in (steps.own, steps.others, steps.after_foreign_keys))
        grants = dump.grants([*steps.own, *steps.others, *steps.after_foreign_keys])
        inline = InlineParts(self.context, dump.entries)
        keys = ForeignKeys(self.context, steps.foreign_keys)
        identities = PartitionIdentities(self.context, [item["oid"] for item in self.placed])
        attached = Attached(self.context, [item["oid"] for item in self.placed])
        refresh = self._populated_views(steps)

        def work() -> None:
            mark(main, self.plan["incident"])
            for item in self._moving():
                self._move(main, item, self.context.staging_schemas[item["schema"]], item["schema"])
            with without_default_privileges(main), room_for_owners(main, self.context.owners):
                run_script(main, own)
            set_sequences(main, self.plan["sequences"])
            run_script(main, grants)
            left_to_do = refresh_views(main, refresh) + inline.add(main)
            attached.make(main, others)
            identities.mend(main)
            left_to_do += keys.add(main)
            run_script(main, after)
            self.context.journal(main, "published", {"left_to_do": left_to_do})

        patiently(main, work)
        self.context.progress.say("publish", len(self.plan["objects"]), len(self.plan["objects"]), "objects")

    def _populated_views(self, steps: Steps) -> list[str]:
        """Lost materialized views that held rows, in the order in which they can be filled again."""
        oids = [entry.oid for entry in [*steps.early, *steps.own] if entry.description == "MATERIALIZED VIEW"]
        side = self.context.side.connect(self.context.side_database)
        try:
            found = rows(
                side,
                "SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c "
                "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
                "WHERE c.oid = ANY(%s::oid[]) AND c.relispopulated",
                (oids,),
            )
        finally:
            side.close()
        return [
            quote_name(item["schema"], item["name"]) for item in sorted(found, key=lambda item: oids.index(item["oid"]))
        ]

    def _result(self, main: Any, left_to_do: list[dict[str, Any]]) -> dict[str, Any]:
        journal = read_journal(main, self.context.staging)
        main.commit()
        tables = journal.get("table", [])
        left_to_do += [entry["left"] for entry in journal.get("refused", [])]
        for published in journal.get("published", []):
            left_to_do += published["left_to_do"]
        objects = [dict(item) for item in self.plan["objects"] if not item["implied"]]
        closures.compare(main, objects)
        known = {entry["object"] for entry in left_to_do}
        for item in objects:
            if item["state"] == "missing" and item["identity"] not in known:
                left_to_do.append(
                    left(item["type"], item["identity"], "it is still missing after the recovery; make it by hand")
                )
        recovered, production = self._fingerprints(main, tables)
        return {
            "changed": self.changed,
            "relations": tables,
            "fingerprints": {"recovered": recovered, "production": production},
            "difference": fingerprint.difference(recovered, production, [entry["object"] for entry in left_to_do]),
            "merged": {
                display_name(table["schema"], table["name"]): table["merged"] for table in tables if "merged" in table
            },
            "kept": journal.get("kept", []),
            "left_to_do": left_to_do,
            "seconds": {
                step: round(sum(table["seconds"].get(step, 0) for table in tables), 2)
                for step in ("copy", "index", "verify")
            },
        }

    def _fingerprints(self, main: Any, tables: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Definitions of both ends now, rows and checksums as they were proved when they were loaded."""
        side = self.context.side.connect(self.context.side_database)
        try:
            recovered = fingerprint.definitions(side, [item["oid"] for item in self.compared])
        finally:
            side.close()
        found = find_relations(main, self.compared)
        production = fingerprint.definitions(main, [item["oid"] for item in found.values()])
        main.commit()
        for table in tables:
            name = display_name(table["schema"], table["name"])
            for prints, end in ((recovered, "side"), (production, "production")):
                if name in prints:
                    prints[name].update(rows=table["rows"], checksum=table[f"checksum_{end}"])
        for prints in (recovered, production):
            for item in prints.values():
                del item["oid"]
        return recovered, production
