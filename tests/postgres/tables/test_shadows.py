# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions and operators that others named like PostgreSQL's own are never called by us."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_backup import DumpSet, LogicalBackup
from ansible_collections.dbre.recovery.plugins.module_utils._guard.containment import ReadOnly
from ansible_collections.dbre.recovery.plugins.module_utils._guard.protection import DropProtection
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.fingerprint import take_fingerprint
from ansible_collections.dbre.recovery.plugins.module_utils._wal import server

HERE = Path(__file__).parent
SOURCES = HERE.parents[2] / "plugins" / "module_utils"
NAME = "shadowed"


def words() -> str:
    """Every word of our code, among them the names of all functions that our SQL uses."""
    found = {word for path in SOURCES.rglob("*.py") for word in re.findall(r"[a-z_0-9]+", path.read_text())}
    return " ".join(sorted(found))


class Shadows:
    """A server with a shadow for everything, which says in its log when one is called."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.params = {**world.params, "login_db": NAME}
        self._read = 0

    def plant(self) -> None:
        file = self.world.root / "words"
        file.write_text(words())
        options = ["-o", "/dev/null", "-v", f"file={file}"]
        self.world.run_script(NAME, "shadows.sql", *options)
        self.world.take_side()
        self.called()

    def called(self) -> list[str]:
        """Shadows that were called since this was asked last."""
        said = [server.log.read_text(errors="replace") for server in (self.world.production, self.world.side)]
        found = re.findall("a shadow was called: (.*)", "".join(said))
        found, self._read = found[self._read :], len(found)
        return sorted(set(found))

    def connected(self, work: Callable[[Any], Any]) -> None:
        connection = connect(self.params)
        try:
            work(connection)
        finally:
            connection.close()


@pytest.fixture
def shadows(world: Any) -> Shadows:
    world.begin(NAME)
    shadows = Shadows(world)
    shadows.plant()
    return shadows


def backup(shadows: Shadows, **asked: Any) -> None:
    place = {"path": str(shadows.world.root / "dumps"), "bin_dir": shadows.world.bin_dir}
    login = {name: shadows.params[name] for name in ("login_unix_socket", "login_port")}
    LogicalBackup(DumpSet(**{"database": NAME, **place, **login, **asked})).take()


def test_no_shadow_of_a_function_or_operator_is_called(shadows: Shadows) -> None:
    world = shadows.world

    # That they answer those who are not careful.
    connection = psycopg2.connect(host=str(world.root), port=world.production.port, dbname=NAME)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 = 1, current_setting('server_version')")
    connection.close()
    assert len(shadows.called()) == 2

    def look(connection: Any) -> None:
        take_fingerprint(connection, [], ["public"])

    def protect(connection: Any) -> None:
        DropProtection(connection, [{"schema": "public", "name": "orders"}], ["public"], [], ["DELETE"]).ensure(
            "present", False
        )
        DropProtection(connection, [], [], [], []).ensure("absent", False)

    def contain(connection: Any) -> None:
        for state in ("present", "absent"):
            getattr(ReadOnly(connection, NAME, 5), state)(False)

    steps: dict[str, Callable[[], Any]] = {"a fingerprint": lambda: shadows.connected(look)}
    if world.params.get("login_unix_socket"):
        steps["protection"] = lambda: shadows.connected(protect)

        def locate() -> None:
            open_to = server.session(shadows.params)
            server.server_facts(open_to)
            server.wal_end(open_to)
            found = server.database_row_of(open_to, NAME)
            assert found
            server.fill_database(open_to, found)
            server.database_catalog(open_to)
            open_to.close()

        steps["the locator"] = locate
        steps["a dump"] = lambda: backup(shadows)
        steps["a dump of a table"] = lambda: backup(shadows, name="part", tables=["orders"])

    damage = "DROP TABLE public.orders, public.parts CASCADE; DELETE FROM public.customers WHERE id > 40"
    options = ["-qX", "-c", "SET search_path = ''", "-c", damage]
    steps["the damage"] = lambda: world.production.program("psql", *options, database=NAME)
    for load in ("beside", "merge", "replace"):
        asked = {"relations": ["orders", "parts", "customers"], "load": load, "incident": load}
        steps[f"recovery with {load}"] = partial(world.recover, NAME, **asked)
        steps[f"removal after {load}"] = partial(world.remove, NAME, load)
    called = {}
    for step, work in steps.items():
        work()
        called[step] = shadows.called()
    assert called == dict.fromkeys(steps, [])


def test_nothing_temporary_goes_before_the_servers_own_types_and_tables(world: Any) -> None:
    world.begin(NAME)
    connection = connect({**world.params, "login_db": NAME})
    try:
        with connection.cursor() as cursor:
            # As code of users could leave them behind where an older server does not keep it from that.
            cursor.execute("CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (value = 'never')")
            cursor.execute("CREATE TEMPORARY TABLE pg_class (oid oid)")
        assert take_fingerprint(connection, [], ["public"])
    finally:
        connection.close()
