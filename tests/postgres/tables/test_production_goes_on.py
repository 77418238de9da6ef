"""Production keeps working while its table comes back, and a killed recovery goes on where it was."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._tables.recover import lock_incident

DROP = "DROP TABLE orders CASCADE"
ACTIVE = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'dbre.recovery test%' AND query ~ '{}'"
SEEN = """
SELECT CASE WHEN to_regclass('orders') IS NOT NULL
       THEN (xpath('/row/c/text()', query_to_xml('SELECT count(*) AS c FROM orders', false, true, '')))[1]::text END
"""
KILL_AT = {
    "staging": "SELECT count(*) FROM pg_namespace WHERE nspname = 'recovered_test'",
    "the copy": ACTIVE.format("^COPY "),
    "the indexes": ACTIVE.format("CREATE INDEX|ADD CONSTRAINT"),
}


def wait_for(server: Any, database: str, query: str) -> None:
    deadline = time.monotonic() + 30
    while not server.sql(database, query):
        assert time.monotonic() < deadline, query


@pytest.mark.parametrize("moment", KILL_AT)
def test_killed_and_run_again_it_ends_as_if_never_killed(shop: Any, moment: str) -> None:
    production = shop.production
    definition, contents = production.definition("shop"), production.contents("shop")
    production.sql("shop", DROP)
    driver = shop.start_recovery("shop", relations=["orders"])
    wait_for(production, "shop", KILL_AT[moment])
    driver.kill()
    driver.communicate()
    assert production.sql("shop", "SELECT to_regclass('orders')") is None

    assert shop.recover("shop", relations=["orders"])["result"]["difference"] == []
    shop.remove("shop")
    assert production.definition("shop") == definition
    assert production.contents("shop") == contents


def test_killed_while_it_waits_to_publish(shop: Any) -> None:
    production = shop.production
    definition, contents = production.definition("shop"), production.contents("shop")
    production.sql("shop", DROP)
    blocker = production.connect("shop")
    with blocker.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE lines IN ROW EXCLUSIVE MODE")
        driver = shop.start_recovery("shop", relations=["orders"])
        wait_for(production, "shop", "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'lines'::regclass")
        assert production.sql("shop", "SELECT to_regclass('orders')") is None
        driver.kill()
        driver.communicate()
        cursor.execute("ROLLBACK")
    blocker.close()
    shop.recover("shop", relations=["orders"])
    assert shop.recover("shop", relations=["orders"])["result"]["changed"] is False
    shop.remove("shop")
    assert production.definition("shop") == definition
    assert production.contents("shop") == contents


def test_a_step_that_a_killed_run_left_behind_is_waited_for(shop: Any) -> None:
    production = shop.production
    definition, contents = production.definition("shop"), production.contents("shop")
    production.sql("shop", DROP)
    left_behind = shop.start_recovery("shop", relations=["orders"])
    wait_for(production, "shop", KILL_AT["the copy"])

    result = shop.recover("shop", relations=["orders"])["result"]

    assert (result["changed"], result["difference"]) == (False, [])
    left_behind.communicate()
    assert left_behind.returncode == 0
    shop.remove("shop")
    assert production.definition("shop") == definition
    assert production.contents("shop") == contents


def test_a_step_that_is_stuck_is_named(shop: Any) -> None:
    admin, other = shop.production.connect("postgres"), shop.production.connect("postgres")
    admin.autocommit = other.autocommit = False
    lock_incident(admin, "recovered_stuck", "dbre.recovery stuck")
    with pytest.raises(RecoveryError, match=r"after 0 s, in sessions \d+ \(role postgres\)\. This run changed nothing"):
        lock_incident(other, "recovered_stuck", "dbre.recovery stuck", patience=0.2)
    admin.close()
    lock_incident(other, "recovered_stuck", "dbre.recovery stuck", patience=2)
    other.close()


def test_killed_after_a_removal_of_nothing_half_done(shop: Any) -> None:
    production = shop.production
    production.sql("shop", DROP)
    driver = shop.start_recovery("shop", relations=["orders"])
    wait_for(production, "shop", KILL_AT["the copy"])
    driver.kill()
    driver.communicate()
    would = shop.remove("shop", check_mode=True)
    assert shop.remove("shop") == would
    assert "recovered_test" in would["removed"]
    assert production.sql("shop", "SELECT count(*) FROM pg_namespace WHERE nspname ~ 'recovered'") == 0


def test_writers_of_other_tables_go_on_and_see_all_or_nothing(shop: Any) -> None:
    production = shop.production
    contents = production.contents("shop")["orders"]
    production.sql("shop", DROP)
    stop = threading.Event()
    slowest = [0.0]
    counts: set[Any] = set()
    written = [0]

    def write() -> None:
        connection = production.connect("shop")
        with connection.cursor() as cursor:
            while not stop.is_set():
                begin = time.monotonic()
                cursor.execute("INSERT INTO lines (order_id, t) VALUES (1, 'written meanwhile')")
                written[0] += 1
                slowest[0] = max(slowest[0], time.monotonic() - begin)
        connection.close()

    def read() -> None:
        connection = production.connect("shop")
        with connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute(SEEN)
                counts.add(cursor.fetchone()[0])
        connection.close()

    threads = [threading.Thread(target=write), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    answer = shop.recover("shop", relations=["orders"])
    stop.set()
    for thread in threads:
        thread.join()

    assert answer["result"]["left_to_do"] == []
    assert production.contents("shop")["orders"] == contents
    assert production.sql("shop", "SELECT count(*) FROM lines WHERE t = 'written meanwhile'") == written[0] > 50
    assert counts <= {None, "150000"}
    assert slowest[0] < 3


def test_rows_written_meanwhile_that_break_a_foreign_key_are_reported(shop: Any) -> None:
    production = shop.production
    production.sql("shop", DROP, "INSERT INTO lines (order_id, t) VALUES (777777, 'orphan')")
    result = shop.recover("shop", relations=["orders"])["result"]
    entry = next(item for item in result["left_to_do"] if item["type"] == "foreign key")
    assert entry["rows"] == 1
    assert entry["sample"] == [["777777"]]
    assert result["difference"] == []
    assert (
        production.sql("shop", "SELECT convalidated FROM pg_constraint WHERE conname = 'lines_order_id_fkey'") is False
    )
    production.sql("shop", "DELETE FROM lines WHERE order_id = 777777", entry["command"])
    assert shop.recover("shop", relations=["orders"])["result"]["left_to_do"] == []


@pytest.mark.parametrize("world", ["socket"], indirect=True)
def test_an_instance_read_by_a_role_that_is_no_superuser(shop: Any) -> None:
    production = shop.production
    production.sql("shop", "CREATE ROLE dbre_plain LOGIN BYPASSRLS", "GRANT pg_read_all_data, pg_monitor TO dbre_plain")
    shop.take_side()
    definition, contents = production.definition("shop"), production.contents("shop")
    production.sql("shop", DROP)
    instance = {**shop.params["instance"], "user": "dbre_plain"}
    shop.recover("shop", relations=["orders"], params={**shop.params, "instance": instance})
    shop.remove("shop")
    assert production.definition("shop") == definition
    assert production.contents("shop") == contents


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"database": "nowhere", "relations": ["orders"]}, "does not exist"),
        ({"database": "shop", "relations": ["never_there"]}, "public.never_there is not in database shop"),
        ({"database": "shop", "schemas": ["never_there"]}, "never_there is not in database shop"),
        ({"database": "shop"}, "no table and no schema was named"),
        ({"database": "shop", "relations": ["orders"], "incident": "x" * 60}, "cannot be used in a schema name"),
    ],
)
def test_bad_input_is_refused(shop: Any, asked: dict[str, Any], said: str) -> None:
    assert said in shop.refused(**asked)
