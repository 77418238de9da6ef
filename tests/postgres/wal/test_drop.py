"""A drop is found, whatever happened to the table before it and however it was dropped."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from cluster import Cluster, is_just_before


def relation(found: dict[str, Any]) -> tuple[str, str]:
    """Schema and name of what was asked for."""
    first = found["incident"]["relations"][0]
    return first["schema"], first["name"]


def test_a_table_of_before_the_backup(cluster: Cluster) -> None:
    oid = cluster.sql("SELECT 'before_backup'::regclass::oid::bigint")
    cluster.sql("INSERT INTO before_backup VALUES (2)")
    xid = cluster.transact("DROP TABLE before_backup")
    cluster.sql("CREATE TABLE after_drop (id int)")
    found = cluster.find("before_backup")
    is_just_before(found, cluster, xid)
    (lost,) = found["incident"]["relations"]
    assert (lost["schema"], lost["name"], lost["oid"], lost["kind"]) == ("public", "before_backup", oid, "r")
    assert (lost["damage"], lost["asked"]) == ("drop", True)
    assert 1 <= found["transactions_after"]["count"] <= cluster.commits_after(found["incident"]["lsn"])


def test_a_table_made_after_the_last_backup(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE young (id int)", "INSERT INTO young VALUES (1)")
    xid = cluster.transact("DROP TABLE young")
    is_just_before(cluster.find("young"), cluster, xid)


@pytest.mark.parametrize(
    "rewrite",
    [
        "VACUUM FULL {}",
        "CLUSTER {} USING {}_pkey",
        "ALTER TABLE {} ALTER v TYPE bigint",
        "TRUNCATE {}",
        "ALTER TABLE {} SET TABLESPACE elsewhere",
    ],
)
def test_a_table_rewritten_before_the_drop(cluster: Cluster, rewrite: str) -> None:
    name = "rewritten_" + rewrite.split()[0].lower() + str(len(rewrite))
    cluster.sql(f"CREATE TABLE {name} (id int PRIMARY KEY, v int)", f"INSERT INTO {name} VALUES (1, 1)", "CHECKPOINT")
    cluster.sql(rewrite.format(name, name))
    xid = cluster.transact(f"DROP TABLE {name}")
    is_just_before(cluster.find(name), cluster, xid)


def test_catalogue_rows_whose_page_image_is_older_than_the_drop_by_checkpoints(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE imaged (id int)", "CHECKPOINT", "CREATE TABLE imaged2 (id int)")
    cluster.sql("ALTER TABLE imaged ADD COLUMN v int", "CHECKPOINT", "ANALYZE imaged", "VACUUM pg_class")
    xid = cluster.transact("DROP TABLE imaged")
    is_just_before(cluster.find("imaged"), cluster, xid)


def test_a_drop_inside_a_long_transaction(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE slow (id int)")
    connection = cluster.connect()
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("DROP TABLE slow")
        cursor.execute("SELECT pg_current_xact_id()::text::bigint")
        xid = cursor.fetchone()[0]
        for number in range(3):
            cluster.sql(f"CREATE TABLE while_slow{number} (id int)", "SELECT pg_switch_wal()")
        cursor.execute("COMMIT")
    connection.close()
    found = cluster.find("slow")
    is_just_before(found, cluster, xid)
    assert relation(found) == ("public", "slow")


def test_a_drop_inside_a_savepoint(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE saved (id int)", "CREATE TABLE other_saved (id int)")
    xid = cluster.transact(
        "INSERT INTO other_saved VALUES (1)", "SAVEPOINT a", "SAVEPOINT b", "DROP TABLE saved", "RELEASE a"
    )
    found = cluster.find("saved")
    is_just_before(found, cluster, xid)
    assert found["incident"]["subxacts"]


def test_a_drop_rolled_back_is_none(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE twice (id int)")
    cluster.transact("DROP TABLE twice", end="ROLLBACK")
    cluster.transact("SAVEPOINT a", "DROP TABLE twice", "ROLLBACK TO a", "CREATE TABLE twice_other (id int)")
    xid = cluster.transact("DROP TABLE twice")
    cluster.transact("CREATE TABLE twice (id int)", "DROP TABLE twice")
    cluster.transact("CREATE TABLE twice (id int)", end="ROLLBACK")
    found = cluster.find("twice")
    is_just_before(found, cluster, xid)
    assert len(found["candidates"]) == 1


def test_a_two_phase_drop(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE prepared (id int)")
    xid = cluster.transact("DROP TABLE prepared", end="PREPARE TRANSACTION 'drop'")
    cluster.sql("CREATE TABLE between_phases (id int)")
    with pytest.raises(RecoveryError, match="prepared exists"):
        cluster.find("prepared")
    cluster.sql("COMMIT PREPARED 'drop'")
    found = cluster.find("prepared")
    is_just_before(found, cluster, xid)
    assert found["incident"]["prepared"]


def test_a_two_phase_drop_rolled_back_is_none(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE unprepared (id int)")
    cluster.transact("DROP TABLE unprepared", end="PREPARE TRANSACTION 'undrop'")
    cluster.sql("ROLLBACK PREPARED 'undrop'")
    xid = cluster.transact("DROP TABLE unprepared")
    is_just_before(cluster.find("unprepared"), cluster, xid)


def test_dropped_made_again_and_dropped_again(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE again (id int)", "INSERT INTO again SELECT generate_series(1, 4)")
    first = cluster.transact("DROP TABLE again")
    cluster.sql("CREATE TABLE again (id int)", "INSERT INTO again VALUES (1), (2)", "DELETE FROM again WHERE id = 2")
    second = cluster.transact("DROP TABLE again")
    with pytest.raises(
        RecoveryError, match=rf"2 transactions .*4 rows.*target_xid={first};.*1 row\).*={second}"
    ) as refused:
        cluster.find("again")
    candidates = refused.value.details["candidates"]
    assert [(one["xid"], one["relations"][0]["rows"]) for one in candidates] == [(first, 4), (second, 1)]
    is_just_before(cluster.find("again", until=candidates[0]["commit_time"]), cluster, first)
    is_just_before(cluster.find("again", since=candidates[1]["commit_time"]), cluster, second)


def test_the_empty_one_that_a_migration_made_again_and_dropped_is_not_taken(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE reset (id int)", "INSERT INTO reset SELECT generate_series(1, 50)")
    first = cluster.transact("DROP TABLE reset")
    cluster.sql("CREATE TABLE reset (id int)")
    second = cluster.transact("DROP TABLE reset")
    found = cluster.find("reset")
    is_just_before(found, cluster, first)
    assert [(one["xid"], one["relations"][0]["rows"]) for one in found["candidates"]] == [(first, 50), (second, 0)]
    assert "Not taken: 1 that had no rows to lose" in found["target"]["reason"]
    assert "public.reset (0 rows)" in found["target"]["reason"]
    is_just_before(cluster.find("reset", target_xid=str(second)), cluster, second, "explicit")


def test_a_partitioned_parent_and_one_partition(cluster: Cluster) -> None:
    cluster.sql(
        "CREATE TABLE parted (id int) PARTITION BY RANGE (id)",
        "CREATE TABLE parted1 PARTITION OF parted FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE parted2 PARTITION OF parted FOR VALUES FROM (10) TO (20)",
    )
    one = cluster.transact("DROP TABLE parted1")
    is_just_before(cluster.find("parted1"), cluster, one)
    both = cluster.transact("DROP TABLE parted")
    found = cluster.find("parted")
    is_just_before(found, cluster, both)
    assert [(entry["name"], entry["kind"]) for entry in found["incident"]["relations"]] == [
        ("parted", "p"),
        ("parted2", "r"),
    ]


def test_temporary_tables_of_the_same_name_are_noise(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE noisy (id int)")
    xid = cluster.transact("DROP TABLE noisy")
    for _round in range(3):
        cluster.transact("CREATE TEMP TABLE noisy (id int) ON COMMIT DROP", "INSERT INTO noisy VALUES (1)")
        cluster.sql("CREATE TEMP TABLE noisy (id int)")
    is_just_before(cluster.find("noisy"), cluster, xid)


def test_mixed_case_and_other_schemas(cluster: Cluster) -> None:
    cluster.sql(
        'CREATE SCHEMA "Sales"', 'CREATE TABLE "Sales"."Order Lines é" (id int)', "CREATE TABLE order_lines (id int)"
    )
    other = cluster.transact("DROP TABLE order_lines")
    xid = cluster.transact('DROP TABLE "Sales"."Order Lines é"')
    found = cluster.find('"Sales"."Order Lines é"')
    is_just_before(found, cluster, xid)
    assert relation(found) == ("Sales", "Order Lines é")
    is_just_before(cluster.find("order_lines"), cluster, other)


def test_the_same_name_in_two_schemas(cluster: Cluster) -> None:
    cluster.sql(
        "CREATE SCHEMA one", "CREATE SCHEMA two", "CREATE TABLE one.same (id int)", "CREATE TABLE two.same (id int)"
    )
    first = cluster.transact("DROP TABLE one.same")
    second = cluster.transact("DROP TABLE two.same")
    is_just_before(cluster.find("one.same"), cluster, first)
    is_just_before(cluster.find("two.same"), cluster, second)


def test_a_schema_renamed_since(cluster: Cluster) -> None:
    cluster.sql("CREATE SCHEMA once", "CREATE TABLE once.moved (id int)")
    xid = cluster.transact("DROP TABLE once.moved")
    cluster.sql("ALTER SCHEMA once RENAME TO now_other")
    is_just_before(cluster.find("once.moved"), cluster, xid)


def test_a_table_in_another_tablespace(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE far (id int) TABLESPACE elsewhere", "INSERT INTO far VALUES (1)")
    xid = cluster.transact("DROP TABLE far")
    is_just_before(cluster.find("far"), cluster, xid)


def test_views_sequences_and_materialized_views(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE base (id int)", "CREATE VIEW seen AS SELECT * FROM base", "CREATE SEQUENCE counted")
    cluster.sql("CREATE MATERIALIZED VIEW kept AS SELECT * FROM base")
    xid = cluster.transact("DROP TABLE base CASCADE", "DROP SEQUENCE counted")
    found = cluster.find("counted")
    is_just_before(found, cluster, xid)
    assert {entry["name"] for entry in found["incident"]["relations"]} == {"base", "seen", "counted", "kept"}
    is_just_before(cluster.find("kept"), cluster, xid)


def test_several_lost_in_one_transaction(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE both1 (id int)", "CREATE TABLE both2 (id int)")
    xid = cluster.transact("DROP TABLE both1, both2")
    found = cluster.find("both1", "both2")
    is_just_before(found, cluster, xid)
    assert "first of" not in found["target"]["reason"]


def test_several_lost_one_after_the_other(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE early (id int)", "CREATE TABLE late (id int)")
    first = cluster.transact("DROP TABLE early")
    cluster.transact("DROP TABLE late")
    found = cluster.find("late", "early")
    is_just_before(found, cluster, first)
    assert "public.late went later" in found["target"]["reason"] or "late went later" in found["target"]["reason"]


def test_several_that_never_existed_together(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE apart1 (id int)")
    cluster.sql("DROP TABLE apart1", "CREATE TABLE apart2 (id int)", "DROP TABLE apart2")
    with pytest.raises(RecoveryError, match="did not yet exist"):
        cluster.find("apart1", "apart2")


def test_renamed_and_then_dropped(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE named (id int)", "ALTER TABLE named RENAME TO renamed")
    xid = cluster.transact("DROP TABLE renamed")
    is_just_before(cluster.find("renamed"), cluster, xid)
    with pytest.raises(RecoveryError, match=r"renamed it to public.renamed .* dropped it .*; ask for public.renamed"):
        cluster.find("named")


def test_renamed_in_the_transaction_that_dropped_it(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE swapped (id int)")
    xid = cluster.transact("ALTER TABLE swapped RENAME TO swapped_old", "DROP TABLE swapped_old")
    is_just_before(cluster.find("swapped"), cluster, xid)


def test_a_schema_dropped(cluster: Cluster) -> None:
    cluster.sql('CREATE SCHEMA "Lost"', 'CREATE TABLE "Lost".a (id int)', 'CREATE TABLE "Lost"."B" (id int)')
    xid = cluster.transact('DROP SCHEMA "Lost" CASCADE')
    found = cluster.find(schemas=['"Lost"'])
    is_just_before(found, cluster, xid, "drop_schema")
    assert {entry["name"] for entry in found["incident"]["relations"]} == {"a", "B"}
    table = cluster.find('"Lost"."B"')
    is_just_before(table, cluster, xid)


def test_a_database_dropped(cluster: Cluster) -> None:
    cluster.sql("CREATE DATABASE gone", database="postgres")
    cluster.sql("CREATE TABLE inside (id int)", database="gone")
    cluster.sql("DROP DATABASE gone", database="postgres")
    found = cluster.find(database="gone")
    drop = cluster.records("--rmgr=Database", "DROP dir")[-1]
    delete = cluster.records("--relation=1664/0/1262", "DELETE off|DELETE xmax")[-1]
    marks = [one for one in cluster.records("--relation=1664/0/1262", "INPLACE") if one.lsn < delete.lsn]
    first = marks[-1] if marks else delete
    assert found["incident"]["kind"] == "drop_database"
    assert found["incident"]["xid"] == drop.xid == delete.xid
    assert found["target"]["value"] == first.text
    assert first.lsn < drop.lsn
    assert found["incident"]["commit_lsn"] == cluster.commit_lsn(drop.xid)


def test_the_whole_of_pg_class_rewritten_between(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE kept_by_rewrite (id int)", "VACUUM FULL pg_class", "VACUUM FULL pg_namespace")
    xid = cluster.transact("DROP TABLE kept_by_rewrite")
    is_just_before(cluster.find("kept_by_rewrite"), cluster, xid)


def test_dropped_before_pg_class_was_rewritten(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE rewritten_away (id int)", "CHECKPOINT")
    xid = cluster.transact("DROP TABLE rewritten_away")
    cluster.sql("VACUUM FULL pg_class", "VACUUM FULL pg_namespace", "CREATE TABLE after_rewrite (id int)")
    is_just_before(cluster.find("rewritten_away"), cluster, xid)


@pytest.mark.parametrize("method", ["pglz", "lz4", "zstd"])
def test_compressed_page_images(cluster: Cluster, method: str) -> None:
    try:
        cluster.sql(f"ALTER SYSTEM SET wal_compression = {method}", "SELECT pg_reload_conf()")
        cluster.sql(f"CREATE TABLE packed_{method} (id int)", "CHECKPOINT")
        xid = cluster.transact(f"DROP TABLE packed_{method}")
        is_just_before(cluster.find(f"packed_{method}"), cluster, xid)
    finally:
        cluster.sql("ALTER SYSTEM RESET wal_compression", "SELECT pg_reload_conf()")


@pytest.mark.parametrize(
    ("encoding", "codec", "name"),
    [
        ("LATIN1", "latin-1", "Bücher"),
        ("EUC_JP", "euc_jp", "注文"),
        ("WIN1251", "cp1251", "заказы"),
        ("KOI8R", "koi8-r", "заказы"),
        ("SQL_ASCII", "latin-1", "café"),
        ("SQL_ASCII", "utf-8", "café"),
    ],
)
def test_names_in_databases_of_any_encoding(cluster: Cluster, encoding: str, codec: str, name: str) -> None:
    database = f"in_{encoding}_{codec}".lower().replace("-", "_")
    cluster.sql(f"CREATE DATABASE {database} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0", database="postgres")
    connection = cluster.connect(database)
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE TABLE "{name}" (id int); CREATE TABLE "{name}_too" (id int)'.encode(codec))
        cursor.execute(f'BEGIN; DROP TABLE "{name}"; SELECT pg_current_xact_id()::text::bigint'.encode(codec))
        xid = cursor.fetchone()[0]
        cursor.execute("COMMIT")
    connection.close()
    found = cluster.find(f'"{name}"', database=database)
    is_just_before(found, cluster, xid)
    assert relation(found) == ("public", name)
    with pytest.raises(RecoveryError, match=f"{name}_too.* exists"):
        cluster.find(f'"{name}_too"', database=database)


def test_a_server_without_the_usual_database_and_a_role_that_may_not_look(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE elsewhere_known (id int)", "CREATE ROLE nobody LOGIN")
    xid = cluster.transact("DROP TABLE elsewhere_known")
    is_just_before(cluster.find("elsewhere_known", login_db="not_there"), cluster, xid)
    with pytest.raises(RecoveryError, match="(?s)refused role 'nobody' what the search must know: .*Use a superuser"):
        cluster.find("elsewhere_known", login_user="nobody")
