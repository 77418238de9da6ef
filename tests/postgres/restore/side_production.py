"""A real production server and a real local pgBackRest repository, with a history worth recovering.

Run as the operating system user postgres (a server cannot run as root). DBRE_TEST_MAJOR chooses the PostgreSQL major
version, the newest installed one by default.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance, system_user
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import ensure_state
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_restore import Asked, SideRestore

MAJORS = range(18, 12, -1)
ORDERS_AT_DROP = 3000
EVENTS_AT_DROP = 500


def run(argv: list[str]) -> tuple[int, str, str]:
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout, result.stderr


def must(*argv: str) -> str:
    rc, out, err = run(list(argv))
    assert rc == 0, f"{argv}: {out}{err}"
    return out


def installed_major() -> int:
    asked = os.environ.get("DBRE_TEST_MAJOR")
    return int(asked) if asked else next(m for m in MAJORS if Path(f"/usr/lib/postgresql/{m}/bin/postgres").exists())


class Production:
    """A production server with its repository below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.major = installed_major()
        self.bin_dir = find_bin_dir(self.major)
        self.data = root / "pg"
        self.repo = root / "repo"
        self.config = root / "pgbackrest.conf"
        self.library = root / "ours.so"
        self.port = int(os.environ.get("DBRE_TEST_PORT", "6410"))
        self.incidents: dict[str, dict[str, Any]] = {}

    def make(self) -> None:
        for name in ("repo", "log", "lock", "spool", "sock", "fast"):
            (self.root / name).mkdir()
        must(
            f"{self.bin_dir}/initdb", "-D", str(self.data), "-k", "-A", "trust", "--wal-segsize=1", "-U", system_user()
        )
        self.config.write_text(
            f"[global]\nrepo1-path={self.repo}\nrepo1-retention-full=9\nlog-path={self.root}/log\n"
            f"lock-path={self.root}/lock\nspool-path={self.root}/spool\nstart-fast=y\ncompress-type=lz4\n"
            f"[main]\npg1-path={self.data}\npg1-port={self.port}\npg1-socket-path={self.root}/sock\n"
        )
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(
                f"port={self.port}\nunix_socket_directories='{self.root}/sock'\nlisten_addresses=''\n"
                "archive_mode=on\nwal_level=logical\nmax_prepared_transactions=5\nmax_connections=30\n"
                "autovacuum=off\n"  # nothing but the tests writes WAL, so that what comes into the archive is known
                f"archive_command='pgbackrest --config={self.config} --stanza=main archive-push %p'\n"
            )
        self.start()
        self.backrest("stanza-create")

    def start(self) -> None:
        # Its output is not captured: the server would hold the pipe open.
        argv = [f"{self.bin_dir}/pg_ctl", "start", "-w", "-s", "-D", str(self.data), "-l", str(self.root / "pg.log")]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        run([f"{self.bin_dir}/pg_ctl", "stop", "-w", "-s", "-m", "fast", "-D", str(self.data)])

    def backrest(self, *arguments: str) -> str:
        return must("pgbackrest", f"--config={self.config}", "--stanza=main", *arguments)

    def connect(self, database: str = "postgres") -> Any:
        connection = connect({"login_unix_socket": f"{self.root}/sock", "login_port": self.port}, database, options="")
        connection.autocommit = True
        return connection

    def sql(self, *statements: str, database: str = "shop") -> Any:
        """Run statements, each its own transaction; the first value of the last one."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return cursor.fetchone()[0] if cursor.description else None
        finally:
            connection.close()

    def archive(self) -> str:
        """Switch WAL and wait until it is archived, in the archiver's own count too; the file's name."""
        # A record first, or there may be nothing to switch.
        name = self.sql("SELECT pg_create_restore_point('x')", "SELECT pg_walfile_name(pg_switch_wal())")
        deadline = time.monotonic() + 30
        while self.sql("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver") < name:
            assert time.monotonic() < deadline, f"{name} was not archived"
            time.sleep(0.05)
        assert list(self.repo.glob(f"archive/main/*/{name[:16]}/{name}-*"))
        return str(name)

    def target_here(self, label: str) -> None:
        """Remember this very moment as an incident's target: everything before it, nothing from here on."""
        lsn, name = self.sql(
            "SELECT pg_current_wal_insert_lsn() || ' ' || pg_walfile_name(pg_current_wal_insert_lsn())"
        ).split()
        self.incidents[label] = {
            "type": "lsn",
            "value": lsn,
            "exclusive": True,
            "timeline": int(name[:8], 16),
            "segment": name,
        }

    def databases(self) -> list[dict[str, Any]]:
        connection = self.connect()
        with connection.cursor() as cursor:
            cursor.execute("SELECT datname, oid::int, pg_database_size(oid) FROM pg_database WHERE datallowconn")
            rows = [dict(zip(("name", "oid", "size"), row)) for row in cursor.fetchall()]
        connection.close()
        return rows

    def tablespaces(self) -> list[dict[str, Any]]:
        connection = self.connect()
        with connection.cursor() as cursor:
            cursor.execute("SELECT spcname, oid::int, pg_tablespace_location(oid) FROM pg_tablespace")
            rows = [dict(zip(("name", "oid", "location"), row)) for row in cursor.fetchall()]
        connection.close()
        return rows

    def live(self) -> None:
        """A life: a backup, growth, raised settings, open and prepared transactions, a drop, and a new timeline."""
        fast = self.root / "fast"
        must("createdb", "-h", f"{self.root}/sock", "-p", str(self.port), "shop")
        must("createdb", "-h", f"{self.root}/sock", "-p", str(self.port), "other")
        self.sql(f"CREATE TABLESPACE fast LOCATION '{fast}'")
        # A library that the host of a side instance lacks, and settings that a session on a standby does not survive.
        shutil.copy(Path(self.bin_dir).parent / "lib" / "auto_explain.so", self.library)
        self.sql(
            f"ALTER DATABASE shop SET session_preload_libraries = '{self.library}'",
            "ALTER DATABASE shop SET temp_file_limit = 0",
            f"ALTER ROLE \"{system_user()}\" SET default_transaction_isolation = 'serializable'",
            f'ALTER ROLE "{system_user()}" SET quote_all_identifiers = on',
        )
        self.sql(
            "CREATE TABLE orders (id int PRIMARY KEY, note text)",
            "CREATE TABLE events (id int) TABLESPACE fast",
            "CREATE TABLE later (id int)",
            "INSERT INTO orders SELECT g, repeat('x', 200) FROM generate_series(1, 1000) g",
            "INSERT INTO later SELECT generate_series(1, 10)",
            "CREATE PUBLICATION p FOR ALL TABLES",
            "SELECT pg_create_logical_replication_slot('kept', 'pgoutput')",
            "CREATE SUBSCRIPTION sub CONNECTION 'host=/nowhere' PUBLICATION p WITH (connect = false, slot_name = 's')",
            "ALTER SUBSCRIPTION sub ENABLE",
        )
        self.sql("CREATE TABLE o (id int)", "INSERT INTO o SELECT generate_series(1, 90000)", database="other")
        self.backrest("backup", "--type=full")
        self.target_here("early")
        self.sql("INSERT INTO orders SELECT g, repeat('y', 200) FROM generate_series(1001, 2000) g")
        # Production grows more connections: recovery from the backup needs to know.
        self.sql("ALTER SYSTEM SET max_connections = 60", "ALTER SYSTEM SET max_prepared_transactions = 8")
        self.stop()
        self.start()
        self.archive()
        # A target exactly at the beginning of a WAL file.
        self.target_here("boundary")
        self.sql("INSERT INTO orders SELECT g, repeat('z', 200) FROM generate_series(2001, 3000) g")
        self.sql("INSERT INTO events SELECT generate_series(1, 500)", "UPDATE orders SET note = note || 'u'")
        self.sql("INSERT INTO o SELECT generate_series(1, 20000)", database="other")
        self.sql("BEGIN", "INSERT INTO events VALUES (-1)", "LOCK events", "PREPARE TRANSACTION 'pending'")
        opened = self.connect("shop")
        opened.autocommit = False
        opened.cursor().execute("INSERT INTO orders VALUES (-2, 'open'); DROP TABLE orders")
        self.sql("INSERT INTO later VALUES (11)")
        self.target_here("drop")
        opened.commit()
        opened.close()
        self.sql("INSERT INTO later VALUES (12)", "ROLLBACK PREPARED 'pending'")
        self.archive()
        # A new timeline, as after a failover.
        self.stop()
        (self.data / "standby.signal").touch()
        self.start()
        must(f"{self.bin_dir}/pg_ctl", "promote", "-w", "-s", "-D", str(self.data))
        self.sql("INSERT INTO later VALUES (13)")
        self.target_here("second timeline")
        self.sql("TRUNCATE later")
        self.archive()
        self.backrest("backup", "--type=full")
        self.target_here("late")
        self.sql("INSERT INTO later VALUES (99)")


class Side:
    """One side instance of a test, driven as the modules drive it."""

    def __init__(self, production: Production, path: Path, label: str, **changes: Any) -> None:
        self.path = path
        self.params: dict[str, Any] = {
            "stanza": "main",
            "config": str(production.config),
            "executable": "pgbackrest",
            "path": str(path),
            "target": production.incidents[label],
            "incident": label,
            "databases": ["shop"],
            "system_identifier": must(f"{production.bin_dir}/pg_controldata", str(production.data))
            .split("system identifier:")[1]
            .split()[0],
            "major_version": production.major,
            "wal_segment_size": 1024 * 1024,
            "production_databases": production.databases(),
            "production_tablespaces": production.tablespaces(),
            **changes,
        }

    def plan(self) -> dict[str, Any]:
        plan, _changed = SideRestore(Asked(**self.params), run).look()
        return plan

    def restore(self) -> tuple[dict[str, Any], bool]:
        return SideRestore(Asked(**self.params), run).restore()

    def ensure(self, state: str, **options: Any) -> dict[str, Any]:
        return ensure_state(self.instance, state, **{"timeout": 60, **options})

    @property
    def instance(self) -> SideInstance:
        return SideInstance(str(self.path))

    def sql(self, statement: str, database: str = "shop") -> Any:
        marker = self.instance.marker()
        connection = connect(
            {"login_unix_socket": self.instance.run_dir, "login_port": marker["port"]}, database, options=""
        )
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchone()[0] if cursor.description else None
        finally:
            connection.close()
