# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small real PostgreSQL server, and a real PgBouncer before it, for the tests of this folder and its neighbours."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import psycopg2

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A cluster with trust on its socket and superuser ``postgres``."""

    def __init__(self, programs: Path, base: Path) -> None:
        self.programs = programs
        self.data = base / "data"
        self.socket = base / "run"
        self.socket.mkdir(parents=True)
        self.port = free_port()
        self.run("initdb", "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "-D", str(self.data))
        with (self.data / "postgresql.conf").open("a") as stream:
            stream.write(
                f"port={self.port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories='{self.socket}'\n"
                "fsync=off\nshared_buffers=16MB\nmax_connections=30\n"
            )
        self.run("pg_ctl", "-D", str(self.data), "-w", "-l", str(base / "log"), "start")

    def run(self, program: str, *arguments: str) -> None:
        subprocess.run([str(self.programs / program), *arguments], check=True, capture_output=True)

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self.data), "-m", "immediate", "-w", "stop")

    def params(self) -> dict[str, Any]:
        return {"login_unix_socket": str(self.socket), "login_port": self.port, "login_user": "postgres"}

    def connect(self, dbname: str = "postgres", user: str = "postgres") -> Any:
        connection = psycopg2.connect(host=str(self.socket), port=self.port, user=user, dbname=dbname)
        connection.autocommit = True
        return connection

    def sql(self, text: str, dbname: str = "postgres", user: str = "postgres") -> list[tuple[Any, ...]]:
        connection = self.connect(dbname, user)
        try:
            with connection.cursor() as cursor:
                cursor.execute(text)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


class PgBouncer:
    """PgBouncer before ``server``, with the databases shop (transaction pooling) and Shop-Two (session pooling)."""

    def __init__(self, server: Server, base: Path) -> None:
        self.socket = base
        self.port = free_port()
        (base / "users.txt").write_text('"postgres" ""\n"app" ""\n')
        (base / "pgbouncer.ini").write_text(
            "[databases]\n"
            f"shop = host={server.socket} port={server.port} dbname=shop pool_mode=transaction\n"
            f"Shop-Two = host={server.socket} port={server.port} dbname=shop pool_mode=session\n"
            "[pgbouncer]\n"
            f"listen_addr=127.0.0.1\nlisten_port={self.port}\nunix_socket_dir={base}\nlogfile={base}/log\n"
            f"pidfile={base}/pid\nauth_type=trust\nauth_file={base}/users.txt\nadmin_users=postgres\n"
        )
        self.process = subprocess.Popen(
            ["/usr/sbin/pgbouncer", "-q", str(base / "pgbouncer.ini")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                self.connect().close()
                return
            except psycopg2.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def params(self) -> dict[str, Any]:
        return {"login_unix_socket": str(self.socket), "login_port": self.port, "login_user": "postgres"}

    def connect(self, dbname: str = "shop", user: str = "app") -> Any:
        connection = psycopg2.connect(host=str(self.socket), port=self.port, user=user, dbname=dbname)
        connection.autocommit = True
        return connection
