"""A real PgBouncer that is led from a dead primary to the one that was promoted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._failover.pooler import Console, Move, repoint
from ansible_collections.dbre.recovery.plugins.module_utils._guard.pause import PauseMarkers, PgBouncerPause
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import server_pid, system_user

PORT = 6613


class PgBouncer:
    """One before the server on a port, whose file includes another one with its databases."""

    def __init__(self, root: Path, port: int) -> None:
        self.root, self.config, self.databases = root, root / "pgbouncer.ini", root / "databases.ini"
        user = system_user()
        (root / "users.txt").write_text(f'"{user}" ""\n')
        self.databases.write_text(
            f"[databases]\n; the shop\nshop = host={root} port={port} dbname=postgres user={user}\n"
        )
        self.config.write_text(
            f"%include {self.databases}\n[pgbouncer]\nunix_socket_dir={root}\nlisten_port={PORT}\nlogfile={root}/log\n"
            f"pidfile={root}/pid\nauth_type=trust\nauth_file={root}/users.txt\npool_mode=transaction\n"
        )
        self.process = subprocess.Popen(
            ["/usr/sbin/pgbouncer", "-q", str(self.config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def console(self) -> Any:
        login = {"login_unix_socket": str(self.root), "login_port": PORT, "login_user": "pgbouncer"}
        return connect(login, "pgbouncer", options="")

    def client(self) -> Any:
        made = psycopg2.connect(host=str(self.root), port=PORT, dbname="shop", user=system_user())
        made.autocommit = True
        return made

    def move(self, **more: Any) -> Move:
        return Move(
            **{"old_hosts": ["db1"], "old_port": 6610, "host": str(self.root), "port": 6611, "local": True, **more}
        )

    def repoint(self, check_mode: bool = False, **more: Any) -> dict[str, Any]:
        return repoint(self.console(), str(self.config), self.move(**more), check_mode)


@pytest.fixture
def bouncer(cluster: Any) -> Iterator[PgBouncer]:
    made = PgBouncer(cluster.root, cluster.primary.port)
    try:
        cluster.until((cluster.root / f".s.PGSQL.{PORT}").exists, "PgBouncer listens")
        yield made
    finally:
        made.process.kill()
        made.process.wait(10)


def commit(client: Any, number: int) -> None:
    with client.cursor() as cursor:
        cursor.execute("INSERT INTO told VALUES (%s)", (number,))


def test_a_client_that_stays_connected_writes_to_the_new_primary(cluster: Any, bouncer: PgBouncer) -> None:
    client = bouncer.client()
    commit(client, 1)
    cluster.agree()
    cluster.primary.kill()
    cluster.b.step("cut")
    cluster.b.step("promoted", lsn=cluster.b.look()["end"], timeline=1)
    mode = bouncer.databases.stat().st_mode

    assert bouncer.repoint(check_mode=True)["changed"]
    assert "port=6610" in bouncer.databases.read_text()
    done = bouncer.repoint()

    assert (done["changed"], done["databases"], done["cut"]) == (True, ["shop"], [])
    commit(client, 2)
    assert cluster.b.told() == [1, 2]
    assert "; the shop\n" in bouncer.databases.read_text()
    assert bouncer.databases.stat().st_mode == mode
    assert bouncer.databases.with_name("databases.ini.before-failover").exists()
    again = bouncer.repoint()
    assert (again["changed"], again["reconnected"]) == (False, [])


def test_a_client_that_is_made_to_wait_meanwhile_sees_no_error(
    cluster: Any, bouncer: PgBouncer, tmp_path: Path
) -> None:
    """As in a switchover: paused, the primary shut down in order, another promoted, led there, and resumed."""
    client = bouncer.client()
    commit(client, 1)
    cluster.agree()
    assert bouncer.repoint(check_mode=True)["leading"] == ["shop"]
    pause = PgBouncerPause(bouncer.console, "shop", 5, PauseMarkers(str(tmp_path / "paused"), "shop-pooler"), limit=60)
    assert pause.present(False)["changed"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(commit, client, 2)
        cluster.primary.stop()
        cluster.b.step("cut")
        cluster.b.step("promoted", lsn=cluster.b.look()["end"], timeline=1)
        bouncer.repoint()
        assert not waiting.done()
        assert pause.absent(False)["changed"]
        waiting.result(10)
    assert cluster.b.told() == [1, 2]


def test_a_client_that_came_when_nobody_was_there_does_not_wait_for_pgbouncers_next_try(
    cluster: Any, bouncer: PgBouncer
) -> None:
    """After a connection was refused PgBouncer tries again only when server_login_retry, 15 s, is over."""
    commit(bouncer.client(), 1)
    cluster.agree()
    cluster.primary.kill()
    over = threading.Event()

    def insist() -> float:
        """Commit as soon as one is let, as applications do; when that was."""
        while not over.is_set():
            with contextlib.suppress(psycopg2.Error), contextlib.closing(bouncer.client()) as client:
                commit(client, 2)
                return time.monotonic()
            time.sleep(0.05)
        return float("inf")

    with ThreadPoolExecutor(1) as pool:
        insisting = pool.submit(insist)
        try:
            cluster.until(lambda: "connect failed" in (cluster.root / "log").read_text(), "PgBouncer found nobody")
            cluster.b.step("cut")
            cluster.b.step("promoted", lsn=cluster.b.look()["end"], timeline=1)
            bouncer.repoint()
            led = time.monotonic()
            assert insisting.result(8) - led < 1
        finally:
            over.set()
    assert cluster.b.told() == [1, 2]
    told = Console(bouncer.console()).rows("SHOW CONFIG")
    assert {row["key"]: row["value"] for row in told}["server_login_retry"] == "15"


def test_a_query_that_waits_for_a_server_that_never_answers_is_cut(cluster: Any, bouncer: PgBouncer) -> None:
    """As when its power failed: nobody closes the connection."""
    waiting, idle = bouncer.client(), bouncer.client()
    commit(idle, 1)
    cluster.agree()
    pid = server_pid(str(cluster.primary.data))
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=True).stdout.split()
    frozen = [int(pid or 0), *map(int, children)]
    for each in frozen:
        os.kill(each, signal.SIGSTOP)
    try:
        connection = psycopg2.connect(host=str(cluster.root), port=PORT, dbname="shop", user=system_user(), async_=True)
        cluster.until(lambda: connection.poll() == psycopg2.extensions.POLL_OK, "connected")
        connection.cursor().execute("INSERT INTO told VALUES (99)")
        connection.poll()
        cluster.b.step("cut")
        cluster.b.step("promoted", lsn=cluster.b.look()["end"], timeline=1)
        assert bouncer.repoint()["cut"] == ["shop"]
        commit(bouncer.client(), 2)
        assert cluster.b.told() == [1, 2]
    finally:
        for each in frozen:
            os.kill(each, signal.SIGCONT)
    waiting.close()


def test_a_file_that_it_does_not_read_is_said_to_be_the_wrong_one(bouncer: PgBouncer, tmp_path: Path) -> None:
    wrong = tmp_path / "pgbouncer.ini"
    wrong.write_text("[databases]\n")
    with pytest.raises(RecoveryError, match=r"leads shop to db1 still, after RELOAD.*pgbouncer_config_path"):
        repoint(bouncer.console(), str(wrong), bouncer.move(), False)
    with pytest.raises(RecoveryError, match="cannot be read"):
        repoint(bouncer.console(), str(tmp_path / "none.ini"), bouncer.move(), False)
