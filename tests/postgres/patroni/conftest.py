"""A real Patroni with three members on a real etcd, all on this host, as Debian packages them.

Run as the operating system user postgres. No life beside: commits that clients were told of are counted. One cluster
for all tests, since it takes seconds to come: each test begins with whoever leads.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._failover import survey
from ansible_collections.dbre.recovery.plugins.module_utils._failover.choice import Wishes
from ansible_collections.dbre.recovery.plugins.module_utils._failover.planning import Known, plan
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import server_pid

MAJORS = range(18, 12, -1)
STORE, PEERS = 23790, 23800
# Seconds until Patroni takes a dead leader for dead. A machine that is busy for less does not change leaders by itself.
TTL = 40

MEMBER = """
scope: shop
name: {name}
etcd3: {{hosts: '127.0.0.1:{store}'}}
restapi: {{listen: '127.0.0.1:{api}', connect_address: '127.0.0.1:{api}'}}
bootstrap:
  dcs:
    ttl: {ttl}
    loop_wait: 1
    retry_timeout: 12
    postgresql:
      use_pg_rewind: true
      parameters: {{wal_log_hints: 'on', fsync: 'off'}}
  initdb: [encoding: UTF8, locale: C, no-sync, auth: trust]
postgresql:
  listen: 127.0.0.1:{port}
  connect_address: 127.0.0.1:{port}
  data_dir: {data}
  bin_dir: {bin_dir}
  pgpass: {data}.pgpass
  use_unix_socket: true
  authentication:
    replication: {{username: replicator, password: x}}
    superuser: {{username: postgres}}
    rewind: {{username: rewinder, password: x}}
  parameters: {{unix_socket_directories: '{root}'}}
  pg_hba: [local all all trust, host all all 127.0.0.1/32 trust, host replication all 127.0.0.1/32 trust]
tags: {tags}
"""

# Runs Patroni and buries its dead: Patroni waits for a server that has ended until nobody sees it any more, and not
# everything that tests run below does that for orphans as an init does.
KEEPER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
os.spawnvp(os.P_NOWAIT, "patroni", ["patroni", sys.argv[1]])
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
"""


def until(true: Callable[[], Any], what: str, patience: float = 150.0) -> None:
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {patience} s"
        time.sleep(0.5)  # asking Patroni costs a fifth of a second


def children(pid: int) -> list[int]:
    return [
        int(each) for each in subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, check=False).stdout.split()
    ]


class Member:
    """One server, and the Patroni that manages it."""

    def __init__(self, root: Path, name: str, number: int, tags: dict[str, Any]) -> None:
        self.root, self.name, self.port = root, name, 6720 + number
        asked = os.environ.get("DBRE_TEST_MAJOR")
        major = asked or next(m for m in MAJORS if Path(f"/usr/lib/postgresql/{m}/bin/postgres").exists())
        self.bin_dir = f"/usr/lib/postgresql/{major}/bin"
        self.data, self.config = root / name, root / f"{name}.yml"
        self.login = {"login_unix_socket": str(root), "login_port": self.port, "login_user": "postgres"}
        self.patroni: subprocess.Popen[bytes] | None = None
        self.config.write_text(
            MEMBER.format(
                name=name,
                store=STORE,
                api=8020 + number,
                ttl=TTL,
                port=self.port,
                data=self.data,
                bin_dir=self.bin_dir,
                root=root,
                tags=json.dumps(tags),
            )
        )

    def start(self) -> None:
        with (self.root / f"{self.name}.log").open("ab") as log:
            self.patroni = subprocess.Popen([sys.executable, "-c", KEEPER, str(self.config)], stdout=log, stderr=log)

    def kill(self) -> None:
        """End Patroni and all processes of the server at once, as when the power fails."""
        while self.patroni and self.patroni.poll() is None:
            # Again: Patroni may start a server at this moment.
            server = server_pid(str(self.data))
            below = [pid for parent in (self.patroni.pid, server) if parent for pid in children(parent)]
            for each in [*below, *([server] if server else [])]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
            time.sleep(0.1)

    def sql(self, statement: str) -> Any:
        connection = connect(self.login, "postgres", options="")
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchone()[0] if cursor.description else None
        finally:
            connection.close()

    def look(self) -> dict[str, Any]:
        """What a task of the playbook returns of this host, whose name is that of the member with host- before it."""
        state = survey.look(self.login, data=str(self.data))
        return {"ansible_loop_var": "at", "at": f"host-{self.name}", "state": state}


class Cluster:
    """The members, a and b as they are, c with the tag nofailover, and their store."""

    until = staticmethod(until)
    ttl = TTL

    def __init__(self, root: Path) -> None:
        self.root = root
        self.members = {
            "a": Member(root, "a", 1, {"clonefrom": True}),
            "b": Member(root, "b", 2, {}),
            "c": Member(root, "c", 3, {"nofailover": True}),
        }
        self.store: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        client, peer = f"http://127.0.0.1:{STORE}", f"http://127.0.0.1:{PEERS}"
        argv = ["etcd", "--data-dir", str(self.root / "etcd"), "--listen-client-urls", client]
        argv += ["--advertise-client-urls", client, "--listen-peer-urls", peer]
        argv += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        with (self.root / "etcd.log").open("ab") as log:
            self.store = subprocess.Popen(argv, stdout=log, stderr=log)
        for member in self.members.values():
            member.start()
        self.settle()
        self.leader.sql("CREATE TABLE told (n int)")

    def listed(self) -> list[dict[str, Any]]:
        done = self.ctl("list", "-f", "json")
        return json.loads(done) if done.startswith("[") else []

    def ctl(self, *words: str) -> str:
        argv = ["patronictl", "-c", str(self.members["b"].config), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

    def settle(self) -> None:
        """Wait until one leads and all follow it."""

        def well() -> bool:
            found = self.listed()
            up = [each for each in found if each["State"] in ("running", "streaming")]
            leaders = [self.members[each["Member"]] for each in found if each["Role"] == "Leader"]
            if len(up) < len(self.members) or len({each["TL"] for each in up}) > 1 or not leaders:
                return False
            # The list has a dead leader for as long as its lock lives.
            with contextlib.suppress(RecoveryError):
                return bool(leaders[0].sql("SELECT NOT pg_is_in_recovery()"))
            return False

        until(well, "all members run")

    @property
    def leader(self) -> Member:
        return self.members[next(each["Member"] for each in self.listed() if each["Role"] == "Leader")]

    def plan(self, old: Member, known: str = "", **wishes: Any) -> dict[str, Any]:
        """The plan to replace a member; ``known`` is whom a plan that was confirmed names."""
        seen = [member.look() for member in self.members.values()]
        return plan(seen, f"host-{old.name}", Wishes(**wishes), Known(known))

    def stop(self) -> None:
        for member in self.members.values():
            member.kill()
        if self.store:
            self.store.send_signal(signal.SIGCONT)
            self.store.kill()
            self.store.wait()


@pytest.fixture(scope="module")
def made() -> Iterator[Cluster]:
    missing = [program for program in ("patroni", "patronictl", "etcd") if not shutil.which(program)]
    if missing:
        # For developers: make test, which installs them, takes a skipped test for one that failed.
        pytest.skip(f"Debian's packages patroni and etcd-server are not installed here ({', '.join(missing)})")
    root = Path(tempfile.mkdtemp(prefix="dbre-patroni-"))
    cluster = Cluster(root)
    try:
        cluster.make()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def cluster(made: Cluster) -> Cluster:
    made.settle()
    return made
