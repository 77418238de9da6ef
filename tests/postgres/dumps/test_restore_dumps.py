# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps of every format, restored into new and existing databases of real servers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

COPY = "Copy of = Shop"
FORMATS = [{"format": "custom"}, {"format": "directory", "jobs": 3}, {"format": "plain"}]


@pytest.fixture(autouse=True)
def leave_only_the_shop(shop: Any) -> Iterator[None]:
    yield
    for name in shop.databases():
        if name not in ("postgres", "Shop"):
            shop.drop(name)


@pytest.fixture(scope="module")
def custom(shop: Any) -> dict[str, Any]:
    return shop.dump(name="custom")


@pytest.fixture(scope="module")
def orders(shop: Any) -> dict[str, Any]:
    """A dump of tables that need each other and no more."""
    return shop.dump(name="lines", tables=['"Sales"."Order Lines"', "public.parts", "public.log"])


def refusal(load: Any) -> str:
    with pytest.raises(RecoveryError) as caught:
        load.restore()
    return caught.value.msg


@pytest.mark.parametrize("how", FORMATS, ids=lambda how: how["format"])
def test_a_database_comes_back_whole_from_each_format(shop: Any, how: dict[str, Any]) -> None:
    load = shop.load(shop.dump(**how, name=how["format"]), COPY)
    plan = load.restore()
    assert plan["how"] == "new"
    assert plan["jobs"] == (1 if how["format"] == "plain" else 2)
    assert shop.content(COPY) == shop.content("Shop")
    assert shop.definitions(COPY) == shop.definitions("Shop")
    assert not any("restoring" in name for name in shop.databases())


@pytest.mark.parametrize("how", FORMATS, ids=lambda how: how["format"])
def test_definitions_alone(shop: Any, how: dict[str, Any]) -> None:
    dump = shop.dump(**how, schema_only=True, name=f"schema-{how['format']}")
    shop.load(dump, COPY).restore()
    assert shop.definitions(COPY) == shop.definitions("Shop")
    assert shop.psql("SELECT count(*) FROM public.orders", COPY) == "0"


@pytest.mark.parametrize("how", FORMATS, ids=lambda how: how["format"])
def test_chosen_tables_come_with_their_partitions(shop: Any, how: dict[str, Any]) -> None:
    tables = ['"Sales"."Order Lines"', "public.parts", "public.log"]
    dump = shop.dump(**how, tables=tables, name=f"tables-{how['format']}")
    assert dump["tables"] == [
        '"Sales"."Order Lines"',
        '"Sales"."parts 2"',
        '"Sales"."parts 2a"',
        *("public.log", "public.parts", "public.parts_1"),
    ]
    shop.load(dump, COPY).restore()
    whole, copy = shop.content("Shop"), shop.content(COPY)
    with_rows = ['"Sales"."Order Lines"', '"Sales"."parts 2a"', "public.log", "public.parts_1"]
    assert {name: copy[name] for name in with_rows} == {name: whole[name] for name in with_rows}
    assert set(copy) == {*with_rows, "sequences", "large objects"}
    assert copy["large objects"] == ""


def test_tables_left_out_come_back_empty(shop: Any) -> None:
    with pytest.raises(RecoveryError, match=r"point to them: public\.uses_parts \(uses_parts_id_at_fkey\)"):
        shop.dump(name="without", exclude_tables=["public.log", "public.parts"])
    dump = shop.dump(name="without", exclude_tables=["public.log", "public.parts", "uses_parts"])
    assert dump["without_rows"] == [
        '"Sales"."parts 2"',
        '"Sales"."parts 2a"',
        *("public.log", "public.parts", "public.parts_1", "public.uses_parts"),
    ]
    shop.load(dump, COPY).restore()
    assert shop.definitions(COPY) == shop.definitions("Shop")
    counts = "SELECT (SELECT count(*) FROM public.log), (SELECT count(*) FROM parts), (SELECT count(*) FROM customers)"
    assert shop.psql(counts, COPY) == "0|0|100"


def test_a_second_run_does_nothing(shop: Any, custom: dict[str, Any]) -> None:
    assert shop.load(custom, COPY).restore()["how"] == "new"
    assert shop.load(custom, COPY).restore()["how"] == "done"
    shop.psql("DROP TABLE public.log", COPY)
    assert "is not empty" in refusal(shop.load(custom, COPY))


def test_an_empty_database_keeps_its_own_settings(shop: Any, custom: dict[str, Any]) -> None:
    shop.psql(f'CREATE DATABASE "{COPY}" TEMPLATE template0; ALTER DATABASE "{COPY}" SET work_mem = \'9MB\'')
    plan = shop.load(custom, COPY).restore()
    assert (plan["how"], plan["jobs"]) == ("empty", 1)
    assert shop.content(COPY) == shop.content("Shop")
    assert shop.definitions(COPY, "-x") == shop.definitions("Shop", "-x")
    assert shop.psql("SHOW work_mem", COPY) == "9MB"


def test_a_database_with_something_in_it_is_refused(shop: Any, custom: dict[str, Any]) -> None:
    shop.psql(f'CREATE DATABASE "{COPY}"')
    shop.psql("CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'", COPY)
    message = refusal(shop.load(custom, COPY))
    assert "is not empty: it has function public.mine" in message
    assert "existing: replace" in message
    assert shop.psql("SELECT mine()", COPY) == "1"


@pytest.mark.parametrize("how", FORMATS, ids=lambda how: how["format"])
def test_tables_are_added_to_what_is_there(shop: Any, how: dict[str, Any]) -> None:
    dump = shop.dump(**how, tables=["public.log", '"Sales".base'], name=f"add-{how['format']}")
    shop.psql(f'CREATE DATABASE "{COPY}"')
    shop.psql("CREATE TABLE kept AS SELECT 1 AS one", COPY)
    plan = shop.load(dump, COPY, existing="add").restore()
    assert (plan["how"], plan["schemas"]) == ("add", ["Sales"])
    assert shop.psql("SELECT (SELECT count(*) FROM log), (SELECT one FROM kept)", COPY) == "1000|1"
    assert shop.load(dump, COPY, existing="add").restore()["how"] == "done"


def test_what_others_hold_is_not_waited_for_longer_than_a_moment(shop: Any) -> None:
    shop.psql("CREATE TABLE pointing (order_id bigint REFERENCES public.orders (id), line text)", "Shop")
    try:
        dump = shop.dump(tables=["public.pointing"], name="pointing")
    finally:
        shop.psql("DROP TABLE pointing", "Shop")
    shop.psql(f'CREATE DATABASE "{COPY}"')
    shop.psql("CREATE TABLE orders (id bigint PRIMARY KEY)", COPY)
    others = psycopg2.connect(host=str(shop.home), port=shop.port, dbname=COPY)
    others.cursor().execute("INSERT INTO orders VALUES (1)")
    message = refusal(shop.load(dump, COPY, existing="add"))
    others.close()
    assert "Others held for 1s what it needs" in message
    assert "is as it was" in message
    assert shop.load(dump, COPY, existing="add").restore()["how"] == "add"


def test_nothing_is_overwritten(shop: Any, orders: dict[str, Any]) -> None:
    shop.psql(f'CREATE DATABASE "{COPY}"')
    shop.psql("CREATE TABLE log AS SELECT 'mine' AS line", COPY)
    message = refusal(shop.load(orders, COPY, existing="add"))
    assert "already has public.log" in message
    assert shop.psql("SELECT * FROM log; SELECT to_regclass('public.parts')", COPY) == "mine"


def test_a_failure_leaves_an_existing_database_as_it_was(shop: Any) -> None:
    dump = shop.dump(name="typed", tables=['"Extra Things"."Tägs"', "public.log"])
    shop.psql(f'CREATE DATABASE "{COPY}"')
    shop.psql("CREATE TABLE kept AS SELECT 1 AS one", COPY)
    before = shop.definitions(COPY)
    message = refusal(shop.load(dump, COPY, existing="add"))
    assert "is as it was" in message
    assert "neither types nor functions" in message
    assert shop.definitions(COPY) == before


def test_a_failure_leaves_nothing_of_a_new_database(shop: Any, custom: dict[str, Any]) -> None:
    dump = shop.dump(name="typed", tables=['"Extra Things"."Tägs"'])
    assert "removed" in refusal(shop.load(dump, COPY))
    assert shop.databases() == ["Shop", "postgres"]


def test_a_replaced_database_is_kept_beside(shop: Any, custom: dict[str, Any]) -> None:
    shop.load(custom, COPY).restore()
    shop.psql("CREATE TABLE newer AS SELECT 42 AS answer; DROP TABLE log", COPY)
    command = [f"{shop.bin_dir}/psql", "-X", "-c", "SELECT pg_sleep(300)"]
    reader = subprocess.Popen(command, stderr=subprocess.PIPE, env=shop.environment(COPY))
    plan = shop.load(custom, COPY, existing="replace").restore()
    assert b"terminating connection" in reader.communicate(timeout=20)[1]
    assert plan["how"] == "replace"
    assert shop.content(COPY) == shop.content("Shop")
    assert shop.definitions(COPY) == shop.definitions("Shop")
    assert plan["kept_as"].startswith(f"{COPY}_before_2")
    assert shop.psql("SELECT answer FROM newer", plan["kept_as"]) == "42"


def test_leftovers_of_a_killed_restore_are_cleared(shop: Any, custom: dict[str, Any]) -> None:
    load = shop.load(custom, COPY)
    shop.psql(
        f'CREATE DATABASE "{load.staging}"; COMMENT ON DATABASE "{load.staging}" IS \'being restored by dbre.recovery\''
    )
    load.restore()
    assert shop.databases() == [COPY, "Shop", "postgres"]
    shop.drop(COPY)
    shop.psql(f'CREATE DATABASE "{load.staging}"')
    assert "no restore has marked" in refusal(shop.load(custom, COPY))


def test_a_changed_byte_is_refused(shop: Any) -> None:
    dump = shop.dump(name="tampered", format="directory", jobs=2)
    victim = next(file for file in Path(dump["path"], dump["dump"]).iterdir() if file.name != "toc.dat")
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    message = refusal(shop.load(dump, COPY))
    assert f"with another checksum: tampered.dir/{victim.name}" in message
    assert "Nothing was restored" in message
    victim.unlink()
    assert f"gone: tampered.dir/{victim.name}" in refusal(shop.load(dump, COPY))
    assert shop.databases() == ["Shop", "postgres"]


def test_no_dump_at_all(shop: Any) -> None:
    assert "holds no complete dump" in refusal_of(lambda: shop.load({"path": str(shop.home)}, COPY))


def refusal_of(call: Any) -> str:
    with pytest.raises(RecoveryError) as caught:
        call()
    return caught.value.msg


def test_a_dump_of_a_newer_server(shop: Any) -> None:
    dump = shop.dump(name="newer", schema_only=True)
    facts = Path(dump["path"], "dump.json")
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "server_version": "99.1"}))
    assert "made with server 99.1" in refusal(shop.load(dump, COPY))


def test_roles_are_named_or_made_on_another_server(shop: Any, other: Any, custom: dict[str, Any]) -> None:
    shop.psql(
        "ALTER ROLE shop_app LOGIN PASSWORD 'secret'; GRANT shop_owner TO shop_app; CREATE ROLE grp; "
        "GRANT grp TO shop_owner"
    )
    globals_dump = shop.dump_globals()
    message = refusal(other.load(custom))
    assert 'does not have: Odd "Role, only_in_dump, shop_app, shop_owner' in message
    assert 'CREATE ROLE "Odd ""Role" NOLOGIN;' in message
    assert "tablespaces" in refusal(other.load(custom, globals_dump=globals_dump["path"]))
    other.psql(f"CREATE TABLESPACE fast LOCATION '{other.home}/fast'")
    plan = other.load(custom, globals_dump=globals_dump["path"]).restore()
    assert plan["roles"] == ['Odd "Role', "grp", "only_in_dump", "shop_app", "shop_owner"]
    assert other.definitions("Shop") == shop.definitions("Shop")
    assert other.content("Shop") == shop.content("Shop")
    passwords = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname ~ 'shop' ORDER BY 1"
    assert other.psql(passwords) == shop.psql(passwords)
    members = "SELECT roleid::regrole, member::regrole FROM pg_auth_members WHERE roleid >= 16384 ORDER BY 1, 2"
    assert sorted(other.psql(members).splitlines()) == ["grp|shop_owner", "shop_owner|shop_app"]


def test_the_globals_alone_make_every_missing_role(shop: Any, other: Any) -> None:
    shop.psql("CREATE ROLE lonely LOGIN PASSWORD 'x'; ALTER ROLE lonely SET work_mem = '6MB'")
    globals_dump = shop.dump_globals()
    assert "lonely" in other.load(None, globals_dump=globals_dump["path"]).restore()["roles"]
    assert other.load(None, globals_dump=globals_dump["path"]).restore()["roles"] == []
    assert other.psql("SELECT setconfig FROM pg_db_role_setting WHERE setrole = 'lonely'::regrole") == "{work_mem=6MB}"
    shop.psql("DROP ROLE lonely")
