"""A production server and, per test, a recovered instance: a physical copy taken just before the damage.

Each test runs twice: as a superuser at the socket, and over the network (TLS) as a role that is no superuser, as the
master user of a managed service.

Run as the operating system user postgres (a server cannot run as root). DBRE_TEST_MAJOR chooses the PostgreSQL major
version (the newest installed one by default), DBRE_TEST_PORT the first of two ports.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import read_back
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_bin_dir
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect, login_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import open_production
from ansible_collections.dbre.recovery.plugins.module_utils._tables.remove import remove_staging
from ansible_collections.dbre.recovery.tests.life import eager_conf

HERE = Path(__file__).parent
PORT = int(os.environ.get("DBRE_TEST_PORT", "6510"))
RESTRICT = re.compile(r"^\\(un)?restrict .*\n", re.MULTILINE)


def installed_major() -> int:
    asked = os.environ.get("DBRE_TEST_MAJOR")
    return int(asked) if asked else next(m for m in range(18, 12, -1) if Path(f"/usr/lib/postgresql/{m}/bin").exists())


class Server:
    """One cluster below a directory."""

    def __init__(self, root: Path, name: str, port: int, bin_dir: str) -> None:
        self.data = root / name
        self.log = root / f"{name}.log"
        self.root = root
        self.port = port
        self.bin_dir = bin_dir

    def program(self, name: str, *arguments: str, database: str = "postgres") -> str:
        environment = {**os.environ, "PGHOST": str(self.root), "PGPORT": str(self.port), "PGDATABASE": database}
        done = subprocess.run(
            [f"{self.bin_dir}/{name}", *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{name} {arguments}: {done.stderr}"
        return done.stdout

    def start(self) -> None:
        command = [f"{self.bin_dir}/pg_ctl", "start", "-w", "-s", "-D", str(self.data), "-l", str(self.log)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self, mode: str = "immediate") -> None:
        command = [f"{self.bin_dir}/pg_ctl", "stop", "-w", "-s", "-m", mode, "-D", str(self.data)]
        subprocess.run(command, check=False, capture_output=True)

    def connect(self, database: str) -> Any:
        connection = connect({"login_unix_socket": str(self.root), "login_port": self.port}, database, options="")
        connection.autocommit = True
        return connection

    def sql(self, database: str, *statements: str) -> Any:
        """Run statements, each its own transaction; the first value of the last one."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                row = cursor.fetchone() if cursor.description else None
                return row[0] if row else None
        finally:
            connection.close()

    def definition(self, database: str) -> str:
        """All definitions, as text; only the key of psql's restricted mode is different each time."""
        dump = self.program("pg_dump", "--schema-only", "--create", database=database)
        return RESTRICT.sub("", dump)

    def contents(self, database: str) -> dict[str, str]:
        """A digest of the rows of every table and materialized view, computed apart from the code under test."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                    "WHERE (c.relkind = 'r' OR (c.relkind = 'm' AND c.relispopulated)) AND c.relpersistence = 'p' "
                    "AND n.nspname !~ '^(pg_|information_schema)' ORDER BY 1"
                )
                digests = {}
                for (name,) in cursor.fetchall():
                    cursor.execute(
                        "SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') "
                        f"FROM ONLY {name} t"
                    )
                    digests[name] = cursor.fetchone()[0]
                return digests
        finally:
            connection.close()


class World:
    """Production, the recovered instance, and the code under test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin_dir = find_bin_dir(installed_major())
        self.production = Server(root, "production", PORT, self.bin_dir)
        self.side = Server(root, "side", PORT + 1, self.bin_dir)
        self.taken = False

    def make(self) -> None:
        subprocess.run(
            [f"{self.bin_dir}/initdb", "-D", str(self.production.data), "-A", "trust", "-N", "--wal-segsize=1"],
            check=True,
            capture_output=True,
        )
        with (self.production.data / "postgresql.conf").open("a") as file:
            file.write(
                f"port = {PORT}\nunix_socket_directories = '{self.root}'\nfsync = off\n{self.listen()}"
                # Of the life beside, what reaches into the databases that the tests compare whole.
                f"wal_level = logical\nmax_connections = 40\nmax_prepared_transactions = 5\n{eager_conf()}"
            )
        self.production.start()
        self.prepare()
        self.production.sql(
            "postgres", "SET allow_in_place_tablespaces = on", "CREATE TABLESPACE dbre_space LOCATION ''"
        )
        self.keep("nothing")

    def listen(self) -> str:
        """Settings of the network."""
        return "listen_addresses = ''\n"

    def kept(self, name: str) -> Path:
        return self.root / f"with-{name}"

    def keep(self, name: str) -> None:
        """Stop production and put its data directory aside, to be copied."""
        self.production.stop("fast")
        self.production.data.rename(self.kept(name))

    def prepare(self) -> None:
        """What is in the cluster before there is any database of a test."""
        roles = ("dbre_owner", "dbre_reader", "dbre_mallory")
        self.production.sql("postgres", *(f"CREATE ROLE {name}" for name in roles))

    def fill(self, name: str) -> None:
        """A database, made by its script of this directory."""
        self.production.sql("postgres", f'CREATE DATABASE "{name}"')
        self.run_script(name, f"{name}.sql")

    def run_script(self, database: str, script: str, *options: str) -> None:
        command = ["-qX", "-v", "ON_ERROR_STOP=1", *options, "-f", str(HERE / script)]
        self.production.program("psql", *command, database=database)

    def begin(self, name: str) -> None:
        """Production anew, with one database made by its script of this directory, and the recovered instance."""
        self.production.stop()
        shutil.rmtree(self.production.data, ignore_errors=True)
        if not self.kept(name).exists():
            shutil.copytree(self.kept("nothing"), self.production.data, symlinks=True)
            self.production.start()
            self.fill(name)
            self.keep(name)
        shutil.copytree(self.kept(name), self.production.data, symlinks=True)
        self.production.start()
        self.start_side(self.kept(name))

    def take_side(self) -> None:
        """The recovered instance, as production is now."""
        self.production.stop("fast")
        self.start_side(self.production.data)
        self.production.start()

    def start_side(self, data: Path) -> None:
        """The recovered instance, from the data directory of a production that was stopped."""
        self.drop_side()
        shutil.copytree(data, self.side.data, symlinks=True)
        with (self.side.data / "postgresql.conf").open("a") as file:
            file.write(f"port = {PORT + 1}\nautovacuum = off\n")  # as where it is made by a restore
        self.side.start()
        self.taken = True

    def drop_side(self) -> None:
        if self.taken:
            self.side.stop()
            shutil.rmtree(self.side.data)
            self.taken = False

    @property
    def params(self) -> dict[str, Any]:
        return {
            "login_unix_socket": str(self.root),
            "login_port": PORT,
            "login_db": "postgres",
            "bin_dir": self.bin_dir,
            "instance": {
                "source": "pgbackrest",
                "socket": str(self.root),
                "port": PORT + 1,
                "database": "postgres",
                "isolation": read_back({"archive_mode": "off"}),
            },
            "instance_password": None,
        }

    def start_recovery(self, database: str, **asked: Any) -> subprocess.Popen[str]:
        """Start the driver; its result comes from finish()."""
        request = {
            "params": self.params,
            "database": database,
            "relations": [],
            "schemas": [],
            "load": "beside",
            "incident": "test",
            "recover": True,
            **asked,
        }
        driver = subprocess.Popen(
            [sys.executable, str(HERE / "driver.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert driver.stdin is not None
        driver.stdin.write(json.dumps(request))
        driver.stdin.close()
        driver.stdin = None
        return driver

    @staticmethod
    def finish(driver: subprocess.Popen[str]) -> dict[str, Any]:
        out, err = driver.communicate(timeout=120)
        assert out, err
        return dict(json.loads(out))

    def recover(self, database: str, **asked: Any) -> dict[str, Any]:
        """The whole recovery; fails the test when it fails."""
        answer = self.finish(self.start_recovery(database, **asked))
        assert "error" not in answer, answer["error"]
        return answer

    def refused(self, database: str, **asked: Any) -> str:
        """The message of a recovery that must fail."""
        answer = self.finish(self.start_recovery(database, **asked))
        return str(answer["error"])

    def memberships(self) -> list[Any]:
        """Who is a member of whom, as far as a recovery may change it."""
        return []

    def finish_left(self, database: str, answer: dict[str, Any]) -> list[str]:
        """Do as superuser what was left because we are none; the rest of what was left."""
        left = answer["result"]["left_to_do"]
        words = ("no superuser", "either", "row security binds")
        refused = [entry for entry in left if any(word in entry["reason"] for word in words)]
        for entry in refused:
            self.production.sql(database, entry["command"])
        return [entry["reason"] for entry in left if entry not in refused]

    def remove(self, database: str, incident: str = "test", check_mode: bool = False) -> dict[str, Any]:
        with open_production(login_of(self.params), self.params["bin_dir"], incident) as production:
            return remove_staging(production, database, incident, check_mode)


class NetworkWorld(World):
    """Production and the recovered instance as a managed service has them: no socket, no superuser, TLS.

    The master user made the roles that own things, and is no member of any of them.
    """

    def listen(self) -> str:
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"]
        files = ["-keyout", str(self.production.data / "server.key"), "-out", str(self.certificate)]
        subprocess.run(["openssl", "req", "-x509", "-nodes", *subject, *files], check=True, capture_output=True)
        shutil.copy(self.certificate, self.production.data / "server.crt")
        (self.production.data / "server.key").chmod(0o600)
        (self.production.data / "pg_hba.conf").write_text(
            "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
        )
        return "listen_addresses = '127.0.0.1'\nssl = on\npassword_encryption = 'scram-sha-256'\n"

    @property
    def certificate(self) -> Path:
        return self.root / "ca.pem"

    @property
    def passfile(self) -> Path:
        return self.root / "pgpass"

    def prepare(self) -> None:
        self.passfile.write_text("*:*:*:master:a secret\n")
        self.passfile.chmod(0o600)
        self.production.sql(
            "postgres",
            "CREATE ROLE dbre_super LOGIN SUPERUSER",
            "CREATE ROLE rds_superuser NOLOGIN",
            "GRANT pg_monitor, pg_signal_backend TO rds_superuser",
            "CREATE ROLE master LOGIN CREATEROLE CREATEDB PASSWORD 'a secret'",
            "GRANT rds_superuser TO master",
        )
        if installed_major() >= 15:
            self.production.sql("postgres", "GRANT SET ON PARAMETER session_replication_role TO rds_superuser")
        self.production.program(
            "psql",
            "-qX",
            "-U",
            "master",
            *(f"-cCREATE ROLE dbre_{name}" for name in ("owner", "reader", "app", "mallory")),
        )

    def fill(self, name: str) -> None:
        self.production.sql("postgres", f'CREATE DATABASE "{name}" OWNER dbre_super')
        self.run_script(name, f"{name}.sql", "-U", "dbre_super")
        self.run_script(name, "network.sql")

    @property
    def params(self) -> dict[str, Any]:
        return {
            "login_host": "127.0.0.1",
            "login_port": PORT,
            "login_user": "master",
            "login_passfile": str(self.passfile),
            "login_db": "postgres",
            "ssl_mode": "verify-ca",
            "ca_cert": str(self.certificate),
            "bin_dir": None,
            "instance": {
                "source": "rds",
                "host": "localhost",
                "port": PORT + 1,
                "user": "master",
                "passfile": str(self.passfile),
                "sslmode": "verify-full",
                "sslrootcert": self.certificate.read_text(),
                "database": "postgres",
                "isolation": read_back({"slots": "0"}),
            },
            "instance_password": None,
        }

    def memberships(self) -> list[Any]:
        connection = self.production.connect("postgres")
        with connection.cursor() as cursor:
            cursor.execute(
                # The row is made anew when its options were changed and put back; its OID (since 16) tells nothing.
                "SELECT roleid::regrole::text, (to_jsonb(m) - 'oid')::text FROM pg_auth_members m "
                "WHERE member = 'master'::regrole ORDER BY 1, 2"
            )
            found = cursor.fetchall()
        connection.close()
        return found


WORLDS = {"socket": World, "network": NetworkWorld}


@pytest.fixture(scope="session", params=WORLDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    root = Path(tempfile.mkdtemp(prefix="dbre-table-"))
    world = WORLDS[request.param](root)
    try:
        world.make()
        yield world
    finally:
        world.drop_side()
        world.production.stop()
        shutil.rmtree(root)


def begun(world: World, name: str) -> Iterator[World]:
    """The world with a database; afterwards the master user must be a member of nothing more than before."""
    world.begin(name)
    before = world.memberships()
    yield world
    assert world.memberships() == before


@pytest.fixture
def torture(world: World) -> Iterator[World]:
    """A database with everything in it, and its copy; the test damages production's."""
    yield from begun(world, "torture")


@pytest.fixture
def shop(world: World) -> Iterator[World]:
    """A small shop and its copy."""
    yield from begun(world, "shop")


@pytest.fixture
def linked(world: World) -> Iterator[World]:
    """Tables that foreign keys link, and their copy."""
    yield from begun(world, "linked")


@pytest.fixture
def waits(world: World) -> Iterator[World]:
    """A table for each step of a recovery and each kind of session in its way, and their copy."""
    yield from begun(world, "waits")
