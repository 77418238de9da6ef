# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small production in one folder: PostgreSQL with data checksums, pgBackRest with a local repository, archiving on.

Nothing outside the folder is written. The servers listen on a Unix socket in the folder only, and run as the user
who started this; as root, who may not run PostgreSQL, they run as the operating system user ``postgres``.
"""

from __future__ import annotations

import glob
import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import psycopg2

MARKER = ".dbre-recovery-folder"
STANZA = "main"


class ProductionError(Exception):
    """What went wrong, in words for the person at the terminal."""


def newest_bin_dir() -> str:
    """Directory with the programs of the newest PostgreSQL server installed here."""
    places = glob.glob("/usr/lib/postgresql/*/bin/initdb") + glob.glob("/usr/pgsql-*/bin/initdb")
    if not places:
        raise ProductionError("no PostgreSQL server found in /usr/lib/postgresql or /usr/pgsql-*: install one")
    return os.path.dirname(max(places, key=lambda place: int(re.findall(r"\d+", place)[0])))


def free_port() -> int:
    """A TCP port nobody listens on. Only the socket's file name carries it, but tools may look at the port, too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Production:
    """One PostgreSQL server with its pgBackRest repository, everything below ``folder``.

    ``superuser`` is what initdb makes, named like the operating system user if nothing is said; pgBackRest goes to
    ``control_database``.
    """

    def __init__(
        self, folder: Path, *, port: Optional[int] = None, superuser: str = "", control_database: str = "postgres"
    ) -> None:
        self.folder = folder
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self.superuser = superuser or self.user
        self.control_database = control_database
        self.bin_dir = newest_bin_dir()
        self.major = int(re.findall(r"\d+", self.bin_dir)[0])
        self.port = port or free_port()
        self.data = folder / "data"
        self.repository = folder / "repository"
        self.socket_dir = folder / "run"
        self.log = folder / "log"
        self.pgbackrest_config = folder / "pgbackrest.conf"

    # Running programs

    def run(self, *command: object, env: Optional[Mapping[str, str]] = None, check: bool = True) -> str:
        """Run a program as the user of the servers; its standard output. Raises ProductionError with its last words."""
        arguments = [str(part) for part in command]
        done = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self._environment(env),
            check=False,
            **self._as_user(),
        )
        if check and done.returncode != 0:
            words = (done.stderr.strip() or done.stdout.strip())[-2000:]
            raise ProductionError(f"{' '.join(arguments)} ended with {done.returncode}:\n{words}")
        return done.stdout

    def _as_user(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        user = pwd.getpwnam(self.user)
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def _environment(self, more: Optional[Mapping[str, str]]) -> dict[str, str]:
        """No PGHOST, PGPORT or PGBACKREST_ setting of the visitor leads our programs elsewhere."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
        return {**kept, "HOME": str(self.folder), "LC_ALL": "C.UTF-8", **(more or {})}

    def program(self, name: str) -> str:
        return f"{self.bin_dir}/{name}"

    def pgbackrest(self, command: str, *options: str) -> str:
        return self.run("pgbackrest", f"--config={self.pgbackrest_config}", f"--stanza={STANZA}", *options, command)

    def pgbackrest_version(self) -> str:
        return self.run("pgbackrest", "version").strip()

    def connect(self, dbname: str, user: Optional[str] = None) -> Any:
        """An autocommitting psycopg2 connection through the socket in the folder."""
        connection = psycopg2.connect(
            host=str(self.socket_dir), port=self.port, dbname=dbname, user=user or self.superuser, connect_timeout=10
        )
        connection.autocommit = True
        return connection

    def query(self, dbname: str, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        connection = self.connect(dbname)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, values or None)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def psql_file(self, dbname: str, path: Path) -> None:
        """Run a file of SQL in one transaction."""
        with self.connect(dbname) as connection, connection.cursor() as cursor:
            cursor.execute(path.read_text())
        connection.close()

    def schema_dump(self, dbname: str) -> list[str]:
        """``pg_dump --schema-only`` of the whole database, without the random key newer versions print."""
        text = self.run(
            self.program("pg_dump"),
            "-h",
            self.socket_dir,
            "-p",
            self.port,
            "-U",
            self.superuser,
            "--schema-only",
            dbname,
        )
        return [line for line in text.splitlines() if not re.match(r"\\(un)?restrict ", line)]

    # Life of the production

    def create(
        self, settings: Optional[Mapping[str, str]] = None, repository: Optional[Mapping[str, str]] = None
    ) -> None:
        """Make folder, server and stanza. ``settings`` are for postgresql.conf, ``repository`` for [global]."""
        self.make_folder()
        for path in (self.repository, self.socket_dir, self.log, self.folder / "spool", self.folder / "lock"):
            self.run("mkdir", "-m", "0700", path)
        self.run(
            self.program("initdb"), "--pgdata", self.data, "--username", self.superuser, "--data-checksums",
            "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync",
        )  # fmt: skip
        self._write(self.data / "postgresql.conf", self._postgresql_conf(settings or {}), append=True)
        # The socket's directory belongs to one user and is closed to all others: that is the lock on this door.
        self._write(self.data / "pg_hba.conf", "local all all trust\nlocal replication all trust\n")
        self._write(self.pgbackrest_config, self._pgbackrest_conf(repository or {}))
        self.pgbackrest_config.chmod(0o600)
        self.start()
        self.pgbackrest("stanza-create")

    def make_folder(self) -> None:
        """An empty folder of our own; what an earlier run left is cleared, what anybody else made is not touched."""
        self.destroy()
        self.folder.mkdir(parents=True, mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(self.folder, self.user)
        (self.folder / MARKER).write_text("Made by dbre.recovery; removed with everything in it.\n")

    def _write(self, path: Path, text: str, *, append: bool = False) -> None:
        with path.open("a" if append else "w") as file:
            file.write(text)
        if os.geteuid() == 0:
            shutil.chown(path, self.user, pwd.getpwnam(self.user).pw_gid)

    def _postgresql_conf(self, settings: Mapping[str, str]) -> str:
        push = f"pgbackrest --config={self.pgbackrest_config} --stanza={STANZA} archive-push %p"
        all_settings = {
            "listen_addresses": "",
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_dir),
            "unix_socket_permissions": "0700",
            "wal_level": "replica",
            "archive_mode": "on",
            "archive_command": push,
            "archive_timeout": "60",
            **settings,
        }
        return "".join(f"{name} = '{value}'\n" for name, value in all_settings.items())

    def _pgbackrest_conf(self, repository: Mapping[str, str]) -> str:
        options = {
            "repo1-path": str(self.repository),
            "repo1-retention-full": "2",
            "compress-type": "zst",
            "start-fast": "y",
            "log-path": str(self.log),
            "lock-path": str(self.folder / "lock"),
            "spool-path": str(self.folder / "spool"),
            "log-level-console": "warn",
            **repository,
        }
        instance = {
            "pg1-path": str(self.data),
            "pg1-port": str(self.port),
            "pg1-socket-path": str(self.socket_dir),
            "pg1-user": self.superuser,
            "pg1-database": self.control_database,
        }
        sections = (("global", options), (STANZA, instance))
        return "\n".join(
            f"[{name}]\n" + "".join(f"{option}={value}\n" for option, value in section.items())
            for name, section in sections
        )

    def start(self) -> None:
        self.run(self.program("pg_ctl"), "start", "-w", "-D", self.data, "-l", self.log / "postgresql.log")

    def stop(self, mode: str = "fast") -> None:
        if (self.data / "postmaster.pid").exists():
            self.run(self.program("pg_ctl"), "stop", "-w", "-m", mode, "-D", self.data)

    def backup(self) -> None:
        """A full backup; pgBackRest itself waits until the WAL it needs is archived."""
        self.pgbackrest("backup", "--type=full", f"--process-max={os.cpu_count() or 1}")

    def destroy(self) -> None:
        """Stop every server below the folder and remove the folder. A folder that is not ours is left alone."""
        if not self.folder.exists():
            return
        owner = self.folder.stat().st_uid
        if not (self.folder / MARKER).exists() or owner not in (os.geteuid(), pwd.getpwnam(self.user).pw_uid):
            raise ProductionError(f"{self.folder} exists and was not made by this program: remove or rename it")
        for pid_file in self.folder.glob("**/postmaster.pid"):
            self.run(self.program("pg_ctl"), "stop", "-w", "-m", "immediate", "-D", pid_file.parent, check=False)
        for _attempt in range(50):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                return
            time.sleep(0.1)  # a last archive-push may be writing
        raise ProductionError(f"cannot remove {self.folder}: a program still writes there")

    # For Ansible

    def inventory(self) -> dict[str, Any]:
        """The inventory that describes this production: one host, reached without SSH."""
        root = os.geteuid() == 0
        host: dict[str, Any] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "/usr/bin/python3",
            "dbre_become": root,
            "postgresql_version": self.major,
            "postgresql_port": self.port,
            "postgresql_socket_dir": str(self.socket_dir),
            "postgresql_user": self.user,
            "postgresql_superuser": self.superuser,
            "postgresql_bin_dir": self.bin_dir,
            "postgresql_data_dir": str(self.data),
            "pgbackrest_stanza": STANZA,
            "pgbackrest_config_path": str(self.pgbackrest_config),
            "dr_side_path": str(self.folder / "side"),
            "postgresql_corruption_evidence_path": str(self.folder / "evidence"),
            "pgbackrest_changes_path": str(self.folder / "changes"),
        }
        if root and shutil.which("sudo") is None:
            host["ansible_become_method"] = "su"
        return {"all": {"children": {"primary": {"hosts": {"production": host}}}}}
