"""Proof by recovery: at the target the last row committed before the damage is there, and the damage is not."""

from __future__ import annotations

from typing import Any, Callable

from cluster import Cluster, SideInstance

Restore = Callable[[dict[str, Any]], SideInstance]


def test_a_drop_under_load(cluster: Cluster, restored: Restore) -> None:
    cluster.sql("CREATE TABLE stock (id int PRIMARY KEY)", "CREATE TABLE ledger (id int)")
    for number in range(20):
        cluster.sql(f"INSERT INTO stock VALUES ({number})")
    cluster.sql("INSERT INTO ledger VALUES (1)")
    cluster.transact("DROP TABLE stock")
    cluster.sql("INSERT INTO ledger VALUES (2)")
    with restored(cluster.find("stock")) as side:
        assert side.sql("SELECT count(*) FROM stock") == 20
        assert side.sql("SELECT array_agg(id) FROM ledger") == [1]


def test_a_two_phase_drop(cluster: Cluster, restored: Restore) -> None:
    cluster.sql("CREATE TABLE held (id int)", "INSERT INTO held VALUES (1)", "CREATE TABLE meanwhile (id int)")
    cluster.transact("DROP TABLE held", end="PREPARE TRANSACTION 'held'")
    cluster.sql("INSERT INTO meanwhile VALUES (1)", "COMMIT PREPARED 'held'")
    with restored(cluster.find("held")) as side:
        assert side.sql("SELECT count(*) FROM meanwhile") == 1
        side.sql("ROLLBACK PREPARED 'held'")
        assert side.sql("SELECT count(*) FROM held") == 1


def test_a_dropped_database(cluster: Cluster, restored: Restore) -> None:
    cluster.sql("CREATE DATABASE vanished", database="postgres")
    cluster.sql("CREATE TABLE inside (id int)", "INSERT INTO inside VALUES (7)", database="vanished")
    cluster.sql("DROP DATABASE vanished", database="postgres")
    with restored(cluster.find(database="vanished")) as side:
        assert side.sql("SELECT id FROM inside", database="vanished") == 7


def test_a_time(cluster: Cluster, restored: Restore) -> None:
    cluster.sql("CREATE TABLE clock (id int)")
    xids = [cluster.transact(f"INSERT INTO clock VALUES ({number})") for number in range(3)]
    time = cluster.find(target_xid=str(xids[1]))["incident"]["commit_time"]
    with restored(cluster.find("clock", target_time=time)) as side:
        assert side.sql("SELECT array_agg(id ORDER BY id) FROM clock") == [0, 1]


def test_a_truncate(cluster: Cluster, restored: Restore) -> None:
    cluster.sql("CREATE TABLE cut (id int)", "INSERT INTO cut SELECT generate_series(1, 50)", "VACUUM FULL cut")
    cluster.sql("INSERT INTO cut VALUES (51)")
    cluster.transact("TRUNCATE cut")
    with restored(cluster.find("cut")) as side:
        assert side.sql("SELECT count(*) FROM cut") == 51
