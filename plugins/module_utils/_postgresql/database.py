# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import re
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql import fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.load import Context
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.plan import read_journal
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.publish import (
    Steps,
    arrange_database,
    is_of_database,
    set_sequences,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.recover import TableRecovery
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import execute, host_name, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.toc import SchemaDump

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
        if not self._exists(admin, self.staging_database):
            script = dump.script([entry for entry in dump.entries if entry.description == "DATABASE"], "--create")
            begin = CREATE.search(script)
            if begin is None:
                raise RecoveryError("pg_dump wrote no CREATE DATABASE that can be read; nothing was changed")
            statement = script[begin.start() : script.index(b";\n", begin.start()) + 1]
            admin.autocommit = True
            execute(admin, CREATE.sub(f"CREATE DATABASE {quote_ident(self.staging_database)} ".encode(), statement, 1))
            admin.autocommit = False
        return self.context.session()

    def _stage(self, main: Any, dump: SchemaDump, steps: Steps) -> None:
        side = self.context.side.connect(self.context.side_database)
        try:
            if value(side, "SELECT pg_catalog.to_regnamespace('public')") is None:
                execute(main, "DROP SCHEMA IF EXISTS public")
        finally:
            side.close()
        super()._stage(main, dump, steps)

    def _moving(self) -> list[Any]:
        return []

    def _publish(self, main: Any, dump: SchemaDump, steps: Steps) -> None:
        """One transaction with all that follows the rows; nobody else is in this database."""
        self._large_objects(main, dump)
        scripts = [dump.script(part) for part in (steps.own, steps.foreign_keys, steps.after_foreign_keys)]
        refresh = self._populated_views(steps)
        side = self.context.side.connect(self.context.side_database)
        try:
            sequences = fingerprint.sequences_of(side, [row["oid"] for row in rows(side, ALL_SEQUENCES)])
        finally:
            side.close()
        for view in ["", *refresh]:
            if view:
                execute(main, f"REFRESH MATERIALIZED VIEW {view}")
            else:
                execute(main, scripts[0])
        for script in scripts[1:]:
            if script:
                execute(main, script)
        set_sequences(main, sequences)
        self.context.journal(main, "published", {"left_to_do": []})
        main.commit()

    def _appear(self, admin: Any, main: Any, dump: SchemaDump) -> Any:
        """Give the database its name, with its settings and grants, in one transaction."""
        if self.context.database != self.name:
            main.close()
            script = dump.script([entry for entry in dump.entries if is_of_database(entry)], "--create")
            begin = CREATE.search(script)
            if begin is not None:
                script = script[: begin.start()] + script[script.index(b";\n", begin.start()) + 2 :]
            execute(admin, f"ALTER DATABASE {quote_ident(self.staging_database)} RENAME TO {quote_ident(self.name)}")
            execute(admin, CONNECT.sub(b"", script))
            admin.commit()
            self.context.database = self.name
            main = self.context.session()
        return main

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
        command = ["pg_dump", "--format=custom", "--compress=0", "--data-only", "--blobs", "--exclude-table-data=*"]
        context.side.run([*command, "--no-sync", "--no-password", "--file", archive], context.side_database)
        listing = context.side.run(["pg_restore", "--list", archive], context.side_database).decode()
        chosen = [line for line in listing.splitlines() if LARGE_OBJECT.match(line)]
        with open(f"{archive}.list", "w") as file:
            file.write("\n".join(chosen) + "\n")
        context.production.run(
            [
                "pg_restore",
                "--single-transaction",
                "--exit-on-error",
                "--use-list",
                f"{archive}.list",
                "--dbname",
                self.staging_database,
                archive,
            ],
            self.staging_database,
        )


def make_recovery(context: Context) -> TableRecovery:
    """The recovery a plan asks for."""
    return DatabaseRecovery(context) if context.plan["staging_database"] else TableRecovery(context)
