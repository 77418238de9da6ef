"""What becomes of subscribers when the primary that they follow is replaced."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._failover.subscribers import Lead, lead, leads_to
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import system_user


@pytest.fixture
def subscriber(cluster: Any) -> Iterator[Any]:
    """A server of its own, and publishers that it may subscribe to."""
    for server in (cluster.primary, cluster.b):
        server.sql("ALTER SYSTEM SET wal_level = 'logical'")
        server.stop()
        server.start()
    cluster.primary.sql("ALTER TABLE told ADD PRIMARY KEY (n)", "CREATE PUBLICATION all_told FOR TABLE told")
    made = type(cluster.primary)(cluster.root, "s", 6613)
    initdb = [f"{made.bin_dir}/initdb", "-N", "-A", "trust", "-U", system_user(), "-D", str(made.data)]
    subprocess.run(initdb, check=True, capture_output=True)
    # Whoever reads its log must not read passwords of publishers.
    with (made.data / "postgresql.conf").open("a") as file:
        file.write(f"port=6613\nunix_socket_directories='{cluster.root}'\nlisten_addresses=''\nlog_statement=all\n")
    made.start()
    try:
        yield made
    finally:
        made.stop()


def subscribe(cluster: Any, subscriber: Any, name: str, slot: str) -> None:
    subscriber.sql("CREATE TABLE IF NOT EXISTS told (n int PRIMARY KEY)")
    conninfo = f"host={cluster.root} port={cluster.primary.port} user={system_user()} dbname=postgres password=hush"
    subscriber.sql(f"CREATE SUBSCRIPTION {name} CONNECTION '{conninfo}' PUBLICATION all_told WITH (slot_name={slot})")


def has(subscriber: Any) -> list[int]:
    return list(subscriber.sql("SELECT coalesce(array_agg(n ORDER BY n), '{}') FROM told"))


def take_over(cluster: Any, slots: list[str]) -> str:
    """The primary dies, another takes its place; it has these slots, as if it had copied them."""
    cluster.agree()
    end = cluster.b.look()["end"]
    cluster.primary.kill()
    fork = str(cluster.b.step("promoted", lsn=end, timeline=1)["fork_lsn"])
    for slot in slots:
        cluster.b.sql(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
    return fork


def wanted(cluster: Any, fork: str, slots: list[str]) -> Lead:
    root, old, new = str(cluster.root), cluster.primary.port, cluster.b.port
    return Lead([root], root, fork, slots, old, new, timeout=20)


def test_a_subscription_goes_on_with_the_new_primary_and_its_password_is_in_no_log(
    cluster: Any, subscriber: Any
) -> None:
    subscribe(cluster, subscriber, '"The ""shop"""', "shop")
    cluster.primary.write(1, 5)
    cluster.until(lambda: has(subscriber) == [1, 2, 3, 4, 5], "it has all")
    fork = take_over(cluster, ["shop"])
    before = (cluster.root / "s.log").stat().st_size
    looked = lead(subscriber.login, wanted(cluster, fork, ["shop"]), True)
    assert (looked["changed"], looked["subscriptions"][0]["left"]) == (True, "")
    assert str(cluster.primary.port) in subscriber.sql("SELECT subconninfo FROM pg_subscription")
    done = lead(subscriber.login, wanted(cluster, fork, ["shop"]), False)
    assert (done["changed"], done["subscriptions"][0]["left"]) == (True, "")
    assert subscriber.sql("SELECT subconninfo FROM pg_subscription").endswith("dbname=postgres password=hush")
    with (cluster.root / "s.log").open() as log:
        log.seek(before)
        assert "hush" not in log.read()
    for number in (6, 7):
        cluster.b.sql(f"INSERT INTO told VALUES ({number})")
    cluster.until(lambda: has(subscriber) == [1, 2, 3, 4, 5, 6, 7], "it goes on")
    again = lead(subscriber.login, wanted(cluster, fork, ["shop"]), False)
    assert (again["changed"], again["subscriptions"][0]["left"]) == (False, "")


def test_one_that_has_what_is_lost_or_has_no_slot_there_stays_as_it_is_and_is_told(
    cluster: Any, subscriber: Any
) -> None:
    subscribe(cluster, subscriber, "ahead", "ahead")
    subscribe(cluster, subscriber, "slotless", "slotless")
    cluster.primary.write(1, 3)
    cluster.until(lambda: has(subscriber) == [1, 2, 3], "it has all")
    fork = take_over(cluster, ["ahead"])
    # It has got what no standby has.
    subscriber.sql("ALTER SUBSCRIPTION ahead DISABLE")
    origin = "pg_' || (SELECT oid FROM pg_subscription WHERE subname = 'ahead') || '"
    working = "SELECT count(pid) FROM pg_stat_subscription WHERE subname = 'ahead'"
    cluster.until(lambda: subscriber.sql(working) == 0, "its worker has ended")
    subscriber.sql(f"SELECT pg_replication_origin_advance('{origin}', '0/FFFFFF0')", "ALTER SUBSCRIPTION ahead ENABLE")
    done = lead(subscriber.login, wanted(cluster, fork, ["ahead"]), False)
    told = {one["name"]: one["left"] for one in done["subscriptions"]}
    assert "it has rows that are lost there" in told["ahead"]
    assert "does not have its slot slotless" in told["slotless"]
    assert not done["changed"]
    at_old = f"SELECT count(*) FROM pg_subscription WHERE subconninfo LIKE '%{cluster.primary.port}%'"
    assert subscriber.sql(at_old) == 2


def test_an_owner_who_holds_the_lock_of_a_subscription_makes_nobody_wait(cluster: Any, subscriber: Any) -> None:
    subscribe(cluster, subscriber, "held", "held")
    cluster.primary.write(1, 2)
    cluster.until(lambda: has(subscriber) == [1, 2], "it has all")
    fork = take_over(cluster, ["held"])
    owner = connect(subscriber.login, "postgres", options="")
    try:
        with owner.cursor() as cursor:
            cursor.execute("ALTER SUBSCRIPTION held SET (synchronous_commit = off)")
        began = time.monotonic()
        done = lead(subscriber.login, wanted(cluster, fork, ["held"]), False)
        assert time.monotonic() - began < 10
        assert "SQLSTATE 55P03" in done["subscriptions"][0]["left"]
    finally:
        owner.close()


@pytest.mark.parametrize(
    ("conninfo", "expected"),
    [
        ("host=db1 dbname=shop", True),
        ("host=db1,db2 dbname=shop", False),
        ("host=db1 port=5433", False),
        ("hostaddr=192.0.2.1 port=5432", True),
        ("dbname=shop", False),
        ("postgresql://db1/shop", True),
        ("no conninfo", False),
    ],
)
def test_whom_a_connection_leads_to(conninfo: str, expected: bool) -> None:
    assert leads_to(conninfo, ["db1", "192.0.2.1"], 5432) is expected
