# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.workers import run_parallel
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import (
    become,
    give_back,
    refuse,
    room_for_owners,
    server_message,
    try_to_become,
    user_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import Lock, Locks, patiently
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.lookup import find_relations
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables import closure as closures
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import (
    NEEDS_ANOTHER,
    Attempt,
    Refused,
    address_of,
    make_early,
    savepoint,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.columns import LostColumns
from ansible_collections.dbre.recovery.plugins.module_utils._tables.confirmed import unconfirmed
from ansible_collections.dbre.recovery.plugins.module_utils._tables.default_privileges import (
    without_default_privileges,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.foreign_keys import ForeignKeys
from ansible_collections.dbre.recovery.plugins.module_utils._tables.index_builds import IndexBuilds
from ansible_collections.dbre.recovery.plugins.module_utils._tables.inherited import (
    hide_from_parents,
    show_to_parents,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.journal import (
    forget_in_journal,
    make_journal,
    read_journal,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.known import without_known
from ansible_collections.dbre.recovery.plugins.module_utils._tables.large_objects import LargeObjects
from ansible_collections.dbre.recovery.plugins.module_utils._tables.left import left
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import (
    LOCAL_COMMIT,
    Context,
    TableLoad,
    encoding_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.made_anew import (
    lacking,
    no_longer_inherited,
    tables_made_anew,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.not_null import name_not_nulls
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plain import make_plain
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plan import missing_names
from ansible_collections.dbre.recovery.plugins.module_utils._tables.publish import (
    Attached,
    InlineParts,
    PartitionIdentities,
    Steps,
    set_sequences,
    steps_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.publish_locks import locks_of_entries
from ansible_collections.dbre.recovery.plugins.module_utils._tables.put_back import (
    existing_table,
    finish_exchange,
    linked_tables,
    put_back,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.renamed import make_otherwise
from ansible_collections.dbre.recovery.plugins.module_utils._tables.tablespaces import without_home
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import Entry, SchemaDump
from ansible_collections.dbre.recovery.plugins.module_utils._tables.views import refresh_views

# Of a definition, in whatever order.
WORDS = re.compile(r"[^\s,]+")
# What stands in a schema and is moved into staging.
RELATIONS = ("TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW")
# Seconds to wait for the step that a killed run left behind.
LONGEST_WAIT = 3600.0
# And for sessions of ours to end that were told to.
LONGEST_END = 60.0


def refuse_missing_roles(roles: Sequence[Mapping[str, Any]]) -> None:
    """Raise RecoveryError when owners of the lost objects are not in production; each has the command that makes it."""
    if not roles:
        return
    raise RecoveryError(
        f"{', '.join('role ' + display_name(None, role['name']) for role in roles)} owned what was lost, and does not "
        f"exist on {host_name()} any more. Nothing was changed. Make it, then run again: "
        f"{' '.join(role['command'] for role in roles)}",
        missing_roles=list(roles),
    )


# Sessions that hold or await the lock of an incident, in this database; a name on display proves nobody's identity.
HOLDERS = """
SELECT l.pid, a.usename::text AS role, r.rolsuper OR r.rolname = session_user AS ours
FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid, pg_catalog.hashtextextended(%s, 0) AS wanted(key)
WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.pid <> pg_catalog.pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND (l.classid::int8 << 32 | l.objid::int8) = wanted.key
ORDER BY 1
"""
LEFT_BEHIND = """
SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
WHERE application_name = %s AND usename = session_user AND pid <> pg_catalog.pg_backend_pid()
"""


def lock_incident(connection: Any, staging: str, application_name: str, patience: float = LONGEST_WAIT) -> None:
    """Make this the only run of the incident, and end the sessions that a killed one left behind.

    The step that a killed playbook left behind on the host works on; it is waited for, ``patience`` seconds at most.
    The lock's number is no secret: sessions of other roles that took it are ended, or named where we may not.
    """
    deadline = time.monotonic() + patience
    try_lock = "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended(%s, 0))"
    while not value(connection, try_lock, (staging,)):
        holders = rows(connection, HOLDERS, (staging,))
        connection.rollback()
        others = [item for item in holders if not item["ours"]]
        for item in others:
            _end_session(connection, staging, item)
        if time.monotonic() > deadline:
            sessions = ", ".join(f"{item['pid']} (role {item['role']})" for item in holders)
            raise RecoveryError(
                f"another run still recovers the same incident ({staging}) on {host_name()}, after {patience:.0f} s, "
                f"in sessions {sessions}. This run changed nothing. See pg_stat_activity for what they wait; end them "
                "(pg_terminate_backend) when they are stuck, then run again with the same incident id."
            )
        if not others:
            time.sleep(0.2)
    connection.commit()
    deadline = time.monotonic() + LONGEST_END
    while rows(connection, LEFT_BEHIND, (application_name,)):
        connection.commit()
        if time.monotonic() > deadline:
            raise RecoveryError(
                f"sessions of an earlier run of this incident ({staging}) on {host_name()} do not end. This run "
                f"changed nothing. See pg_stat_activity (application_name {application_name}) for what they wait, then "
                "run again with the same incident id."
            )
        time.sleep(0.1)
    connection.commit()


def _end_session(connection: Any, staging: str, holder: Mapping[str, Any]) -> None:
    """End a session of another role that holds our lock; RecoveryError where we may not."""
    try:
        value(connection, "SELECT pg_catalog.pg_terminate_backend(%s)", (holder["pid"],))
        connection.commit()
    except connection.ProgrammingError as error:
        connection.rollback()
        raise RecoveryError(
            f"session {holder['pid']} of role {holder['role']} holds the lock of this incident ({staging}) on "
            f"{host_name()}, and we may not end it ({server_message(error)}). This run changed nothing. "
            f"Have a superuser run: SELECT pg_terminate_backend({holder['pid']}); then run again, or under "
            "another incident id (dr_incident_id)."
        ) from error


def give_back_borrowed(connection: Any, staging: str, incident: str) -> None:
    """Give back what the journal says was borrowed, in one transaction; nothing without a journal."""
    connection.rollback()
    borrowed = read_journal(connection, staging).get("borrowed", [])
    if borrowed:
        mark(connection, incident)
        give_back(connection, borrowed)
        forget_in_journal(connection, staging, "borrowed")
    connection.commit()


def names_of(item: Mapping[str, Any], tables: Mapping[str, str]) -> set[str]:
    """What a thing left to do may be called that stands for this object of a closure; ``tables`` are those of objects.

    The default of a column is that column's, the index behind a constraint is the constraint's.
    """
    names = {item["identity"]}
    if item["catalog"] == "pg_attrdef" and len(item["names"] or []) == 3:
        schema, table, column = item["names"]
        names.add(f"{column} on {display_name(schema, table)}")
    if item["index_of"]:
        names.add(f"{item['name']} on {tables.get(item['identity'])}")
    return names


class TableRecovery:
    """Puts back what a load plan says, into a database that is there."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.plan = context.plan
        self.placed = [item for item in self.plan["relations"] if item["action"] == "place"]
        self.loaded = [item for item in self.placed if item["kind"] == "r"]
        self.existing = [item for item in self.plan["relations"] if item["action"] in ("beside", "merge", "replace")]
        self.columns = [item for item in self.plan["relations"] if item["action"] == "columns"]
        # A copy beside leaves production's table as it is, so there is nothing to compare.
        replaced = [item for item in self.existing if item["action"] == "replace"]
        self.compared = [*self.placed, *replaced, *self.columns]
        # Lost tables that could not be made in their place: the rows of those that have any are kept beside.
        self.unmade: set[int] = set()
        self.changed = False

    def run(self) -> dict[str, Any]:
        """Everything that is not done yet; the result of the module."""
        context = self.context
        self._require_what_was_missing()
        directory = tempfile.mkdtemp(prefix="dbre-recovery-")
        admin = self._connect_admin()
        main = None
        try:
            lock_incident(admin, context.staging, context.production.application_name)
            context.watch.look(admin)
            began = time.monotonic()
            dump = self._dump(admin, directory)
            steps = self._steps(dump)
            builds = IndexBuilds(context, dump, steps)
            steps = builds.without(steps)
            main = self._open(admin, dump)
            journal = read_journal(main, context.staging)
            main.commit()
            self.unmade = {item["oid"] for item in journal.get("unmade", [])}
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
                with context.watch.looking(admin):
                    self._load(main, dump, steps)
                loaded = time.monotonic()
                self._publish(main, dump, steps)
            main = self._appear(admin, main, dump)
            published = time.monotonic()
            left_to_do = [*self.plan["left_to_do"]]
            attempt_of = partial(self._attempt, main, main, dump)
            left_to_do += self._finish_keys(main, steps, attempt_of)
            left_to_do += InlineParts(context, dump.entries).validate(main)
            main.commit()
            left_to_do += builds.make(main, attempt_of)
            validated = time.monotonic()
            left_to_do += unconfirmed(main)
            result = self._result(main, left_to_do)
            result["seconds"] = {
                **result["seconds"],
                "stage": round(staged - began, 2),
                "load": round(loaded - staged, 2),
                "publish": round(published - loaded, 2),
                "validate": round(validated - published, 2),
            }
            give_back_borrowed(main, context.staging, self.plan["incident"])
            # All is done by now, whatever has become of that session.
            with suppress(Exception):
                context.watch.look(admin)
            result["limits"] = context.watch.measured()
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

    def _require_what_was_missing(self) -> None:
        """Raise RecoveryError when what the plan found missing is missing still; a stored plan may be older."""
        admin = self.context.production.connect()
        try:
            roles = [role["name"] for role in self.plan["missing_roles"]]
            gone = set(missing_names(admin, "pg_roles", "rolname", roles))
            memberships = [item["name"] for item in self.plan.get("missing_memberships", [])]
            refused = try_to_become(admin, memberships)[1]
            admin.rollback()
            if refused:
                refuse(user_of(admin), refused)
        finally:
            admin.close()
        refuse_missing_roles([role for role in self.plan["missing_roles"] if role["name"] in gone])

    def _dump(self, admin: Any, directory: str) -> SchemaDump:
        """The definitions; what lay in a tablespace that is gone is made in the default one."""
        dump = SchemaDump(self.context.side, self.context.side_database, directory)
        spaces = missing_names(admin, "pg_tablespace", "spcname", self.plan["missing_tablespaces"])
        admin.rollback()
        side = self.context.side.connect(self.context.side_database)
        try:
            dump.without_home = without_home(side, spaces)
        finally:
            side.close()
        return dump

    def _check(self, main: Any) -> None:
        """Refuse what cannot work, before anything is changed."""
        become(main, self.context.roles)
        for item in self.existing:
            existing_table(self.context, item, encoding_of(main)).check(main)
        main.rollback()

    def _note_borrowed(self, main: Any, borrowed: Iterable[Mapping[str, Any]]) -> None:
        """Note what is to be given back at the end of the run, or after one that was killed.

        All sessions are members of the owners meanwhile: those that load side by side would wait for each other if
        each became one in its own transaction.
        """
        for item in borrowed:
            self.context.journal(main, "borrowed", item)

    def _connect_admin(self) -> Any:
        """The session that holds the lock of the incident, from the first step to the last."""
        return self.context.production.connect(settings=LOCAL_COMMIT)

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
        locks = Locks(main)
        self._prepare_early(dump, steps)

        def work() -> None:
            self.unmade.clear()
            mark(main, self.plan["incident"])
            borrowed = become(main, self.context.roles)
            self._make_schemas(main)
            make_journal(main, self.context.staging)
            self.context.journal(main, "plan", self.plan)
            self._note_borrowed(main, borrowed)
            self._free_places(main, locks)
            self._make_early(main, dump, steps.early)
            self._complete_early(main, dump, steps)
            # Others may use them from now on, and must not get values that were given before.
            made = {item["objid"] for item in self.plan["objects"]}
            set_sequences(main, [item for item in self.plan["sequences"] if {item["oid"], item["relation"]} & made])
            hidden = hide_from_parents(main, self.context.staging, self._moving())
            self.context.journal(main, "hidden", {"children": hidden})
            for item in self._staged(steps):
                self._move(main, item, item["schema"], self.context.staging_schemas[item["schema"]])
            self._give_places_back(main)

        patiently(main, work, locks=locks)

    def _prepare_early(self, dump: SchemaDump, steps: Steps) -> None:
        """What can be done before anybody waits."""

    def _free_places(self, main: Any, locks: Locks) -> None:
        """Nothing has the names of what is made, in the caller's transaction."""

    def _complete_early(self, main: Any, dump: SchemaDump, steps: Steps) -> None:
        """What else the tables get before they are loaded."""

    def _give_places_back(self, main: Any) -> None:
        """What had the names has them again, in the caller's transaction."""

    def _make_schemas(self, main: Any) -> None:
        for schema in sorted({self.context.staging, *self.context.staging_schemas.values()}):
            execute(main, f"CREATE SCHEMA {quote_ident(schema)}")

    def _make_early(self, main: Any, dump: SchemaDump, entries: Sequence[Entry]) -> None:
        attempt = Attempt(main, dump)
        side = self.context.side.connect(self.context.side_database)

        def make(chosen: Sequence[Entry]) -> None:
            attempt.make(chosen)
            for refused in [item for item in attempt.refused if item.entry.description == "TABLE"]:
                self._make_otherwise(main, side, attempt, refused)
            # What needs a table that was made otherwise is tried again.
            needing = [item for item in attempt.refused if item.reason == NEEDS_ANOTHER]
            for item in needing:
                attempt.withdraw(item)
            attempt.make([item.entry for item in needing])

        try:
            make_early(main, lambda: self.context.owners, entries, make)
            name_not_nulls(main, side, self._moving())
        finally:
            side.close()
        self._note_refused(main, attempt)

    def _make_otherwise(self, main: Any, side: Any, attempt: Attempt, refused: Refused) -> None:
        """A table that cannot be made as it was: without what does not fit; else its rows are kept beside."""
        item = next((item for item in self.placed if item["oid"] == refused.entry.oid), None)
        if item is None:
            return
        left_to_do = make_plain(main, side, item)
        if left_to_do is None:
            self.unmade.add(item["oid"])
            self.context.journal(main, "unmade", {"oid": item["oid"]})
            return
        attempt.withdraw(refused)
        for entry in left_to_do:
            self.context.journal(main, "refused", {"entry": None, "left": entry})

    def _note_refused(self, main: Any, attempt: Attempt) -> None:
        """Keep in the journal what is left to do, and that what needs it cannot be made either."""
        for item in attempt.refused:
            self.context.journal(main, "refused", {"entry": item.address, "left": item.left()})

    def _attempt(self, connection: Any, main: Any, dump: SchemaDump) -> Attempt:
        """Goes on after what was refused earlier, maybe by an earlier run, with another dump."""
        known = [item["entry"] for item in read_journal(main, self.context.staging).get("refused", [])]
        refused = [item for item in dump.entries if address_of(item) in known]
        return Attempt(connection, dump, refused)

    def _moving(self) -> list[Mapping[str, Any]]:
        return [item for item in self.placed if item["oid"] not in self.unmade]

    def _staged(self, steps: Steps) -> list[Mapping[str, Any]]:
        """What is made early and kept in staging until it is published: lost tables, and what they need to be made.

        A foreign table or a view that nothing needs is made when the rest is published.
        """
        early = {entry.oid: entry.description for entry in steps.early if entry.description in RELATIONS}
        views = [
            {**item, "oid": item["objid"]}
            for item in self.plan["objects"]
            if item["catalog"] == "pg_class"
            and early.get(item["objid"], "").endswith("VIEW")
            and item["schema"] in self.context.staging_schemas
        ]
        return [*(item for item in self._moving() if item["oid"] in early), *views]

    @staticmethod
    def _move(connection: Any, item: Mapping[str, Any], source: str, target: str) -> None:
        execute(connection, f"ALTER TABLE {quote_name(source, item['name'])} SET SCHEMA {quote_ident(target)}")

    def _load(self, main: Any, dump: SchemaDump, steps: Steps) -> None:
        encoding = encoding_of(main)
        journal = read_journal(main, self.context.staging)
        done = {item["oid"] for item in journal.get("table", [])}
        besides = [{**item, "action": "beside"} for item in self.loaded if item["oid"] in self.unmade]
        existing = {
            item["oid"]: existing_table(self.context, item, encoding)
            for item in [*self.existing, *besides]
            if item["oid"] not in done
        }
        replaced = [item for item in self.existing if item["oid"] in done and item["action"] == "replace"]
        if replaced:
            finish_exchange(self.context, [existing_table(self.context, item, encoding) for item in replaced])
        groups = linked_tables(main, list(existing.values()))
        main.commit()
        everything = [*self.loaded, *self.existing, *self.columns]
        waiting = sorted(
            (item for item in everything if item["oid"] not in done), key=lambda item: item["bytes"], reverse=True
        )
        finished = len(done)

        def load(item: Mapping[str, Any]) -> None:
            nonlocal finished
            self.context.watch.wait()
            if item["oid"] in existing:
                existing[item["oid"]].prepare()
            elif item["action"] == "columns":
                LostColumns(self.context, item, encoding).run()
            else:
                self._load_table(item, encoding, partial(self._make_indexes, dump, steps, item))
            finished += 1
            self.context.progress.say("load", finished, len(everything), "tables")

        run_parallel([partial(load, item) for item in waiting], self.context.parallel)
        run_parallel([partial(put_back, self.context, group) for group in groups], self.context.parallel)

    def _load_table(self, item: Mapping[str, Any], encoding: str, make_indexes: Callable[[Any], None]) -> None:
        TableLoad(self.context, item, encoding).run(make_indexes)

    def _make_indexes(self, dump: SchemaDump, steps: Steps, item: Mapping[str, Any], connection: Any) -> None:
        """Indexes of one table, in the transaction that loads it."""
        attempt = self._attempt(connection, connection, dump)
        attempt.make(steps.indexes[item["oid"]])
        if attempt.refused:
            side = self.context.side.connect(self.context.side_database)
            try:
                make_otherwise(connection, side, attempt)
            finally:
                side.close()
        self._note_refused(connection, attempt)

    def _move_back(self, main: Any, dump: SchemaDump, steps: Steps, attempt: Attempt) -> list[dict[str, Any]]:
        """Move the tables to their places; one whose place was taken meanwhile stays in staging. What is left to do."""
        staying: list[tuple[str, str]] = []
        for item in self._staged(steps):
            staging = self.context.staging_schemas[item["schema"]]

            def failed(error: Any, item: Mapping[str, Any] = item, staging: str = staging) -> None:
                staying.append((item["schema"], item["name"]))
                entry = next(
                    entry for entry in dump.entries if entry.oid == item["oid"] and entry.description in RELATIONS
                )
                shown = display_name(staging, item["name"])
                command = f"ALTER TABLE {quote_name(staging, item['name'])} SET SCHEMA {quote_ident(item['schema'])};"
                attempt.refuse(entry, f"{server_message(error)}. It is complete in {shown}. Run the command", command)
                kept = {"type": "table", "object": shown, "reason": "its place was taken", "command": command}
                self.context.journal(main, "kept", {**kept, "schema": staging, "name": item["name"]})

            with savepoint(main, failed):
                self._move(main, item, staging, item["schema"])
        journal = read_journal(main, self.context.staging)
        hidden = [child for entry in journal.get("hidden", []) for child in entry["children"]]
        return show_to_parents(main, self.context.staging, hidden, staying)

    def _publish(self, main: Any, dump: SchemaDump, steps: Steps) -> None:
        """One transaction in which everything appears at once: tables, views, triggers, keys, grants, sequences.

        Large objects are there before the rows that name them are.
        """
        large_objects = LargeObjects(self.context).put_back()
        inline = InlineParts(self.context, dump.entries)
        keys = ForeignKeys(self.context, steps.foreign_keys)
        identities = PartitionIdentities(self.context, [item["oid"] for item in self.placed])
        attached = Attached(self.context, [item["oid"] for item in self.placed])
        late = keys.late(steps.after_foreign_keys)
        after = [entry for entry in steps.after_foreign_keys if entry not in late]
        refresh = self._populated_views(steps)
        locks = Locks(main)
        others = locks_of_entries(self.context, steps.others)
        placed = {quote_name(item["schema"], item["name"]) for item in self.placed}

        def work() -> None:
            mark(main, self.plan["incident"])
            attempt = self._attempt(main, main, dump)
            known = [*others, *inline.locks(), *attached.locks(main), *keys.locks()]
            left_to_do = large_objects + self._take_places(main, locks, known, attempt, steps)
            left_to_do += self._move_back(main, dump, steps, attempt)
            with without_default_privileges(main), room_for_owners(main, self.context.owners):
                attempt.make(steps.own)
            set_sequences(main, self.plan["sequences"])
            attempt.grant([*steps.own, *steps.others, *steps.after_foreign_keys])
            left_to_do += self._refresh(main, refresh)
            attempt.act_as(attached.as_owners(main, dump.entries))
            attempt.prepare([steps.others, after])
            wanted = [*others, *inline.locks(), *attached.locks(main), *keys.locks()]
            locks.take(lock for lock in wanted if lock.table not in placed)
            left_to_do += inline.add(main)
            # Nobody can change it any more.
            attempt.act_as(attached.as_owners(main, dump.entries))
            attached.make(main, lambda: attempt.make(steps.others))
            left_to_do += identities.mend(main) + keys.add(main)
            attempt.make(after)
            self._note_refused(main, attempt)
            self._note_places(main)
            self.context.journal(main, "published", {"left_to_do": left_to_do})

        patiently(main, work, locks=locks)
        self._note_violations(main, keys)
        self.context.progress.say("publish", len(self.plan["objects"]), len(self.plan["objects"]), "objects")

    def _take_places(
        self, main: Any, locks: Locks, known: Sequence[Lock], attempt: Attempt, steps: Steps
    ) -> list[dict[str, Any]]:
        """The places are free, in the transaction that publishes; what is left to do of what had them."""
        return []

    def _refresh(self, main: Any, views: Sequence[str]) -> list[dict[str, Any]]:
        return refresh_views(main, views)

    def _note_places(self, main: Any) -> None:
        """Keep in the journal what stands there now."""

    def _note_violations(self, main: Any, keys: ForeignKeys) -> None:
        """Keep in the journal what rows do not allow, counted while nobody waits."""
        left_to_do = keys.violations(main)

        def note() -> None:
            mark(main, self.plan["incident"])
            self.context.journal(main, "published", {"left_to_do": left_to_do})

        if left_to_do:
            patiently(main, note)

    def _finish_keys(self, main: Any, steps: Steps, attempt_of: Callable[[], Attempt]) -> list[dict[str, Any]]:
        """Foreign keys are valid, or what of their tables' rows is left to do."""
        keys = ForeignKeys(self.context, steps.foreign_keys)
        return keys.finish(main, keys.late(steps.after_foreign_keys), attempt_of)

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
        left_to_do += [entry for table in tables for entry in table.get("left_to_do", [])]
        for published in journal.get("published", []):
            left_to_do += published["left_to_do"]
        objects = [dict(item) for item in self.plan["objects"] if not item["implied"]]
        closures.compare(main, objects)
        known = {entry["object"] for entry in left_to_do}
        tables_of = self._tables_of_objects()
        for item in objects:
            if item["state"] == "missing" and known.isdisjoint(names_of(item, tables_of)):
                reason = "it is still missing after the recovery; make it by hand"
                left_to_do.append(left(item["type"], item["identity"], reason, lost=True))
        left_to_do += self._lacking(main, left_to_do, tables_of)
        recovered, production = self._fingerprints(main, tables)
        return {
            "changed": self.changed,
            "relations": tables,
            "fingerprints": {"recovered": recovered, "production": production},
            "difference": without_known(
                fingerprint.difference(recovered, production, [entry["object"] for entry in left_to_do]),
                left_to_do,
                tables_of,
            ),
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

    def _lacking(
        self, main: Any, left_to_do: Sequence[Mapping[str, Any]], tables_of: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        """What tables that get rows back, or came back, are not any more, without anything of theirs being missing."""
        side = self.context.side.connect(self.context.side_database)
        try:
            found = no_longer_inherited(main, side, self.plan["relations"])
            anew = tables_made_anew(main, side, self.plan["relations"])
            found += lacking(main, side, anew, [*left_to_do, *found], tables_of) if anew else []
            main.commit()
            return found
        finally:
            side.close()

    def _tables_of_objects(self) -> dict[str, str]:
        """The table that each lost object is part of, both as shown to people."""
        of_tables = [item for item in self.plan["objects"] if item["catalog"] == "pg_constraint" and item["relation"]]
        # The index of a key may be one of a table that was not lost.
        tables = {item["relation"]: display_name(*item["names"][:2]) for item in of_tables}
        tables.update({item["oid"]: display_name(item["schema"], item["name"]) for item in self.placed})
        owners = {item["identity"]: item["index_of"] or item["relation"] for item in self.plan["objects"]}
        return {identity: tables[oid] for identity, oid in owners.items() if oid in tables}

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
                    if table["action"] == "columns":  # their order is told apart, and statistics name them in it
                        prints[name]["columns"].sort(key=lambda column: str(column["name"]))
                        prints[name]["statistics"] = [
                            " ".join(sorted(WORDS.findall(text))) for text in prints[name]["statistics"]
                        ]
        for prints in (recovered, production):
            for item in prints.values():
                del item["oid"]
        return recovered, production
