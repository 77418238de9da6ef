"""What happened in a database, transaction by transaction, told from WAL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._wal import scan
from cluster import Cluster


def told(cluster: Cluster, since: str, min_rows: int = 1000) -> dict[int, list[tuple[str, str, Any]]]:
    """{transaction: [(what, name, rows)]} of what happened to names that begin with ch_, or are schemas."""
    found = {}
    for one in cluster.history(since=since, min_rows=min_rows)["transactions"]:
        changes = [(item["what"], item["name"], item["rows"]) for item in one["changes"] if _named(item)]
        if changes:
            found[one["xid"]] = sorted(changes, key=str)
    return found


def _named(item: dict[str, Any]) -> bool:
    return str(item["name"]).startswith("ch_")


def now(cluster: Cluster) -> str:
    return str(cluster.sql("SELECT clock_timestamp()::text"))


def test_a_migration_is_told_change_by_change(cluster: Cluster) -> None:
    cluster.sql(
        # Of a table that was rewritten the rows are told that the last ANALYZE counted, which is the one below.
        "CREATE TABLE ch_orders (id int PRIMARY KEY, v int, old text) WITH (autovacuum_enabled = off)",
        "INSERT INTO ch_orders SELECT g, g, g::text FROM generate_series(1, 3000) g",
        "CREATE TABLE ch_lines (id int, v int)",
        "INSERT INTO ch_lines SELECT g, g FROM generate_series(1, 50) g",
        "ANALYZE ch_orders, ch_lines",
    )
    since = now(cluster)
    xids = [
        cluster.transact(statement)
        for statement in (
            "ALTER TABLE ch_orders DROP COLUMN old",
            "ALTER TABLE ch_orders ALTER v TYPE bigint",
            "UPDATE ch_orders SET v = 0",
            "DELETE FROM ch_orders WHERE id > 1000",
            "DROP TABLE ch_lines",
            "ALTER TABLE ch_orders ADD CONSTRAINT ch_positive CHECK (v >= 0)",
            "ALTER TABLE ch_orders ADD more int, ADD even_more int",
            "ALTER TABLE ch_orders RENAME TO ch_sold",
        )
    ]
    cluster.sql("ANALYZE ch_sold")
    xids.append(cluster.transact("TRUNCATE ch_sold"))
    found = told(cluster, since)
    assert [found.get(xid) for xid in xids] == [
        [("column dropped", "ch_orders", None)],
        [
            ("rebuilt", "ch_orders_pkey", None),
            ("rewritten by a change of its definition", "ch_orders", None),
        ],
        [("updated", "ch_orders", 3000)],
        [("deleted", "ch_orders", 2000)],
        [("dropped", "ch_lines", 50)],
        [("definition changed", "ch_orders", None)],
        [("definition changed", "ch_orders", None)],
        [("renamed", "ch_orders", None)],
        [("rebuilt", "ch_orders_pkey", None), ("truncated", "ch_sold", 1000)],
    ]
    loses = {one["xid"]: one["loses"] for one in cluster.history(since=since)["transactions"]}
    assert [loses[xid] for xid in xids] == [True, None, True, True, True, False, False, False, True]


def test_what_loses_nothing_is_told_apart(cluster: Cluster) -> None:
    cluster.sql(
        "CREATE TABLE ch_kept (id int PRIMARY KEY, v int)",
        "INSERT INTO ch_kept SELECT g, g FROM generate_series(1, 2000) g",
        "CREATE MATERIALIZED VIEW ch_view AS SELECT count(*) FROM ch_kept",
    )
    since = now(cluster)
    cluster.sql("VACUUM FULL ch_kept", "CLUSTER ch_kept USING ch_kept_pkey", "REFRESH MATERIALIZED VIEW ch_view")
    cluster.sql("REINDEX INDEX ch_kept_pkey", "CREATE INDEX ch_index ON ch_kept (v)", "ANALYZE ch_kept")
    cluster.sql("ALTER TABLE ch_kept SET TABLESPACE elsewhere", "CREATE TEMP TABLE ch_temporary (id int PRIMARY KEY)")
    cluster.sql("CREATE TABLE ch_new (id int)", "INSERT INTO ch_new SELECT g FROM generate_series(1, 1500) g")
    every = cluster.history(since=since, min_rows=1000)["transactions"]
    changes = [sorted({item["what"] for item in one["changes"] if _named(item)}) for one in every]
    assert [one for one in changes if one] == [
        ["rebuilt", "rewritten, the same rows"],
        ["rebuilt", "rewritten, the same rows"],
        ["refreshed"],
        ["rebuilt"],
        ["created"],
        ["moved to another tablespace"],
        ["created"],
        ["inserted"],
    ]
    mine = [one for one, what in zip(every, changes) if what]
    assert {one["loses"] for one in mine} == {False}


def test_a_transaction_that_did_two_things_is_not_called_by_the_harmless_one(cluster: Cluster) -> None:
    names = ("clustered", "moved", "altered", "typed", "unlogged")
    cluster.sql(
        *(f"CREATE TABLE ch_{name} AS SELECT g AS id, g AS v FROM generate_series(1, 100) g" for name in names),
        "CREATE INDEX ch_order ON ch_clustered (id)",
    )
    since = now(cluster)
    changes = {
        # The file is new in the transaction already, so that TRUNCATE gives the table no other one.
        ("CLUSTER ch_clustered USING ch_order", "TRUNCATE ch_clustered"): True,
        ("ALTER TABLE ch_moved SET TABLESPACE elsewhere", "TRUNCATE ch_moved"): True,
        ("ALTER TABLE ch_altered ALTER v TYPE text", "TRUNCATE ch_altered"): True,
        ("ALTER TABLE ch_typed ALTER v TYPE text USING 'x', SET TABLESPACE elsewhere",): None,
        ("ALTER TABLE ch_unlogged ALTER v TYPE text USING 'x', SET UNLOGGED",): None,
        ("CREATE UNLOGGED TABLE ch_fleeting AS SELECT 1 AS one",): False,
        ("DROP TABLE ch_fleeting",): True,
        ("CREATE UNLOGGED TABLE ch_emptied AS SELECT 1 AS one",): False,
        ("TRUNCATE ch_emptied",): True,
        ("ALTER TABLE ch_moved OWNER TO pg_database_owner",): False,
        ("ALTER TABLE ch_moved ENABLE ROW LEVEL SECURITY",): False,
    }
    xids = {cluster.transact(*statements): loses for statements, loses in changes.items()}
    found = {one["xid"]: one["loses"] for one in cluster.history(since=since)["transactions"]}
    assert {xid: found.get(xid, "not told") for xid in xids} == xids


def test_a_view_that_is_refreshed_row_by_row_loses_nothing(cluster: Cluster) -> None:
    cluster.sql(
        "CREATE TABLE ch_source AS SELECT generate_series(1, 2000) AS id",
        "CREATE MATERIALIZED VIEW ch_shown AS SELECT id FROM ch_source",
        "CREATE UNIQUE INDEX ch_shown_id ON ch_shown (id)",
        "UPDATE ch_source SET id = id + 2000",
    )
    since = now(cluster)
    cluster.sql("REFRESH MATERIALIZED VIEW CONCURRENTLY ch_shown")
    (one,) = [one for one in cluster.history(since=since)["transactions"] if any(map(_named, one["changes"]))]
    assert (one["loses"], {item["what"] for item in one["changes"]}) == (False, {"deleted", "inserted"})


def test_every_relation_of_one_transaction_is_there_and_what_was_undone_is_not(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE ch_one (id int)", "CREATE TABLE ch_two (id int)")
    cluster.sql("INSERT INTO ch_one SELECT g FROM generate_series(1, 40) g")
    since = now(cluster)
    cluster.transact("DROP TABLE ch_one", end="ROLLBACK")
    xid = cluster.transact(
        "DELETE FROM ch_one", "SAVEPOINT a", "DROP TABLE ch_two", "ROLLBACK TO a", "CREATE TABLE ch_three (id int)"
    )
    cluster.transact("CREATE TABLE ch_gone (id int)", "DROP TABLE ch_gone")
    assert told(cluster, since, min_rows=40) == {xid: [("created", "ch_three", None), ("deleted", "ch_one", 40)]}
    # What is told anyway is told with all that it took away, however little.
    assert told(cluster, since) == {xid: [("created", "ch_three", None), ("deleted", "ch_one", 40)]}


def test_its_position_is_the_recovery_target_just_before_it(cluster: Cluster) -> None:
    cluster.sql("CREATE SCHEMA ch_schema", "CREATE TABLE ch_schema.ch_item (id int)")
    since = now(cluster)
    xid = cluster.transact("DROP SCHEMA ch_schema CASCADE")
    (one,) = [one for one in cluster.history(since=since)["transactions"] if one["xid"] == xid]
    assert one["lsn"] == cluster.commit_lsn(xid)
    assert {(item["what"], item["name"]) for item in one["changes"]} == {
        ("dropped", "ch_item"),
        ("schema dropped", "ch_schema"),
    }


def test_text_tells_a_tired_person_what_was_lost_first(cluster: Cluster) -> None:
    # Where nothing was analyzed, the rows are counted in WAL.
    cluster.sql("CREATE TABLE ch_text (id int PRIMARY KEY) WITH (autovacuum_enabled = off)")
    cluster.sql("INSERT INTO ch_text SELECT generate_series(1, 7)")
    since = now(cluster)
    xid = cluster.transact("CREATE TABLE ch_other (id int)", "DROP TABLE ch_text")
    lines = cluster.history(since=since)["text"]
    at = next(number for number, line in enumerate(lines) if f"transaction {xid} " in line)
    assert lines[at].endswith("rows or values went with it")
    assert lines[at + 1] == "    table public.ch_text dropped (7 rows)"


def test_an_unknown_database_is_refused(cluster: Cluster) -> None:
    with pytest.raises(RecoveryError, match="has no database 'shp'. Similar: shop"):
        cluster.history("shp")


def test_rows_of_subtransactions_count_for_the_transaction_that_commits_them(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE ch_loop (id int PRIMARY KEY)", "INSERT INTO ch_loop SELECT generate_series(1, 3000)")
    since = now(cluster)
    loop = """DO $$ BEGIN FOR i IN 0..299 LOOP
                BEGIN DELETE FROM ch_loop WHERE id > i * 10 AND id <= i * 10 + 10;
                EXCEPTION WHEN division_by_zero THEN NULL; END;
              END LOOP; END $$"""
    cluster.transact(loop, end="ROLLBACK")
    xid = cluster.transact(loop)
    assert told(cluster, since) == {xid: [("deleted", "ch_loop", 3000)]}


def test_a_loop_that_goes_on_over_many_stretches_of_wal_is_counted_whole(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "LOCAL_BYTES", 3 << 20)
    cluster.sql("CREATE TABLE ch_long (id int PRIMARY KEY)", "INSERT INTO ch_long SELECT generate_series(1, 1200)")
    since = now(cluster)
    connection = cluster.connect()
    try:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT pg_current_xact_id()::text::bigint & 4294967295")
            xid = cursor.fetchone()[0]
            for part in range(12):
                cursor.execute("SAVEPOINT a")
                cursor.execute("DELETE FROM ch_long WHERE id > %s AND id <= %s", (part * 100, part * 100 + 100))
                cursor.execute("RELEASE a")
                # Two segments between, with the lists of running transactions that checkpoints write.
                cluster.sql("SELECT pg_switch_wal()", "CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT")
            cursor.execute("COMMIT")
    finally:
        connection.close()
    assert told(cluster, since)[xid] == [("deleted", "ch_long", 1200)]


def test_few_rows_of_each_of_many_tables_are_many_together(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE ch_parts (id int, part int) PARTITION BY LIST (part)")
    cluster.sql(*[f"CREATE TABLE ch_part{n} PARTITION OF ch_parts FOR VALUES IN ({n})" for n in range(10)])
    cluster.sql("INSERT INTO ch_parts SELECT g, g % 10 FROM generate_series(1, 5000) g")
    since = now(cluster)
    xid = cluster.transact("DELETE FROM ch_parts")
    assert told(cluster, since) == {xid: [("deleted", f"ch_part{n}", 500) for n in range(10)]}
    assert told(cluster, since, min_rows=5001) == {}


def test_a_window_of_positions_holds_exactly_what_committed_in_it(cluster: Cluster) -> None:
    here = "SELECT pg_current_wal_insert_lsn()::text"
    cluster.sql("CREATE TABLE ch_window (id int)")
    first = cluster.sql(here)
    inside = cluster.transact("ALTER TABLE ch_window ADD a int")
    last = cluster.sql(here)
    cluster.sql("ALTER TABLE ch_window ADD b int")
    found = cluster.history(since=first, until=last)
    assert [one["xid"] for one in found["transactions"]] == [inside]
    assert found["tables"] == []


def test_what_a_change_did_in_all_is_told_by_table(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE ch_sum_a (id int, v int)", "CREATE TABLE ch_sum_b (id int)")
    first = cluster.sql("SELECT pg_current_wal_insert_lsn()::text")
    cluster.sql(
        "INSERT INTO ch_sum_a SELECT g, g FROM generate_series(1, 30) g",
        "UPDATE ch_sum_a SET v = 0 WHERE id <= 10",
        "DELETE FROM ch_sum_a WHERE id <= 4",
        "ALTER TABLE ch_sum_a RENAME TO ch_summed",
        "INSERT INTO ch_sum_b VALUES (1)",
        "DELETE FROM ch_summed WHERE id = 5",
    )
    found = cluster.history(since=first, min_rows=1)
    counts = {item["name"]: (item["inserted"], item["updated"], item["deleted"]) for item in found["tables"]}
    assert counts == {"ch_summed": (30, 10, 5), "ch_sum_b": (1, 0, 0)}
    assert "    public.ch_summed: 5 deleted, 10 updated, 30 inserted" in found["text"]


def test_what_is_not_told_one_by_one_is_counted_and_in_the_list(cluster: Cluster, tmp_path: Path) -> None:
    cluster.sql("CREATE TABLE ch_many (id int)", "CREATE TABLE ch_few (id int)")
    first = cluster.sql("SELECT pg_current_wal_insert_lsn()::text")
    xids = [cluster.transact(f"INSERT INTO ch_many SELECT generate_series(1, {n})") for n in (1, 5, 4, 2)]
    xids.append(cluster.transact("ALTER TABLE ch_few ADD more int"))
    xids.append(cluster.transact("INSERT INTO ch_few VALUES (1)", "INSERT INTO ch_many VALUES (1)"))
    found = cluster.history(since=first, min_rows=1, max_changes=3, list_path=str(tmp_path))
    # The first, what is no mere change of rows, and the largest.
    assert [one["xid"] for one in found["transactions"]] == [xids[0], xids[1], xids[4]]
    assert found["count"] == 6
    rows = {item["name"]: (item["inserted"], item["transactions"]) for item in found["tables"]}
    assert rows == {"ch_many": (13, 5), "ch_few": (1, 1)}
    assert "and 3 more transactions, which are counted below." in " ".join(found["text"])
    again = cluster.history(since=first, min_rows=1, list_path=str(tmp_path))
    assert again["listed_in"] == found["listed_in"]
    listed = Path(found["listed_in"])
    assert [path.name for path in tmp_path.iterdir()] == [listed.name]
    assert listed.stat().st_mode & 0o077 == 0
    assert [json.loads(line)["xid"] for line in listed.read_text().splitlines()] == xids
    assert [one["xid"] for one in again["transactions"]] == xids


def test_a_list_that_cannot_be_written_is_an_error_and_no_shorter_list(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(RecoveryError, match="cannot be written to .*list_path"):
        cluster.history(since="1h", list_path=str(tmp_path / "missing"))


def test_since_the_newest_backup_leaves_out_what_is_in_it(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE ch_before_backup (id int)")
    cluster.pgbackrest("backup", "--type=incr")
    cluster.sql("CREATE TABLE ch_after_backup (id int)")
    found = cluster.history(since="backup", since_backup=True)["transactions"]
    names = {item["name"] for one in found for item in one["changes"]}
    assert "ch_after_backup" in names
    assert "ch_before_backup" not in names


def test_large_objects_that_it_changed_are_told_as_one(cluster: Cluster) -> None:
    first = cluster.sql("SELECT pg_current_wal_insert_lsn()::text")
    cluster.sql("CREATE TABLE ch_papers (id int)")
    makes = "SELECT lo_from_bytea(4711, 'a contract'), lo_from_bytea(4712, 'another')"
    changes = ("SELECT lo_put(4711, 0, 'XXX')", "SELECT lo_unlink(4712)")
    xids = [cluster.transact("INSERT INTO ch_papers VALUES (1)", done) for done in (makes, *changes)]
    cluster.transact("SELECT lo_unlink(4711)", end="ROLLBACK")
    found = {one["xid"]: one for one in cluster.history(since=first, min_rows=1)["transactions"]}
    told = [[item["what"] for item in found[xid]["changes"] if item["name"] == "large objects"] for xid in xids]
    assert told == [["made"], ["changed or removed"], ["changed or removed"]]
    assert [found[xid]["loses"] for xid in xids] == [False, True, True]
    assert "    large objects changed or removed" in cluster.history(since=first, min_rows=1)["text"]
    assert all("large objects" not in line for line in cluster.history(since=first, min_rows=1000)["text"])


def test_what_a_rewritten_catalogue_hides_is_said(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE ch_hidden (id int, v int)", "INSERT INTO ch_hidden SELECT 1, 1")
    first = cluster.sql("SELECT pg_current_wal_insert_lsn()::text")
    hidden = cluster.transact("ALTER TABLE ch_hidden ALTER v TYPE bigint")
    cluster.sql("VACUUM FULL pg_attribute, pg_constraint")
    after = cluster.transact("ALTER TABLE ch_hidden ALTER v TYPE numeric")
    found = cluster.history(since=first)
    changes = {
        one["xid"]: {(item["what"], item["loses"]) for item in one["changes"] if item["name"] == "ch_hidden"}
        for one in found["transactions"]
    }
    assert changes[hidden] == {("rewritten", None)}
    assert changes[after] == {("rewritten by a change of its definition", None)}
    assert found["blind"]["catalogues"] == ["pg_attribute", "pg_constraint"]
    assert any(line.startswith("Not told: changes of definitions committed before") for line in found["text"])


def test_databases_that_were_made_and_dropped_are_told_and_those_that_moved_or_did_both_are_not(
    cluster: Cluster,
) -> None:
    for name in ("ch_old", "ch_moved"):
        cluster.sql(f"CREATE DATABASE {name}")
    oid = int(cluster.sql("SELECT oid FROM pg_database WHERE datname = 'ch_old'"))
    place = cluster.root / "ch_moved"
    place.mkdir()
    cluster.sql(f"CREATE TABLESPACE ch_moved LOCATION '{place}'")
    since = now(cluster)
    cluster.sql(
        "CREATE DATABASE ch_new", "CREATE DATABASE ch_passing", "DROP DATABASE ch_passing", "DROP DATABASE ch_old"
    )
    cluster.sql("ALTER DATABASE ch_moved SET TABLESPACE ch_moved", "CREATE TABLE ch_last (id int)")
    found = cluster.history(since=since, min_rows=1)["databases"]
    assert [(one["what"], one["name"], one["oid"] == oid) for one in found] == [
        ("created", "ch_new", False),
        ("dropped", None, True),
    ]
    lines = cluster.history(since=since)["text"]
    assert f"Database dropped: one with OID {oid}, with all that was in it." in lines
    assert cluster.history(since=since, until=since)["databases"] == []
    cluster.sql("DROP DATABASE ch_new", "DROP DATABASE ch_moved", "DROP TABLESPACE ch_moved")


def test_what_is_no_relation_is_told_by_its_kind_and_nothing_is_told_that_nobody_changed(cluster: Cluster) -> None:
    cluster.sql(
        "CREATE TABLE ch_granted (id int, of int)", "CREATE SEQUENCE ch_numbers", "CREATE FUNCTION ch_f() RETURNS int "
        "LANGUAGE sql AS 'SELECT 1'"
    )  # fmt: skip
    since = str(cluster.sql("SELECT pg_current_wal_insert_lsn()::text"))
    wanted = {
        "CREATE OR REPLACE FUNCTION ch_f() RETURNS int LANGUAGE sql AS 'SELECT 2'": (["functions"], []),
        "CREATE TYPE ch_colour AS ENUM ('red')": (["types"], []),
        "GRANT SELECT ON ch_granted TO PUBLIC": (["grants or options of relations"], []),
        "COMMENT ON TABLE ch_granted IS 'of all'": (["comments"], []),
        "ALTER SEQUENCE ch_numbers INCREMENT 2": (["definitions of sequences"], []),
        "CREATE ROLE ch_late": ([], ["roles"]),
        "ALTER ROLE ch_late SET work_mem = '5MB'": ([], ["settings of roles and databases"]),
        "COMMENT ON ROLE ch_late IS 'late'": ([], ["comments on databases and roles"]),
        "CREATE TABLE ch_with_it (id int); DROP FUNCTION ch_f()": (["functions"], []),
        "DROP ROLE ch_late": ([], ["roles", "settings of roles and databases", "comments on databases and roles"]),
    }
    xids = {cluster.transact(statement): words for statement, words in wanted.items()}
    quiet = [
        cluster.transact(statement)
        for statement in (
            "CREATE TEMP TABLE passing (id serial PRIMARY KEY, v text); TRUNCATE passing; CREATE INDEX ON passing (v)",
            "SELECT nextval('ch_numbers')",
            "CREATE TABLE ch_numbered (id serial)",
            "CREATE TABLE ch_quiet (id int); ANALYZE ch_granted",
        )
    ]
    cluster.sql("VACUUM ANALYZE")
    history = cluster.history(since=since, min_rows=1)
    found = {one["xid"]: (one["what"], one["shared"]) for one in history["other_changes"]}
    assert {xid: found.get(xid) for xid in xids} == {xid: (sorted(a), sorted(b)) for xid, (a, b) in xids.items()}
    assert {xid: words for xid, words in found.items() if xid in quiet} == {}
    told_too = [one["xid"] for one in history["other_changes"] if one["told"] and one["xid"] in xids]
    assert told_too == [list(xids)[4], list(xids)[-2]]
    text = history["text"]
    told = text[text.index("Changed beside tables, indexes and their rows (of which name WAL does not tell):") + 1 :]
    (line,) = [line for line in told if f"transaction {list(xids)[-1]} " in line]
    assert line.endswith(
        "comments on databases and roles of the whole server; roles of the whole server; settings of "
        "roles and databases of the whole server"
    )
