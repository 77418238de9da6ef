# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``python3 -m life --socket PATH --port N``: lives until it is terminated, for ``--seconds`` at most."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Optional

import psycopg2

from .work import DATABASES, ROLE, SEED, SETTINGS, WORK, Statement, Work

# Settings of a test's role or database, or a standby that it names and that is not there, do not end the life in it.
OPTIONS = (
    "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0"
    " -c default_transaction_read_only=off -c temp_file_limit=-1 -c synchronous_commit=local"
)


class Server:
    """Where the life goes on, and the count of what was done."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._login = {"host": arguments.socket, "port": arguments.port, "application_name": "life", "options": OPTIONS}
        if arguments.user:
            self._login["user"] = arguments.user
        self.inside: list[str] = [*DATABASES, *arguments.inside]
        self.pause: float = arguments.pause
        self.stopping = threading.Event()
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._lock = threading.Lock()

    def connect(self, database: str) -> Any:
        connection = psycopg2.connect(dbname=database, connect_timeout=10, **self._login)
        connection.autocommit = True
        return connection

    def run(self, database: str, *statements: str) -> Any:
        """Run statements, each its own transaction; the first value of the last one."""
        with contextlib.closing(self.connect(database)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def count(self, kind: str) -> None:
        with self._lock:
            self.done[kind] += 1

    def note(self, error: psycopg2.Error) -> None:
        message = re.sub(r"\d+", "N", str(error).partition("\n")[0])
        with self._lock:
            self.failed[message] += 1

    def status(self) -> str:
        with self._lock:
            return json.dumps({"done": self.done, "failed": self.failed})

    def is_there(self, catalogue: str, column: str, name: str, database: str = "postgres") -> bool:
        return bool(self.run(database, f"SELECT count(*) FROM pg_catalog.{catalogue} WHERE {column} = '{name}'"))

    def roll_back_prepared(self) -> None:
        with contextlib.closing(self.connect("postgres")) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT gid, database FROM pg_catalog.pg_prepared_xacts WHERE gid LIKE 'life %'")
            for name, database in cursor.fetchall():
                self.run(database, f"ROLLBACK PREPARED '{name}'")

    def seed(self) -> None:
        """Make what is missing; what an earlier life left goes on, without the transactions that it was killed in."""
        self.roll_back_prepared()
        if not self.is_there("pg_roles", "rolname", ROLE):
            self.run("postgres", f"CREATE ROLE {ROLE}")
        for name, options in DATABASES.items():
            if not self.is_there("pg_database", "datname", name):
                self.run("postgres", f"CREATE DATABASE {name} TEMPLATE template0 {options}")
        self.run("postgres", *SETTINGS)
        for database in self.inside:
            if not self.is_there("pg_namespace", "nspname", "life", database):
                self.run(database, *SEED)

    def remove(self) -> None:
        """Remove all of it, what sessions that were killed have left too."""
        self.roll_back_prepared()
        with contextlib.closing(self.connect("postgres")) as connection, connection.cursor() as cursor:
            cursor.execute(r"SELECT datname FROM pg_catalog.pg_database WHERE datname LIKE 'life\_%'")
            for (name,) in cursor.fetchall():
                cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
            for database in self.inside:
                if self.is_there("pg_database", "datname", database):
                    self.run(database, "DROP EVENT TRIGGER IF EXISTS life_watch", "DROP SCHEMA IF EXISTS life CASCADE")
            cursor.execute(f"DROP ROLE IF EXISTS {ROLE}")


class Session(threading.Thread):
    """One kind of work in one database, round after round. What fails is noted, and begun anew."""

    def __init__(self, server: Server, kind: str, work: Work, database: str) -> None:
        super().__init__(daemon=True)
        self._server, self._kind, self._work, self._database = server, kind, work, database
        self._connection: Any = None

    def run(self) -> None:
        # Numbers of an earlier life are not used again: what it left when it was killed is not in the way.
        number = int(time.time() * 10) % 1000000
        while not self._server.stopping.is_set():
            number += 1
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = self._connect()
                for statement in self._work.statements:
                    self._do(statement, number)
                    self._server.stopping.wait(self._server.pause)
                self._server.count(self._kind)
            except psycopg2.Error as error:
                self._server.note(error)
                self._give_up()
                self._server.stopping.wait(1)
        self._give_up()

    def _connect(self) -> Any:
        connection = self._server.connect(self._database)
        if self._work.role:
            with connection.cursor() as cursor:
                cursor.execute(f"SET ROLE {self._work.role}")
        return connection

    def _do(self, statement: Statement, number: int) -> None:
        transaction = isinstance(statement, list)
        parts = statement if isinstance(statement, list) else [statement]
        with self._connection.cursor() as cursor:
            if transaction:
                cursor.execute("BEGIN")
            for part in parts:
                if self._server.stopping.is_set() and transaction:
                    break
                cursor.execute(part.format(n=number))
                self._server.stopping.wait(self._work.rest)
            if transaction and self._connection.info.transaction_status:
                cursor.execute("COMMIT" if not self._server.stopping.is_set() else "ROLLBACK")

    def _give_up(self) -> None:
        """End the session, and whatever it has open with it."""
        if self._connection is not None:
            with contextlib.suppress(psycopg2.Error):
                self._connection.close()
            self._connection = None

    def cancel(self) -> None:
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(psycopg2.Error):
                connection.cancel()


def sessions(server: Server) -> list[Session]:
    version = server.run("postgres", "SELECT current_setting('server_version_num')::int")
    prepared = server.run("postgres", "SELECT current_setting('max_prepared_transactions')::int")
    return [
        Session(server, kind, work, database)
        for kind, work in WORK.items()
        if version >= work.least_version and (prepared or not work.prepared)
        for database in ([work.database] if work.database else server.inside)
    ]


def live(server: Server, seconds: float, status: Optional[Path], parent: Optional[int]) -> None:
    working = sessions(server)
    server.done.update({session._kind: 0 for session in working})
    for session in working:
        session.start()
    end = time.monotonic() + seconds
    while not server.stopping.is_set() and time.monotonic() < end and parent in (None, os.getppid()):
        if status is not None:
            new = status.with_suffix(".new")
            new.write_text(server.status())
            new.replace(status)
        server.stopping.wait(0.2)
    server.stopping.set()
    join(working, 2)
    for session in working:
        session.cancel()
    join(working, 10)


def join(working: list[Session], seconds: float) -> None:
    """Wait until all have ended, so many seconds altogether."""
    end = time.monotonic() + seconds
    for session in working:
        session.join(timeout=max(0.0, end - time.monotonic()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="life", description=__doc__)
    parser.add_argument("--socket", required=True, help="directory of the server's Unix socket")
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--user", help="a superuser; the operating system's user by default")
    parser.add_argument("--inside", action="append", default=[], metavar="DATABASE", help="live in this one too")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds each session rests between pieces of work")
    parser.add_argument("--seconds", type=float, default=900, help="the end, if nobody terminates it before")
    parser.add_argument("--status", type=Path, help="file that says what was done until now")
    parser.add_argument("--with-parent", action="store_true", help="end when the process that started it has ended")
    parser.add_argument("--remove", action="store_true", help="remove all that lives have made, and end")
    arguments = parser.parse_args()
    server = Server(arguments)
    if arguments.remove:
        server.remove()
        return 0
    parent = os.getppid() if arguments.with_parent else None
    signal.signal(signal.SIGTERM, lambda *_signal: server.stopping.set())
    server.seed()
    live(server, arguments.seconds, arguments.status, parent)
    print(server.status())
    return 0


if __name__ == "__main__":
    sys.exit(main())
