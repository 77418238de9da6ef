# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps of a real server, restored beside it: run as postgres, with every PostgreSQL that this host has."""

from __future__ import annotations

import glob
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.pick import pick
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_instance import Asked, LogicalRestore
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import ensure_state

MAJORS = sorted(int(path.split("/")[4]) for path in glob.glob("/usr/lib/postgresql/*/bin/initdb"))
PORT = 6801
TABLES = [
    "public.customers",
    "public.orders",
    "public.order_lines",
    "public.parts",
    "public.uses_parts",
    '"Sales"."Order Lines"',
    '"Sales".base',
]
RUNNER = """
import json, sys
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_instance import LogicalRestore, Asked
LogicalRestore(Asked(**json.loads(sys.argv[1]))).ensure()
"""


class Production:
    """A server with the database "shop", and dumps of it."""

    def __init__(self, major: int, home: Path) -> None:
        self.major = major
        self.home = home
        self.bin_dir = f"/usr/lib/postgresql/{major}/bin"

    def program(self, name: str, *arguments: object, **options: Any) -> str:
        command = [os.path.join(self.bin_dir, name), *map(str, arguments)]
        options.setdefault("env", {**os.environ, "PGCLIENTENCODING": "UTF8"})
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def start(self) -> None:
        (self.home / "fast").mkdir()
        self.program("initdb", "-D", self.home / "data", "-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8")
        settings = f"-p {PORT} -k {self.home} -c listen_addresses= -c fsync=off -c wal_level=logical"
        log = self.home / "log"
        command = [f"{self.bin_dir}/pg_ctl", "start", "-w", "-D", f"{self.home}/data", "-l", str(log), "-o", settings]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        seed = (Path(__file__).parent / "seed.sql").read_text()
        self.psql(f"CREATE TABLESPACE fast LOCATION '{self.home}/fast';\n" + seed)

    def stop(self) -> None:
        self.program("pg_ctl", "stop", "-D", self.home / "data", "-m", "immediate")

    def psql(self, script: str, database: str = "postgres") -> str:
        return self.program(
            *("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.home, "-p", PORT, "-d", database), input=script
        )

    def dump(self, *options: object, database: str = "shop", name: str = "", **keywords: Any) -> Path:
        handle, path = tempfile.mkstemp(prefix=name, dir=self.home)
        os.close(handle)
        os.unlink(path)
        self.program("pg_dump", "-h", self.home, "-p", PORT, "-f", path, *options, database, **keywords)
        return Path(path)


@pytest.fixture(scope="module", params=MAJORS, ids=lambda major: f"pg{major}")
def production(request: pytest.FixtureRequest) -> Iterator[Production]:
    with tempfile.TemporaryDirectory(prefix="dbre-") as home:
        server = Production(request.param, Path(home))
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="module")
def custom(production: Production) -> Path:
    return production.dump("-Fc", name="shop")


@pytest.fixture
def side() -> Iterator[Path]:
    """Path for a side instance; whatever is there at the end is removed as a user would."""
    with tempfile.TemporaryDirectory(prefix="dbre-side-") as home:
        path = Path(home) / "side"
        yield path
        if (path / "marker.json").exists():
            ensure_state(SideInstance(str(path)), "absent")


def parameters(dump: Path, side: Path, *relations: str, **other: Any) -> dict[str, Any]:
    return {
        **{"dump": str(dump), "path": str(side), "database": "shop", "relations": list(relations), "schemas": []},
        **{"roles": ["shop_owner", "shop_app", "postgres"], "tablespaces": [], "major_version": 0, "jobs": 2},
        **{"port": 0, "incident": "i1", "bin_dir": None, "utc_offset": None, "client": None},
        **other,
    }


def made_of(given: dict[str, Any]) -> LogicalRestore:
    return LogicalRestore(pick(Asked, given))


def restore(dump: Path, side: Path, *relations: str, **other: Any) -> dict[str, Any]:
    made = made_of(parameters(dump, side, *relations, **other))
    made.plan()
    instance, _proof, _changed = made.ensure()
    return instance


def refusal(dump: Path, side: Path, *relations: str, **other: Any) -> str:
    """The message with which a plan is refused; nothing may have been made."""
    with pytest.raises(RecoveryError) as caught:
        made_of(parameters(dump, side, *relations, **other)).plan()
    assert not (side / "data").exists()
    return caught.value.msg


def ask(instance: dict[str, Any], query: str, database: Optional[str] = None) -> list[tuple[Any, ...]]:
    where = {"login_unix_socket": instance["socket"], "login_port": instance["port"], "login_user": instance["user"]}
    connection = connect(where, database or instance["database"], options="")
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())
    finally:
        connection.close()


def rows(production: Production, instance: Optional[dict[str, Any]], table: str) -> str:
    """Number of rows and checksum of a table, in production or in an instance."""
    query = f"SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM {table} t"
    return str(ask(instance, query)[0][0]) if instance else production.psql(query, "shop").strip()


def definitions(production: Production, instance: Optional[dict[str, Any]] = None) -> str:
    where = ["-h", instance["socket"], "-p", instance["port"]] if instance else ["-h", production.home, "-p", PORT]
    text = production.program("pg_dump", "-s", "-C", "--no-subscriptions", *where, "shop")
    return re.sub(r"(?m)^\\(un)?restrict .*$", "", text)


def with_rows(production: Production, instance: dict[str, Any]) -> list[str]:
    return [table for table in TABLES if not rows(production, instance, table).startswith("0 ")]


# What comes back


@pytest.mark.parametrize("format_options", [("-Fc",), ("-Fd",), ("-Fd", "-Z0", "-j2"), ("-Fc", "-Z0")])
def test_a_lost_table_comes_back_with_its_rows_and_all_definitions(
    production: Production, side: Path, format_options: tuple[str, ...]
) -> None:
    instance = restore(production.dump(*format_options), side, "public.orders")
    assert rows(production, instance, "public.orders") == rows(production, None, "public.orders")
    assert with_rows(production, instance) == ["public.orders"]
    assert definitions(production, instance) == definitions(production)
    assert ask(instance, "SELECT last_value FROM public.orders_id_seq") == [(20000,)]


def test_a_dump_that_went_through_a_pipe_is_read_too(production: Production, side: Path) -> None:
    dump = production.home / "piped"
    command = f'"{production.bin_dir}/pg_dump" -h {production.home} -p {PORT} -Fc shop | cat > {dump}'
    subprocess.run(["sh", "-c", command], check=True)
    plan = made_of(parameters(dump, side, "public.orders")).plan()
    assert plan["disk"]["known"] is False
    assert plan["disk"]["in_dump"] == dump.stat().st_size
    instance = restore(dump, side, "public.orders")
    assert rows(production, instance, "public.orders") == rows(production, None, "public.orders")


def test_without_names_everything_comes_back(production: Production, custom: Path, side: Path) -> None:
    instance = restore(custom, side)
    assert [rows(production, instance, table) for table in TABLES] == [rows(production, None, t) for t in TABLES]
    assert definitions(production, instance) == definitions(production)
    assert ask(instance, "SELECT convert_from(lo_get(4711), 'UTF8')") == [("a large object",)]
    assert ask(instance, "SELECT * FROM public.report") == [(1,)]


def test_a_partitioned_table_brings_its_partitions(production: Production, custom: Path, side: Path) -> None:
    instance = restore(custom, side, "public.parts", "public.uses_parts")
    assert with_rows(production, instance) == ["public.parts", "public.uses_parts"]
    assert rows(production, instance, "public.parts") == rows(production, None, "public.parts")
    assert definitions(production, instance) == definitions(production)


def test_a_key_into_a_partitioned_table_left_empty_is_kept(production: Production, custom: Path, side: Path) -> None:
    instance = restore(custom, side, "public.uses_parts", '"Sales"."parts 2a"')
    assert rows(production, instance, "public.uses_parts") == rows(production, None, "public.uses_parts")
    assert definitions(production, instance) == definitions(production)


def test_a_schema_brings_its_tables_and_those_that_inherit(production: Production, custom: Path, side: Path) -> None:
    instance = restore(custom, side, schemas=['"Sales"'])
    for table in ('"Sales"."Order Lines"', '"Sales".base', "public.child"):
        assert rows(production, instance, table) == rows(production, None, table)
    assert rows(production, instance, "public.orders").startswith("0 ")


def test_materialized_views_count_as_filled_exactly_when_they_were(
    production: Production, custom: Path, side: Path
) -> None:
    # Filling "report" here would divide by zero, since its table stays empty.
    instance = restore(custom, side, "public.orders")
    query = "SELECT relname, relispopulated FROM pg_class WHERE relkind = 'm' ORDER BY 1"
    assert ask(instance, query) == [("never_filled", False), ("report", True)]


def test_roles_are_made_without_login(production: Production, custom: Path, side: Path) -> None:
    plan = made_of(parameters(custom, side, "public.orders", roles=["shop_owner", "not_in_dump"])).plan()
    assert plan["roles_unknown"] == ['Odd "Role', "only_in_dump", "shop_app"]
    instance = restore(custom, side, "public.orders", roles=["shop_owner", "not_in_dump"])
    query = "SELECT rolname FROM pg_roles WHERE NOT rolcanlogin AND rolname !~ '^pg_' ORDER BY 1"
    names = [name for (name,) in ask(instance, query)]
    assert sorted(names) == ['Odd "Role', "not_in_dump", "only_in_dump", "shop_app", "shop_owner"]


def test_the_database_gets_its_name_in_production(production: Production, custom: Path, side: Path) -> None:
    instance = restore(custom, side, "public.orders", database="Shop = new")
    assert instance["database"] == "Shop = new"
    assert ask(instance, "SELECT count(*) FROM public.orders") == [(20000,)]


def test_a_dump_of_the_database_postgres(production: Production, side: Path) -> None:
    production.psql("CREATE TABLE IF NOT EXISTS public.kept AS SELECT 1 AS one")
    dump = production.dump("-Fc", database="postgres")
    assert ask(restore(dump, side, "public.kept", database="postgres"), "SELECT * FROM public.kept") == [(1,)]


def test_a_dump_of_the_database_postgres_under_another_name(production: Production, side: Path) -> None:
    production.psql("CREATE TABLE IF NOT EXISTS public.kept AS SELECT 1 AS one")
    dump = production.dump("-Fc", database="postgres")
    assert ask(restore(dump, side, "public.kept"), "SELECT * FROM public.kept") == [(1,)]


def test_names_in_another_encoding(production: Production, side: Path) -> None:
    production.psql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    production.psql('CREATE TABLE "Größe" AS SELECT \'äöü\' AS "Maß"', "latin")
    dump = production.dump("-Fc", database="latin", env=dict(os.environ))
    instance = restore(dump, side, '"Größe"', database="latin")
    assert ask(instance, 'SELECT "Maß" FROM "Größe"') == [("äöü",)]
    assert ask(instance, "SHOW server_encoding") == [("LATIN1",)]
    production.psql("DROP DATABASE latin")


def test_large_objects_come_with_tables_that_can_name_them(production: Production, side: Path) -> None:
    production.psql("CREATE DATABASE pictured")
    production.psql(
        'CREATE DOMAIN "Large" AS oid; CREATE DOMAIN larger AS "Large"; CREATE TYPE drawn AS (id int, raw larger[]);'
        "CREATE TABLE pictures (id int, raw larger NOT NULL); CREATE TABLE photos () INHERITS (pictures);"
        "CREATE TABLE drawings OF drawn;"
        "INSERT INTO photos VALUES (1, lo_from_bytea(4712, 'a picture'));"
        "ALTER LARGE OBJECT 4712 OWNER TO shop_owner; GRANT SELECT ON LARGE OBJECT 4712 TO PUBLIC;"
        "COMMENT ON LARGE OBJECT 4712 IS 'kept'; CREATE TABLE others AS SELECT 1 AS id",
        "pictured",
    )
    dump = production.dump("-Fc", database="pictured")
    instance = restore(dump, side, "public.photos", database="pictured")
    query = (
        "SELECT convert_from(lo_get(oid), 'UTF8'), lomowner::regrole::text, obj_description(oid, 'pg_largeobject'), "
        "'=r' = ANY (lomacl::text[]::varchar(2)[]) FROM pg_largeobject_metadata"
    )
    assert ask(instance, query) == [("a picture", "shop_owner", "kept", True)]
    for table, are_left_out in (("pictures", False), ("drawings", False), ("others", True)):
        plan = made_of(parameters(dump, side.parent / "other", f"public.{table}", database="pictured")).plan()
        assert any("BLOB" in item for item in plan["left_out"]) == are_left_out, table
    production.psql("DROP DATABASE pictured")


# What it says


def test_the_contract_and_the_proof(production: Production, custom: Path, side: Path) -> None:
    made = made_of(parameters(custom, side, "public.orders"))
    instance, proof, changed = made.ensure()
    assert changed
    assert instance == {
        **{
            "source": "dump",
            "own_oids": True,
            "host": None,
            "socket": str(side / "run"),
            "database": "shop",
            "state": "promoted",
        },
        **{"isolation": instance["isolation"], "path": str(side), "data_directory": str(side / "data")},
        **{"port": instance["port"], "user": "postgres", "version_num": instance["version_num"]},
        "reached": {"lsn": None, "time": made.created.isoformat(), "timeline": None},
        "system_identifier": proof["system_identifier"],
    }
    assert instance["version_num"] // 10000 == production.major
    assert proof["archive_mode"] == "off"
    assert proof["listen_addresses"] == ""
    assert {item["what"]: item["value"] for item in instance["isolation"]}.items() <= proof.items()
    assert ask(instance, "SELECT count(*) FROM pg_subscription") == [(0,)]
    assert ask(instance, "SELECT pg_is_in_recovery()") == [(False,)]


def test_the_plan_says_what_is_in_the_dump_and_changes_nothing(
    production: Production, custom: Path, side: Path
) -> None:
    plan = made_of(parameters(custom, side, "public.parts")).plan()
    assert plan["dump"]["format"] == "custom"
    assert plan["dump"]["database"] == "shop"
    assert 0 <= plan["dump"]["age_seconds"] < 3600
    assert [table["name"] for table in plan["tables_with_rows"]] == ["parts 2a", "parts_1"]
    assert plan["left_out"] == (
        ["BLOB 4711", "BLOBS BLOBS", "COMMENT SUBSCRIPTION elsewhere", "SUBSCRIPTION elsewhere"]
        if production.major < 17
        else ["BLOB METADATA 4711", "BLOBS 4711", "COMMENT SUBSCRIPTION elsewhere", "SUBSCRIPTION elsewhere"]
    )
    assert plan["tablespaces"] == ["fast"]
    assert (plan["encoding"], plan["lc_collate"]) == ("UTF8", "C.UTF-8")
    assert 0 < plan["disk"]["in_dump"] < plan["dump"]["size"]
    assert not side.exists()


def test_the_time_of_a_dump_made_in_another_zone(production: Production, side: Path) -> None:
    dump = production.dump("-Fc", env={**os.environ, "TZ": "ODD-13:45"})
    assert "Dumps record no time zone" in refusal(dump, side, "public.orders")
    plan = made_of(parameters(dump, side, "public.orders", utc_offset="+13:45")).plan()
    assert plan["dump"]["created"].endswith("+13:45")
    assert 0 <= plan["dump"]["age_seconds"] < 600
    assert "numeric offset" in refusal(dump, side, "public.orders", utc_offset="CET")


# What is refused, before anything is made


def test_a_table_that_was_never_there(production: Production, custom: Path, side: Path) -> None:
    message = refusal(custom, side, "public.orderss")
    assert "has no table public.orderss. Similar names in it: public.orders" in message
    assert "Similar names in it: public.orders" in refusal(custom, side, '"Sales".orders')
    assert 'has no schema "sales.x"' in refusal(custom, side, schemas=['"sales.x"'])


def test_dumps_that_are_no_archive(production: Production, custom: Path, side: Path) -> None:
    plain = production.dump("-Fp")
    assert "plain SQL script" in refusal(plain, side, "public.orders")
    assert "psql -X -v ON_ERROR_STOP=1" in refusal(plain, side, "public.orders")
    assert "is a tar dump" in refusal(production.dump("-Ft"), side, "public.orders")
    wrapped = production.home / "wrapped"
    wrapped.write_bytes(gzip.compress(custom.read_bytes()))
    assert "compressed by gzip from outside" in refusal(wrapped, side, "public.orders")
    wrapped.write_bytes(os.urandom(7) + custom.read_bytes())
    assert "no custom" not in refusal(wrapped, side, "public.orders")
    wrapped.write_bytes(b"")
    assert "is empty" in refusal(wrapped, side, "public.orders")
    assert "without toc.dat" in refusal(production.home, side, "public.orders")
    assert "cannot read the dump" in refusal(production.home / "nowhere", side, "public.orders")


def test_dumps_of_a_part(production: Production, side: Path) -> None:
    for options, lacking in (
        (("-t", "public.orders"), "it lacks public.customers."),
        (("-t", '"Sales"."Order Lines"'), 'it lacks schema "Sales".'),
        (("-a",), "it lacks the definitions of its tables."),
    ):
        message = refusal(production.dump("-Fc", *options), side, "public.orders")
        assert "of a part of database shop" in message
        assert lacking in message
    for options in (("-s",), ("--exclude-table-data", "public.orders")):
        dump = production.dump("-Fc", *options)
        assert "the definition but not the rows of public.orders" in refusal(dump, side, "public.orders")


def test_a_dump_cut_short(production: Production, custom: Path, side: Path) -> None:
    cut = production.home / "cut"
    cut.write_bytes(custom.read_bytes()[:5000])
    assert "cut short" in refusal(cut, side, "public.orders")
    directory = production.dump("-Fd")
    for file in directory.glob("[0-9]*.dat*"):
        file.unlink()
    assert "copied incompletely" in refusal(directory, side, "public.orders")


def test_a_dump_of_a_newer_server(production: Production, custom: Path, side: Path) -> None:
    newer = production.home / "newer"
    newer.write_bytes(custom.read_bytes().replace(f"{production.major}.".encode(), b"99.", 1))
    message = refusal(newer, side, "public.orders", major_version=production.major)
    assert "made of a server of version 99." in message
    assert f"are of version {production.major}" in message


def test_too_little_room(production: Production, side: Path) -> None:
    piped = production.home / "large"
    command = f'"{production.bin_dir}/pg_dump" -h {production.home} -p {PORT} -Fc shop | cat > {piped}'
    subprocess.run(["sh", "-c", command], check=True)
    os.truncate(piped, 10 * 1024**4)
    assert "Make room, choose a path" in refusal(piped, side, "public.orders")
    piped.unlink()


def test_a_locale_the_host_does_not_have(production: Production, custom: Path, side: Path) -> None:
    other = production.home / "locale"
    other.write_bytes(custom.read_bytes().replace(b"LOCALE = 'C.UTF-8'", b"LOCALE = 'xx_YYYY'", 1))
    assert "has locale 'xx_YYYY'" in refusal(other, side, "public.orders")


def test_an_extension_the_host_does_not_have(production: Production, custom: Path, side: Path) -> None:
    production.psql("CREATE DATABASE extended")
    production.psql("CREATE EXTENSION pg_stat_statements", "extended")
    dump = production.dump("-Fc", database="extended")
    dump.write_bytes(dump.read_bytes().replace(b"pg_stat_statements", b"pg_stat_statementz"))
    assert "needs extensions" in refusal(dump, side, database="extended")
    production.psql("DROP DATABASE extended")


def test_a_path_that_holds_something_else(production: Production, custom: Path, side: Path) -> None:
    side.mkdir()
    (side / "precious").write_text("mine")
    assert "is not empty" in refusal(custom, side, "public.orders")
    assert (side / "precious").read_text() == "mine"
    (side / "precious").unlink()
    restore(custom, side, "public.orders")
    for other in ({"incident": "i2"}, {"relations": ["public.parts"]}):
        with pytest.raises(RecoveryError, match="already holds a side instance of"):
            made_of({**parameters(custom, side, "public.orders"), **other}).ensure()


# What happens when something goes wrong


def test_an_error_of_pg_restore_is_loud(production: Production, side: Path) -> None:
    production.psql("CREATE DATABASE strict")
    production.psql(
        "CREATE TABLE a (id int); INSERT INTO a VALUES (1);"
        "CREATE FUNCTION in_a(int) RETURNS boolean LANGUAGE sql"
        " AS 'SELECT EXISTS (SELECT FROM public.a WHERE id = $1)';"
        "CREATE TABLE b (id int CHECK (in_a(id))); INSERT INTO b VALUES (1)",
        "strict",
    )
    dump = production.dump("-Fc", database="strict")
    with pytest.raises(RecoveryError) as caught:
        restore(dump, side, "public.b", database="strict")
    assert "failed on" in caught.value.msg
    assert 'violates check constraint "b_id_check"' in caught.value.msg
    assert "name no tables and set jobs to 1" in caught.value.msg
    ensure_state(SideInstance(str(side)), "absent")
    assert ask(restore(dump, side, database="strict", jobs=1), "SELECT id FROM b") == [(1,)]
    production.psql("DROP DATABASE strict")


def test_a_second_run_changes_nothing_and_a_stopped_instance_is_started(
    production: Production, custom: Path, side: Path
) -> None:
    def unread(made: LogicalRestore) -> tuple[dict[str, Any], bool]:
        """The instance, without the moments at which its isolation was read back, and whether anything changed."""
        instance, _proof, changed = made.ensure()
        isolation = {item["what"]: item["value"] for item in instance["isolation"]}
        return {**instance, "isolation": isolation}, changed

    first = unread(made_of(parameters(custom, side, "public.orders")))[0]
    assert unread(made_of(parameters(custom, side, "public.orders"))) == (first, False)
    ensure_state(SideInstance(str(side)), "stopped")
    again = made_of(parameters(custom, side, "public.orders"))
    assert again.plan()["earlier"] == "restored"
    assert unread(again) == (first, True)
    assert rows(production, first, "public.orders") == rows(production, None, "public.orders")


def test_an_instance_from_before_a_boot_is_made_again(production: Production, custom: Path, side: Path) -> None:
    first = restore(custom, side, "public.orders")
    ensure_state(SideInstance(str(side)), "stopped")
    instance = SideInstance(str(side))
    instance.write_marker({**instance.marker(), "boot_id": "another boot"})
    second = restore(custom, side, "public.orders")
    assert second["system_identifier"] != first["system_identifier"]
    assert rows(production, second, "public.orders") == rows(production, None, "public.orders")


@pytest.mark.parametrize("moment", ["marker.json", "data/base", "log/database.log", "items/items.3", "log/rows.log"])
def test_killed_and_run_again_it_ends_as_if_never_killed(
    production: Production, custom: Path, side: Path, moment: str
) -> None:
    wanted = parameters(custom, side, "public.orders")
    process = subprocess.Popen([sys.executable, "-c", RUNNER, json.dumps(wanted)])
    try:
        deadline = time.monotonic() + 30
        while not (side / moment).exists():
            assert process.poll() is None, "the run ended before the moment came"
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    again = made_of(wanted)
    assert again.plan()["earlier"] == "restoring"
    instance, _proof, changed = again.ensure()
    assert changed
    assert rows(production, instance, "public.orders") == rows(production, None, "public.orders")
    assert definitions(production, instance) == definitions(production)


def test_absent_leaves_nothing(production: Production, custom: Path, side: Path) -> None:
    restore(custom, side, "public.orders")
    pid = SideInstance(str(side)).pid()
    assert ensure_state(SideInstance(str(side)), "absent")["changed"]
    assert not side.exists()
    with pytest.raises(OSError):  # gone; a process whose status nobody took yet works nowhere
        os.readlink(f"/proc/{pid}/cwd")
    assert not ensure_state(SideInstance(str(side)), "absent")["changed"]


def test_a_client_comes_in_by_password_and_tls_only(production: Production, custom: Path, side: Path) -> None:
    client = {
        "address": "127.0.0.1",
        "listen": "127.0.0.1",
        "user": "rescue",
        "password": "a-secret",
        "database": "shop",
    }
    instance = restore(custom, side, "public.orders", client=client)
    assert (instance["host"], instance["user"], instance["sslmode"]) == ("127.0.0.1", "rescue", "verify-ca")
    where = {"login_host": "127.0.0.1", "login_port": instance["port"], "login_user": "rescue"}
    connection = connect({**where, "login_password": "a-secret"}, "shop", sslmode="require")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM public.orders")
        assert cursor.fetchone() == (20000,)
    connection.close()
    with pytest.raises(RecoveryError):
        connect({**where, "login_password": "a-secret"}, "shop", sslmode="disable")
    with pytest.raises(RecoveryError):
        connect({**where, "login_password": "wrong"}, "shop", sslmode="require")
    assert "a-secret" not in "".join(
        file.read_text(errors="replace") for file in side.rglob("*") if file.is_file() and "data" not in file.parts
    )


def test_no_test_is_without_a_server() -> None:
    assert MAJORS
    assert shutil.which("openssl")
