"""A production in one folder on this machine, and the real playbook run against it as an operator would."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "examples" / "embedded"))

from leaks import Planted  # found by the lines above
from production import Production, free_port
from runs import Run, run, with_everything

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLAYBOOK = ROOT / "playbooks" / "dr-table-drop.yml"
# Only root makes and removes logins.
collect_ignore = [] if os.geteuid() == 0 else ["test_sudo.py"]
# Neither the superuser nor any database is called postgres.
SUPERUSER = "dba"
CONTROL = "template1"


class Shop(Production):
    """A small database, a full backup of it, and incidents whose records lie in the same folder."""

    def prepare(self) -> None:
        self.planted = Planted()
        keys = {f"repo1-{name}": self.planted.plant(name) for name in ("cipher-pass", "s3-key", "s3-key-secret")}
        self.create(
            settings={"fsync": "off", "max_prepared_transactions": "2"},
            repository={"repo1-cipher-type": "aes-256-cbc", **keys},
        )
        self.query(CONTROL, "DROP DATABASE postgres")
        self.make_database()
        self.backup()
        self.run("mkdir", "-p", "-m", "0700", self.folder / "tmp")
        self.pooler = free_port()
        inventory = self.inventory()
        host = inventory["all"]["children"]["primary"]["hosts"]["production"]
        host |= {"pgbouncer_port": self.pooler, "pgbouncer_socket_dir": str(self.socket_dir)}
        self.inventory_file = self.folder / "inventory.json"
        self.inventory_file.write_text(json.dumps(with_everything(inventory)))

    def make_database(self) -> None:
        """A database as at the beginning; what an earlier test made of it is gone."""
        self.query(CONTROL, "DROP DATABASE IF EXISTS shop WITH (FORCE)")
        self.query(CONTROL, "DROP ROLE IF EXISTS clerk")
        self.query(CONTROL, "CREATE ROLE clerk")
        self.query(CONTROL, "CREATE DATABASE shop")
        self.query("shop", "CREATE TABLE public.orders (id int PRIMARY KEY, what text)")
        self.query("shop", "INSERT INTO public.orders SELECT i, 'order ' || i FROM generate_series(1, 3000) i")
        self.query("shop", "CREATE TABLE public.lines (id int PRIMARY KEY, order_id int REFERENCES public.orders)")
        self.query("shop", "INSERT INTO public.lines SELECT i, i FROM generate_series(1, 3000) i")
        self.query("shop", "GRANT SELECT ON public.orders TO clerk")

    @contextlib.contextmanager
    def made_anew(self) -> Iterator[None]:
        """Another cluster in production's place, of which its stanza knows nothing; production again in the end."""
        kept = self.data.with_name("before")
        self.stop()
        self.run("mv", self.data, kept)
        self.run(self.program("initdb"), "-D", self.data, "-U", self.superuser, "--auth=trust", "--no-sync")
        self.run("cp", kept / "postgresql.conf", self.data / "postgresql.conf")
        self.start()
        try:
            yield
        finally:
            self.stop("immediate")
            self.run("rm", "-r", self.data)
            self.run("mv", kept, self.data)
            self.start()

    def begin(self, *command: Any) -> subprocess.Popen[bytes]:
        """Start a program as the user of the servers, which the caller ends."""
        return subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, **self._as_user())

    @contextlib.contextmanager
    def pgbouncer(self) -> Iterator[None]:
        """A real PgBouncer before the database shop."""
        (self.folder / "users.txt").write_text(f'"{self.user}" ""\n"{self.superuser}" ""\n')
        (self.folder / "pgbouncer.ini").write_text(
            f"[databases]\nshop = host={self.socket_dir} port={self.port} dbname=shop\n[pgbouncer]\nauth_type=trust\n"
            f"auth_file={self.folder}/users.txt\nadmin_users={self.user}\nlisten_addr=\nlisten_port={self.pooler}\n"
            f"unix_socket_dir={self.socket_dir}\nlogfile={self.log}/pgbouncer.log\npidfile={self.folder}/pgbouncer.pid\n"
        )
        process = self.begin("/usr/sbin/pgbouncer", "-q", self.folder / "pgbouncer.ini")
        try:
            end = time.monotonic() + 10
            while not (self.socket_dir / f".s.PGSQL.{self.pooler}").exists():
                assert time.monotonic() < end, "PgBouncer does not start"
                time.sleep(0.05)
            yield
        finally:
            process.kill()
            process.wait(10)
            (self.socket_dir / f".s.PGSQL.{self.pooler}").unlink(missing_ok=True)

    def is_paused(self) -> bool:
        """Whether clients of PgBouncer wait."""
        console = psycopg2.connect(host=str(self.socket_dir), port=self.pooler, user=self.user, dbname="pgbouncer")
        console.autocommit = True
        with contextlib.closing(console), console.cursor() as cursor:
            cursor.execute("SHOW DATABASES")
            names = [column[0] for column in cursor.description]
            (shop,) = [row for row in (dict(zip(names, values)) for values in cursor) if row["name"] == "shop"]
        return bool(int(shop["paused"]))

    @property
    def environment(self) -> dict[str, str]:
        return {
            "ANSIBLE_CONFIG": str(ROOT / "tests" / "rds" / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.folder / "ansible"),
            "ANSIBLE_REMOTE_TMP": str(self.folder / "tmp"),
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        }

    def recovery(self, *words: str, **variables: Any) -> list[str]:
        given = {"dr_database": "shop", "dr_confirm": True, "dr_report_dir": str(self.folder / "incidents")}
        given.update(variables)
        return ["ansible-playbook", "-i", str(self.inventory_file), str(PLAYBOOK), "-e", json.dumps(given), *words]

    def recover(self, *words: str, **variables: Any) -> Run:
        return run(self.recovery(*words, **variables), self.environment)

    def drop_orders(self) -> None:
        """The incident, by somebody who may write whatever the database says."""
        self.query("shop", "SET transaction_read_only = off; DROP TABLE public.orders CASCADE")

    def release(self, *words: str, **variables: Any) -> Run:
        """dr-release, for this production."""
        given = {"dr_report_dir": str(self.folder / "incidents"), **variables}
        return self.end("dr-release", *words, **given)

    def abandon(self, *words: str, **variables: Any) -> Run:
        """dr-abandon, for this production."""
        given = {"dr_report_dir": str(self.folder / "incidents"), **variables}
        return self.end("dr-abandon", *words, **given)

    def end(self, name: str, *words: str, **given: Any) -> Run:
        """A playbook that ends what another one has begun."""
        playbook = str(PLAYBOOK.with_name(f"{name}.yml"))
        command = ["ansible-playbook", "-i", str(self.inventory_file), playbook, "-e", json.dumps(given), *words]
        return run(command, self.environment)

    def obey(self, command: str) -> Run:
        """Run a command that the playbook told, word by word."""
        return run(shlex.split(command), self.environment)

    def report(self, incident: str) -> dict[str, Any]:
        return json.loads((self.folder / "incidents" / incident / "report.json").read_text())

    def count(self, table: str) -> int:
        return int(self.query("shop", f"SELECT count(*) FROM {table}")[0][0])


@pytest.fixture(scope="session")
def production() -> Iterator[Shop]:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="dbre-embedded."))
    folder.rmdir()
    shop = Shop(folder, superuser=SUPERUSER, control_database=CONTROL)
    try:
        shop.prepare()
        yield shop
    finally:
        shop.destroy()


@pytest.fixture
def shop(production: Shop) -> Iterator[Shop]:
    """The production with its database made anew; nothing is left running by a test that went well."""
    production.make_database()
    yield production
    left = production.run("sh", "-c", f"ls -A {production.folder}/side 2>/dev/null || true").strip()
    shutil.rmtree(production.folder / "side", ignore_errors=not left)
    assert left == ""
