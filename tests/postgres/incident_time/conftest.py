# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real server that logs as RDS does, its master user (who is no superuser), and the RDS calls that read its log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import login_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.incident_time import Asked, Search
from ansible_collections.dbre.recovery.tests.postgres.containment.server import PROGRAMS, Server, free_port

SHOP = """
CREATE TABLE orders (id int PRIMARY KEY, note text, total int);
CREATE TABLE items (id int, order_id int REFERENCES orders);
INSERT INTO orders SELECT g, 'note', g FROM generate_series(1, 3000) g;
"""


class LogFiles:
    """Answers as botocore's RDS client would for an instance whose log directory is ``directory``."""

    def __init__(self, server: Server, directory: Path, page: int = 4000) -> None:
        self.server = server
        self.directory = directory
        self.page = page

    def describe_db_instances(self, **_arguments: Any) -> dict[str, Any]:
        instance = {
            "DBInstanceIdentifier": "shop",
            "Engine": "postgres",
            "Endpoint": {"Address": "127.0.0.1", "Port": self.server.port},
            "DBParameterGroups": [{"DBParameterGroupName": "shop-parameters"}],
        }
        return {"DBInstances": [instance]}

    def describe_db_log_files(self, **arguments: Any) -> dict[str, Any]:
        found = []
        for file in sorted(self.directory.glob("postgresql.log*")):
            status = file.stat()
            written = int(status.st_mtime * 1000)
            if written >= arguments["FileLastWritten"]:
                found.append({"LogFileName": f"error/{file.name}", "LastWritten": written, "Size": status.st_size})
        return {"DescribeDBLogFiles": found}

    def download_db_log_file_portion(self, **arguments: Any) -> dict[str, Any]:
        data = (self.directory / Path(arguments["LogFileName"]).name).read_bytes()
        start = int(arguments["Marker"])
        end = data.find(b"\n", start + self.page) + 1 or len(data)
        return {
            "LogFileData": data[start:end].decode(),
            "Marker": str(end),
            "AdditionalDataPending": end < len(data),
        }


class Shop:
    """The database shop on a server, owned by ``master``, who is no superuser."""

    def __init__(self, server: Server, keeps_times: bool) -> None:
        self.server = server
        self.keeps_times = keeps_times
        self.log = server.data / "log"

    def connect(self, user: str = "master", autocommit: bool = True) -> Any:
        connection = psycopg2.connect(host="127.0.0.1", port=self.server.port, user=user, dbname="shop")
        connection.autocommit = autocommit
        return connection

    def sql(self, text: str, user: str = "master", dbname: str = "shop") -> list[tuple[Any, ...]]:
        return self.server.sql(text, dbname, user)

    def restored(self, target: str, base: Path, query: str) -> list[tuple[Any, ...]]:
        """What ``query`` finds in the copy ``base`` (pg_basebackup) recovered as RDS recovers to a RestoreTime."""
        port = free_port()
        with (base / "postgresql.conf").open("a") as stream:
            stream.write(
                f"port={port}\nlogging_collector=off\nrecovery_target_time='{target}'\n"
                f"recovery_target_action=promote\nrestore_command='cp {self.server.data}/pg_wal/%f %p'\n"
            )
        (base / "recovery.signal").touch()
        # Not -w alone: promoting at the end of a fast recovery can be later than the first connection.
        self.server.run("pg_ctl", "-D", str(base), "-w", "-l", str(base / "start"), "start")
        try:
            connection = psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname="shop")
            with connection.cursor() as cursor:
                cursor.execute(query)
                found = cursor.fetchall()
            connection.close()
            return found
        finally:
            self.server.run("pg_ctl", "-D", str(base), "-m", "immediate", "-w", "stop")

    def logs(self, statements: str) -> None:
        """What of master's sessions that begin from now on is logged."""
        self.server.sql(f"ALTER ROLE master SET log_statement = '{statements}'")

    def now(self) -> datetime:
        return datetime.now(timezone.utc)

    def search(self, *relations: str, **params: Any) -> Search:
        given = {
            "db_instance_identifier": "shop",
            "database": "shop",
            "relations": list(relations),
            "since": (self.now() - timedelta(minutes=5)).isoformat(),
            "login_user": "master",
            **params,
        }
        time.sleep(0.2)  # the log is written by a process of its own
        client = LogFiles(self.server, self.log)
        asked = pick(Asked, given)
        return Search(Rds(client, "eu-central-1"), lambda: None, login_of(given), asked, Progress(None), self.now())

    def find(self, *relations: str, **params: Any) -> dict[str, Any]:
        return self.search(*relations, **params).find()


def restart(server: Server) -> None:
    server.run("pg_ctl", "-D", str(server.data), "-w", "-l", str(server.data / "start"), "restart")


@pytest.fixture(scope="session", params=PROGRAMS, ids=lambda path: path.parent.name)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(request.param, tmp_path_factory.mktemp("server"))
    with (running.data / "postgresql.conf").open("a") as stream:
        stream.write(
            "logging_collector=on\nlog_directory=log\nlog_filename='postgresql.log.%Y-%m-%d-%H%M%S'\n"
            "log_rotation_age=60\nlog_timezone=UTC\nlog_line_prefix='%t:%r:%u@%d:[%p]:'\nlog_statement=ddl\n"
            "shared_preload_libraries=pg_stat_statements\nmax_prepared_transactions=5\n"
        )
    restart(running)
    running.sql("CREATE ROLE master LOGIN CREATEDB CREATEROLE IN ROLE pg_monitor; CREATE ROLE app LOGIN")
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session", params=[True, False], ids=["commit timestamps", "no commit timestamps"])
def keeps_times(request: pytest.FixtureRequest, server: Server) -> bool:
    server.sql(f"ALTER SYSTEM SET track_commit_timestamp = {'on' if request.param else 'off'}")
    restart(server)
    return bool(request.param)


def empty_log(server: Server) -> None:
    """A process of its own writes the log, in the order of the messages: the last one may be on its way."""
    mark = f"nothing is on its way: {time.monotonic_ns()}"
    server.sql(f"DO $$ BEGIN RAISE LOG '{mark}'; END $$")
    deadline = time.monotonic() + 30
    while not any(mark in log.read_text() for log in (server.data / "log").glob("postgresql.log*")):
        assert time.monotonic() < deadline, f"the log of {server.data} is not written"
        time.sleep(0.02)
    for log in (server.data / "log").glob("postgresql.log*"):
        log.write_bytes(b"")


@pytest.fixture
def shop(server: Server, keeps_times: bool) -> Iterator[Shop]:
    empty_log(server)  # each test has its own incident
    server.sql("CREATE DATABASE shop OWNER master")
    server.sql("CREATE EXTENSION pg_stat_statements", "shop")
    server.sql("SELECT pg_stat_statements_reset()", "shop")
    running = Shop(server, keeps_times)
    running.sql(SHOP)
    yield running
    running.logs("ddl")
    server.sql("DROP DATABASE IF EXISTS shop WITH (FORCE)")
