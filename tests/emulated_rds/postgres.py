"""One real PostgreSQL server below one directory, set up as RDS sets up its servers, and the archive of its backups."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import pwd
import re
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

import psycopg2
from psycopg2 import sql

from .tls import Authority

# What RDS sets itself and lets nobody change, here with the values a small throw-away server wants.
FIXED = {
    "archive_mode": "on",
    "archive_timeout": "30",
    "cluster_name": "rds",
    "default_text_search_config": "pg_catalog.english",
    "fsync": "off",
    "full_page_writes": "on",
    "hba_file": "",
    "ident_file": "",
    "data_directory": "",
    "external_pid_file": "",
    "listen_addresses": "",
    "log_destination": "stderr",
    "log_directory": "",
    "log_filename": "postgresql.log.%Y-%m-%d-%H",
    "log_line_prefix": "%t:%r:%u@%d:[%p]:",
    "log_rotation_age": "60",
    "log_rotation_size": "0",
    "logging_collector": "on",
    "max_wal_senders": "20",
    "port": "",
    "restart_after_crash": "on",
    "shared_buffers": "16MB",
    "ssl": "on",
    "ssl_cert_file": "",
    "ssl_key_file": "",
    "unix_socket_directories": "",
    "unix_socket_permissions": "0700",
    "wal_keep_size": "64MB",
    "wal_retrieve_retry_interval": "200ms",
}

# Everybody comes over TLS with a password (rds.force_ssl), except RDS itself, over its own socket.
HBA = """\
local all rdsadmin peer map=rds
local replication rdsadmin peer map=rds
host rdsadmin all all reject
host all rdsadmin all reject
hostssl all all 127.0.0.0/8 scram-sha-256
"""

HEARTBEAT = """\
INSERT INTO rds_heartbeat2 AS beat VALUES (1, 1)
ON CONFLICT (id) DO UPDATE SET value = beat.value + 1
"""


class PostgresError(Exception):
    """A PostgreSQL program failed; the message is what it said."""


def utcnow() -> datetime:
    return datetime.now(timezone.utc)


def address(*name: object) -> str:
    """The loopback address that stands for the DNS name AWS derives from an identifier.

    All of 127.0.0.0/8 is loopback on Linux. An address follows the name alone, as a DNS name does.
    """
    digest = hashlib.sha256("/".join(str(part) for part in name).encode()).digest()
    return str(ipaddress.IPv4Address(bytes([127, 1 + digest[0] % 254, digest[1], 1 + digest[2] % 254])))


class Programs:
    """The programs of one PostgreSQL version and the system user that runs them (never root)."""

    def __init__(self, bin_dir: Path, user: str) -> None:
        self.bin_dir, self.user = bin_dir, user
        found = pwd.getpwnam(user)
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._identity = {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
        self._owner = found

    def run(self, program: str, *arguments: object) -> str:
        path = self.bin_dir / program if (self.bin_dir / program).exists() else Path(f"/bin/{program}")
        done = subprocess.run(
            [str(path), *(str(argument) for argument in arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            check=False,
            **self._identity,
        )
        if done.returncode:
            raise PostgresError(f"{program}: {done.stdout.strip()}")
        return done.stdout

    def own(self, path: Path, mode: int = 0o700) -> Path:
        """Give a file or directory to the system user."""
        path.chmod(mode)
        os.chown(path, self._owner.pw_uid, self._owner.pw_gid)
        return path

    def directory(self, path: Path) -> Path:
        """Make a directory that the servers can reach and write."""
        for part in [*reversed(path.parents), path]:
            if not part.exists():
                part.mkdir()
                self.own(part)
        return path

    def copy(self, source: Path, target: Path) -> None:
        """Copy a directory, by sharing blocks where the file system can."""
        self.directory(target.parent)
        self.run("cp", "--archive", "--reflink=auto", source, target)

    @cached_property
    def version(self) -> str:
        """As RDS writes it: ``17.4``."""
        said = self.run("postgres", "--version")
        return re.findall(r"\d+\.\d+|\d+", said)[0]

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    @cached_property
    def settings(self) -> dict[str, tuple[str, str, str]]:
        """Every setting the server knows: name -> (context, type, description)."""
        rows = (line.split("\t") for line in self.run("postgres", "--describe-config").splitlines())
        return {row[0]: (row[1], row[3], row[-2]) for row in rows if len(row) > 7}


@dataclass
class Base:
    """A base backup; ``finished`` is the first moment to which it can be brought."""

    path: Path
    finished: datetime


@dataclass
class Archive:
    """The automated backups of one instance or cluster: base backups and WAL, what point-in-time recovery needs.

    ``archived`` is the time of the last heartbeat whose WAL is here: every commit up to it is in the archive.
    """

    programs: Programs
    path: Path
    bases: list[Base] = field(default_factory=list)
    archived: Optional[datetime] = None

    @property
    def wal(self) -> Path:
        return self.path / "wal"

    def make(self) -> None:
        self.programs.directory(self.wal)

    def add_base(self, server: Server) -> None:
        path = self.path / "base" / uuid.uuid4().hex[:8]
        server.base_backup(path)
        self.bases.append(Base(path, utcnow()))

    @property
    def earliest(self) -> Optional[datetime]:
        """In whole seconds, up: RDS restores to seconds."""
        if not self.bases:
            return None
        return (self.bases[0].finished + timedelta(seconds=0.999999)).replace(microsecond=0)

    def base_before(self, moment: datetime) -> Base:
        return [base for base in self.bases if base.finished <= moment][-1]

    def follow(self, source: Archive) -> None:
        """Become a copy of another archive, as the replication of automated backups keeps one."""
        self.make()
        moment = source.archived
        for base in source.bases[len(self.bases) :]:
            target = self.path / "base" / base.path.name
            self.programs.copy(base.path, target)
            self.bases.append(Base(target, base.finished))
        for segment in sorted(source.wal.iterdir()):
            if not segment.name.endswith(".part") and not (self.wal / segment.name).exists():
                part = self.wal / f"{segment.name}.part"
                self.programs.run("cp", "--sparse=always", segment, part)
                part.rename(self.wal / segment.name)
        self.archived = moment

    def delete(self) -> None:
        for part in (self.wal, self.path / "base"):  # the server's own directory is beside them
            shutil.rmtree(part, ignore_errors=True)
        self.bases.clear()


class Server:
    """A PostgreSQL server: ``home`` holds data, log and certificate, ``archive`` takes its WAL (none: no backups)."""

    def __init__(self, programs: Programs, authority: Authority, home: Path, sockets: Path, owner: Any) -> None:
        self.owner = owner  # the DB instance it stands for
        self.programs, self.authority, self.home = programs, authority, home
        self.data = home / "data"
        self.logs = home / "error"
        self.socket = sockets / hashlib.sha256(str(home).encode()).hexdigest()[:8]
        self.archive: Optional[Archive] = None
        self.primary: Optional[Server] = None
        self.addresses: list[str] = []
        self.port = 5432
        self.parameters: dict[str, str] = {}
        self._archiving = threading.Lock()

    # --- settings ----------------------------------------------------------------------------------------------------

    def configure(self, recovery: Optional[dict[str, str]] = None) -> None:
        """Write postgresql.conf, pg_hba.conf and a certificate for the present addresses."""
        for directory in (self.data, self.logs, self.socket, self.home / "tls"):
            self.programs.directory(directory)
        key, certificate = self.home / "tls" / "key.pem", self.home / "tls" / "cert.pem"
        if self.addresses:
            self.authority.issue(self.addresses, key, certificate)
            self.programs.own(key, 0o600)
            self.programs.own(certificate, 0o644)
        settings = {
            "wal_level": "replica",
            "max_connections": "60",
            "password_encryption": "scram-sha-256",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **{name: value for name, value in self.parameters.items() if name not in FIXED},
            **{name: value for name, value in FIXED.items() if value and name in self.programs.settings},
            "archive_command": self._archive_command(),
            "listen_addresses": ",".join(self.addresses),
            "log_directory": str(self.logs),
            "port": str(self.port),
            "ssl": "on" if self.addresses else "off",
            "ssl_cert_file": str(certificate),
            "ssl_key_file": str(key),
            "unix_socket_directories": str(self.socket),
            **(recovery or self._standby_settings()),
        }
        lines = [f"{name} = '{self._quoted(value)}'\n" for name, value in settings.items()]
        self._write("postgresql.conf", "".join(lines))
        self._write("postgresql.auto.conf", "")
        self._write("pg_hba.conf", HBA)
        system = {self.programs.user, pwd.getpwuid(os.geteuid()).pw_name}
        self._write("pg_ident.conf", "".join(f"rds {user} rdsadmin\n" for user in sorted(system)))

    def _archive_command(self) -> str:
        if self.archive is None:
            return "/bin/true"
        # Under a temporary name first, so that a reader never sees half a segment.
        place = self.archive.wal
        return f'cp --sparse=always "%p" "{place}/%f.part" && mv "{place}/%f.part" "{place}/%f"'

    def _standby_settings(self) -> dict[str, str]:
        if self.primary is None:
            return {}
        settings = {"primary_conninfo": f"host={self.primary.socket} port={self.primary.port} user=rdsadmin"}
        if self.primary.archive:
            settings["restore_command"] = f'cp "{self.primary.archive.wal}/%f" "%p"'
        return settings

    @staticmethod
    def _quoted(value: str) -> str:
        return value.replace("\\", "\\\\").replace("'", "''")

    def _write(self, name: str, text: str) -> None:
        # Whole or not at all: the server may read its configuration at any moment.
        scratch = self.data / f"{name}.{threading.get_ident()}"
        scratch.write_text(text)
        self.programs.own(scratch, 0o600)
        scratch.replace(self.data / name)

    # --- data --------------------------------------------------------------------------------------------------------

    def initialise(self, master: str, password: str, database: Optional[str]) -> None:
        """A new server with the roles and databases of RDS; the master user is no superuser."""
        self.programs.directory(self.home)
        self.programs.run(
            "initdb", "--no-sync", "--data-checksums", "--username=rdsadmin", "--auth-local=peer",
            "--auth-host=scram-sha-256", "--wal-segsize=1", "--encoding=UTF8", "--locale=C.UTF-8",
            f"--pgdata={self.data}",
        )  # fmt: skip
        self.configure()
        self.start()
        self._create_roles(master, password)
        if database and database != "postgres":
            create = sql.SQL("CREATE DATABASE {} OWNER {}" + self._quickly)
            self.execute(create.format(sql.Identifier(database), sql.Identifier(master)))

    @property
    def _quickly(self) -> str:
        """Create a database by copying its files, as before PostgreSQL 15: that writes less WAL."""
        return " STRATEGY file_copy" if self.programs.major >= 15 else ""

    def _create_roles(self, master: str, password: str) -> None:
        major = self.programs.major
        groups = ["pg_monitor", "pg_signal_backend", "rds_replication", "rds_password"]
        groups += ["pg_read_all_data", "pg_write_all_data"] if major >= 14 else []
        groups += ["pg_checkpoint"] if major >= 15 else []
        groups += ["pg_use_reserved_connections", "pg_create_subscription"] if major >= 16 else []
        me = sql.Identifier(master)
        self.execute("CREATE DATABASE rdsadmin" + self._quickly)
        self.execute("REVOKE ALL ON DATABASE rdsadmin FROM PUBLIC")
        self.execute("CREATE TABLE rds_heartbeat2 (id int PRIMARY KEY, value bigint)", database="rdsadmin")
        for role in ("rds_superuser", "rds_replication", "rds_password", "rds_iam"):
            self.execute(f"CREATE ROLE {role} NOLOGIN")
        for group in groups:
            self.execute(f"GRANT {group} TO rds_superuser WITH ADMIN OPTION")
        if major >= 15:
            self.execute("GRANT SET ON PARAMETER session_replication_role TO rds_superuser")
        self.execute(
            sql.SQL("CREATE ROLE {} LOGIN CREATEROLE CREATEDB PASSWORD {} VALID UNTIL 'infinity' IN ROLE rds_superuser")
            .format(me, sql.Literal(password))
        )  # fmt: skip
        for database in ("postgres", "template1"):
            self.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(database), me))
            if major < 15:
                self.execute(sql.SQL("ALTER SCHEMA public OWNER TO {}").format(me), database=database)

    def set_password(self, role: str, password: str) -> None:
        self.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(password)))

    def clone(self, base: Path, recovery: Optional[dict[str, str]] = None) -> None:
        """Start from a base backup: as it is, or recovered as ``recovery`` says; promoted when it answers."""
        self.programs.copy(base, self.data)
        # Not hot_standby: the server answers only when recovery has ended, with settings lower than the source's too.
        self.configure(recovery and {"hot_standby": "off", "recovery_target_action": "promote", **recovery})
        if recovery:
            self._write("recovery.signal", "")
        self.start()
        if recovery:
            self._await_promotion()
            self.configure()

    def _await_promotion(self) -> None:
        """Wait until recovery has ended; where it fails the server ends."""
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg2.OperationalError:
                if not self.running:
                    raise PostgresError(f"recovery failed\n{self._end_of_log()}") from None
                time.sleep(0.05)

    def recover(self, archive: Archive, moment: datetime) -> None:
        """Point-in-time recovery: everything committed up to ``moment``, from the newest base backup before it."""
        recovery = {
            "restore_command": f'cp "{archive.wal}/%f" "%p"',
            "recovery_target_time": moment.isoformat(),
            "recovery_target_inclusive": "on",
            "recovery_target_timeline": "latest",
        }
        self.clone(archive.base_before(moment).path, recovery)

    def stream_from(self, primary: Server) -> None:
        """Become a streaming standby; over the primary's socket, so wherever its address goes."""
        self.programs.directory(self.home)
        primary.base_backup(self.data)
        self.follow(primary)
        self.start()

    def follow(self, primary: Server) -> None:
        """Stream from this primary from the next start on."""
        self.primary = primary
        self.configure()
        self._write("standby.signal", "")

    def promote(self) -> None:
        self.execute("SELECT pg_promote(true, 60)")
        self.primary = None
        self.configure()
        self.reload()

    def base_backup(self, target: Path) -> None:
        self.programs.directory(target.parent)
        self.programs.run(
            "pg_basebackup", f"--pgdata={target}", f"--host={self.socket}", f"--port={self.port}",
            "--username=rdsadmin", "--checkpoint=fast", "--no-sync", "--no-manifest",
        )  # fmt: skip

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, and return when the server answers."""
        output = self.home / "start.log"
        try:
            self.programs.run("pg_ctl", "start", "-w", "-t", "300", "-s", "-D", self.data, "-l", output)
        except PostgresError as error:
            raise PostgresError(f"{error}\n{self._end_of_log()}") from error

    def _end_of_log(self) -> str:
        logs = sorted(self.logs.glob("postgresql.log.*"), key=lambda path: path.stat().st_mtime)
        texts = [path.read_text(errors="replace") for path in [self.home / "start.log", *logs[-1:]] if path.exists()]
        return "\n".join("\n".join(text.splitlines()[-10:]) for text in texts)

    def stop(self, mode: str = "fast") -> None:
        if self.running:
            self.programs.run("pg_ctl", "stop", "-w", "-t", "60", "-s", "-m", mode, "-D", self.data)

    def restart(self) -> None:
        self.stop()
        self.configure()
        self.start()

    def reload(self) -> None:
        self.execute("SELECT pg_reload_conf()")

    @property
    def running(self) -> bool:
        """Whether the process that the data directory names is alive and works in it."""
        try:
            pid = (self.data / "postmaster.pid").read_text().splitlines()[0]
            return Path(f"/proc/{pid}/cwd").samefile(self.data)
        except (OSError, IndexError):
            return False

    def delete(self) -> None:
        self.stop("immediate")
        for place in (self.data, self.logs, self.home / "tls", self.socket):
            shutil.rmtree(place, ignore_errors=True)

    # --- statements --------------------------------------------------------------------------------------------------

    def execute(self, statement: Any, parameters: Optional[Sequence[Any]] = None, database: str = "postgres") -> Any:
        """Run one statement as rdsadmin; the first value of its result."""
        place: dict[str, Any] = {"host": str(self.socket), "port": self.port, "user": "rdsadmin", "dbname": database}
        with closing(psycopg2.connect(**place, application_name="rdsadmin")) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                row = cursor.fetchone() if cursor.description else None
                return row and row[0]

    def archive_now(self) -> None:
        """Commit a heartbeat, as RDS does every few minutes, and wait until its WAL is in the archive."""
        assert self.archive
        with self._archiving:
            moment = utcnow()
            self.execute(HEARTBEAT, database="rdsadmin")
            segment = self.execute("SELECT pg_walfile_name(pg_switch_wal())")
            deadline = time.monotonic() + 60
            while not (self.archive.wal / segment).exists():
                if time.monotonic() > deadline:
                    raise PostgresError(f"{segment} was not archived within 60 s")
                time.sleep(0.02)
            self.archive.archived = moment
