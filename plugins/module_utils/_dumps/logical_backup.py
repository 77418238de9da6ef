# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take a logical backup: dump, verify, sum, put in its place, and only then remove what may go.

Runs in a module, and on hosts as the program of the timers: it needs the standard library and PostgreSQL's client
programs, nothing else.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NoReturn, Optional
from urllib.parse import quote

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import sync_directory
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_archive import data_sizes, read_archive
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_catalogue import (
    FACTS,
    SUMS,
    check_name,
    dump_id,
    expired,
    format_time,
    is_whole,
    locked,
    parse_time,
    read_dumps,
    remove,
    remove_partial,
    sum_files,
    write_catalogue,
    write_json,
)
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_needs import dump_needs
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import LAYOUTS, find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    parse_relation_list,
    quote_literal,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.settings import SAFE_SETTINGS, session_options

# A dump that waits for a lock longer than this fails, so that it is seen.
LOCK_TIMEOUT = "10min"
# What pg_dump and pg_dumpall write at the very end of a script (pg_backup_archiver.c, pg_dumpall.c).
COMPLETE = (b"-- PostgreSQL database dump complete", b"-- PostgreSQL database cluster dump complete")
TAIL = 4096

SERVER = """
SELECT json_build_object(
  'server_version', current_setting('server_version'), 'version_num', current_setting('server_version_num')::int,
  'public', to_regnamespace('public') IS NOT NULL,
  'lsn', CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)
"""
# A table brings its partitions and those that inherit from it: pg_dump --table would take the parent alone.
TABLES = """
WITH RECURSIVE asked AS (
  SELECT e->>'schema' AS schema, e->>'name' AS name, to_regclass(format('%I.%I', e->>'schema', e->>'name'))::oid AS oid
  FROM json_array_elements({names}::json) e
), tree AS (
  SELECT oid FROM asked WHERE oid IS NOT NULL
  UNION SELECT inhrelid FROM pg_catalog.pg_inherits JOIN tree ON inhparent = tree.oid
)
SELECT json_build_object(
  'missing', (SELECT coalesce(json_agg(json_build_array(schema, name)), '[]') FROM asked WHERE oid IS NULL),
  'found', (SELECT coalesce(json_agg(json_build_array(nspname, relname) ORDER BY nspname, relname), '[]') FROM tree
            JOIN pg_catalog.pg_class c USING (oid) JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace),
  'pointing', (SELECT coalesce(json_agg(DISTINCT format('%s (%I)', conrelid::regclass, conname)), '[]')
               FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conparentid = 0
               AND confrelid IN (SELECT oid FROM tree) AND conrelid NOT IN (SELECT oid FROM tree)))
"""


@dataclass(frozen=True)
class DumpSet:
    """What is dumped below ``path``, how, from which server, and how much of it is kept."""

    path: str
    database: Optional[str] = None
    globals: bool = False
    name: Optional[str] = None
    format: str = "custom"
    jobs: int = 1
    compress: Optional[str] = None
    schema_only: bool = False
    tables: Sequence[str] = ()
    exclude_tables: Sequence[str] = ()
    keep_days: Optional[float] = None
    keep_count: Optional[int] = None
    login_unix_socket: Optional[str] = None
    login_port: int = 5432
    login_user: Optional[str] = None
    bin_dir: Optional[str] = None


class LogicalBackup:
    """Dumps of one database, or of the globals, as a set below a base directory.

    Raises RecoveryError for what is asked and does not fit together.
    """

    def __init__(self, asked: DumpSet) -> None:
        self.asked = asked
        self.base = asked.path
        self.database: Optional[str] = None if asked.globals else asked.database
        self.what = "the globals" if self.database is None else f"database {self.database}"
        self.name = check_name(asked.name or self.database or "globals")
        self.folder = os.path.join(self.base, self.name)
        self.format = "plain" if self.database is None else asked.format
        self.host = socket.gethostname()
        self.bin_dir = ""
        self._control = "postgres"
        self._lock: Optional[int] = None
        self.kind = self._kind()

    def _kind(self) -> str:
        asked = self.asked
        if asked.globals:
            self._refuse_with("globals", "database", "tables", "exclude_tables", "schema_only")
            return "globals"
        if not self.database:
            raise RecoveryError("Neither a database nor 'globals: true' is given. Nothing was done.")
        if asked.jobs > 1 and self.format != "directory":
            raise RecoveryError(
                f"pg_dump works in parallel only with format 'directory', not {self.format!r} with {asked.jobs} "
                "jobs. Nothing was done. Choose that format, or one job."
            )
        if self.format == "plain":
            self._refuse_with("format plain", "compress")
        if asked.schema_only:
            self._refuse_with("schema_only", "exclude_tables")
        if asked.tables:
            self._refuse_with("tables", "exclude_tables")
            return "tables"
        return "schema" if asked.schema_only else "database"

    def _refuse_with(self, what: str, *others: str) -> None:
        given = [other for other in others if getattr(self.asked, other)]
        if given:
            raise RecoveryError(f"'{what}' does not go with {', '.join(given)}. Nothing was done. Leave one out.")

    # What there is, and what may go

    def dumps(self) -> list[dict[str, Any]]:
        """The set's dumps, the oldest first, each with ``whole``; refuses a set of another database or kind."""
        dumps = [{**dump, "whole": is_whole(dump)} for dump in read_dumps(self.base, self.name)]
        for dump in dumps:
            if (dump["database"], dump["kind"]) != (self.database, self.kind):
                theirs = "the globals" if dump["database"] is None else f"database {dump['database']}"
                raise RecoveryError(
                    f"the set {self.name} in {self.base} on {self.host} holds dumps of {theirs} (kind {dump['kind']}), "
                    f"not of {self.what} (kind {self.kind}). Nothing was done, since the retention of one would remove "
                    "the other's. Give this one another 'name'."
                )
        return dumps

    def recent(self, age: float, now: datetime) -> Optional[dict[str, Any]]:
        """The newest whole dump, if it was begun no longer ago than ``age`` seconds."""
        whole = [dump for dump in self.dumps() if dump["whole"]]
        if whole and (now - parse_time(whole[-1]["started"])).total_seconds() <= age:
            return whole[-1]
        return None

    def would_go(self, now: datetime) -> list[str]:
        """Ids of the dumps that would be removed once a new one is there."""
        coming = {"id": dump_id(now), "ended": format_time(now), "whole": True}
        return [dump["id"] for dump in self._expired([*self.dumps(), coming], now)]

    def _expired(self, dumps: Sequence[Mapping[str, Any]], now: datetime) -> list[Mapping[str, Any]]:
        return expired(dumps, now, self.asked.keep_days, self.asked.keep_count)

    def _safe(self) -> str:
        """What is still there, for messages."""
        with contextlib.suppress(RecoveryError):
            whole = [dump for dump in self.dumps() if dump["whole"]]
            if whole:
                return f"The last good dump is {whole[-1]['path']}, of {whole[-1]['started']}; nothing was removed."
        return "There is no good dump of it yet."

    def written(self) -> Optional[int]:
        """Bytes that the dump being taken has on disk; None while there is none."""
        places = glob.glob(os.path.join(glob.escape(self.folder), ".*.partial"))
        if not places:
            return None
        total = 0
        for place, _directories, names in os.walk(places[0]):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    total += os.path.getsize(os.path.join(place, name))
        return total

    # Taking one

    def take(self) -> dict[str, Any]:
        """Take a dump and let retention follow; ``{dump, removed}``. A failure leaves every earlier dump in place."""
        if os.geteuid() == 0:
            raise RecoveryError(
                f"A dump must not be taken as root on {self.host}: its files would be root's. Nothing was done. "
                "Run this as the operating system user of PostgreSQL (become_user: postgres)."
            )
        for directory in (self.base, self.folder):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        lock = os.path.join(self.base, ".lock-globals" if self.database is None else f".lock-db-{quote(self.database)}")
        with locked(lock, self.what) as self._lock:
            remove_partial(self.folder)
            self.dumps()
            dump = self._take()
            # The dump is there; whatever is wrong from here on, it is kept.
            gone = self._expired(self.dumps(), datetime.now(timezone.utc))
            for old in gone:
                remove(old)
            write_catalogue(self.base)
            return {"dump": dump, "removed": [old["id"] for old in gone]}

    def _take(self) -> dict[str, Any]:
        started = datetime.now(timezone.utc)
        while os.path.exists(os.path.join(self.folder, dump_id(started))):
            time.sleep(0.1)
            started = datetime.now(timezone.utc)
        final = os.path.join(self.folder, dump_id(started))
        partial = os.path.join(self.folder, f".{dump_id(started)}.partial")
        try:
            os.mkdir(partial, 0o700)
            facts = self._dump(partial, started)
            write_json(os.path.join(partial, FACTS), facts)
            os.rename(partial, final)
            sync_directory(self.folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return {**{key: value for key, value in facts.items() if key != "needs"}, "path": final}

    def _dump(self, folder: str, started: datetime) -> dict[str, Any]:
        clock = time.monotonic()
        server = self._server()
        self.bin_dir = find_bin_dir(server["version_num"] // 10000, self.asked.bin_dir)
        within = self.name + {"custom": ".dump", "directory": ".dir", "plain": ".sql"}[self.format]
        selection = self._selection()
        warnings = self._write(os.path.join(folder, within), selection)
        needs = {**self._verify(folder, within, selection), "public": server["public"]}
        files = sum_files(folder, within)
        with open(os.path.join(folder, SUMS), "w", encoding="utf-8", errors="surrogateescape") as sums:
            sums.writelines(f"{file['sha256']}  {file['name']}\n" for file in files)
            sums.flush()
            os.fsync(sums.fileno())
        return {
            "id": dump_id(started),
            "name": self.name,
            "database": self.database,
            "kind": self.kind,
            "format": self.format,
            "tables": [display_name(*table) for table in selection["tables"]],
            "without_rows": [display_name(*table) for table in selection["without_rows"]],
            "dump": within,
            "host": self.host,
            "port": self.asked.login_port,
            "started": format_time(started),
            "ended": format_time(datetime.now(timezone.utc)),
            "seconds": round(time.monotonic() - clock, 1),
            "bytes": sum(file["bytes"] for file in files),
            "server_version": server["server_version"],
            "pg_dump_version": self._run(["pg_dump", "--version"])[0].split()[2],
            "lsn": server["lsn"],
            "warnings": warnings,
            "files": files,
            "needs": needs,
        }

    def _server(self) -> Any:
        """What the server says of itself; a server may have no database of the usual name to ask for the globals in."""
        try:
            return self._ask(SERVER)
        except RecoveryError as error:
            if self.database is not None:
                raise
            self._control = "template1"
            with contextlib.suppress(RecoveryError):
                return self._ask(SERVER)
            raise error from None

    def _selection(self) -> dict[str, list[list[str]]]:
        """Tables asked for and those below them: the only ones in the dump, and those that are in it without rows."""
        found: dict[str, list[list[str]]] = {}
        for key, option in (("tables", "tables"), ("without_rows", "exclude_tables")):
            given = getattr(self.asked, option)
            names = parse_relation_list(given)
            asked = self._ask(TABLES.format(names=quote_literal(json.dumps(names)))) if names else {"found": []}
            if asked.get("missing"):
                listed = ", ".join(display_name(*name) for name in asked["missing"])
                raise RecoveryError(
                    f"{self.what} on {self.host}, port {self.asked.login_port}, has no table {listed}, which "
                    f"'{option}' names. Nothing was dumped. {self._safe()} Names are written as in SQL: "
                    'public.orders, "Sales"."Order Lines".'
                )
            found[key] = asked["found"]
            if key == "without_rows" and asked.get("pointing"):
                raise RecoveryError(
                    f"a dump of {self.what} on {self.host} without the rows of {', '.join(given)} could "
                    f"not be restored, because foreign keys of other tables point to them: "
                    f"{', '.join(asked['pointing'])}. Nothing was dumped. {self._safe()} Name those tables in "
                    f"'{option}' too, or leave the rows in."
                )
        return found

    def _write(self, path: str, selection: Mapping[str, Sequence[Sequence[str]]]) -> list[str]:
        """Have the dump written; returns the warnings of pg_dump."""
        if self.database is None:
            command = ["pg_dumpall", "--globals-only"]
        else:
            command = ["pg_dump", f"--format={self.format}", *self._options(selection)]
            if self.format == "directory":
                command.append(f"--jobs={self.asked.jobs}")
            if self.asked.compress:
                command.append(f"--compress={self.asked.compress}")
        return self._run([*command, "--no-password", f"--lock-wait-timeout={LOCK_TIMEOUT}", f"--file={path}"])[1]

    def _options(self, selection: Mapping[str, Sequence[Sequence[str]]]) -> list[str]:
        options = [f"--table={quote_name(*table)}" for table in selection["tables"]]
        options += [f"--exclude-table-data={quote_name(*table)}" for table in selection["without_rows"]]
        return options + (["--schema-only"] if self.asked.schema_only else [])

    def _verify(self, folder: str, within: str, selection: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse a dump that is not complete; returns what restoring it needs."""
        path = os.path.join(folder, within)
        if self.format == "plain":
            with open(path, "rb") as stream:
                stream.seek(max(0, os.path.getsize(path) - TAIL))
                if not any(line in COMPLETE for line in stream.read().splitlines()):
                    raise RecoveryError(
                        f"the dump of {self.what} on {self.host} does not end as a complete one does, although its "
                        f"program said nothing. It was not kept. {self._safe()}"
                    )
            if self.database is None:
                return {}
            # A script does not tell what it needs; its definitions as an archive do.
            path = os.path.join(folder, "definitions")
            options = [option for option in self._options(selection) if not option.startswith("--exclude")]
            self._run(["pg_dump", "--format=custom", "--schema-only", *options, "--no-password", f"--file={path}"])
        self._run(["pg_restore", "--list", path])
        archive = read_archive(path)
        data_sizes(archive)
        if self.format == "plain":
            os.unlink(path)
        return dump_needs(archive, self.kind)

    # The programs

    def _environment(self) -> dict[str, str]:
        wanted = {
            "PGHOST": self.asked.login_unix_socket,
            "PGPORT": self.asked.login_port,
            "PGUSER": self.asked.login_user,
            "PGDATABASE": self.database or self._control,
            "PGAPPNAME": f"dbre.recovery backup {self.name}",
            "PGCONNECT_TIMEOUT": 15,
            "PGOPTIONS": session_options(SAFE_SETTINGS),
            "LC_ALL": "C",
        }
        environment = {name: text for name, text in os.environ.items() if not name.startswith("PG")}
        return {**environment, **{name: str(text) for name, text in wanted.items() if text}}

    def _ask(self, query: str) -> Any:
        """The JSON value that a query gives, by psql."""
        command = ["psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "--no-password"]
        return json.loads(self._run(command, query, {"PGCLIENTENCODING": "UTF8"})[0])

    def _program(self, name: str) -> str:
        if self.bin_dir:
            return os.path.join(self.bin_dir, name)
        # Before the server's version is known: the newest, which speaks with every older server.
        places = [self.asked.bin_dir] if self.asked.bin_dir else []
        for layout in LAYOUTS:
            places += sorted(glob.glob(layout.format(major="*")), key=_number, reverse=True)
        paths = [os.path.join(place, name) for place in places]
        return next((path for path in paths if os.access(path, os.X_OK)), name)

    def _run(
        self, command: Sequence[str], text: str = "", environment: Optional[Mapping[str, str]] = None
    ) -> tuple[str, list[str]]:
        """Standard output of a program and the lines of its standard error; RecoveryError when it fails."""
        try:
            # The timers run this too, where there is no module and so no run_command.
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                [self._program(command[0]), *command[1:]],
                input=text.encode(),
                env={**self._environment(), **(environment or {})},
                capture_output=True,
                check=False,
                # pg_dump keeps the lock as long as it lives, even if this process is killed.
                pass_fds=() if self._lock is None else (self._lock,),
            )
        except FileNotFoundError as error:
            raise RecoveryError(
                f"{command[0]} is not installed on {self.host}. Nothing was dumped. {self._safe()} "
                "Install PostgreSQL's client programs, or name their directory with bin_dir "
                "(postgresql_logical_backup_bin_dir)."
            ) from error
        said = done.stderr.decode(errors="replace").strip()
        if done.returncode != 0:
            status = f"exit status {done.returncode}"
            if done.returncode < 0:
                status = f"killed by {signal.Signals(-done.returncode).name}"
            raise RecoveryError(
                f"{command[0]} of {self.what} on {self.host}, port {self.asked.login_port}, failed ({status}): "
                f"{said or 'it said nothing'}. What it had written was removed. {self._safe()}",
                rc=done.returncode,
            )
        return done.stdout.decode(errors="replace"), said.splitlines()


def _number(path: str) -> int:
    return int((re.findall(r"\d+", path) or ["0"])[-1])


@contextlib.contextmanager
def ended_by_signal() -> Iterator[None]:
    """Let SIGTERM end this process as an error would, so that what is half done is removed."""

    def stop(number: int, _frame: Any) -> NoReturn:
        raise RecoveryError(
            f"stopped by {signal.Signals(number).name}. The dump was not finished; earlier ones are safe."
        )

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: Sequence[str]) -> int:
    """The program of the timers: ``FILE JOB`` takes the dump that the job of that name in the JSON file describes."""
    file, job = arguments
    try:
        with open(file, encoding="utf-8") as stream:
            asked = pick(DumpSet, json.load(stream)[job])
        with ended_by_signal():
            done = LogicalBackup(asked).take()
    except KeyError:
        sys.stderr.write(f"FAILED: {file} on {socket.gethostname()} has no job {job!r}. Nothing was done.\n")
        return 1
    except (RecoveryError, OSError) as error:
        sys.stderr.write(f"FAILED: logical backup {job}: {error}\n")
        return 1
    dump = done["dump"]
    said = f"{dump['path']}: {dump['bytes']} bytes in {dump['seconds']} s, {len(done['removed'])} older removed"
    sys.stdout.write(f"{said}\n")
    return 0
