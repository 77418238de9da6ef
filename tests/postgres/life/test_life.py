"""The life beside the incident really lives, harms nothing, and ends. Run as the operating system user postgres."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.tests.life import Life, eager_conf

PORT = int(os.environ.get("DBRE_TEST_PORT", "6950"))
TESTS = Path(__file__).parents[2]


class Server:
    def __init__(self, root: Path) -> None:
        self.root = root
        major = next(m for m in range(18, 12, -1) if Path(f"/usr/lib/postgresql/{m}/bin/postgres").exists())
        self.bin_dir = find_bin_dir(major)

    def start(self) -> None:
        self.run("initdb", "-D", f"{self.root}/data", "-A", "trust", "-N", "--wal-segsize=1", "-E", "UTF8")
        with open(f"{self.root}/data/postgresql.conf", "a") as conf:
            conf.write(f"port = {PORT}\nunix_socket_directories = '{self.root}'\nlisten_addresses = ''\nfsync = off\n")
            conf.write(f"max_prepared_transactions = 5\n{eager_conf()}")
        self.run("pg_ctl", "start", "-w", "-D", f"{self.root}/data", "-l", f"{self.root}/log")

    def stop(self) -> None:
        self.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", f"{self.root}/data")

    def run(self, program: str, *words: str) -> None:
        subprocess.run([f"{self.bin_dir}/{program}", *words], check=True, stdout=subprocess.DEVNULL)

    def sql(self, *statements: str, database: str = "postgres") -> Any:
        connection = psycopg2.connect(host=str(self.root), port=PORT, dbname=database)
        connection.autocommit = True
        with contextlib.closing(connection), connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else None

    def lives(self) -> int:
        return int(self.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'life'")[0][0])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server(Path(tempfile.mkdtemp(prefix="life-")))
    try:
        made.start()
        made.sql("CREATE DATABASE shop")
        made.sql("CREATE TABLE orders AS SELECT generate_series(1, 100) AS id", database="shop")
        yield made
    finally:
        made.stop()
        shutil.rmtree(made.root)


def test_every_kind_of_work_is_done_and_tables_of_others_stay_as_they_are(server: Server) -> None:
    looks = "SELECT xmin::text, ctid::text, id FROM orders ORDER BY id"
    # Frozen rows and all-visible pages are autovacuum's work and no change of the table.
    before = server.sql("VACUUM FREEZE orders", looks, database="shop")

    with Life(str(server.root), PORT, inside=("shop",), pause=0.1) as life:
        life.wait_for_every_kind()
        done, failed = life.done(), life.failed()

    assert {"databases", "rows", "checkpoints", "prepared transactions"} <= done.keys()
    assert failed == {}
    assert server.sql(looks, database="shop") == before
    vacuumed = "SELECT sum(autovacuum_count) > 0 FROM pg_stat_all_tables WHERE schemaname = 'life'"
    assert server.sql(vacuumed, database="life_shop") == [(True,)]
    assert server.lives() == 0


def test_it_ends_with_its_parent_even_when_that_is_killed(server: Server) -> None:
    script = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from life import Life;"
        "Life(sys.argv[2], int(sys.argv[3])).start(); print('lives', flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(TESTS), str(server.root), str(PORT)], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"lives\n"
    assert server.lives() > 0

    parent.send_signal(signal.SIGKILL)
    parent.communicate()

    end = time.monotonic() + 20
    while server.lives() and time.monotonic() < end:
        time.sleep(0.1)
    assert server.lives() == 0


def test_it_ends_after_its_time_and_can_be_removed(server: Server) -> None:
    command = [sys.executable, "-m", "life", "--socket", str(server.root), "--port", str(PORT), "--inside", "shop"]
    subprocess.run([*command, "--seconds", "1"], cwd=TESTS, check=True, stdout=subprocess.DEVNULL)

    subprocess.run([*command, "--remove"], cwd=TESTS, check=True)

    assert server.sql("SELECT datname FROM pg_database WHERE datname LIKE 'life%'") == []
    assert server.sql("SELECT rolname FROM pg_roles WHERE rolname LIKE 'life%'") == []
    assert server.sql("SELECT nspname FROM pg_namespace WHERE nspname = 'life'", database="shop") == []
