"""Where the WAL is: in pg_wal, in the archive, on several timelines, not archived yet, or gone."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.archive import StanzaArchive
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.backup import ARCHIVER_QUERY
from ansible_collections.dbre.recovery.plugins.module_utils._wal import compression
from ansible_collections.dbre.recovery.plugins.module_utils._wal.archiving import ensure_archived
from cluster import FIRST_PORT, STANZA, Cluster, SideInstance, call, is_just_before


@pytest.fixture(scope="session")
def template(root: Path) -> Cluster:
    """A server that keeps no more WAL than it must, with one backup; stopped, to be copied."""
    settings = {"wal_keep_size": "0", "min_wal_size": "2MB", "max_wal_size": "4MB"}
    settings["autovacuum"] = "off"  # how much is written decides what is still in pg_wal and what only in the archive
    made = Cluster(root / "small", FIRST_PORT + 2).init(**settings).start()
    try:
        made.sql("CREATE DATABASE shop", database="postgres")
        made.pgbackrest("stanza-create")
        made.sql("CREATE TABLE orders (id int)", "INSERT INTO orders VALUES (1)")
        made.backup()
    finally:
        made.stop("fast")
    made.root.rename(root / "template")
    return made


@pytest.fixture
def small(template: Cluster) -> Iterator[Cluster]:
    """A server that keeps no more WAL than it must, fresh for each test; every path is as it was."""
    shutil.copytree(template.root.with_name("template"), template.root, symlinks=True)
    made = Cluster(template.root, template.port).start()
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(made.root)


def fill(cluster: Cluster, segments: int) -> None:
    """Write that many segments' worth of WAL, have it archived, and let the server forget it."""
    cluster.sql("CREATE TABLE IF NOT EXISTS filler (t text)")
    for _round in range(segments):
        cluster.sql("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 850)")
    cluster.archived()
    cluster.sql("CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT")


def test_the_drop_is_only_in_the_archive(small: Cluster) -> None:
    small.sql("INSERT INTO orders VALUES (2)")
    xid = small.transact("DROP TABLE orders")
    lsn, before = small.commit_lsn(xid), small.last_commit_before(small.commit_lsn(xid))
    fill(small, 30)
    found = small.find("orders")
    assert (found["incident"]["xid"], found["target"]["value"]) == (xid, lsn)
    assert found["last_commit"]["xid"] == before
    assert found["scanned"]["from_archive"] > 0
    assert found["scanned"]["from_primary"] > 0
    assert found["scanned"]["segments"] >= 30
    assert found["transactions_after"]["count"] > 30


def test_rows_deleted_before_a_rewrite_that_is_only_in_the_archive(small: Cluster) -> None:
    small.sql("INSERT INTO orders SELECT generate_series(2, 3000)")
    xid = small.transact("DELETE FROM orders")
    lsn = small.commit_lsn(xid)
    fill(small, 12)
    small.sql("VACUUM FULL orders")
    fill(small, 12)
    found = small.find("orders")
    assert (found["incident"]["xid"], found["target"]["value"], found["incident"]["rows"]) == (xid, lsn, 3000)


def test_a_gap_in_the_archive_is_named(small: Cluster) -> None:
    small.transact("DROP TABLE orders")
    fill(small, 20)
    (directory,) = (small.root / "repository" / "archive" / "wal").glob("*-1/0000000100000000")
    # The newest that pg_wal has no more.
    kept = {path.name for path in (small.data / "pg_wal").iterdir()}
    lost = sorted(path for path in directory.iterdir() if path.name[:24] not in kept and "." not in path.name[:25])[-3]
    lost.unlink()
    with pytest.raises(RecoveryError, match=f"{lost.name[:24]} is neither in pg_wal nor in the archive") as refused:
        small.find("orders")
    assert refused.value.details["missing_segments"] == [lost.name[:24]]


def test_a_search_that_ends_where_it_was_told_to(small: Cluster) -> None:
    small.transact("DROP TABLE orders")
    fill(small, 40)
    since = small.sql("SELECT clock_timestamp()::text")
    fill(small, 3)
    with pytest.raises(RecoveryError, match="no transaction that dropped it was found") as refused:
        small.find("orders", since=since)
    assert refused.value.details["scanned"]["segments"] < 30


def test_a_long_transaction_that_began_where_only_the_archive_reaches(small: Cluster) -> None:
    small.sql("CREATE TABLE other (id int)")
    connection = small.connect()
    with connection.cursor() as cursor:
        cursor.execute("BEGIN; DROP TABLE orders; SELECT pg_current_xact_id()::text::bigint")
        xid = cursor.fetchone()[0]
        small.sql("DROP TABLE other")
        fill(small, 25)
        cursor.execute("COMMIT")
    connection.close()
    found = small.find("orders")
    assert (found["incident"]["xid"], found["target"]["value"]) == (xid, small.commit_lsn(xid))


def test_wal_that_is_not_archived_yet(small: Cluster) -> None:
    small.sql("ALTER SYSTEM SET archive_command = 'false'", "SELECT pg_reload_conf()")
    small.sql("INSERT INTO orders VALUES (2)")
    xid = small.transact("DROP TABLE orders")
    small.sql("SELECT pg_switch_wal()", "CREATE TABLE after (id int)")
    found = small.find("orders")
    is_just_before(found, small, xid)
    segment = found["target"]["segment"]
    with pytest.raises(RecoveryError, match=rf"(?s)archiving on .* failed.*{segment} does not get there"):
        archive(small, segment)
    small.sql("ALTER SYSTEM RESET archive_command", "SELECT pg_reload_conf()")
    assert archive(small, segment)["state"] == "archived"


def archive(cluster: Cluster, segment: str, check_mode: bool = False, **given: Any) -> dict[str, object]:
    spool = tempfile.mkdtemp(dir=cluster.root)
    try:
        archive = StanzaArchive(STANZA, config=str(cluster.config), parallel=1)
        return ensure_archived(cluster.login, segment, spool, archive, timeout=20, check_mode=check_mode, **given)
    finally:
        shutil.rmtree(spool)


def test_the_segment_being_written_is_switched_and_archived(small: Cluster) -> None:
    small.sql("INSERT INTO orders VALUES (2)")
    segment = small.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    planned = archive(small, segment, check_mode=True)
    assert (planned["changed"], planned["state"]) == (True, "current")
    assert small.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())") == segment
    done = archive(small, segment)
    assert (done["changed"], done["switched"], done["state"]) == (True, True, "archived")
    again = archive(small, segment)
    assert (again["changed"], again["switched"], again["state"]) == (False, False, "archived")


def lose(cluster: Cluster, segment: str) -> Path:
    """Remove a segment from the repository."""
    (directory,) = (cluster.root / "repository" / "archive" / "wal").glob(f"*-1/{segment[:16]}")
    (lost,) = directory.glob(f"{segment}-*")
    lost.unlink()
    return lost


def test_a_segment_that_the_archive_lost_is_pushed_again_from_pg_wal(small: Cluster) -> None:
    small.sql("INSERT INTO orders VALUES (2)")
    segment = small.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    small.archived()
    lose(small, segment)
    assert archive(small, segment, check_mode=True)["put_back"] == [segment]
    done = archive(small, segment)
    assert (done["changed"], done["put_back"], done["state"]) == (True, [segment], "archived")
    assert not archive(small, segment)["changed"]


def test_a_segment_that_archive_and_pg_wal_lost_is_told_at_once(small: Cluster) -> None:
    small.sql("INSERT INTO orders VALUES (2)")
    segment = small.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    small.archived()
    lose(small, segment)
    path = small.data / "pg_wal" / segment
    path.write_bytes(path.read_bytes()[:8192].ljust(1 << 20, b"x"))
    with pytest.raises(
        RecoveryError, match=f"has lost WAL segment {segment}, .*pg_wal there does not have it.*standby"
    ):
        archive(small, segment)


def test_a_cold_backup_in_the_stanza_is_none_to_begin_from(small: Cluster) -> None:
    small.stop("fast")
    try:
        small.pgbackrest("backup", "--type=full", "--no-online")
    finally:
        small.start()
    small.sql("INSERT INTO orders VALUES (2)")
    xid = small.transact("DROP TABLE orders")
    is_just_before(small.find("orders"), small, xid)


def test_a_damage_after_a_gap_in_the_archive_is_found_and_the_gap_is_said(small: Cluster) -> None:
    segment = small.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    fill(small, 12)
    small.sql("INSERT INTO orders SELECT generate_series(2, 3000)")
    xid = small.transact("DELETE FROM orders")
    lose(small, f"{segment[:16]}{int(segment[16:], 16) + 2:08X}")
    found = small.find("orders")
    is_just_before(found, small, xid, "delete")
    assert not found["scanned"]["complete"]
    assert "neither in pg_wal nor in the archive" in found["scanned"]["unread"]


def test_a_segment_that_is_not_there(small: Cluster) -> None:
    with pytest.raises(RecoveryError, match="0000000100000000000000FE is neither in the archive nor in pg_wal"):
        archive(small, "0000000100000000000000FE")
    with pytest.raises(RecoveryError, match="timeline 7"):
        archive(small, "000000070000000000000001")
    with pytest.raises(RecoveryError, match="no name of a WAL segment"):
        archive(small, "nonsense")


def test_a_file_recycled_while_it_is_read_is_fetched_again(small: Cluster) -> None:
    spool = Path(tempfile.mkdtemp(dir=small.root))
    small.sql("CHECKPOINT", "INSERT INTO orders VALUES (2)")
    segment = int(small.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")[16:], 16)
    small.archived()
    search = small.search(str(spool), relations=["orders"])
    try:
        source = search.source
        source.provide(range(segment, segment + 1))
        (linked,) = spool.iterdir()
        assert linked.is_symlink()
        before = linked.read_bytes()
        assert not source.refetch_recycled()
        fill(small, 12)
        assert source.refetch_recycled()
        assert not linked.is_symlink()
        assert linked.read_bytes() == before
        assert source.from_archive == {segment}
    finally:
        search.close()


def test_a_file_that_the_server_renames_before_it_is_read_again_is_fetched(small: Cluster) -> None:
    spool = Path(tempfile.mkdtemp(dir=small.root))
    small.sql("CHECKPOINT", "INSERT INTO orders VALUES (2)")
    segment = int(small.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")[16:], 16)
    small.archived()
    small.sql("INSERT INTO orders VALUES (3)")
    search = small.search(str(spool), relations=["orders"])
    try:
        search.source.provide(range(segment, segment + 2))
        link = spool / search.source.name(segment)
        first = search.scan.first_next_xid(segment)
        assert first is not None
        assert link.is_symlink()
        # What recycling does, at the moment that suits the test.
        link.unlink()
        link.symlink_to(small.data / "pg_wal" / search.source.name(segment + 1000))
        search.source.reader.close()
        assert search.scan.first_next_xid(segment) == first
        assert segment in search.source.from_archive
    finally:
        search.close()


def test_through_a_promotion(small: Cluster) -> None:
    small.sql("CREATE TABLE customers (id int)", "INSERT INTO customers VALUES (1)")
    standby = Cluster(small.root, FIRST_PORT + 3, "standby")
    call(
        standby.bin / "pg_basebackup", "-h", small.root, "-p", small.port, "-U", "postgres", "-D", standby.data,
        "--write-recovery-conf", "--checkpoint=fast", "--no-sync",
    )  # fmt: skip
    with (standby.data / "postgresql.conf").open("a") as conf:
        conf.write(f"port = {standby.port}\n")
    small.sql("INSERT INTO orders VALUES (2)")
    before = small.transact("DROP TABLE orders")
    position = small.commit_lsn(before)
    standby.start()
    end = small.sql("SELECT pg_current_wal_insert_lsn()::text")
    while not standby.sql(f"SELECT pg_last_wal_replay_lsn() >= '{end}'", database="postgres"):
        pass
    with pytest.raises(RecoveryError, match="is in recovery: it is a standby"):
        standby.find("orders")
    small.stop()
    try:
        standby.config.write_text(
            standby.config.read_text()
            .replace(f"pg1-path={small.data}", f"pg1-path={standby.data}")
            .replace(f"pg1-port={small.port}", f"pg1-port={standby.port}")
        )
        standby.sql("SELECT pg_promote()", database="postgres")
        standby.sql("INSERT INTO customers VALUES (2)")
        after = standby.transact("DROP TABLE customers")
        fill(standby, 8)
        found = standby.find("orders")
        assert (found["incident"]["xid"], found["incident"]["lsn"]) == (before, position)
        assert (found["incident"]["timeline"], found["target"]["timeline"]) == (1, 2)
        later = standby.find("customers")
        assert (later["incident"]["xid"], later["incident"]["timeline"]) == (after, 2)
        for search, table, rows in ((found, "orders", 2), (later, "customers", 2)):
            with SideInstance(standby, search["target"], FIRST_PORT + 4) as side:
                assert side.sql(f"SELECT count(*) FROM {table}") == rows
    finally:
        standby.stop()
        small.start()


def test_page_images_that_cannot_be_read_are_not_guessed(small: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_libzstd", lambda: None)  # a host without that library
    small.sql("ALTER SYSTEM SET wal_compression = zstd", "SELECT pg_reload_conf()", "CHECKPOINT")
    oid = small.sql("SELECT 'orders'::regclass::oid::bigint")
    xid = small.transact("DROP TABLE orders")
    with pytest.raises(
        RecoveryError, match="cannot tell whether public.orders .*zstd.*apt install libzstd1.*dr_target_xid"
    ) as refused:
        small.find("orders")
    (candidate,) = refused.value.details["candidates"]
    assert (candidate["xid"], [one["oid"] for one in candidate["relations"]]) == (xid, [oid])
    found = small.find("orders", target_xid=str(xid))
    assert found["target"]["value"] == small.commit_lsn(xid)


def test_right_after_a_switch_the_segment_that_is_to_be_archived_next_is_told(small: Cluster) -> None:
    small.archived()
    told = small.sql(ARCHIVER_QUERY)["segment"]
    small.sql("SELECT pg_create_restore_point('as pgbackrest check makes one')")
    assert small.sql("SELECT pg_walfile_name(pg_switch_wal())") == told
