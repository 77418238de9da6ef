# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a side instance out of a dump: a new cluster in a cage, all definitions, the rows of what was lost."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import RecoveredInstance, restore_plan
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_archive import (
    Archive,
    Entry,
    data_sizes,
    read_archive,
)
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_restore import DumpRestore
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_script import Dump
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical import (
    Selection,
    bytes_done,
    check_locales,
    check_version,
    creation_time,
    database_properties,
    disk_needed,
    roles_named,
    select,
    tablespaces_named,
)
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_load import plain_errors
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_needs import is_of_database
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.shown import dump_shown
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    quote_ident,
    quote_literal,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.settings import (
    NO_LIBRARIES,
    SAFE_SETTINGS,
    session_options,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.beside import others_beside
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_config import (
    MIB,
    render_ident,
    tuning_settings,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import (
    MARKER,
    SideInstance,
    available_memory,
    boot_id,
    free_port,
    now,
    system_user,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import SideRecovery

with contextlib.suppress(ImportError):  # connect() says so
    from psycopg2.extensions import make_dsn

SOURCE = "dump"
# How long the server may take to start, in seconds; it has nothing to replay.
START_TIMEOUT = 120
# Control files of extensions: Debian, then Red Hat and PostgreSQL's own layout. Elsewhere pg_restore finds what lacks.
EXTENSION_PLACES = (
    "/usr/share/postgresql/{major}/extension",
    "{bin_dir}/../share/extension",
    "{bin_dir}/../share/postgresql/extension",
)
FINISHED = re.compile(r"^pg_restore: finished item (\d+) ", re.MULTILINE)
# No library of production's, no read-only default of the database, and for the rows no foreign key trigger.
SESSION = session_options({**SAFE_SETTINGS, **NO_LIBRARIES})
ROWS_OF_OTHERS = (
    "If a definition there needs rows of other tables, name no tables and set jobs to 1, so that all rows are restored "
    "in the dump's order."
)
ROWS_SESSION = f"{SESSION} -c session_replication_role=replica"


@dataclass(frozen=True)
class Asked:
    """The instance at ``path`` that is wanted of a dump; without ``relations`` and ``schemas`` it has them all."""

    path: str
    dump: str
    incident: str
    database: str
    relations: Sequence[str] = ()
    schemas: Sequence[str] = ()
    roles: Sequence[str] = ()
    tablespaces: Sequence[str] = ()
    client: Optional[Mapping[str, Any]] = None
    utc_offset: Optional[str] = None
    jobs: int = 0
    port: int = 0
    major_version: int = 0
    bin_dir: Optional[str] = None


class LogicalRestore:
    """One dump on this host and the instance that is, or will be, made from it at ``path``."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.side = SideInstance(asked.path)
        self.archive: Archive = read_archive(os.path.realpath(asked.dump))
        self.major: int = asked.major_version or self.archive.server_major
        self.bin_dir = find_bin_dir(self.major, asked.bin_dir)
        check_version(self.archive, self.major, self.side.host)
        self.selection: Selection = select(self.archive, asked.relations, asked.schemas)
        self.modified = os.stat(
            os.path.join(self.archive.path, "toc.dat") if self.archive.format == "directory" else self.archive.path
        ).st_mtime
        self.created: datetime = creation_time(self.archive, asked.utc_offset, self.modified)
        self.jobs: int = asked.jobs or len(os.sched_getaffinity(0))
        self.seconds: dict[str, float] = {}

    # The plan

    def identity(self) -> dict[str, Any]:
        """What must be the same for an instance made earlier to be the one asked for."""
        return {
            "source": SOURCE,
            "incident": self.asked.incident,
            "dump": self.archive.path,
            "dump_modified": self.modified,
            "database": self.asked.database,
            "loaded": sorted(display_name(table.namespace, table.tag) for table in self.selection.loaded),
        }

    def plan(self) -> dict[str, Any]:
        """Everything that will be done, refusing what cannot work. Changes nothing."""
        properties = database_properties(self.archive)
        check_locales(properties, self.side.host)
        self._check_extensions()
        earlier = self.check_earlier()
        disk = self._disk(new=earlier is None)
        roles, known = roles_named(self.archive), self.asked.roles
        sizes = data_sizes(self.archive)
        items = {entry.deps[0]: entry for entry in self.archive.entries if entry.desc == "TABLE DATA" and entry.deps}
        plan = {
            "dump": {
                "path": self.archive.path,
                "format": self.archive.format,
                "compression": self.archive.compression,
                "size": self.archive.size,
                "database": self.archive.database,
                "server_version": self.archive.server_version,
                "pg_dump_version": self.archive.dump_version,
                "created": self.created.isoformat(),
                "age_seconds": int((datetime.now(timezone.utc) - self.created).total_seconds()),
                "zone": "utc_offset" if self.asked.utc_offset else "of this host; a dump records none",
            },
            "precision": "Everything committed after the dump was begun is not in it.",
            "relations": [self._describe(entry) for entry in self.selection.relations],
            "tables_with_rows": [
                {**self._describe(table), "bytes_in_dump": sizes.get(items[table.dump_id].dump_id)}
                for table in self.selection.loaded
                if table.dump_id in items
            ],
            "whole_database": self.selection.whole,
            "left_out": sorted({f"{entry.desc} {entry.tag}" for entry in self.selection.left_out}),
            "disk": disk,
            "encoding": properties["encoding"],
            "lc_collate": properties["lc_collate"],
            "lc_ctype": properties["lc_ctype"],
            "roles_unknown": sorted(set(roles) - {*known, system_user()}) if known else None,
            "tablespaces": self._tablespaces(),
            "earlier": earlier["state"] if earlier else None,
            "jobs": self.jobs,
            "beside": others_beside(self.side),
            "path": self.side.path,
            "port": self.asked.port,
        }
        return restore_plan({**plan, "shown": dump_shown(plan)})

    @staticmethod
    def _describe(entry: Entry) -> dict[str, Any]:
        return {"schema": entry.namespace, "name": entry.tag, "type": entry.desc.lower()}

    def _tablespaces(self) -> list[str]:
        return sorted(set(tablespaces_named(self.archive)) | set(self.asked.tablespaces) - {"pg_default", "pg_global"})

    def _check_extensions(self) -> None:
        """Refuse when an extension the dump makes is not installed for these programs."""
        places = [place.format(bin_dir=self.bin_dir, major=self.major) for place in EXTENSION_PLACES]
        places = [place for place in places if os.path.isdir(place)]
        wanted = [entry.tag for entry in self.archive.entries if entry.desc == "EXTENSION"]
        missing = [
            name
            for name in wanted
            if places and not any(os.path.exists(os.path.join(place, f"{name}.control")) for place in places)
        ]
        if missing:
            raise RecoveryError(
                f"the dump {self.archive.path} needs extensions that {self.side.host} does not have in "
                f"{' or '.join(places)}: {', '.join(missing)}. Nothing was changed. Install them there, or use a host "
                "that has them.",
                missing_extensions=missing,
            )

    def _disk(self, new: bool) -> dict[str, Any]:
        place = self.side.path
        while not os.path.isdir(place):
            place = os.path.dirname(place)
        free = shutil.disk_usage(place).free
        need = disk_needed(self.archive, self.selection)
        if new and free < need["needed"]:
            raise RecoveryError(
                f"{place} on {self.side.host} has {free // MIB} MiB free, but the rows of this dump "
                f"({need['in_dump'] // MIB} MiB in it, {self.archive.compression} compression) may need "
                f"{need['needed'] // MIB} MiB. Nothing was changed. Make room, choose a path on another file system, "
                "or another host.",
                disk={"path": place, "free": free, **need},
            )
        return {"path": place, "free": free, "estimate": True, **need}

    # Making it

    def check_earlier(self) -> Optional[dict[str, Any]]:
        """Marker of what an earlier run made at the path; refuses an instance that is not ours to go on with."""
        marker = self.side.read_marker()
        if marker is None:
            if os.path.isdir(self.side.path) and os.listdir(self.side.path):
                raise RecoveryError(
                    f"{self.side.path} on {self.side.host} is not empty and holds no side instance. Nothing was "
                    "changed. Choose another path."
                )
            return None
        wanted = self.identity()
        differs = [f"{key} {marker.get(key)!r}" for key in wanted if marker.get(key) != wanted[key]]
        if differs:
            raise RecoveryError(
                f"{self.side.path} on {self.side.host} already holds a side instance of {', '.join(differs)}. Nothing "
                "was changed. Remove it (state absent) or choose another path.",
                differs=differs,
            )
        return marker

    def ensure(self) -> tuple[RecoveredInstance, dict[str, Any], bool]:
        """Make the instance, or bring an earlier one back to life; returns (instance, proof, changed)."""
        earlier = self.check_earlier()
        made_path = earlier["made_path"] if earlier else not os.path.isdir(self.side.path)
        os.makedirs(self.side.path, mode=0o700, exist_ok=True)
        if earlier is None:
            self.side.write_marker(self._new_marker(made_path))
        with self.side.locked():
            # Read under the lock: a run before this one may have gone on until it gave it to us.
            marker = self.side.marker()
            usable = marker["state"] == "restored" and marker["boot_id"] == boot_id()
            if not usable:
                self._make(self._new_marker(made_path))
            recovery = SideRecovery(self.side, START_TIMEOUT)
            proof, changed = recovery.promote(self.asked.client)
            return {**recovery.recovered_instance("promoted"), "own_oids": True}, proof, changed or not usable

    def _new_marker(self, made_path: bool) -> dict[str, Any]:
        return {
            **self.identity(),
            "state": "restoring",
            "created": now(),
            "made_path": made_path,
            "boot_id": boot_id(),
            "major_version": self.major,
            "bin_dir": self.bin_dir,
            "port": self.asked.port or free_port(),
            "superuser": system_user(),
            "control_database": "postgres",
            "settings": self._settings(),
            "plan": {"databases": []},
            # A dump has no position in WAL; it is what was committed when it was begun.
            "reached": {"lsn": None, "time": self.created.isoformat(), "timeline": None},
            "proof_of_pause": {"pause_state": None, "replay_lsn": None, "stopped": "made from a dump, replays nothing"},
        }

    def _make(self, marker: dict[str, Any]) -> None:
        """Make the cluster and restore into it, from the beginning: half a restore is worth nothing."""
        self._clear(marker)
        self.side.write_marker(marker)
        self._make_cluster(marker)
        recovery = SideRecovery(self.side, START_TIMEOUT)
        recovery.ensure_started()
        recovery.wait_open()
        (identifier,) = recovery.rows("SELECT system_identifier::text FROM pg_control_system()", (), "template1")
        with self._explained():
            self._restore(recovery)
        recovery.marker.update({"state": "restored", "system_identifier": identifier[0], "seconds": self.seconds})
        self.side.write_marker(recovery.marker)

    def _settings(self) -> dict[str, str]:
        tables = sum(entry.desc in ("TABLE", "INDEX", "CONSTRAINT", "SEQUENCE") for entry in self.archive.entries)
        return {
            **tuning_settings(self.major, available_memory(), 0),
            # A dump of the whole database locks every table at once.
            "max_locks_per_transaction": str(max(64, tables // 50)),
            "max_prepared_transactions": "0",
        }

    def _clear(self, marker: Mapping[str, Any]) -> None:
        """Remove what a killed run left: half a restore is worth nothing."""
        self.side.stop(marker)
        self._end_leftovers()
        for name in os.listdir(self.side.path):
            entry = self.side.below(name)
            if name in (MARKER, "lock.file"):
                continue
            if os.path.isdir(entry) and not os.path.islink(entry):
                shutil.rmtree(entry)
            else:
                os.unlink(entry)

    def _end_leftovers(self) -> None:
        """End programs of a killed run that still work below our path; the server is stopped already."""
        for _look in range(100):
            leftovers = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if self._is_leftover(pid)]
            if not leftovers:
                return
            for pid in leftovers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.05)
        raise RecoveryError(
            f"processes {', '.join(leftovers)} of a killed run do not end on {self.side.host}. Production is not "
            "concerned. Look at what they wait for, then run again."
        )

    def _is_leftover(self, pid: str) -> bool:
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                name = file.read().strip()
            place = os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            return False
        return name in ("initdb", "pg_restore", "postgres") and (place + "/").startswith(self.side.path + "/")

    def _make_cluster(self, marker: Mapping[str, Any]) -> None:
        for directory in ("run", "log", "items", "tablespaces"):
            os.mkdir(self.side.below(directory), mode=0o700)
        self._call(
            "initdb",
            [
                *("-D", self.side.data, "-U", marker["superuser"], "-E", "UTF8", "--locale=C", "--no-sync"),
                *("--auth-local=peer", "--auth-host=reject"),
            ],
        )
        with open(self.side.below("pg_ident.conf"), "w", encoding="utf-8") as file:
            file.write(render_ident(system_user(), marker["superuser"]))
        self.side.write_settings(marker)

    def _call(self, program: str, arguments: Sequence[str]) -> None:
        answer = self.side.call([os.path.join(self.bin_dir, program), *arguments])
        if answer.returncode != 0:
            raise RecoveryError(
                f"{program} failed on {self.side.host} with exit code {answer.returncode}: "
                f"{(answer.stderr or answer.stdout).strip()}. Production was not touched."
            )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Say of an item that cannot be made what is still safe and what helps."""
        try:
            with plain_errors():
                yield
        except RecoveryError as error:
            if "item" not in error.details:
                raise
            raise RecoveryError(f"{error.msg} Production was not touched. {ROWS_OF_OTHERS}", **error.details) from error

    def _restore(self, recovery: SideRecovery) -> None:
        self._execute(recovery, "template1", self._globals())
        # The dump makes the database under the name it had, with its locale, settings and grants.
        made_as = next(entry.tag for entry in self.archive.entries if entry.desc == "DATABASE")
        if made_as == "postgres":
            self._execute(recovery, "template1", ["DROP DATABASE postgres"])
        of_database = {entry.dump_id for entry in self.archive.entries if is_of_database(entry)}
        own = [item for item in self.selection.definitions if item in of_database]
        self._pg_restore("database", recovery.marker, own, ["-C", "-d", "template1"])
        database = self.asked.database
        if made_as != database:
            rename = f"ALTER DATABASE {quote_ident(made_as)} RENAME TO {quote_ident(database)}"
            self._execute(recovery, "template1", [rename])
            if made_as == "postgres":
                self._execute(recovery, "template1", ["CREATE DATABASE postgres"])
        restore = self._dump_restore(recovery)
        into = ["-d", make_dsn(dbname=database), "-j", str(self.jobs)]

        def load(entries: Sequence[Entry]) -> None:
            self._pg_restore("rows", recovery.marker, [entry.dump_id for entry in entries], into, ROWS_SESSION)

        with self._measured("definitions"):
            restore.definitions([e for e in restore.chosen(self.selection.definitions) if e.dump_id not in of_database])
        with self._measured("keys"):
            restore.rest(restore.chosen(self.selection.early))
        with self._measured("rows"):
            restore.rows(restore.chosen(self.selection.rows), load)
        late = restore.chosen(self.selection.late)
        with self._measured("indexes"):
            restore.rest(late)
            restore.finish(late)
        if self.selection.unread_views:
            # What pg_dump --binary-upgrade does: they count as filled, as they did, without reading tables left empty.
            names = ", ".join(
                f"({quote_literal(view.namespace)}, {quote_literal(view.tag)})" for view in self.selection.unread_views
            )
            statement = (
                "UPDATE pg_catalog.pg_class SET relispopulated = true FROM pg_catalog.pg_namespace n "
                f"WHERE n.oid = relnamespace AND relkind = 'm' AND (nspname, relname) IN ({names})"
            )
            self._execute(recovery, database, [statement])
        restore.event_triggers(late)

    def _dump_restore(self, recovery: SideRecovery) -> DumpRestore:
        def connect() -> Any:
            connection = recovery.session(self.asked.database)
            connection.autocommit = False
            return connection

        def tell(what: str, done: int, total: int) -> None:
            self.side.progress(what, done, total, "items")

        dump = Dump(self.archive, self.bin_dir, self.side.below("items"), self.side.environment())
        return DumpRestore(dump, connect, self.jobs, tell=tell)

    @contextlib.contextmanager
    def _measured(self, step: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[step] = round(time.monotonic() - started, 3)

    @staticmethod
    def _execute(recovery: SideRecovery, database: str, statements: Sequence[str]) -> None:
        for statement in statements:
            recovery.rows(statement.replace("%", "%%"), (), database)

    def _globals(self) -> list[str]:
        """Statements that make every role and tablespace that production or the dump knows."""
        roles = {**dict.fromkeys(self.asked.roles, False), **roles_named(self.archive)}
        statements = [
            f"CREATE ROLE {quote_ident(name)} NOLOGIN{' SUPERUSER' if must_be_superuser else ''}"
            for name, must_be_superuser in roles.items()
            if name != system_user() and not name.startswith("pg_")
        ]
        for number, name in enumerate(self._tablespaces()):
            directory = os.path.join(self.side.tablespaces, str(number))
            os.mkdir(directory, mode=0o700)
            statements.append(f"CREATE TABLESPACE {quote_ident(name)} LOCATION {quote_literal(directory)}")
        return statements

    def _pg_restore(
        self,
        step: str,
        marker: Mapping[str, Any],
        items: Sequence[int],
        options: Sequence[str],
        session: str = SESSION,
    ) -> None:
        """Restore the items in the order given; any error ends it."""
        if not items:
            return
        chosen, log = self.side.below(f"{step}.list"), self.side.below("log", f"{step}.log")
        with open(chosen, "w", encoding="ascii") as file:
            file.writelines(f"{dump_id};\n" for dump_id in items)
        argv = [
            *(os.path.join(self.bin_dir, "pg_restore"), "-v", "--exit-on-error", "-L", chosen),
            *("-h", self.side.run_dir, "-p", str(marker["port"]), "-U", marker["superuser"], "-w"),
            *options,
            self.archive.path,
        ]
        with open(log, "wb") as output:
            # Its log is followed while it works; a module's run_command would wait for the end.
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                argv,
                env={**self.side.environment(), "PGOPTIONS": session},
                cwd=self.side.path,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            try:
                self._follow(process, step, items, log)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        if process.returncode != 0:
            raise self._failure(step, log, process.returncode)

    def _follow(self, process: subprocess.Popen[bytes], step: str, items: Sequence[int], log: str) -> None:
        """Wait for the end, saying how far it is: in bytes of the dump for rows, else in items."""
        sizes = data_sizes(self.archive) if step == "rows" else {}
        total = sum(sizes.get(item) or 0 for item in items)
        while True:
            try:
                process.wait(timeout=1)
                return
            except subprocess.TimeoutExpired:
                with open(log, encoding="utf-8", errors="replace") as file:
                    done = [int(number) for number in FINISHED.findall(file.read())]
                if total:
                    read = bytes_done(self.archive, items, done, open_files(process.pid))
                    self.side.progress("reading rows", read, total, "bytes")
                else:
                    self.side.progress(f"restoring {step}", len(done), len(items), "items")

    def _failure(self, step: str, log: str, code: int) -> RecoveryError:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
        starts = [number for number, line in enumerate(lines) if re.match(r"pg_restore: (?:error|from TOC)", line)]
        said = "\n".join(lines[starts[0] : starts[0] + 8]) if starts else "\n".join(lines[-5:])
        return RecoveryError(
            f"pg_restore of {self.archive.path} failed on {self.side.host} while restoring {step} (exit code {code}): "
            f"{said.strip()}\nProduction was not touched. The whole log is {log}. {ROWS_OF_OTHERS}",
            step=step,
            log=log,
        )


def open_files(pid: int) -> list[tuple[str, int]]:
    """(file, offset) of every regular file that a process and its children have open; what just ended has none."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
                parent = int(file.read().rsplit(")", 1)[1].split()[1])
            if pid not in (parent, int(process)):
                continue
            for number in os.listdir(f"/proc/{process}/fd"):
                name = os.readlink(f"/proc/{process}/fd/{number}")
                if name.startswith("/"):
                    with open(f"/proc/{process}/fdinfo/{number}", encoding="ascii") as file:
                        found.append((name, int(file.readline().split()[1])))
    return found
