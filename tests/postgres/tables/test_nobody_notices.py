"""Subscribers, event triggers and waiting sessions of production while a recovery works in it."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import login_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import open_production
from ansible_collections.dbre.recovery.plugins.module_utils._tables.impact import impact_on
from ansible_collections.dbre.recovery.plugins.module_utils._tables.lag import Lag, Watch

pytestmark = pytest.mark.parametrize("world", ["socket"], indirect=True)


def impact(world: Any, *tables: str, load: str = "beside") -> dict[str, Any]:
    """What the plan says before anything is restored."""
    with open_production(login_of(world.params), world.params["bin_dir"], "first") as production:
        return impact_on(production, "shop", tables, [], load, 2)


class Subscriber:
    """A copy of the shop in another database, which follows production's by a subscription."""

    def __init__(self, world: Any, publication: str) -> None:
        self.production = production = world.production
        production.sql("postgres", "CREATE DATABASE subscriber TEMPLATE shop")
        production.sql("shop", f"CREATE PUBLICATION everything FOR {publication}")
        # The recovered instance must not follow, too.
        world.take_side()
        # Within one server, the slot cannot be made by the subscription itself.
        production.sql("shop", "SELECT pg_create_logical_replication_slot('everything', 'pgoutput')")
        production.sql(
            "subscriber",
            f"CREATE SUBSCRIPTION everything CONNECTION 'host={world.root} port={production.port} dbname=shop' "
            "PUBLICATION everything WITH (create_slot = false, copy_data = false)",
        )

    def catch_up(self) -> None:
        """Wait until it has all that production has sent."""
        here = self.production.sql("postgres", "SELECT pg_current_wal_lsn()")
        query = f"SELECT confirmed_flush_lsn >= '{here}' FROM pg_replication_slots WHERE slot_name = 'everything'"
        deadline = time.monotonic() + 60
        while not self.production.sql("postgres", query):
            assert time.monotonic() < deadline, self.errors()
            time.sleep(0.1)

    def errors(self) -> list[str]:
        """What the server said when it could not go on."""
        log = self.production.log.read_text(errors="replace")
        # Not what autovacuum says, which gives way when a table is moved, nor statements of others that failed.
        words = ("ERROR", "CONTEXT")
        return [
            line
            for line in log.splitlines()
            if "recovered_" in line and "replication" in line and any(f"{word}:" in line for word in words)
        ]

    def end(self) -> None:
        self.production.sql("subscriber", "ALTER SUBSCRIPTION everything DISABLE")
        self.production.sql("subscriber", "ALTER SUBSCRIPTION everything SET (slot_name = NONE)")
        self.production.sql("subscriber", "DROP SUBSCRIPTION everything")


@pytest.fixture(params=["ALL TABLES", "TABLES IN SCHEMA public"])
def subscriber(shop: Any, request: pytest.FixtureRequest) -> Iterator[Subscriber]:
    if "SCHEMA" in request.param and shop.production.connect("shop").server_version < 150000:
        pytest.skip("publications of schemas came with PostgreSQL 15")
    found = Subscriber(shop, request.param)
    yield found
    found.end()


def test_a_subscriber_goes_on_and_has_the_recovered_rows(shop: Any, subscriber: Subscriber) -> None:
    production = shop.production
    contents = production.contents("shop")
    changes = "SELECT count(*) FROM pg_logical_slot_peek_binary_changes('watch', NULL, NULL, "
    changes += "'proto_version', '1', 'publication_names', 'everything')"
    production.sql("shop", "DROP TABLE orders CASCADE", "DELETE FROM lines WHERE id > 1500")
    production.sql("shop", "UPDATE customers SET name = 'overwritten' WHERE id > 50")
    subscriber.catch_up()
    assert production.sql("subscriber", "SELECT count(*) FROM lines") == 1500
    production.sql("shop", "SELECT pg_create_logical_replication_slot('watch', 'pgoutput')")

    known = impact(shop, "orders", "lines")
    assert [item["name"] for item in known["relations"]] == ["lines"]
    assert known["replication"]["publications"] == ["everything"]
    assert [item["name"] for item in known["replication"]["slots"]] == ["everything", "watch"]
    assert known["replication"]["slots"][0]["active"]
    answer = shop.recover("shop", relations=["orders"], incident="dropped")
    assert [item["name"] for item in answer["plan"]["replication"]["slots"]] == ["everything", "watch"]
    assert answer["plan"]["replication"]["most_changes"] == 0
    shop.remove("shop", "dropped")
    assert production.sql("shop", changes) == 0

    for name, load in (("lines", "merge"), ("customers", "replace"), ("keyless", "beside")):
        answer = shop.recover("shop", relations=[name], load=load, incident=load)
        shop.remove("shop", load)
    assert answer["plan"]["replication"]["most_changes"] == 0
    production.sql("shop", "SELECT pg_drop_replication_slot('watch')")
    production.sql("shop", "INSERT INTO orders (customer, code) VALUES (1, 'after it')")
    subscriber.catch_up()
    followed = production.contents("subscriber")
    assert followed.pop("orders") == production.contents("shop")["orders"] != contents.pop("orders")
    assert followed == contents
    assert subscriber.errors() == []


def test_a_name_that_lost_its_quotes_and_fits_two_tables_is_told_before_anything_is_restored(shop: Any) -> None:
    shop.production.sql("shop", 'CREATE TABLE "Lines" (id int)', 'CREATE TABLE "HR" (id int)')
    with pytest.raises(RecoveryError, match="Lines was given without quotes") as refused:
        impact(shop, "orders", "Lines")
    for table in ('"public"."Lines"', '"public"."lines"'):
        assert f"-e {shlex.quote(json.dumps({'dr_tables': [table]}))}" in refused.value.msg
    assert impact(shop, '"Lines"', "lines", "hr")["limits"], "the ways to say which one is meant"


AUDIT = """
CREATE TABLE ddl_audit (command text);
CREATE FUNCTION audited() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO public.ddl_audit SELECT tg_tag; END $$;
CREATE EVENT TRIGGER audited ON ddl_command_end EXECUTE FUNCTION audited();
CREATE FUNCTION migrations_only() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'schema changes only by a migration'; END $$;
"""


def test_event_triggers_do_not_notice_us(shop: Any) -> None:
    production = shop.production
    contents = production.contents("shop")
    production.sql("shop", "DROP TABLE orders CASCADE", "DELETE FROM lines WHERE id > 1500", AUDIT)
    production.sql(
        "shop", "CREATE EVENT TRIGGER migrations_only ON ddl_command_start EXECUTE FUNCTION migrations_only()"
    )
    before = production.contents("shop")["ddl_audit"]
    plan = shop.recover("shop", relations=["orders, lines"], load="merge")["plan"]
    assert [(item["name"], item["calls"], item["fires"]) for item in plan["event_triggers"]] == [
        ("audited", "public.audited", False),
        ("migrations_only", "public.migrations_only", False),
    ]
    shop.remove("shop")
    after = production.contents("shop")
    assert (after.pop("ddl_audit"), after) == (before, contents)
    # For all others they fire as before.
    with pytest.raises(Exception, match="only by a migration"):
        production.sql("shop", "CREATE TABLE t ()")


def test_an_event_trigger_that_always_fires_is_refused_with_the_command_that_helps(shop: Any) -> None:
    production = shop.production
    production.sql("shop", "DROP TABLE orders CASCADE", AUDIT, "ALTER EVENT TRIGGER audited ENABLE ALWAYS")
    before = production.contents("shop")
    if production.connect("shop").server_version < 170000:
        with pytest.raises(RecoveryError, match=r"audited \(ENABLE ALWAYS"):
            impact(shop, "orders")
        message = shop.refused("shop", relations=["orders"])
        assert "audited (ENABLE ALWAYS, on ddl_command_end, calls public.audited)" in message
        assert production.contents("shop") == before
        command = next(part for part in message.split(": ") if part.startswith("ALTER EVENT")).split(" Then")[0]
        production.sql("shop", command)
    shop.recover("shop", relations=["orders"])
    assert production.contents("shop")["ddl_audit"] == before["ddl_audit"]


def test_nothing_is_seen_before_it_is_complete(shop: Any) -> None:
    production = shop.production
    production.sql(
        "shop",
        "CREATE TABLE parent (id int PRIMARY KEY, note text NOT NULL DEFAULT 'x' CHECK (note <> ''))",
        "INSERT INTO parent VALUES (0)",
        "CREATE TABLE child (extra int) INHERITS (parent)",
        "INSERT INTO child SELECT g, 'row ' || g FROM generate_series(1, 100000) g",
        "CREATE SCHEMA numbers CREATE SEQUENCE tickets CREATE TABLE t (id int DEFAULT nextval('numbers.tickets'))",
        "SELECT setval('numbers.tickets', 5000)",
        "CREATE VIEW numbers.totals AS SELECT count(*) AS n, 0 AS x FROM child",
        "ALTER VIEW numbers.totals ALTER x SET DEFAULT 7",
    )
    shop.take_side()
    definition, contents = production.definition("shop"), production.contents("shop")
    production.sql("shop", "DROP SCHEMA numbers CASCADE", "DROP TABLE child")
    seen: set[Any] = set()
    connection = production.connect("shop")
    numbers = "SELECT to_regclass('numbers.tickets') IS NOT NULL"
    totals = "SELECT to_regclass('numbers.totals') IS NOT NULL"
    driver = shop.start_recovery("shop", relations=["child"], schemas=["numbers"])
    with connection.cursor() as cursor:
        while driver.poll() is None:
            cursor.execute("SELECT count(*) FROM parent")
            seen.add(("rows through the parent", cursor.fetchone()[0]))
            cursor.execute(totals)
            if cursor.fetchone()[0]:
                cursor.execute("SELECT n FROM numbers.totals")
                seen.add(("the view", cursor.fetchone()[0]))
            cursor.execute(numbers)
            if cursor.fetchone()[0]:
                cursor.execute("SELECT last_value >= 5000 FROM numbers.tickets")
                seen.add(("the sequence goes on", cursor.fetchone()[0]))
    connection.close()
    assert shop.finish(driver)["result"]["left_to_do"] == []
    assert seen <= {
        ("rows through the parent", 1),
        ("rows through the parent", 100001),
        ("the view", 100000),
        ("the sequence goes on", True),
    }
    shop.remove("shop")
    # What the child has of its parent goes with its parent again.
    assert production.definition("shop") == definition
    assert production.contents("shop") == contents
    production.sql("shop", "ALTER TABLE parent DROP COLUMN note")
    columns = "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped"
    assert production.sql("shop", f"{columns} AND attrelid = 'child'::regclass") == "id extra"


@pytest.fixture
def standby(shop: Any) -> Iterator[Any]:
    """A standby of production."""
    root = shop.root / "followers"
    root.mkdir()
    found = type(shop.production)(root, "standby", shop.production.port, shop.bin_dir)
    shop.production.program("pg_basebackup", "--checkpoint=fast", "-R", "-X", "stream", "-D", str(found.data))
    with (found.data / "postgresql.conf").open("a") as file:
        file.write(
            f"unix_socket_directories = '{root}'\nlisten_addresses = ''\ncluster_name = 'follower'\n"
            "allow_in_place_tablespaces = on\n"
        )
    found.start()
    yield found
    found.stop()
    shutil.rmtree(root)


def test_loading_waits_for_a_standby_that_cannot_follow_and_for_none_that_is_delayed(shop: Any, standby: Any) -> None:
    production = shop.production
    limits = impact(shop, "orders")["limits"]
    assert [item["name"] for item in limits["standbys"]] == ["follower"]
    assert limits["connections"]["max"] == 40
    assert limits["disk"][0]["free"] > 0
    standby.sql("postgres", "SELECT pg_wal_replay_pause()")
    driver = shop.start_recovery("shop", relations=["orders, lines, keyless"], incident="paused", max_lag=0.2)
    time.sleep(12)
    assert driver.poll() is None
    standby.sql("postgres", "SELECT pg_wal_replay_resume()")
    limits = shop.finish(driver)["result"]["limits"]
    assert limits["waited_seconds"] > 5
    assert limits["wal_bytes"] > 0
    # Two that lead, two that load, and the two that loaded the tables before may still be on their way out.
    assert 3 <= limits["sessions"] <= 6
    assert [(item["name"], item["not_waited_for"]) for item in limits["standbys"]] == [("follower", None)]
    shop.remove("shop", "paused")

    standby.sql("postgres", "ALTER SYSTEM SET recovery_min_apply_delay = '1h'", "SELECT pg_reload_conf()")
    with open_production(login_of(shop.params), shop.params["bin_dir"], "delayed") as server:
        watch, session = Watch(Lag(0.2, patience=2), Progress(None)), server.connect()
        watch.look(session)
        with watch.looking(session):
            production.sql("shop", "CREATE TABLE beside_it AS SELECT g FROM generate_series(1, 1000) g")
            time.sleep(1)
            watch.wait()
        session.close()
        limits = watch.measured()
    assert 0.5 < limits["waited_seconds"] < 10
    assert limits["standbys"][0]["not_waited_for"] == "its replay did not move (delayed or paused)"
