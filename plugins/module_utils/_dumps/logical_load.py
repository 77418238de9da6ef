# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a logical backup into a database of a running server.

A new database, and one that replaces another, is loaded under a name of its own, in parallel, and gets its name when it
is complete. Into a database that exists everything goes in one transaction.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_archive import (
    DATA,
    POST_DATA,
    PRE_DATA,
    Entry,
    read_archive,
)
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_restore import DumpRestore
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_script import Dump
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical import major_number
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_catalogue import (
    RESTORED,
    check_files,
    read_facts,
    write_json,
)
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_needs import (
    is_of_database,
    make_roles,
    named_roles,
    rename_database,
    role_statements,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.cage import needs_standing_in
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import LOCK_NOT_AVAILABLE
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    MAX_BYTES,
    display_name,
    quote_ident,
    quote_literal,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server, host_name
from ansible_collections.dbre.recovery.plugins.module_utils._tables.event_triggers import (
    refuse_event_triggers,
    silence_event_triggers,
)

with contextlib.suppress(ImportError):  # connect() says so
    from psycopg2.extensions import make_dsn

MARK = "being restored by dbre.recovery"
# Longest wait for what others hold of a database that is used.
LOCK_TIMEOUT = "1s"
# How long sessions may take to end when a database is replaced, in seconds.
END_SESSIONS = 30

# What makes a database not empty: whatever is not of the system and not of an extension that came with template1.
OBJECTS = """
SELECT format('%s %I.%I', CASE relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' ELSE 'table' END, nspname, relname)
  AS object
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.oid >= 16384 AND nspname !~ '^pg_(toast|temp)'
UNION ALL SELECT format('function %I.%I', nspname, proname)
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = pronamespace WHERE p.oid >= 16384
UNION ALL SELECT format('type %I.%I', nspname, typname)
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = typnamespace
WHERE t.oid >= 16384 AND typtype IN ('d', 'e', 'r') UNION ALL
SELECT format('schema %I', nspname) FROM pg_catalog.pg_namespace WHERE oid >= 16384 AND nspname !~ '^pg_(toast_)?temp'
UNION ALL SELECT format('extension %I', extname) FROM pg_catalog.pg_extension WHERE oid >= 16384
UNION ALL SELECT format('large object %s', oid) FROM pg_catalog.pg_largeobject_metadata
ORDER BY 1
"""
SUPERUSERS = "SELECT rolname FROM pg_catalog.pg_roles WHERE rolsuper"
SAME_NAME = """
SELECT e->>0 AS schema, e->>1 AS name FROM json_array_elements(%s::json) e
WHERE to_regclass(format('%%I.%%I', e->>0, e->>1)) IS NOT NULL
"""


def short(name: str, ending: str) -> str:
    """``name`` with ``ending``, cut where PostgreSQL would cut it."""
    return name.encode()[: MAX_BYTES - len(ending)].decode(errors="ignore") + ending


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what the server refuses into RecoveryError, without the statement, which may hold a password."""
    try:
        yield
    except Exception as error:
        said = getattr(getattr(error, "diag", None), "message_primary", None)
        if said is None:
            raise
        raise RecoveryError(
            f"PostgreSQL on {host_name()} refused a step of the restore: {said}. No database was changed by it; "
            "mend the cause and run again.",
            sqlstate=getattr(error, "pgcode", None),
        ) from None


# Tables of which ANALYZE computes something.
COMPUTING = """
SELECT DISTINCT c.oid::int8 AS oid, c.oid::regclass::text AS name FROM pg_catalog.pg_class c
WHERE c.relkind = 'r' AND c.oid >= 16384 AND (
  EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND coalesce(i.indexprs, i.indpred) IS NOT NULL)
  OR EXISTS (SELECT FROM pg_catalog.pg_statistic_ext s WHERE s.stxrelid = c.oid))
"""


class LogicalLoad:
    """One dump, and the database that it is restored into."""

    def __init__(
        self,
        login: Login,
        *,
        dump: Optional[str] = None,
        globals_dump: Optional[str] = None,
        database: Optional[str] = None,
        existing: str = "empty",
        jobs: int = 0,
        bin_dir: Optional[str] = None,
    ) -> None:
        """``dump`` and ``globals_dump`` are paths; without a ``database`` it gets the name that it had.

        ``existing`` says what may become of a database that is there: it is ``empty``, gets more (``add``), or goes
        (``replace``). Raises RecoveryError for a dump of another kind.
        """
        self.port = login.get("login_port") or 5432
        self.existing = existing
        self._given_bin_dir = bin_dir
        # Empty where only roles are made.
        self.dump: dict[str, Any] = read_facts(os.path.realpath(dump)) if dump else {}
        self.globals = read_facts(os.path.realpath(globals_dump)) if globals_dump else None
        if self.globals and self.globals["kind"] != "globals":
            raise RecoveryError(f"{self.globals['path']} is a dump of {self.globals['database']}, not of the globals.")
        if self.dump and self.dump["kind"] == "globals":
            raise RecoveryError(
                f"{self.dump['path']} is a dump of the globals, which belong to no database. Nothing was changed. "
                "Name it with 'globals' instead of 'dump'."
            )
        self.needs: dict[str, Any] = self.dump["needs"] if self.dump else {}
        self.database: str = database or (self.dump["database"] if self.dump else "")
        self.staging = short(self.database, "_dbre_restoring")
        self.jobs: int = jobs or len(os.sched_getaffinity(0))
        self.server = Server(login, "", "dbre.recovery restore")
        self.roles: tuple[list[str], list[str]] = ([], [])
        self.seconds: dict[str, float] = {}

    # The plan

    def plan(self) -> dict[str, Any]:
        """What will be done, refusing what cannot work. Changes nothing."""
        for dump in filter(None, (self.dump, self.globals)):
            check_files(dump)
        with self._admin() as admin:
            self._check_version(admin)
            self._check_roles(admin)
            if not self.dump:
                return {"database": None, "how": None, "roles": self.roles[1], "kept_as": None}
            self._check_rest(admin)
            self._check_script(admin)
            how = self._how(admin)
            return {
                "database": self.database,
                "how": how,
                "dump": {key: self.dump[key] for key in ("path", "database", "kind", "format", "started", "bytes")},
                "roles": self.roles[1],
                "schemas": self._missing_schemas() if how in ("add", "empty") else self.needs["schemas"],
                "jobs": self._jobs(how),
                "kept_as": self._kept_name() if how == "replace" else None,
                "disk": self._disk(admin),
            }

    @contextlib.contextmanager
    def _admin(self) -> Iterator[Any]:
        """A session in a database that is not the target."""
        admin = self.server.connect("template1" if self.database == "postgres" else "postgres")
        try:
            with plain_errors():
                yield admin
        finally:
            admin.close()

    def _check_version(self, admin: Any) -> None:
        major = admin.server_version // 10000
        for dump in filter(None, (self.dump, self.globals)):
            for what, version in (("server", dump["server_version"]), ("pg_dump", dump["pg_dump_version"])):
                if major_number(version) > major:
                    raise RecoveryError(
                        f"the dump {dump['path']} was made with {what} {version}, but the server on {host_name()}, "
                        f"port {self.port}, is PostgreSQL {major}, which cannot take it. Nothing was "
                        f"changed. Restore it into PostgreSQL {major_number(version)} or later."
                    )
        self.server.bin_dir = find_bin_dir(major, self._given_bin_dir)

    def _check_roles(self, admin: Any) -> None:
        existing = {row["rolname"] for row in rows(admin, "SELECT rolname FROM pg_catalog.pg_roles")}
        missing = sorted(set(self.needs.get("roles", [])) - existing)
        if self.globals:
            with open(os.path.join(self.globals["path"], self.globals["dump"]), encoding="utf-8") as file:
                script = file.read()
            if not self.dump:
                missing = sorted(set(named_roles(script)) - existing)
            if missing:
                self.roles = role_statements(script, missing, existing)
        elif missing:
            raise RecoveryError(
                f"the dump {self.dump['path']} names roles that the server on {host_name()}, port "
                f"{self.port}, does not have: {', '.join(missing)}. Nothing was changed. Name a dump "
                f"of the globals with 'globals', which makes them with passwords and memberships, or make them: "
                f"{make_roles(missing)}",
                missing_roles=missing,
            )

    def _check_rest(self, admin: Any) -> None:
        spaces = {row["spcname"] for row in rows(admin, "SELECT spcname FROM pg_catalog.pg_tablespace")}
        lacking = [name for name in self.needs["tablespaces"] if name not in spaces]
        if lacking:
            commands = " ".join(f"CREATE TABLESPACE {display_name(None, n)} LOCATION '/...';" for n in lacking)
            raise RecoveryError(
                f"the dump needs tablespaces that the server on {host_name()} does not have: {', '.join(lacking)}. "
                f"Nothing was changed. Make them on directories of postgres' own: {commands}",
                missing_tablespaces=lacking,
            )
        available = {row["name"] for row in rows(admin, "SELECT name FROM pg_catalog.pg_available_extensions")}
        lacking = [name for name in self.needs["extensions"] if name not in available]
        if lacking:
            raise RecoveryError(
                f"the dump needs extensions that are not installed on {host_name()}: {', '.join(lacking)}. "
                "Nothing was changed. Install their packages, then run again.",
                missing_extensions=lacking,
            )

    def _check_script(self, admin: Any) -> None:
        """Refuse a script in which roles own code: it cannot be made but by a superuser, as whom that would run."""
        if self.dump["format"] != "plain":
            return
        ours = {row["rolname"] for row in rows(admin, SUPERUSERS)}
        others = [role for role in self.needs.get("code", []) if role not in ours]
        if others:
            raise RecoveryError(
                f"the dump {self.dump['path']} is a script, which only a superuser can run, and code in it (functions, "
                f"domains, tables that use them) belongs to {', '.join(others)}, who could make themselves superusers "
                "with it. Nothing was changed. Take a dump with 'format: custom' or 'directory': these are restored as "
                "those who own what is in them.",
                owners=others,
            )

    def _how(self, admin: Any) -> str:
        """``new``, ``empty``, ``add`` or ``replace``; ``done`` when this dump was restored there before."""
        oid = self._oid(admin, self.database)
        wish = self.existing
        if oid is None:
            return "new"
        if wish == "replace":
            return "replace"
        main = self.server.connect(self.database)
        try:
            objects = [row["object"] for row in rows(main, OBJECTS)]
            same = rows(main, SAME_NAME, (json.dumps(self.needs["relations"]),))
        finally:
            main.close()
        if not objects:
            return "empty"
        # What was restored and has lost a table since is not done.
        if len(same) == len(self.needs["relations"]) and self._restored_before(admin, oid):
            return "done"
        there = f"the database {display_name(None, self.database)} on {host_name()}, port {self.port},"
        if wish == "empty":
            raise RecoveryError(
                f"{there} is not empty: it has {', '.join(objects[:5])}{' ...' if len(objects) > 5 else ''} "
                f"({len(objects)} objects). Nothing was changed. Restore under another name with 'database', add to it "
                "with 'existing: add', or put the dump in its place with 'existing: replace', which keeps the present "
                f"one as {self._kept_name()}.",
                objects=objects[:100],
            )
        if same:
            names = [display_name(row["schema"], row["name"]) for row in same]
            raise RecoveryError(
                f"{there} already has {', '.join(names[:5])}{' ...' if len(names) > 5 else ''} of the dump's "
                f"{len(self.needs['relations'])} relations. Nothing was changed, since nothing is overwritten. Rename "
                "them first, or restore under another name and copy from there.",
                same=names,
            )
        return "add"

    @staticmethod
    def _oid(admin: Any, name: str) -> Optional[int]:
        found = value(admin, "SELECT oid::int8 FROM pg_catalog.pg_database WHERE datname = %s", (name,))
        admin.commit()
        return None if found is None else int(found)

    def _kept_name(self) -> str:
        return short(self.database, datetime.now(timezone.utc).strftime("_before_%Y%m%d%H%M%S"))

    def _missing_schemas(self) -> list[str]:
        main = self.server.connect(self.database)
        try:
            there = {row["nspname"] for row in rows(main, "SELECT nspname FROM pg_catalog.pg_namespace")}
        finally:
            main.close()
        return [name for name in self.needs["schemas"] if name not in there]

    def _jobs(self, how: str) -> int:
        return self.jobs if how in ("new", "replace") and self.dump["format"] != "plain" else 1

    def _disk(self, admin: Any) -> dict[str, Any]:
        """Free bytes where the server keeps its data; refuses when not even the dump would fit."""
        place = value(admin, "SELECT current_setting('data_directory')")
        free = shutil.disk_usage(place).free
        if free < self.dump["bytes"]:
            raise RecoveryError(
                f"{place} on {host_name()} has {free} bytes free, but the dump alone has {self.dump['bytes']}. "
                "Nothing was changed. Make room first."
            )
        return {"path": place, "free": free, "dump": self.dump["bytes"]}

    def loaded(self) -> Optional[int]:
        """Size in bytes of the database being loaded beside; None while there is none."""
        with self._admin() as admin:
            query = "SELECT pg_database_size(oid) FROM pg_catalog.pg_database WHERE datname = %s"
            found = value(admin, query, (self.staging,))
            return None if found is None else int(found)

    # Doing it

    def restore(self) -> dict[str, Any]:
        """Restore; ``{how, kept_as, seconds}``."""
        plan = self.plan()
        with self._admin() as admin:
            key = f"dbre.recovery restore {self.database}"
            if not value(admin, "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (key,)):
                raise RecoveryError(f"another run restores into {self.database} on {host_name()}. Nothing was changed.")
            admin.commit()
            if plan["how"] == "done":
                return plan
            if self.roles[0]:
                with self._measured("roles"):
                    for statement in self.roles[0]:
                        execute(admin, statement)
                    admin.commit()
            if plan["how"] in ("new", "replace"):
                self._restore_beside(admin, plan)
            elif plan["how"]:
                self._restore_into(plan)
            if self.dump:
                self._note(admin)
        return plan

    @contextlib.contextmanager
    def _measured(self, step: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[step] = round(time.monotonic() - start, 1)

    def _restore_beside(self, admin: Any, plan: dict[str, Any]) -> None:
        """Load a database under a name of its own and give it its name when it is complete."""
        old, staging = self.dump["database"], quote_ident(self.staging)
        admin.autocommit = True
        if self._oid(admin, self.staging) is not None:
            query = "SELECT shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database WHERE datname = %s"
            if value(admin, query, (self.staging,)) != MARK:
                raise RecoveryError(
                    f"there is a database {self.staging} on {host_name()}, which no restore has marked as its own. "
                    f"Nothing was changed. Rename it, or drop it if it is worth nothing: DROP DATABASE {staging};"
                )
            self._drop_staging(admin)
        create = rename_database(self.needs["create"], old, self.staging).rstrip().rstrip(";")
        # Nobody else changes what we look at before its rows come.
        execute(admin, f"{create} CONNECTION LIMIT = 0")
        try:
            execute(admin, f"COMMENT ON DATABASE {staging} IS {quote_literal(MARK)}")
            self._prepare(self.staging, plan["schemas"])
            if self.dump["format"] == "plain":
                with self._measured("load"):
                    self._run_script(self.staging)
                self._analyze()
            else:
                self._load(plan["jobs"])
        except BaseException:
            self._drop_staging(admin)
            raise
        admin.autocommit = False
        open_again = f"ALTER DATABASE {staging} CONNECTION LIMIT -1"
        statements = [f"COMMENT ON DATABASE {staging} IS NULL", open_again, *self._properties()]
        with self._measured("switch"):
            self._switch(admin, statements, plan["kept_as"])

    def _drop_staging(self, admin: Any) -> None:
        main = self.server.connect(self.staging)
        main.autocommit = True
        try:
            # A database with a subscription cannot be dropped; this one has never been enabled and has no slot.
            own = "subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())"
            for row in rows(main, f"SELECT subname FROM pg_catalog.pg_subscription WHERE {own}"):
                name = quote_ident(row["subname"])
                execute(main, f"ALTER SUBSCRIPTION {name} SET (slot_name = NONE)")
                execute(main, f"DROP SUBSCRIPTION {name}")
        finally:
            main.close()
        execute(admin, f"DROP DATABASE {quote_ident(self.staging)} WITH (FORCE)")

    def _prepare(self, database: str, schemas: list[str]) -> None:
        main = self.server.connect(database)
        try:
            if self.dump and self.dump["kind"] != "tables" and not self.needs["public"]:
                execute(main, "DROP SCHEMA public")
            for schema in schemas:
                execute(main, f"CREATE SCHEMA IF NOT EXISTS {quote_ident(schema)}")
            main.commit()
        finally:
            main.close()

    def _properties(self) -> list[str]:
        """Owner, settings, grants and comment of the dumped database, for the staging database."""
        if self.dump["kind"] == "tables":
            return []
        texts = [rename_database(text, self.dump["database"], self.staging) for text in self.needs["properties"]]
        return [f"ALTER DATABASE {quote_ident(self.staging)} OWNER TO {quote_ident(self.needs['owner'])}", *texts]

    def _switch(self, admin: Any, statements: list[str], kept_as: Optional[str]) -> None:
        """Give the staging database its name; the one that had it gets another in the same transaction."""
        staging, name = quote_ident(self.staging), quote_ident(self.database)
        if kept_as:
            execute(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            admin.commit()
        try:
            if kept_as:
                self._end_sessions(admin)
                execute(admin, f"ALTER DATABASE {name} RENAME TO {quote_ident(kept_as)}")
                execute(admin, f"ALTER DATABASE {quote_ident(kept_as)} ALLOW_CONNECTIONS true")
            for statement in statements:
                execute(admin, statement)
            execute(admin, f"ALTER DATABASE {staging} RENAME TO {name}")
            admin.commit()
        except BaseException:
            admin.rollback()
            if kept_as:
                execute(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
                admin.commit()
            raise

    def _end_sessions(self, admin: Any) -> None:
        query = "SELECT count(pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity WHERE datname = %s"
        for _look in range(END_SESSIONS * 10):
            ended = value(admin, query, (self.database,))
            admin.commit()
            if not ended:
                return
            time.sleep(0.1)
        raise RecoveryError(
            f"sessions in {self.database} on {host_name()} did not end within {END_SESSIONS} seconds. The database is "
            f"as it was; the restored one is complete under the name {self.staging}, until the next run drops it."
        )

    def _restore_into(self, plan: dict[str, Any]) -> None:
        """Restore into a database that exists, all or nothing."""
        main = self.server.connect(self.database)
        try:
            # Whoever wants a table of production that we wait for waits behind us.
            execute(main, f"SET SESSION lock_timeout = '{LOCK_TIMEOUT}'")
            main.commit()
            triggers = silence_event_triggers(main)
            refuse_event_triggers(main, triggers)
            for schema in plan["schemas"]:
                execute(main, f"CREATE SCHEMA {quote_ident(schema)}")
            if self.dump["format"] == "plain":
                main.commit()
                try:
                    with self._measured("load"):
                        self._run_script(self.database)
                except BaseException:
                    for schema in plan["schemas"]:
                        execute(main, f"DROP SCHEMA {quote_ident(schema)}")
                    main.commit()
                    raise
            else:
                with self._measured("load"), self._dump_restore(main) as (restore, entries):
                    self._load_items(restore, entries)
                    restore.event_triggers(entries[POST_DATA])
                main.commit()
        finally:
            main.close()

    def _load(self, jobs: int) -> None:
        """Load an archive into the staging database, with ``jobs`` sessions."""
        with self._dump_restore(None, jobs) as (restore, entries):
            with self._measured("load"):
                self._load_items(restore, entries, partial(self._pg_restore, jobs))
            self._analyze()
            restore.event_triggers(entries[POST_DATA])

    @contextlib.contextmanager
    def _dump_restore(
        self, connection: Optional[Any], jobs: int = 1
    ) -> Iterator[tuple[DumpRestore, dict[int, list[Entry]]]]:
        """What restores the dump, and its items by section; in the session that is given, or in ones of its own."""
        database = self.staging if connection is None else self.database
        archive = read_archive(os.path.join(self.dump["path"], self.dump["dump"]))
        entries: dict[int, list[Entry]] = {PRE_DATA: [], DATA: [], POST_DATA: []}
        for entry in archive.entries:
            if not is_of_database(entry):
                entries[entry.section].append(entry)
        with tempfile.TemporaryDirectory(prefix="dbre-restore-") as folder, self._explained(connection is not None):
            dump = Dump(archive, self.server.bin_dir, folder, self.server.environment(database))
            yield DumpRestore(dump, lambda: self.server.connect(database), jobs, connection), entries

    @staticmethod
    def _load_items(
        restore: DumpRestore,
        entries: Mapping[int, list[Entry]],
        load: Optional[Callable[[Sequence[Entry]], None]] = None,
    ) -> None:
        restore.definitions(entries[PRE_DATA])
        restore.rows(entries[DATA], load)
        restore.rest(entries[POST_DATA])
        restore.finish(entries[POST_DATA])

    def _analyze(self) -> None:
        with self._measured("analyze"):
            command = ["vacuumdb", "--analyze-only", "--quiet", f"--jobs={self.jobs}", "--no-password"]
            connection = self.server.connect(self.staging)
            try:
                # The server computes what is in their indexes with the rights of their owner.
                kept = [row["name"] for row in rows(connection, COMPUTING) if needs_standing_in(connection, row["oid"])]
                for name in kept:
                    execute(connection, f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")
                skip = ["--skip-locked"] if kept else []
                self.server.run([*command, *skip, make_dsn(dbname=self.staging)], self.staging)
            finally:
                connection.close()

    def _pg_restore(self, jobs: int, entries: Sequence[Entry]) -> None:
        """Load rows by pg_restore into the staging database."""
        with tempfile.NamedTemporaryFile("w", prefix="dbre-restore-") as chosen:
            chosen.writelines(f"{entry.dump_id};\n" for entry in entries)
            chosen.flush()
            path = os.path.join(self.dump["path"], self.dump["dump"])
            options = [
                "--exit-on-error",
                f"--jobs={jobs}",
                f"--dbname={make_dsn(dbname=self.staging)}",
                "-L",
                chosen.name,
            ]
            self.server.run(["pg_restore", "--no-password", *options, path], self.staging)

    def _run_script(self, database: str) -> None:
        path = os.path.join(self.dump["path"], self.dump["dump"])
        command = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "--single-transaction", f"--file={path}"]
        with self._explained(database == self.database):
            self.server.run([command[0], "--no-password", *command[1:]], database)

    @contextlib.contextmanager
    def _explained(self, there: bool) -> Iterator[None]:
        """Say of a failure what is left: of a database that was ``there``, or of one that is new."""
        try:
            with plain_errors():
                yield
        except RecoveryError as error:
            left = "is as it was" if there else "was not touched, and what had been loaded beside it is removed"
            hint = ""
            if error.details.get("sqlstate") == LOCK_NOT_AVAILABLE:
                hint = (
                    f" Others held for {LOCK_TIMEOUT} what it needs of a table that is there, and nobody was made to "
                    "wait longer. See pg_stat_activity for the oldest transaction, end it, and run again."
                )
            elif self.dump["kind"] == "tables":
                hint = (
                    " A dump of chosen tables holds neither types nor functions nor other tables that these refer to: "
                    "restore it into a database that has them, with 'existing: add'."
                )
            raise RecoveryError(
                f"restoring {self.dump['path']} failed: {error.msg} The database {self.database} {left}.{hint}",
                **error.details,
            ) from error

    # What was restored before

    def _identity(self, admin: Any, oid: int) -> dict[str, Any]:
        identifier = value(admin, "SELECT system_identifier::text FROM pg_catalog.pg_control_system()")
        return {"system_identifier": identifier, "oid": oid, "database": self.database}

    def _restored(self) -> list[dict[str, Any]]:
        try:
            with open(os.path.join(self.dump["path"], RESTORED), encoding="utf-8") as file:
                return list(json.load(file))
        except FileNotFoundError:
            return []

    def _restored_before(self, admin: Any, oid: int) -> bool:
        return self._identity(admin, oid) in self._restored()

    def _note(self, admin: Any) -> None:
        """Remember beside the dump what was made of it, so that a second run does nothing."""
        oid = self._oid(admin, self.database)
        if oid is not None:
            done = [*self._restored(), self._identity(admin, oid)]
            # A dump on read-only storage is restored all the same.
            with contextlib.suppress(OSError):
                write_json(os.path.join(self.dump["path"], RESTORED), done)
