"""A real primary that archives and two real standbys of it, all on this host, and the primary's death.

Run as the operating system user postgres. DBRE_TEST_MAJOR chooses the PostgreSQL major version, the newest one by
default. No life beside: each test counts commits, and none may be made by others.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._failover import survey
from ansible_collections.dbre.recovery.plugins.module_utils._failover.session import Request
from ansible_collections.dbre.recovery.plugins.module_utils._failover.state import HostState
from ansible_collections.dbre.recovery.plugins.module_utils._failover.steps import take_step
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.archive import StanzaArchive
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import server_pid, system_user

MAJORS = range(18, 12, -1)


def must(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def until(true: Callable[[], Any], what: str, patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {patience} s"
        time.sleep(0.05)


def installed_major() -> int:
    asked = os.environ.get("DBRE_TEST_MAJOR")
    return int(asked) if asked else next(m for m in MAJORS if Path(f"/usr/lib/postgresql/{m}/bin/postgres").exists())


class Server:
    """One server below a directory."""

    def __init__(self, root: Path, name: str, port: int) -> None:
        self.root, self.name, self.port = root, name, port
        self.bin_dir = find_bin_dir(installed_major())
        self.data = root / name
        self.config = root / f"{name}.conf"
        self.login = {"login_unix_socket": str(root), "login_port": port, "login_user": system_user()}
        self.memory = root / f"failover-{name}"

    def configure(self, settings: str = "") -> None:
        """pgBackRest's file and PostgreSQL's; archiving works from the start, as role postgresql_standby has it."""
        self.config.write_text(
            f"[global]\nrepo1-path={self.root}/repo\nrepo2-path={self.root}/repo2\nlog-path={self.root}/log\n"
            f"lock-path={self.root}/lock\nspool-path={self.root}/spool\n"
            f"[main]\npg1-path={self.data}\npg1-port={self.port}\npg1-socket-path={self.root}\n"
        )
        command = f"pgbackrest --config={self.config} --stanza=main"
        (self.data / "postgresql.conf").write_text(
            f"port={self.port}\nunix_socket_directories='{self.root}'\nlisten_addresses=''\nlc_messages=C\n"
            # The scenario failover has it.
            "autovacuum=off\n"  # quiet: an old primary must have nothing of its own, and it writes when it likes
            f"wal_level=replica\narchive_mode=on\narchive_command='{command} archive-push %p'\n"
            f"restore_command='{command} archive-get %f \"%p\"'\nwal_keep_size=64MB\nfsync=off\n{settings}"
        )

    def start(self) -> None:
        argv = [f"{self.bin_dir}/pg_ctl", "start", "-w", "-s", "-D", str(self.data), "-l", f"{self.data}.log"]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def reload(self) -> None:
        must(f"{self.bin_dir}/pg_ctl", "reload", "-s", "-D", str(self.data))

    def stop(self) -> None:
        argv = [f"{self.bin_dir}/pg_ctl", "stop", "-w", "-s", "-m", "fast", "-D", str(self.data)]
        subprocess.run(argv, capture_output=True, check=False)

    def kill(self) -> None:
        """End all its processes at once, as when the power fails."""
        pid = server_pid(str(self.data))
        assert pid is not None
        children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
        for each in [pid, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):  # one that has ended meanwhile
                os.kill(each, signal.SIGKILL)
        # Until nobody can take it for alive: its parent has to be told first, and a new server would refuse to start.
        until(lambda: not Path(f"/proc/{pid}").exists(), "the server is dead")

    def sql(self, *statements: str) -> Any:
        """Run statements, each its own transaction; the first value of the last one."""
        connection = connect(self.login, "postgres", options="")
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return cursor.fetchone()[0] if cursor.description else None
        finally:
            connection.close()

    def look(self, **more: Any) -> HostState:
        found = survey.look(self.login, data=str(self.data), **more)
        return {**found, "host": self.name}

    def step(self, state: str, check_mode: bool = False, **more: Any) -> dict[str, Any]:
        request = Request(**{"path": str(self.memory), "incident": "i1", "timeout": 20.0, **more})
        return take_step(self.login, state, request, check_mode)

    def archive(self, repo: int | None = None) -> StanzaArchive:
        return StanzaArchive("main", config=str(self.config), repo=repo, parallel=1)


class Primary(Server):
    def make(self) -> None:
        initdb = [f"{self.bin_dir}/initdb", "-N", "-k", "-A", "trust", "--wal-segsize=1", "-U", system_user()]
        must(*initdb, "-D", str(self.data))
        self.configure()
        self.start()
        must("pgbackrest", f"--config={self.config}", "--stanza=main", "stanza-create")
        self.sql("CREATE TABLE told (n int)")

    def write(self, first: int, last: int) -> None:
        """Commit these numbers, one a transaction."""
        for number in range(first, last + 1):
            self.sql(f"INSERT INTO told VALUES ({number})")


class Standby(Server):
    def make(self, primary: Primary, settings: str = "") -> None:
        conninfo = f"host={self.root} port={primary.port} user={system_user()} application_name=dbre_{self.name}"
        copy = [f"{self.bin_dir}/pg_basebackup", "-c", "fast", "--no-sync", "-h", str(self.root)]
        must(*copy, "-p", str(primary.port), "-D", str(self.data))
        (self.data / "standby.signal").touch()
        self.configure(f"primary_conninfo='{conninfo}'\nwal_retrieve_retry_interval=5s\n{settings}")
        self.start()
        until(lambda: self.sql("SELECT max(status) FROM pg_stat_wal_receiver") == "streaming", f"{self.name} streams")

    def has(self, lsn: str) -> bool:
        return bool(self.sql(f"SELECT coalesce(pg_last_wal_replay_lsn(), '0/0') >= '{lsn}'"))

    def told(self) -> list[int]:
        return list(self.sql("SELECT coalesce(array_agg(n ORDER BY n), '{}') FROM told"))


class Cluster:
    until = staticmethod(until)

    def __init__(self, root: Path) -> None:
        self.root = root
        self.primary = Primary(root, "a", 6610)
        self.b, self.c = Standby(root, "b", 6611), Standby(root, "c", 6612)

    def make(self) -> None:
        self.primary.make()
        self.b.make(self.primary)
        self.c.make(self.primary)

    def agree(self) -> None:
        """Wait until both standbys have replayed all that the primary has."""
        self.agree_on(self.b)
        self.agree_on(self.c)

    def agree_on(self, standby: Standby) -> None:
        """Wait until one standby has replayed all that the primary has."""
        end = self.primary.sql("SELECT pg_current_wal_flush_lsn()::text")
        until(lambda: standby.has(end), f"{standby.name} has {end}")

    def stop(self) -> None:
        for server in (self.primary, self.b, self.c):
            server.stop()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    root = Path(tempfile.mkdtemp(prefix="dbre-failover-"))
    made = Cluster(root)
    try:
        made.make()
        yield made
    finally:
        made.stop()
        shutil.rmtree(root, ignore_errors=True)
