"""What happened in WAL that does not tell all: the worst answer is that nothing was lost, or that nothing happened."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._wal import scan
from cluster import FIRST_PORT, Cluster

HERE = "SELECT pg_current_wal_insert_lsn()::text"


@pytest.fixture(scope="module")
def old() -> Iterator[Cluster]:
    """A server with tables that are older than all WAL, and nobody on it."""
    root = Path(tempfile.mkdtemp(prefix="wal-"))
    # Quiet, since what is older than the window must be in no WAL: autovacuum would write of these tables again.
    made = Cluster(root / "old", FIRST_PORT + 5).init(autovacuum="off", wal_level="logical").start()
    try:
        made.sql("CREATE DATABASE shop", database="postgres")
        made.sql(
            *("CREATE TABLE early (id int, v int)", "INSERT INTO early SELECT 1, 1", "CREATE TABLE kept (id int)"),
            *("CREATE SCHEMA before", "CREATE VIEW before.seen AS SELECT 1 AS one"),
            *("CREATE TYPE before.address AS (street text, zip text)", "CREATE TABLE people (home before.address)"),
            "CREATE TABLE copied AS SELECT g AS id, g AS v FROM generate_series(1, 2000) g",
        )
        made.pgbackrest("stanza-create")
        made.backup()
        yield made
    finally:
        made.stop()
        shutil.rmtree(root)


def told(cluster: Cluster, since: str, **asked: Any) -> dict[int, tuple[Any, list[tuple[str, str, Any]]]]:
    found = cluster.history(since=since, **asked)["transactions"]
    return {
        one["xid"]: (
            one["loses"],
            sorted(
                (item["what"], f"{item['schema']}.{item['name']}", item["rows"])
                for item in one["changes"]
                if item["kind"] != "i"
            ),
        )
        for one in found
    }


def test_what_was_there_before_the_window_is_looked_for_in_older_wal(
    old: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "LOCAL_BYTES", 1 << 20)
    # The images of the catalogues' pages are in WAL before the window, and with a list of running ones reading may end.
    old.sql("ALTER TABLE early ADD a int")
    for number in range(3):
        old.sql("SELECT pg_switch_wal()", f"SELECT pg_create_logical_replication_slot('running{number}', 'pgoutput')")
        old.sql("INSERT INTO kept SELECT generate_series(1, 12000)")
    since = old.sql(HERE)
    done = (
        "ALTER TABLE early ADD b int",
        "ALTER TABLE early DROP COLUMN v",
        "TRUNCATE early",
        "ALTER TABLE early RENAME TO late",
    )
    xids = [old.transact(statement) for statement in done]
    old.sql(*(f"SELECT pg_drop_replication_slot('running{number}')" for number in range(3)))
    result = old.history(since=since)
    assert not result["scanned"]["complete"], "all was read, which shows nothing"
    assert told(old, since) == {
        xids[0]: (False, [("definition changed", "public.early", None)]),
        xids[1]: (True, [("column dropped", "public.early", None)]),
        xids[2]: (True, [("truncated", "public.early", None)]),
        xids[3]: (False, [("renamed", "public.early", None)]),
    }


def test_what_has_no_row_in_wal_is_told_under_the_schema_of_its_time(old: Cluster) -> None:
    since = old.sql(HERE)
    view = old.transact("CREATE OR REPLACE VIEW before.seen AS SELECT 2 AS one")
    kind = old.transact("ALTER TYPE before.address DROP ATTRIBUTE zip")
    schema = old.transact("ALTER SCHEMA before RENAME TO after")
    assert told(old, since) == {
        view: (False, [("definition changed", "before.seen", None)]),
        # People have no zip any more.
        kind: (None, [("attribute dropped", "before.address", None)]),
        schema: (False, [("schema renamed", "None.before", None)]),
    }


def test_a_change_whose_beginning_is_lost_is_told_as_what_nobody_knows(old: Cluster) -> None:
    old.sql("ALTER TABLE kept ADD one int")
    since = old.sql(HERE)
    old.sql("ALTER TABLE kept ADD two int")
    lost = old.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")
    old.archived()
    xid = old.transact("ALTER TABLE kept ADD three int")
    old.archived()
    kept = old.root / "lost"
    kept.mkdir()
    copies = [*(old.root / "repository").rglob(f"{lost}*"), old.data / "pg_wal" / lost]
    for number, copy in enumerate(copies):
        copy.rename(kept / str(number))
    try:
        result = old.history(since=since)
        (one,) = result["transactions"]
        assert (one["xid"], one["loses"], [item["what"] for item in one["changes"]]) == (xid, None, ["changed"])
        assert "    table public.kept changed, and how is not in the WAL that was read" in result["text"]
    finally:
        for number, copy in enumerate(copies):
            (kept / str(number)).rename(copy)


def test_no_transaction_in_a_window_of_which_nothing_was_read_says_so(old: Cluster) -> None:
    early = old.history(since="2020-01-01T00:00:00Z", until="2020-01-02T00:00:00Z")["text"]
    assert early[0].startswith("No transactions changed")
    assert "from 2020-01-01T00:00:00.000000+00:00 on until 2020-01-02T00:00:00.000000+00:00, in the WAL" in early[0]
    assert "That is before all commits that were read: nothing is known of it." in early
    late = old.history(since="FFFF/0")["text"]
    assert "That is after all that was written: nothing is known of it yet." in late


def test_what_minimal_wal_does_not_tell_is_not_called_no_loss(old: Cluster) -> None:
    """Last, for no recovery goes through that."""
    since = old.sql(HERE)
    old.stop("fast")
    settings = old.data / "postgresql.auto.conf"
    before = settings.read_text()
    settings.write_text(before + "wal_level = minimal\nmax_wal_senders = 0\narchive_mode = off\n")
    old.start()
    rewritten = old.transact("ALTER TABLE copied ALTER v TYPE text USING 'x'")
    old.transact("CREATE TABLE small (id int)", "INSERT INTO small SELECT generate_series(1, 3000)")
    dropped = old.transact("DROP TABLE small")
    old.stop("fast")
    settings.write_text(before)
    old.start()
    found = told(old, since)
    assert found[rewritten] == (None, [("rewritten", "public.copied", None)])
    assert found[dropped] == (True, [("dropped", "public.small", None)])
    assert any("since wal_level was minimal" in line for line in old.history(since=since)["text"])
