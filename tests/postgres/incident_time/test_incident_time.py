# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.tests.postgres.incident_time.conftest import Shop

TIMED = pytest.mark.parametrize("keeps_times", [True], indirect=True, ids=["commit timestamps"])


def server_message(found: dict[str, Any], source: str) -> str:
    return "\n".join(item["text"] for item in found["evidence"] if item["source"] == source)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_the_second_in_which_a_drop_began_is_the_target(shop: Shop) -> None:
    before = shop.now()
    shop.sql("DROP TABLE public.items; DROP TABLE public.orders")
    after = shop.now()

    found = shop.find("public.orders")

    target = moment(found["target"]["value"])
    assert before.replace(microsecond=0) <= target <= after
    assert found["target"]["type"] == "time"
    assert found["method"] == "log"
    assert found["precision_seconds"] == 1.0
    assert found["incident"]["kind"] == "drop_table"
    assert found["incident"]["user"] == "master"
    assert "at most 1 s up to the beginning of the statement" in found["lost_at_most"]
    assert server_message(found, "database") == "public.orders does not exist"
    assert ("track_commit_timestamp is off" in server_message(found, "commit_timestamp")) is not shop.keeps_times


def test_a_drop_that_was_refused_is_not_the_incident(shop: Shop) -> None:
    with pytest.raises(psycopg2.Error):
        shop.sql("DROP TABLE orders")
    time.sleep(1.1)
    dropped = shop.now()
    shop.sql("DROP TABLE orders CASCADE")

    found = shop.find("orders")

    assert moment(found["target"]["value"]) >= dropped.replace(microsecond=0)
    assert [one["outcome"] for one in found["candidates"]] == ["failed", "unknown"]


@TIMED
def test_a_truncate_is_known_to_the_commit(shop: Shop) -> None:
    shop.logs("mod")
    connection = shop.connect(autocommit=False)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE orders CASCADE")
        time.sleep(1.5)
        before = shop.now()
        connection.commit()
    connection.close()
    shop.sql("GRANT SELECT ON orders TO app; ALTER TABLE orders ADD COLUMN later int; ANALYZE orders")
    shop.sql("INSERT INTO orders VALUES (1, 'new', 1)")

    found = shop.find("public.orders")

    commit = moment(found["target"]["commit_time"])
    assert before <= commit <= before + timedelta(seconds=1)
    assert found["method"] == "commit_timestamp"
    assert found["incident"]["kind"] == "truncate"
    assert found["incident"]["statement"] == "TRUNCATE orders CASCADE"
    assert moment(found["target"]["value"]) < commit
    assert found["precision_seconds"] == (commit - moment(found["target"]["value"])).total_seconds() <= 1


@TIMED
def test_a_vacuum_full_is_not_taken_for_a_truncate(shop: Shop) -> None:
    shop.sql("VACUUM FULL orders")

    with pytest.raises(RecoveryError, match="nothing tells when public.orders of shop was damaged") as caught:
        shop.find("public.orders")

    kinds = {(one["kind"], one["confidence"]) for one in caught.value.details["candidates"]}
    assert kinds == {("truncate", "low"), ("written", "low")}
    assert "VACUUM FULL" in caught.value.msg


@TIMED
def test_a_table_that_was_filled_in_the_window_is_not_taken_for_an_update(shop: Shop) -> None:
    with pytest.raises(RecoveryError, match="nothing tells") as caught:
        shop.find("orders")

    (one,) = caught.value.details["candidates"]
    assert (one["kind"], one["rows"], one["confidence"]) == ("written", 3000, "low")


@TIMED
def test_an_update_of_all_rows_is_known_to_the_commit(shop: Shop) -> None:
    shop.sql("UPDATE orders SET note = 'few' WHERE id < 10")
    time.sleep(1.1)
    before = shop.now()
    shop.sql("UPDATE orders SET total = 0")
    after = shop.now()
    shop.sql("UPDATE orders SET note = 'later' WHERE id < 5")
    shop.sql("SELECT pg_stat_force_next_flush()" if shop.server.connect().server_version >= 150000 else "SELECT 1")
    time.sleep(1)

    found = shop.find("orders")

    assert found["incident"]["kind"] == "update"
    assert found["incident"]["rows"] == 2996
    assert before <= moment(found["target"]["commit_time"]) <= after
    assert "9 updated" not in server_message(found, "statistics")


@TIMED
def test_a_dropped_column_is_known_to_the_commit_without_any_log(shop: Shop) -> None:
    shop.logs("none")
    before = shop.now()
    shop.sql("ALTER TABLE orders DROP COLUMN total")
    after = shop.now()

    found = shop.find("orders")

    assert found["incident"]["kind"] == "drop_column"
    assert before <= moment(found["target"]["commit_time"]) <= after


@TIMED
def test_rows_that_may_not_be_read_are_said_to_be_unread(shop: Shop) -> None:
    shop.sql("REVOKE ALL ON orders FROM PUBLIC")
    search = shop.search("orders", login_user="app")

    with pytest.raises(RecoveryError, match="nothing tells"):
        search.find()

    texts = [item["text"] for item in search.evidence]
    assert any("rows of public.orders: permission denied" in text for text in texts)
    assert any("GRANT pg_monitor TO app" in text for text in texts)


def test_nothing_is_restored_while_the_transaction_is_still_open(shop: Shop) -> None:
    connection = shop.connect(autocommit=False)
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE orders CASCADE")
        started = time.monotonic()
        with pytest.raises(RecoveryError, match="has not committed") as caught:
            shop.find("public.orders")
        pid = connection.info.backend_pid
    connection.rollback()
    connection.close()

    assert f"pg_terminate_backend({pid})" in caught.value.msg
    assert time.monotonic() - started < 15
    assert shop.sql("SELECT count(*) FROM orders") == [(3000,)]


def test_a_drop_that_was_rolled_back_is_told_apart_by_what_is_there(shop: Shop) -> None:
    time.sleep(1.1)  # the log tells whole seconds, and the table was made just now
    connection = shop.connect(autocommit=False)
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE orders CASCADE")
    connection.rollback()
    connection.close()

    with pytest.raises(RecoveryError, match="nothing shows that it was made anew after that") as caught:
        shop.find("public.orders")
    assert "drop_table of" in caught.value.msg


def test_a_table_that_a_migration_made_anew_is_recovered_from_before_its_drop(shop: Shop) -> None:
    time.sleep(1.05 - time.time() % 1)  # the log tells whole seconds: `before` and the drop are to be of one
    before = shop.now()
    shop.sql("DROP TABLE IF EXISTS public.orders CASCADE; CREATE TABLE public.orders (id bigint)")

    found = shop.find("public.orders")

    assert found["incident"]["kind"] == "drop_table"
    assert moment(found["target"]["value"]) <= before
    assert before - moment(found["target"]["value"]) < timedelta(seconds=1)


def test_a_session_that_is_still_there_tells_without_a_log(shop: Shop) -> None:
    before = shop.now()
    connection = shop.connect()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM public.orders WHERE id > 5 AND true")
    after = shop.now()

    found = shop.find("public.orders")
    connection.close()

    assert found["method"] == "activity"
    assert before.replace(microsecond=0) <= moment(found["target"]["value"]) <= after
    assert found["precision_seconds"] <= 1 + (after - before).total_seconds()
    assert "since the" not in found["lost_at_most"]
    assert "statement began" not in found["lost_at_most"]
    assert "DELETE FROM public.orders WHERE id > $1 AND $2" in server_message(found, "pg_stat_statements")


def test_a_dropped_database_is_found_from_another_one(shop: Shop) -> None:
    before = shop.now()
    shop.sql("DROP DATABASE shop", dbname="postgres")

    found = shop.find()

    assert found["incident"]["kind"] == "drop_database"
    assert before.replace(microsecond=0) <= moment(found["target"]["value"]) <= shop.now()
    assert server_message(found, "database") == "database shop does not exist"


def test_of_two_damages_the_operator_chooses(shop: Shop) -> None:
    shop.logs("mod")
    shop.sql("TRUNCATE orders CASCADE")
    time.sleep(1.1)
    connection = shop.connect()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM orders")
    with pytest.raises(RecoveryError, match="is not clear: 2 statements can have done it") as caught:
        shop.find("orders")
    connection.close()

    commands = [line for line in caught.value.msg.splitlines() if "-> -e dr_target_time=" in line]
    assert len(commands) == 2
    chosen = shop.find("orders", target_time=commands[0].rpartition("=")[2])
    assert chosen["method"] == "operator"
    assert chosen["target"]["value"] == commands[0].rpartition("=")[2]


def test_where_nothing_tells_the_error_says_what_would_have(shop: Shop) -> None:
    shop.sql("CREATE FUNCTION clean() RETURNS void LANGUAGE plpgsql AS $$ BEGIN DROP TABLE orders CASCADE; END $$")
    shop.sql("SELECT clean()")

    with pytest.raises(RecoveryError) as caught:
        shop.find("public.orders")

    assert "public.orders does not exist" in caught.value.msg
    assert "What a function or a DO block does is not in the log" in caught.value.msg
    assert "modify-db-parameter-group --db-parameter-group-name shop-parameters" in caught.value.msg
    assert "takes at most 3 restores" in caught.value.msg
    assert caught.value.details["bisect"]["restores"] == 3


def test_a_database_that_cannot_be_reached_leaves_the_log(shop: Shop) -> None:
    shop.sql("DROP TABLE public.orders CASCADE")

    found = shop.find("public.orders", login_host="127.0.0.1", login_port=1)

    assert found["method"] == "log"
    assert "not looked at: cannot connect" in server_message(found, "database")


@contextmanager
def beating(shop: Shop) -> Iterator[None]:
    """An application that commits a row every few milliseconds."""
    over = threading.Event()

    def beat() -> None:
        connection = shop.connect("app")
        with connection.cursor() as cursor:
            while not over.wait(0.005):
                cursor.execute("INSERT INTO beats VALUES (clock_timestamp())")
        connection.close()

    shop.sql("CREATE TABLE beats (at timestamptz); GRANT INSERT ON beats TO app")
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(
    "statement", ["DROP TABLE orders CASCADE", "TRUNCATE orders CASCADE", "DELETE FROM public.orders"]
)
def test_a_restore_to_the_target_has_all_rows_and_lacks_no_more_than_is_said(
    shop: Shop, tmp_path: Path, statement: str
) -> None:
    base = tmp_path / "base"
    socket = str(shop.server.socket)
    shop.server.run(
        "pg_basebackup",
        "-h",
        socket,
        "-p",
        str(shop.server.port),
        "-U",
        "postgres",
        "-D",
        str(base),
        "-X",
        "none",
        "-c",
        "fast",
    )
    shop.logs("mod")
    with beating(shop):
        time.sleep(1.3)
        shop.sql(statement)
        committed = shop.now()
        time.sleep(0.3)
    found = shop.find("public.orders")
    shop.sql("SELECT pg_switch_wal()", "postgres")

    query = "SELECT (SELECT count(*) FROM orders), (SELECT max(at) FROM beats)"
    ((count, last),) = shop.restored(found["target"]["value"], base, query)

    assert count == 3000
    assert last <= moment(found["target"]["value"])
    assert (committed - last).total_seconds() <= found["precision_seconds"] + 0.3
