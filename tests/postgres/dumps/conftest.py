# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real server with the database "Shop", and another one that has none of its roles. Run as postgres."""

from __future__ import annotations

import glob
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_backup import DumpSet, LogicalBackup
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_load import LogicalLoad
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login

MAJORS = sorted(int(path.split("/")[4]) for path in glob.glob("/usr/lib/postgresql/*/bin/initdb"))
HERE = Path(__file__).parent
SEEDS = (HERE.parent / "dump_restores" / "seed.sql", HERE / "seed.sql")
PORT, OTHER_PORT = 6701, 6702


class Cluster:
    """A server below a directory, its dumps below ``backups``."""

    def __init__(self, home: Path, major: int, port: int) -> None:
        self.home, self.major, self.port = home, major, port
        self.bin_dir = f"/usr/lib/postgresql/{major}/bin"
        self.backups = home / "backups"

    def environment(self, database: str) -> dict[str, str]:
        # The seed makes the database read-only by default.
        settings = {"PGCLIENTENCODING": "UTF8", "PGOPTIONS": "-c default_transaction_read_only=off"}
        where = {"PGHOST": str(self.home), "PGPORT": str(self.port), "PGDATABASE": database}
        return {**os.environ, **settings, **where}

    def program(self, name: str, *arguments: object, database: str = "postgres", **options: Any) -> str:
        command = [os.path.join(self.bin_dir, name), *map(str, arguments)]
        env = self.environment(database)
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, **options)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def start(self) -> None:
        self.home.mkdir()
        (self.home / "fast").mkdir()
        self.program("initdb", "-D", self.home / "data", "-A", "trust", "-N", "-k", "-E", "UTF8", "--locale=C.UTF-8")
        self.start_again()

    def start_again(self) -> None:
        settings = f"-p {self.port} -k {self.home} -c listen_addresses= -c fsync=off -c wal_level=logical"
        command = [f"{self.bin_dir}/pg_ctl", "start", "-w", "-D", f"{self.home}/data", "-l", f"{self.home}/log"]
        subprocess.run([*command, "-o", settings], stdout=subprocess.DEVNULL, check=True)

    def stop(self) -> None:
        self.program("pg_ctl", "stop", "-D", self.home / "data", "-m", "immediate")

    def psql(self, script: str, database: str = "postgres") -> str:
        return self.program("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", database=database, input=script).strip()

    def backup(self, database: str = "Shop", **params: Any) -> LogicalBackup:
        place = {"path": str(self.backups), "login_unix_socket": str(self.home), "login_port": self.port}
        return LogicalBackup(DumpSet(**{**place, "database": database, "bin_dir": self.bin_dir, **params}))

    def dump(self, database: str = "Shop", **params: Any) -> dict[str, Any]:
        return self.backup(database, **params).take()["dump"]

    def dump_globals(self) -> dict[str, Any]:
        return self.backup("", globals=True).take()["dump"]

    def load(self, dump: Any, database: Any = None, **params: Any) -> LogicalLoad:
        login: Login = {"login_unix_socket": str(self.home), "login_port": self.port}
        path = dump["path"] if dump else None
        return LogicalLoad(login, dump=path, database=database, **{"jobs": 2, "bin_dir": self.bin_dir, **params})

    def databases(self) -> list[str]:
        return self.psql("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1").splitlines()

    def drop(self, database: str) -> None:
        """Drop a database, with its subscriptions, as if it had never been."""
        names = self.psql(
            "SELECT quote_ident(subname) FROM pg_subscription JOIN pg_database d ON d.oid = subdbid "
            f"WHERE datname = '{database}'"
        ).splitlines()
        for name in names:
            self.psql(f"ALTER SUBSCRIPTION {name} SET (slot_name = NONE); DROP SUBSCRIPTION {name}", database)
        self.psql(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')

    def definitions(self, database: str, *options: str) -> str:
        """Everything pg_dump writes of a database but its rows and remarks, under the name Shop."""
        text = self.program("pg_dump", "-s", *(options or ("-C",)), database=database)
        text = re.sub(r"(?m)^(?:--|\\).*\n|^\n", "", text)
        return text.replace(f'"{database}"', '"Shop"')

    def content(self, database: str) -> dict[str, str]:
        """Number of rows and a checksum of each table; values of all sequences; all large objects."""
        tables = self.psql(
            "SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE relkind IN ('r', 'm') AND relispopulated AND nspname !~ '^pg_|^information_schema' ORDER BY 1",
            database,
        ).splitlines()
        queries = [
            f"SELECT count(*) || ' ' || md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {t} t" for t in tables
        ]
        sequences = (
            "SELECT string_agg(format('%I.%I=%s', schemaname, sequencename, last_value), ' ' ORDER BY sequencename) "
        )
        queries.append(sequences + "FROM pg_sequences")
        queries.append("SELECT string_agg(oid || md5(lo_get(oid)), ' ' ORDER BY oid) FROM pg_largeobject_metadata")
        values = [self.psql(query, database) for query in queries]
        return dict(zip([*tables, "sequences", "large objects"], values))


@pytest.fixture(scope="session", params=MAJORS, ids=lambda major: f"pg{major}")
def homes(request: pytest.FixtureRequest) -> Iterator[tuple[Path, int]]:
    with tempfile.TemporaryDirectory(prefix="dbre-lb-") as home:
        yield Path(home), request.param


@pytest.fixture(scope="session")
def shop(homes: tuple[Path, int]) -> Iterator[Cluster]:
    """The server with the database Shop. Tests leave the database as it is."""
    cluster = Cluster(homes[0] / "a", homes[1], PORT)
    cluster.start()
    seed, more = (path.read_text() for path in SEEDS)
    cluster.psql(f"CREATE TABLESPACE fast LOCATION '{cluster.home}/fast';\n" + seed)
    cluster.psql(more, "shop")
    cluster.psql('ALTER DATABASE shop RENAME TO "Shop"')
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def other(homes: tuple[Path, int]) -> Iterator[Cluster]:
    """A server that was never the shop's."""
    cluster = Cluster(homes[0] / "b", homes[1], OTHER_PORT)
    cluster.start()
    yield cluster
    cluster.stop()
