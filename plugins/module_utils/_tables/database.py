# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.access import (
    force_statements,
    room_for_owners,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.marks import mark, mark_statement
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import host_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.attempt import Attempt, make_early
from ansible_collections.dbre.recovery.plugins.module_utils._tables.default_privileges import (
    without_default_privileges,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.journal import read_journal
from ansible_collections.dbre.recovery.plugins.module_utils._tables.load import Context
from ansible_collections.dbre.recovery.plugins.module_utils._tables.plan import missing_names
from ansible_collections.dbre.recovery.plugins.module_utils._tables.publish import (
    Steps,
    arrange_database,
    is_of_database,
    set_sequences,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.recover import (
    TableRecovery,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.tablespaces import HOME_OF_DATABASE
from ansible_collections.dbre.recovery.plugins.module_utils._tables.toc import (
    Entry,
    SchemaDump,
    without_our_settings,
)
from ansible_collections.dbre.recovery.plugins.module_utils._tables.views import refresh_views

INDEX_TABLES = """
SELECT 'pg_catalog.pg_class'::regclass::oid::int8 AS catalog, indexrelid::int8 AS oid, indrelid::int8 AS relation
FROM pg_catalog.pg_index
UNION ALL
SELECT 'pg_catalog.pg_constraint'::regclass::oid::int8, oid::int8, conrelid::int8
FROM pg_catalog.pg_constraint WHERE contype IN ('p', 'u', 'x')
"""

ALL_SEQUENCES = """
SELECT c.oid::int8 AS oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'S' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""

LARGE_OBJECT = re.compile(r"\d+; \d+ \d+ (?:BLOBS?\b|(?:ACL|COMMENT|SECURITY LABEL) - LARGE OBJECT)")
CREATE = re.compile(rb'^CREATE DATABASE (?:"(?:[^"]|"")+"|[^\s"]+) ', re.MULTILINE)
TABLESPACE = re.compile(rb' TABLESPACE = (?:"(?:[^"]|"")+"|[^\s"]+);$')
LONGEST_HEADER = 1 << 16
CONNECT = re.compile(rb"^\\connect .*$\n?", re.MULTILINE)


class DatabaseRecovery(TableRecovery):
    """Brings back a whole database: loaded under a name of its own, renamed when it is complete and proved."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.name: str = self.plan["database"]
        self.staging_database: str = self.plan["staging_database"]

    def is_done(self) -> bool:
        admin = self.context.production.connect()
        try:
            return self._exists(admin, self.name)
        finally:
            admin.close()

    @staticmethod
    def _exists(admin: Any, name: str) -> bool:
        found = value(admin, "SELECT count(*) FROM pg_catalog.pg_database WHERE datname = %s", (name,))
        admin.commit()
        return bool(found)

    def _steps(self, dump: SchemaDump) -> Steps:
        side = self.context.side.connect(self.context.side_database)
        try:
            tables = {(item["catalog"], item["oid"]): item["relation"] for item in rows(side, INDEX_TABLES)}
        finally:
            side.close()
        return arrange_database(dump.entries, tables, [item["oid"] for item in self.loaded])

    def _open(self, admin: Any, dump: SchemaDump) -> Any:
        if self._exists(admin, self.name):
            self.context.database = self.name
            main = self.context.session()
            if not read_journal(main, self.context.staging):
                main.close()
                raise RecoveryError(
                    f"somebody made a database {quote_ident(self.name)} on {host_name()} in the meantime. It was left "
                    f"as it is; what was recovered so far is in the database {quote_ident(self.staging_database)}. "
                    "Rename or drop the new one, then run again with the same incident id."
                )
            return main
        return self._open_staging(admin, dump)

    def _open_staging(self, admin: Any, dump: SchemaDump) -> Any:
        """A session in the database that is loaded, which is made as the lost one was."""
        if not self._exists(admin, self.staging_database):
            script = dump.script([entry for entry in dump.entries if entry.description == "DATABASE"], "--create")
            begin = CREATE.search(script)
            if begin is None:
                raise RecoveryError("pg_dump wrote no CREATE DATABASE that can be read; nothing was changed")
            statement = script[begin.start() : script.index(b";\n", begin.start()) + 1]
            if admin.server_version < 150000:
                # Written by a newer pg_dump; these servers have no other provider.
                statement = statement.replace(b" LOCALE_PROVIDER = libc", b"")
            if self._is_without_home(admin):
                statement = TABLESPACE.sub(b";", statement)
            admin.autocommit = True
            execute(admin, CREATE.sub(f"CREATE DATABASE {quote_ident(self.staging_database)} ".encode(), statement, 1))
            admin.autocommit = False
        return self.context.session()

    def _is_without_home(self, admin: Any) -> bool:
        """Whether the database's own tablespace is gone from production."""
        gone = missing_names(admin, "pg_tablespace", "spcname", self.plan["missing_tablespaces"])
        admin.rollback()
        side = self.context.side.connect(self.context.side_database)
        try:
            return bool(rows(side, HOME_OF_DATABASE, (gone,)))
        finally:
            side.close()

    def _make_schemas(self, main: Any) -> None:
        side = self.context.side.connect(self.context.side_database)
        try:
            if value(side, "SELECT pg_catalog.to_regnamespace('public')") is None:
                execute(main, "DROP SCHEMA IF EXISTS public")
        finally:
            side.close()
        super()._make_schemas(main)

    def _make_early(self, main: Any, dump: SchemaDump, entries: Sequence[Entry]) -> None:
        attempt = Attempt(main, dump)
        make_early(main, lambda: self._owners(main), entries, attempt.make)
        tables = {item["oid"] for item in self.placed}
        for item in attempt.refused:
            if item.entry.oid in tables and item.entry.description == "TABLE":
                raise RecoveryError(
                    f"table {item.name} cannot be put back on {host_name()}: {item.reason}. Nothing was changed "
                    f"but an empty database {quote_ident(self.staging_database)}. Have it allowed, or run as a "
                    f"superuser, with the same incident id. What was refused: {item.command}"
                )
        self._note_refused(main, attempt)

    def _owners(self, main: Any) -> list[tuple[str, str]]:
        """Every schema with every role that may own something in it: nobody else is in this database."""
        schemas = rows(main, "SELECT nspname AS name FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_'")
        return [(schema["name"], role) for schema in schemas for role in self.context.roles]

    def _moving(self) -> list[Any]:
        return []

    def _publish(self, main: Any, dump: SchemaDump, steps: Steps) -> None:
        """One transaction with all that follows the rows; nobody else is in this database."""
        self._large_objects(main, dump)
        refresh = self._populated_views(steps)
        side = self.context.side.connect(self.context.side_database)
        try:
            sequences = fingerprint.sequences_of(side, [row["oid"] for row in rows(side, ALL_SEQUENCES)])
        finally:
            side.close()
        mark(main, self.plan["incident"])
        attempt = self._attempt(main, main, dump)
        room = room_for_owners(main, self._owners(main), self.context.roles)
        with without_default_privileges(main), room:
            attempt.make(steps.own)
        set_sequences(main, sequences)
        attempt.grant(steps.own)
        left_to_do = refresh_views(main, refresh)
        forced = rows(main, "SELECT oid::int8 FROM pg_catalog.pg_class WHERE relforcerowsecurity")
        show, hide = force_statements(main, [row["oid"] for row in forced], as_owner=True)
        for statement in show:
            execute(main, statement)
        attempt.make(steps.foreign_keys)
        for statement in hide:
            execute(main, statement)
        attempt.make(steps.after_foreign_keys)
        self._note_refused(main, attempt)
        self.context.journal(main, "published", {"left_to_do": left_to_do})
        main.commit()

    def _finish_keys(self, main: Any, steps: Steps, attempt_of: Callable[[], Attempt]) -> list[dict[str, Any]]:
        """All were made, and checked, before there was anybody to wait."""
        return []

    def _appear(self, admin: Any, main: Any, dump: SchemaDump) -> Any:
        """Give the database its name, with its settings and grants, in one transaction."""
        if self.context.database != self.name:
            main.close()
            entries = [entry for entry in dump.entries if is_of_database(entry)]
            mark(admin, self.plan["incident"])
            execute(admin, f"ALTER DATABASE {quote_ident(self.staging_database)} RENAME TO {quote_ident(self.name)}")
            attempt = self._give_properties(admin, dump, entries)
            admin.commit()
            main = self._named(attempt)
        return main

    def _give_properties(self, admin: Any, dump: SchemaDump, entries: Sequence[Entry]) -> Attempt:
        """Owner, settings, comment and grants of the database, which has its name already."""
        attempt = Attempt(admin, dump)
        attempt.apply(entries, lambda chosen: self._properties(dump.script(chosen, "--create")))
        attempt.apply(entries, lambda chosen: self._properties(dump.grants(chosen, "--create")))
        return attempt

    def _named(self, attempt: Attempt) -> Any:
        """A session in the database under its name, in whose journal stands what it did not get."""
        self.context.database = self.name
        main = self.context.session()
        mark(main, self.plan["incident"])
        self._note_refused(main, attempt)
        main.commit()
        return main

    @staticmethod
    def _properties(script: bytes) -> bytes:
        """A script about the database itself, without making it or connecting to it."""
        begin = CREATE.search(script)
        if begin is not None:
            script = script[: begin.start()] + script[script.index(b";\n", begin.start()) + 2 :]
        # After it, the settings come once more.
        return b"".join(without_our_settings(part) for part in CONNECT.split(script))

    def _large_objects(self, main: Any, dump: SchemaDump) -> None:
        """Large objects, by pg_dump and pg_restore, in one transaction of their own."""
        context = self.context
        side = context.side.connect(context.side_database)
        try:
            wanted = value(side, "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata")
        finally:
            side.close()
        have = value(main, "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata")
        main.commit()
        if not wanted or have:
            return
        archive = os.path.join(os.path.dirname(dump.path), "large_objects.dump")
        command = ["pg_dump", "--format=custom", "--compress=0", "--data-only", "--blobs", "--exclude-table-data=*.*"]
        context.side.run([*command, "--no-sync", "--no-password", "--file", archive], context.side_database)
        listing = context.side.run(["pg_restore", "--list", archive], context.side_database).decode()
        chosen = [line for line in listing.split("\n") if LARGE_OBJECT.match(line)]
        with open(f"{archive}.list", "w") as file:
            file.write("\n".join(chosen) + "\n")
        script = f"{archive}.sql"
        context.side.run(
            ["pg_restore", "--use-list", f"{archive}.list", "--file", f"{script}.whole", archive], context.side_database
        )
        # pg_restore itself would stop at a setting of its own that an older server does not know.
        with open(f"{script}.whole", "rb") as source, open(script, "wb") as target:
            target.write(without_our_settings(source.read(LONGEST_HEADER)))
            shutil.copyfileobj(source, target)
        quiet = ["--no-psqlrc", "--no-password", "--quiet", "--output", os.devnull, "--set=ON_ERROR_STOP=1"]
        ours = ["--single-transaction", "--command", mark_statement(self.plan["incident"])]
        context.production.run(["psql", *quiet, *ours, "--file", script], self.staging_database)
