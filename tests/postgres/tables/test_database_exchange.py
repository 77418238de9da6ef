"""A damaged database that is there is exchanged for the recovered one, whole, and back again."""

from __future__ import annotations

import time
from typing import Any

import psycopg2
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._guard.containment import ReadOnly
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import login_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import open_production
from ansible_collections.dbre.recovery.plugins.module_utils._tables.exchange import Exchange, connect_elsewhere
from ansible_collections.dbre.recovery.plugins.module_utils._tables.impact import impact_on

pytestmark = pytest.mark.parametrize("world", ["socket"], indirect=True)


# What was made of the database itself after the target.
LATER = [
    "ALTER DATABASE torture RESET work_mem",
    "ALTER DATABASE torture IS_TEMPLATE false",
    "ALTER DATABASE torture CONNECTION LIMIT 18",
    "ALTER DATABASE torture SET random_page_cost TO '2'",
    "ALTER ROLE dbre_reader IN DATABASE torture SET search_path TO app, public",
    "COMMENT ON DATABASE torture IS 'all of it, and more'",
    "GRANT CREATE ON DATABASE torture TO dbre_reader",
    "REVOKE TEMPORARY ON DATABASE torture FROM PUBLIC",
]


def exchange_back(world: Any, database: str) -> None:
    names = database, f"{database}_damaged_test", f"{database}_recovered_test"
    with open_production(login_of(world.params), world.params["bin_dir"], "test") as production:
        Exchange(production, "test", *names).run()


def names(world: Any) -> str:
    query = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname ~ 'torture|shop|recovered'"
    return str(world.production.sql("postgres", query))


def test_the_database_with_everything_in_it_is_exchanged_and_comes_back(torture: Any) -> None:
    production = torture.production
    production.sql(
        "torture",
        "SELECT lo_from_bytea(4242, 'large')",
        "ALTER DATABASE torture SET work_mem = '7MB'",
        "ALTER ROLE dbre_reader IN DATABASE torture SET search_path = app",
        "ALTER DATABASE torture OWNER TO dbre_owner",
        "ALTER DATABASE torture CONNECTION LIMIT 17",
        "ALTER DATABASE torture IS_TEMPLATE true",
        "COMMENT ON DATABASE torture IS 'all of it'",
    )
    torture.take_side()
    definition, contents = production.definition("torture"), production.contents("torture")
    production.sql("torture", "DROP SCHEMA app CASCADE", "SELECT lo_unlink(4242)", "CREATE TABLE later ()")
    production.sql("postgres", *LATER)
    damaged = production.definition("torture")
    idle = production.connect("torture")

    answer = torture.recover("torture", load="swap")

    assert answer["result"]["difference"] == []
    properties = [entry for entry in answer["result"]["left_to_do"] if "unlogged" not in entry["reason"]]
    # In whatever order: each is one of the commands that were given after the target.
    assert sorted(entry["command"].replace('"', "") for entry in properties) == sorted(
        f"{command};" for command in LATER
    )
    assert all(entry["lost"] for entry in properties)
    assert answer["result"]["exchange"]["sessions"] >= 1
    with pytest.raises(psycopg2.Error):
        idle.cursor().execute("SELECT 1")
    again = torture.recover("torture", load="swap")
    assert again["result"]["changed"] is False
    assert again["result"]["exchange"] == answer["result"]["exchange"]
    (kept,) = torture.remove("torture")["kept"]
    assert kept["command"] == 'DROP DATABASE "torture_damaged_test" WITH (FORCE);'
    assert production.definition("torture") == definition
    assert production.contents("torture") == contents
    assert bytes(production.sql("torture", "SELECT lo_get(4242)")) == b"large"

    exchange_back(torture, "torture")
    assert names(torture) == "torture torture_recovered_test"
    assert production.definition("torture") == damaged


def test_what_hangs_on_the_damaged_database_is_told_and_stays_with_it(shop: Any) -> None:
    production = shop.production
    production.sql("shop", "CREATE PUBLICATION everything FOR ALL TABLES")
    production.sql("shop", "SELECT pg_create_logical_replication_slot('reader', 'pgoutput')")
    waiting = production.connect("shop")
    with open_production(login_of(shop.params), shop.params["bin_dir"], "test") as server:
        found = impact_on(server, "shop", [], [], "swap", 2, "test")["exchange"]
    waiting.close()
    assert [item["name"] for item in found["slots"]] == ["reader"]
    assert found["publications"] == ["everything"]
    assert sum(item["sessions"] for item in found["sessions"]) >= 1
    assert found["bytes"] > 0
    assert found["disk"]["free"] > 0

    shop.recover("shop", load="swap")
    assert production.sql("postgres", "SELECT database FROM pg_replication_slots") == "shop_damaged_test"
    production.sql("postgres", "SELECT pg_drop_replication_slot('reader')")


def test_what_keeps_applications_from_writing_goes_with_the_name(shop: Any) -> None:
    production = shop.production
    with open_production(login_of(shop.params), shop.params["bin_dir"], "other") as server:
        admin = connect_elsewhere(server, "shop")
        ReadOnly(admin, "shop", 10, "one").present(False)
        shop.recover("shop", load="swap")
        assert production.sql("shop", "SHOW default_transaction_read_only") == "on"
        assert production.sql("shop_damaged_test", "SHOW default_transaction_read_only") == "off"
        ReadOnly(admin, "shop", 10, "one").absent(False)
        admin.close()
    assert production.sql("shop", "SHOW default_transaction_read_only") == "off"
    query = "SELECT count(*) FROM pg_database WHERE shobj_description(oid, 'pg_database') ~ 'dbre'"
    assert production.sql("postgres", query) == 0


def test_names_that_do_not_fit_change_nothing(shop: Any) -> None:
    production = shop.production
    with open_production(login_of(shop.params), shop.params["bin_dir"], "test") as server:
        exchange = Exchange(server, "test", "shop", "nowhere", "shop_kept")
        connection = connect_elsewhere(server, "shop")
        with pytest.raises(RecoveryError, match="nowhere is not"):
            exchange.is_done(connection)
        connection.close()
    production.sql("postgres", "CREATE DATABASE shop_damaged_test")
    began = time.monotonic()
    assert "has one of that name already" in shop.refused("shop", load="swap")
    assert time.monotonic() - began < 60
    assert names(shop) == "shop shop_damaged_test"
