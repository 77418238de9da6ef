"""Damage to tables that are still there: truncated, emptied, overwritten, altered."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from cluster import Cluster, is_just_before


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
    anew = cluster.transact("ALTER TABLE partly ALTER v TYPE bigint USING 0")
    cluster.sql("CREATE TABLE partly_1 AS TABLE partly", "DROP TABLE partly_1")
    words = (
        rf"partly exists .* from 1000 rows on.* {anew} wrote it anew .* -e dr_target_xid={anew}\..* public.partly_1\."
    )
    with pytest.raises(RecoveryError, match=words):
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


def test_a_big_delete_before_a_routine_one_is_found_as_well(cluster: Cluster) -> None:
    filled(cluster, "routine", 9000)
    first = cluster.transact("DELETE FROM routine WHERE id > 5000")
    for _round in range(3):
        cluster.sql("SELECT pg_switch_wal()", "CHECKPOINT")
    second = cluster.transact("DELETE FROM routine WHERE id <= 1200")
    with pytest.raises(
        RecoveryError, match=rf"2 transactions .*4,000 rows.*={first};.*1,200 rows.*={second}"
    ) as refused:
        cluster.find("routine")
    assert [one["xid"] for one in refused.value.details["candidates"]] == [first, second]
    scanned = cluster.find("routine", min_rows=2000)["scanned"]
    assert scanned["complete"]
    assert "no recovery can begin before it" in scanned["unread"]


def test_all_of_many_candidates_are_listed_the_oldest_first(cluster: Cluster) -> None:
    filled(cluster, "batches", 3000)
    xids = [cluster.transact(f"DELETE FROM batches WHERE id <= {100 * number}") for number in range(1, 31)]
    with pytest.raises(
        RecoveryError, match=rf"30 transactions .*\(1\) DELETE .*={xids[0]};.*\(30\) DELETE .*={xids[-1]}\."
    ):
        cluster.find("batches", min_rows=50)


def test_what_cascades_took_from_other_tables_is_told(cluster: Cluster) -> None:
    cluster.sql(
        "CREATE TABLE customers (id int PRIMARY KEY)",
        "CREATE TABLE orders2 (id int PRIMARY KEY, c int REFERENCES customers ON DELETE CASCADE)",
        "CREATE TABLE items (id int PRIMARY KEY, o int REFERENCES orders2 ON DELETE CASCADE)",
        "CREATE TABLE jobs (id int, v int)",
        "INSERT INTO jobs VALUES (1, 1)",
    )
    fill = [
        "INSERT INTO customers SELECT generate_series(1, 20)",
        "INSERT INTO orders2 SELECT g, g % 20 + 1 FROM generate_series(1, 200) g",
        "INSERT INTO items SELECT g, g % 200 + 1 FROM generate_series(1, 1500) g",
    ]
    cluster.sql(*fill)
    xid = cluster.transact("UPDATE jobs SET v = 2", "DELETE FROM customers")
    found = cluster.find("customers", min_rows=10)
    is_just_before(found, cluster, xid, "delete")
    assert harms(found) == {
        ("customers", "delete", 20, True),
        ("orders2", "delete", 200, False),
        ("items", "delete", 1500, False),
    }
    cluster.sql(*fill)
    after = time_of_last_commit(cluster)
    xid = cluster.transact("TRUNCATE customers CASCADE")
    found = cluster.find("customers", since=after)
    is_just_before(found, cluster, xid, "truncate")
    assert {(name, damage, asked) for name, damage, _rows, asked in harms(found)} == {
        ("customers", "truncate", True), ("orders2", "truncate", False), ("items", "truncate", False),
    }  # fmt: skip
    # Chosen by hand, it is the same transaction.
    assert harms(cluster.find("customers", target_xid=str(xid))) == harms(found)


def harms(found: dict[str, Any]) -> set[tuple[str, str, Any, bool]]:
    return {(one["name"], one["damage"], one["rows"], one["asked"]) for one in found["incident"]["relations"]}


def test_rows_deleted_through_an_inheritance_parent(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE elder (id int)", "CREATE TABLE younger (v int) INHERITS (elder)")
    cluster.sql("INSERT INTO younger SELECT g, g FROM generate_series(1, 1300) g")
    xid = cluster.transact("DELETE FROM elder")
    found = cluster.find("elder")
    is_just_before(found, cluster, xid, "delete")
    assert harms(found) == {("younger", "delete", 1300, True)}


@pytest.mark.parametrize(
    ("column", "statement"),
    [
        ("gone int", "ALTER TABLE {} DROP COLUMN gone"),
        ("gone {}_t", "DROP TYPE {}_t CASCADE"),
        ("gone int", "ALTER TABLE {} DROP COLUMN gone, ADD COLUMN fresh int"),
    ],
)
def test_a_column_that_went(cluster: Cluster, column: str, statement: str) -> None:
    name = f"col{len(statement)}"
    cluster.sql(f"CREATE TYPE {name}_t AS (a int)", f"CREATE TABLE {name} (id int, v int)")
    cluster.sql(f"ALTER TABLE {name} ADD {column.format(name)}", f"INSERT INTO {name} VALUES (1, 1, NULL)")
    truncated = cluster.transact(f"TRUNCATE {name}")
    cluster.sql(f"INSERT INTO {name} SELECT g, g FROM generate_series(1, 9) g", "CHECKPOINT")
    after = time_of_last_commit(cluster)
    cluster.sql("CREATE TEMP TABLE noise (a int, b text DEFAULT 'x')", f"ALTER TABLE {name} ALTER v SET STATISTICS 5")
    xid = cluster.transact(statement.format(name))
    with pytest.raises(RecoveryError, match=f"2 transactions .*={truncated}; .*DROP COLUMN .*column gone.*={xid}"):
        cluster.find(name)
    found = cluster.find(name, since=after)
    is_just_before(found, cluster, xid, "drop_column")
    (lost,) = found["incident"]["relations"]
    assert (lost["name"], lost["damage"], lost["columns"], lost["asked"]) == (name, "column", ["gone"], True)


def test_our_own_transactions_are_not_taken_for_the_damage(cluster: Cluster) -> None:
    filled(cluster, "recovered")
    mark = "SELECT pg_logical_emit_message(true, 'dbre.recovery'::text, '{}'::text)"
    own = cluster.transact(mark.format("drop-é-1"), "TRUNCATE recovered", "INSERT INTO recovered VALUES (1, 1)")
    with pytest.raises(RecoveryError, match="nothing but recoveries .*drop-é-1") as refused:
        cluster.find("recovered")
    assert [one["ours"] for one in refused.value.details["candidates"]] == [True]
    xid = cluster.transact("TRUNCATE recovered")
    found = cluster.find("recovered")
    is_just_before(found, cluster, xid, "truncate")
    assert [(one["xid"], one["ours"]) for one in found["candidates"]] == [(own, True), (xid, False)]
    assert "Not taken: 1 that" in found["target"]["reason"]
    assert "by the recovery drop-é-1 of this collection itself" in found["target"]["reason"]
    assert cluster.find("recovered", target_xid=str(own))["incident"]["ours"]


def test_a_schema_that_lives_but_lost_its_tables(cluster: Cluster) -> None:
    cluster.sql(
        "CREATE SCHEMA app", "CREATE TABLE app.a (id int)", "CREATE TABLE app.b (id int)", "CREATE TABLE app.c ()"
    )
    cluster.sql("INSERT INTO app.a VALUES (1)")
    xid = cluster.transact("DROP TABLE app.a, app.b")
    found = cluster.find(schemas=["app"])
    is_just_before(found, cluster, xid)
    assert harms(found) == {("a", "drop", 1, True), ("b", "drop", 0, True)}
    cluster.sql("CREATE SCHEMA one_more")
    with pytest.raises(RecoveryError, match="schema one_more exists .* no transaction"):
        cluster.find(schemas=["one_more"])
