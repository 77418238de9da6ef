"""Damage to tables that are still there: truncated, emptied, overwritten, altered."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.errors import RecoveryError
from conftest import Cluster, is_just_before


def filled(cluster: Cluster, name: str, rows: int = 2000, tail: str = "") -> None:
    cluster.sql(
        f"CREATE TABLE {name} (id int PRIMARY KEY, v int) {tail}",
        f"INSERT INTO {name} SELECT g, g FROM generate_series(1, {rows}) g",
    )


def test_truncate(cluster: Cluster) -> None:
    filled(cluster, "emptied")
    cluster.sql("VACUUM FULL emptied", "CLUSTER emptied USING emptied_pkey", "ALTER TABLE emptied ALTER v TYPE bigint")
    cluster.sql(
        "ALTER TABLE emptied SET TABLESPACE elsewhere", "REINDEX TABLE emptied", "DELETE FROM emptied WHERE id < 9"
    )
    xid = cluster.transact("TRUNCATE emptied", "INSERT INTO emptied VALUES (1, 1)")
    cluster.sql("VACUUM FULL emptied")
    found = cluster.find("emptied")
    is_just_before(found, cluster, xid, "truncate")
    assert len(found["candidates"]) == 1


def test_a_table_truncated_where_it_was_made_lost_nothing(cluster: Cluster) -> None:
    filled(cluster, "reloaded")
    cluster.transact("CREATE TABLE made_here (id int)", "SAVEPOINT a", "TRUNCATE made_here")
    with pytest.raises(RecoveryError, match="made_here exists"):
        cluster.find("made_here")


def test_delete_of_all_rows_through_rewrites(cluster: Cluster) -> None:
    filled(cluster, "deleted")
    cluster.sql("DELETE FROM deleted WHERE id <= 10", "VACUUM FULL deleted")
    xid = cluster.transact("DELETE FROM deleted WHERE id <= 500", "SAVEPOINT a", "DELETE FROM deleted WHERE id <= 1999")
    cluster.sql("CLUSTER deleted USING deleted_pkey", "ALTER TABLE deleted SET TABLESPACE elsewhere")
    cluster.sql("UPDATE deleted SET v = 0")
    found = cluster.find("deleted")
    is_just_before(found, cluster, xid, "delete")
    assert found["incident"]["rows"] == 1989


def test_a_delete_rolled_back_to_a_savepoint_does_not_count(cluster: Cluster) -> None:
    filled(cluster, "partly")
    cluster.transact("SAVEPOINT a", "DELETE FROM partly", "ROLLBACK TO a", "DELETE FROM partly WHERE id = 1")
    cluster.transact("DELETE FROM partly", end="ROLLBACK")
    with pytest.raises(RecoveryError, match=r"partly exists .* from 1000 rows on"):
        cluster.find("partly")
    xid = cluster.transact("DELETE FROM partly WHERE id = 2")
    with pytest.raises(RecoveryError, match="2 transactions"):
        cluster.find("partly", min_rows=1)
    commit_time = cluster.find(target_xid=str(xid))["incident"]["commit_time"]
    found = cluster.find("partly", min_rows=1, since=commit_time)
    is_just_before(found, cluster, xid, "delete")
    assert found["incident"]["rows"] == 1


def test_update_without_where(cluster: Cluster) -> None:
    filled(cluster, "updated", tail="WITH (fillfactor = 50)")
    xid = cluster.transact("UPDATE updated SET v = 0")
    found = cluster.find("updated")
    is_just_before(found, cluster, xid, "update")
    assert found["incident"]["rows"] == 2000


def test_partitions_count_together(cluster: Cluster) -> None:
    cluster.sql(
        "CREATE TABLE split (id int, v int) PARTITION BY RANGE (id)",
        "CREATE TABLE split1 PARTITION OF split FOR VALUES FROM (0) TO (701)",
        "CREATE TABLE split2 PARTITION OF split FOR VALUES FROM (701) TO (5000)",
        "INSERT INTO split SELECT g, g FROM generate_series(1, 1400) g",
    )
    xid = cluster.transact("DELETE FROM split")
    found = cluster.find("split")
    is_just_before(found, cluster, xid, "delete")
    assert found["incident"]["rows"] == 1400
    assert {one["name"] for one in found["incident"]["relations"]} == {"split1", "split2"}


def test_rows_moved_between_partitions_are_updated_not_deleted(cluster: Cluster) -> None:
    cluster.sql(
        "CREATE TABLE moving (id int, v int) PARTITION BY RANGE (id)",
        "CREATE TABLE moving1 PARTITION OF moving FOR VALUES FROM (0) TO (2000)",
        "CREATE TABLE moving2 PARTITION OF moving FOR VALUES FROM (2000) TO (5000)",
        "INSERT INTO moving SELECT g, g FROM generate_series(1, 1400) g",
    )
    xid = cluster.transact("UPDATE moving SET id = id + 2000")
    found = cluster.find("moving")
    is_just_before(found, cluster, xid, "update")
    assert found["incident"]["rows"] == 1400


def test_two_bulk_deletes_are_not_guessed_between(cluster: Cluster) -> None:
    filled(cluster, "double")
    first = cluster.transact("DELETE FROM double")
    filled(cluster, "double_again")
    cluster.sql("INSERT INTO double SELECT g, g FROM generate_series(1, 2000) g")
    second = cluster.transact("DELETE FROM double WHERE id <= 1500")
    with pytest.raises(RecoveryError, match="2 transactions .*dr_target_xid") as refused:
        cluster.find("double")
    candidates = refused.value.details["candidates"]
    assert [(one["xid"], one["rows"]) for one in candidates] == [(first, 2000), (second, 1500)]
    is_just_before(cluster.find("double", min_rows=1600), cluster, first, "delete")
    is_just_before(cluster.find("double", until=candidates[0]["commit_time"]), cluster, first, "delete")
    is_just_before(cluster.find("double", since=candidates[1]["commit_time"]), cluster, second, "delete")
    is_just_before(cluster.find("double", target_xid=str(second)), cluster, second, "explicit")


def test_dropped_and_made_again_by_somebody(cluster: Cluster) -> None:
    filled(cluster, "remade")
    xid = cluster.transact("DROP TABLE remade")
    cluster.sql("CREATE TABLE remade (id int)")
    is_just_before(cluster.find("remade"), cluster, xid)
    is_just_before(cluster.find("remade", kinds=["drop_table"]), cluster, xid)


def test_a_two_phase_delete(cluster: Cluster) -> None:
    filled(cluster, "phased")
    xid = cluster.transact("DELETE FROM phased", end="PREPARE TRANSACTION 'phased'")
    cluster.sql("COMMIT PREPARED 'phased'")
    found = cluster.find("phased")
    is_just_before(found, cluster, xid, "delete")
    assert found["incident"]["prepared"]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE {} DROP COLUMN v",
        "ALTER TABLE {} RENAME COLUMN v TO w",
        "DROP INDEX {}_v",
        "GRANT SELECT ON {} TO pg_monitor",
        "ALTER TABLE {} ADD CHECK (id >= 0)",
    ],
)
def test_any_change_of_the_definition(cluster: Cluster, change: str) -> None:
    name = "altered" + str(sum(change.encode()))
    filled(cluster, name)
    cluster.sql(f"CREATE INDEX {name}_v ON {name} (v)")
    cluster.sql(f"ANALYZE {name}", f"VACUUM {name}")
    made = time_of_last_commit(cluster)
    cluster.sql(f"INSERT INTO {name} VALUES (0, 0)")
    xid = cluster.transact(change.format(name))
    cluster.sql(f"ANALYZE {name}", f"DELETE FROM {name} WHERE id < 1500", f"VACUUM {name}")
    found = cluster.find(name, kinds=["ddl"], since=made)
    is_just_before(found, cluster, xid, "ddl")


def time_of_last_commit(cluster: Cluster) -> Any:
    """A moment between two transactions."""
    return cluster.sql("SELECT (clock_timestamp() + interval '1 microsecond')::text")


def test_what_happened_to_one_table_and_what_to_another(cluster: Cluster) -> None:
    filled(cluster, "first_lost")
    filled(cluster, "then_emptied")
    cluster.transact("TRUNCATE then_emptied")
    second = cluster.transact("DROP TABLE first_lost")
    found = cluster.find("first_lost", "then_emptied")
    assert found["incident"]["kind"] == "truncate"
    assert str(second) in found["target"]["reason"]
