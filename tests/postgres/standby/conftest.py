"""A real primary that archives, and a real delayed standby of it, both on this host.

Run as the operating system user postgres (a server cannot run as root). DBRE_TEST_MAJOR chooses the PostgreSQL major
version, the newest installed one by default.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.archive import StanzaArchive
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect, login_of
from ansible_collections.dbre.recovery.plugins.module_utils._side import standby as side
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import server_pid, system_user
from ansible_collections.dbre.recovery.plugins.module_utils._side.standby_recovery import Asked, ensure_state
from ansible_collections.dbre.recovery.plugins.module_utils._wal.result import make_request
from ansible_collections.dbre.recovery.plugins.module_utils._wal.search import Search
from ansible_collections.dbre.recovery.tests.life import Life, eager_conf

MAJORS = range(18, 14, -1)
DELAY = "1h"


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


class Server:
    """One server with its data directory and socket below a directory."""

    def __init__(self, root: Path, name: str, port: int) -> None:
        self.root, self.port = root, port
        self.major = installed_major()
        self.bin_dir = find_bin_dir(self.major)
        self.data = root / name
        self.config = root / "pgbackrest.conf"
        self.login = {"login_unix_socket": str(root), "login_port": port, "login_user": system_user()}

    def configure(self, settings: str) -> None:
        common = f"port={self.port}\nunix_socket_directories='{self.root}'\nlisten_addresses=''\nlc_messages=C\n"
        (self.data / "postgresql.conf").write_text(f"{common}{settings}")

    def start(self) -> None:
        # Its output is not captured: the server would hold the pipe open.
        argv = [f"{self.bin_dir}/pg_ctl", "start", "-w", "-s", "-D", str(self.data), "-l", f"{self.data}.log"]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        run([f"{self.bin_dir}/pg_ctl", "stop", "-w", "-s", "-m", "fast", "-D", str(self.data)])

    def restart(self) -> None:
        self.stop()
        self.start()

    def connect(self, database: str = "shop") -> Any:
        connection = connect(self.login, database, options="")
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

    @property
    def identifier(self) -> str:
        text = must(f"{self.bin_dir}/pg_controldata", str(self.data))
        return text.split("system identifier:")[1].split()[0]


class Primary(Server):
    since = ""  # when the test began: tables of the same names were dropped before

    def now(self) -> str:
        return str(self.sql("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00')"))

    def make(self) -> None:
        must(
            f"{self.bin_dir}/initdb", "-D", str(self.data), "-k", "-A", "trust", "--wal-segsize=1", "-U", system_user()
        )
        self.config.write_text(
            f"[global]\nrepo1-path={self.root}/repo\nlog-path={self.root}/log\nlock-path={self.root}/lock\n"
            f"spool-path={self.root}/spool\nstart-fast=y\ncompress-type=lz4\nrepo1-retention-full=2\n"
            f"[main]\npg1-path={self.data}\npg1-port={self.port}\npg1-socket-path={self.root}\n"
        )
        self.configure(
            f"archive_mode=on\n{eager_conf()}wal_level=replica\nmax_prepared_transactions=5\n"
            f"archive_command='pgbackrest --config={self.config} --stanza=main archive-push %p'\n"
        )
        self.start()
        must("pgbackrest", f"--config={self.config}", "--stanza=main", "stanza-create")
        must("createdb", "-h", str(self.root), "-p", str(self.port), "shop")
        self.sql(
            "CREATE TABLE orders (id serial PRIMARY KEY, note text)",
            "CREATE TABLE lines (id serial PRIMARY KEY, order_id int REFERENCES orders, note text)",
            "INSERT INTO orders (note) SELECT repeat('x', 200) FROM generate_series(1, 1000)",
            "INSERT INTO lines (order_id) SELECT g FROM generate_series(1, 1000) g",
            "CREATE TABLE other (id int)",
            "ALTER SYSTEM SET archive_timeout = '1h'",
        )
        must("pgbackrest", f"--config={self.config}", "--stanza=main", "--type=full", "backup")

    def archive(self) -> None:
        """Switch WAL and wait until it is archived."""
        name = self.sql("SELECT pg_create_restore_point('x')", "SELECT pg_walfile_name(pg_switch_wal())")
        deadline = time.monotonic() + 30
        while not list((self.root / "repo").glob(f"archive/main/*/{name[:16]}/{name}-*")):
            assert time.monotonic() < deadline, f"{name} was not archived"
            time.sleep(0.05)

    def find(self, relations: list[str], **more: Any) -> dict[str, Any]:
        """What the module postgresql_recovery_target_info finds."""
        params = {"relations": relations, "since": self.since, **more}
        with tempfile.TemporaryDirectory() as spool:
            archive = StanzaArchive("main", config=str(self.config))
            search = Search(self.login, make_request("shop", **params), spool, archive)
            try:
                return search.find()
            finally:
                search.close()


class Standby(Server):
    def __init__(self, primary: Primary, name: str, port: int) -> None:
        super().__init__(primary.root, name, port)
        self.primary = primary
        self.restore: dict[str, Any] = {
            "path": str(self.data),
            "system_identifier": primary.identifier,
            "major_version": primary.major,
            "backrest": PgBackRest(run, stanza="main", config=str(primary.config)),
            "run": run,
        }

    def ensure_restored(self, **changes: Any) -> dict[str, Any]:
        return side.Standby(**{**self.restore, **changes}).ensure(False)

    def make(self, delay: str = DELAY, streaming: bool = True) -> None:
        assert self.ensure_restored()["action"] == "restore"
        for name in ("pg_hba.conf", "pg_ident.conf"):
            shutil.copy(self.primary.data / name, self.data / name)
        # As the role does: PostgreSQL asks for WAL only when it has replayed what it has, so first without the delay.
        self.follow("0", True)
        self.start()
        self.streams()
        self.follow(delay, streaming)
        must(f"{self.bin_dir}/pg_ctl", "reload", "-s", "-D", str(self.data))

    def follow(self, delay: str, streaming: bool) -> None:
        command = f"pgbackrest --config={self.config} --stanza=main --pg1-path={self.data}"
        conninfo = f"host={self.root} port={self.primary.port} user={system_user()}" if streaming else ""
        self.configure(
            f"primary_conninfo='{conninfo}'\nrestore_command='{command} archive-get %f \"%p\"'\n"
            f"recovery_min_apply_delay='{delay}'\narchive_mode=on\nmax_prepared_transactions=5\n"
            f"archive_command='{command} archive-push %p'\nwal_retrieve_retry_interval=200ms\n"
        )

    def streams(self) -> None:
        """Wait until it has replayed all that the primary has and streams what comes.

        One that has replayed it from the archive alone would not ask for more before its delay is over.
        """
        self.has_received("replay")
        deadline = time.monotonic() + 60
        while self.sql("SELECT max(status) FROM pg_stat_wal_receiver", database="postgres") != "streaming":
            assert time.monotonic() < deadline, "the standby does not stream"
            time.sleep(0.05)

    def has_received(self, what: str = "receive") -> None:
        """Wait until it has received, or replayed, all that the primary has."""
        end = self.primary.sql("SELECT pg_current_wal_flush_lsn()::text")
        deadline = time.monotonic() + 120  # at first all that the life beside wrote comes from the archive
        while not self.sql(f"SELECT pg_last_wal_{what}_lsn() >= '{end}'", database="postgres"):
            assert time.monotonic() < deadline, "the standby does not receive WAL"
            time.sleep(0.05)

    def params(self, incident: str, found: dict[str, Any], **changes: Any) -> dict[str, Any]:
        return {
            "path": str(self.root / f"{self.data.name}-held"),
            "incident": incident,
            "target": found.get("target"),
            "system_identifier": self.primary.identifier,
            "database": "shop",
            "database_oid": next(
                (row["oid"] for row in found.get("server", {}).get("databases", ()) if row["name"] == "shop"), None
            ),
            "relations": (found.get("incident") or {}).get("relations", []),
            "client": None,
            "timeout": 30,
            "bin_dir": None,
            "stanza": "main",
            "config": str(self.config),
            "executable": "pgbackrest",
            "repo": None,
            **self.login,
            **changes,
        }

    def ensure(self, params: dict[str, Any], state: str, check_mode: bool = False) -> dict[str, Any]:
        """What the module postgresql_standby_recovery does with its parameters."""
        return ensure_state(login_of(params), pick(Asked, params), state, check_mode)

    def bring_to(self, params: dict[str, Any]) -> dict[str, Any]:
        """The whole way to the target, as the role goes it."""
        if self.ensure(params, "targeted")["restart"]:
            self.restart()
        return self.ensure(params, "paused")

    def let_go(self, params: dict[str, Any]) -> dict[str, Any]:
        if self.ensure(params, "released")["restart"]:
            self.restart()
        return self.ensure(params, "following")


@pytest.fixture(scope="session")
def primary() -> Iterator[Primary]:
    root = Path(tempfile.mkdtemp(prefix="dbre-"))
    made = Primary(root, "primary", int(os.environ.get("DBRE_TEST_PORT", "6800")))
    try:
        made.make()
        # All of it is archived, restored and replayed in each test. Life that went on would make the last ones slow.
        with Life(str(root), made.port, inside=("shop",)) as life:
            life.wait_for_every_kind()
        # Where a slow machine cut it short it may leave a prepared transaction, whose locks no test waits for.
        left = made.sql("SELECT coalesce(string_agg(gid, ','), '') FROM pg_prepared_xacts WHERE database = 'shop'")
        for name in filter(None, str(left).split(",")):
            made.sql(f"ROLLBACK PREPARED '{name}'")
        yield made
    finally:
        made.stop()
        shutil.rmtree(root)


@pytest.fixture(autouse=True)
def _since(primary: Primary) -> None:
    primary.since = primary.now()


@pytest.fixture
def make_standby(primary: Primary) -> Iterator[Any]:
    made: list[Standby] = []

    def make(**options: Any) -> Standby:
        made.append(Standby(primary, f"standby{len(made)}", primary.port + 1 + len(made)))
        made[-1].make(**options)
        return made[-1]

    try:
        yield make
    finally:
        for standby in made:
            if server_pid(str(standby.data)):
                standby.stop()
            shutil.rmtree(standby.data)
            shutil.rmtree(standby.root / f"{standby.data.name}-held", ignore_errors=True)


@pytest.fixture
def standby(make_standby: Any) -> Standby:
    """A delayed standby that streams and has received everything."""
    made = make_standby()
    made.has_received()
    return made
