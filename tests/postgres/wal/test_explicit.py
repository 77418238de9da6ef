"""Targets given by hand are checked and made exact; what cannot be is refused with the way on."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from cluster import Cluster, as_int, is_just_before


def test_a_transaction(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE by_xid (id int)")
    xid = cluster.transact("INSERT INTO by_xid VALUES (1)")
    cluster.sql("INSERT INTO by_xid VALUES (2)")
    found = cluster.find("by_xid", target_xid=str(xid))
    is_just_before(found, cluster, xid, "explicit")
    assert 1 <= found["transactions_after"]["count"] <= cluster.commits_after(found["incident"]["lsn"])
    with pytest.raises(RecoveryError, match=f"transaction {xid + (7 << 32)} is not one of the last"):
        cluster.find("by_xid", target_xid=str(xid + (7 << 32)))


def test_a_subtransaction_means_the_whole(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE by_sub (id int)")
    xid = cluster.transact("INSERT INTO by_sub VALUES (1)", "SAVEPOINT a", "INSERT INTO by_sub VALUES (2)")
    inner = cluster.sql("SELECT xmin FROM by_sub WHERE id = 2")  # not the next number: autovacuum takes some, too
    assert inner != str(xid)
    is_just_before(cluster.find(target_xid=inner), cluster, xid, "explicit")


def test_a_transaction_that_did_not_commit(cluster: Cluster) -> None:
    xid = cluster.transact("CREATE TABLE undone (id int)", end="ROLLBACK")
    with pytest.raises(RecoveryError, match=f"no COMMIT of transaction {xid}"):
        cluster.find(target_xid=str(xid))


def test_a_time_takes_in_all_that_committed_up_to_it(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE by_time (id int)")
    xids = [cluster.transact(f"INSERT INTO by_time VALUES ({number})") for number in range(3)]
    times = [cluster.find(target_xid=str(xid))["incident"]["commit_time"] for xid in xids]
    positions = [as_int(cluster.commit_lsn(xid)) for xid in xids]

    def takes_in(time: str, last: int) -> None:
        """The target lies behind the commit of one and not behind that of the next; autovacuum commits in between."""
        found = cluster.find("by_time", target_time=time)
        assert positions[last] < as_int(found["target"]["value"]) <= positions[last + 1]
        is_just_before(found, cluster, found["incident"]["xid"], "explicit")
        assert datetime.fromisoformat(found["last_commit"]["time"]) <= datetime.fromisoformat(time)

    takes_in(times[0], 0)
    takes_in((datetime.fromisoformat(times[1]) - timedelta(microseconds=1)).isoformat(), 0)
    takes_in(times[1], 1)
    moved = datetime.fromisoformat(times[1]) + timedelta(hours=5, minutes=30)
    takes_in(moved.isoformat(timespec="microseconds").replace("+00:00", "+05:30"), 1)


@pytest.mark.parametrize(
    ("time", "words"),
    [
        ("2026-01-02 03:04:05", "no UTC offset.*[+]00"),
        ("2026-01-02 03:04:05 Europe/Berlin", "is no time"),
        ("yesterday", "is no time"),
        ("2001-01-02 03:04:05+00", "before the oldest backup.*A restore can go from the end of backup"),
        ("2091-01-02 03:04:05+00", "after the last commit.*A restore can go from the end of backup"),
    ],
)
def test_times_that_cannot_be(cluster: Cluster, time: str, words: str) -> None:
    with pytest.raises(RecoveryError, match=f"(?s){re.escape(time[:10])}.*{words}"):
        cluster.find(target_time=time)


def test_a_name_that_was_not_there_at_the_target_is_refused_before_any_restore(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE spelt_lines (id int)", "CREATE TABLE spelt_before (id int)")
    xid = cluster.transact("DROP TABLE spelt_lines")
    cluster.sql("ALTER TABLE spelt_before RENAME TO spelt_after")
    words = "public.spelt_linse does not exist .*at the target either.*Dropped since, .*: public.spelt_lines"
    with pytest.raises(RecoveryError, match=words):
        cluster.find("spelt_linse", target_xid=str(xid))
    for name in ("spelt_lines", "spelt_before", "spelt_after"):
        is_just_before(cluster.find(name, target_xid=str(xid)), cluster, xid, "explicit")


def test_a_database_that_was_made_again_since_tells_nothing_of_its_names(cluster: Cluster) -> None:
    cluster.sql("CREATE DATABASE reset", database="postgres")
    cluster.sql("CREATE TABLE before_reset (id int)", database="reset")
    xid = cluster.transact("CREATE TABLE marks_the_time (id int)")
    cluster.sql("DROP DATABASE reset", "CREATE DATABASE reset", database="postgres")
    is_just_before(cluster.find("before_reset", target_xid=str(xid), database="reset"), cluster, xid, "explicit")


def test_a_position(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE by_lsn (id int)")
    lsn = cluster.sql("SELECT pg_current_wal_insert_lsn()::text")
    cluster.transact("INSERT INTO by_lsn VALUES (1)")
    found = cluster.find("by_lsn", target_lsn=lsn)
    # Autovacuum may have committed before us.
    first = next(xid for position, xid in cluster.commits() if position >= as_int(lsn))
    assert (found["target"]["value"], found["incident"]["xid"]) == (lsn, first)


@pytest.mark.parametrize(
    ("lsn", "words"),
    [("9/0", "not yet in WAL"), ("0/1", "before the WAL of the oldest backup"), ("12", "no WAL position")],
)
def test_positions_that_cannot_be(cluster: Cluster, lsn: str, words: str) -> None:
    with pytest.raises(RecoveryError, match=words):
        cluster.find(target_lsn=lsn)


def test_two_targets_exclude_each_other(cluster: Cluster) -> None:
    with pytest.raises(RecoveryError, match="target_lsn and target_xid exclude"):
        cluster.find(target_lsn="0/1", target_xid="5")


def test_an_unknown_database(cluster: Cluster) -> None:
    with pytest.raises(RecoveryError, match=r"no database 'shopp'\. Similar: shop\b"):
        cluster.find("anything", database="shopp")
    with pytest.raises(RecoveryError, match=r"no database 'shopp'\. Similar: shop\b"):
        cluster.find(database="shopp")


def test_a_database_that_was_not_dropped(cluster: Cluster) -> None:
    with pytest.raises(RecoveryError, match="'shop' exists and was not dropped"):
        cluster.find()


def test_a_table_that_was_never_there(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE invoices_old (id int)", "CREATE TABLE invoices_new (id int)", "DROP TABLE invoices_old")
    with pytest.raises(RecoveryError) as refused:
        cluster.find("invoices_odl")
    message = str(refused.value)
    assert "public.invoices_odl does not exist in database 'shop'" in message
    assert re.search(r"WAL from 0/[0-9A-F]+ to 0/[0-9A-F]+", message)
    assert re.search(r"Dropped in that time.*public.invoices_old", message)
    assert re.search(r"Existing now.*public.invoices_new", message)


def test_a_repository_that_cannot_be_read(cluster: Cluster) -> None:
    repository = cluster.root / "repository"
    repository.rename(cluster.root / "away")
    try:
        with pytest.raises(RecoveryError, match="(?s)'wal' .*repository.*pgBackRest says"):
            cluster.find("anything")
    finally:
        (cluster.root / "away").rename(repository)


def test_a_configuration_that_is_not_there(cluster: Cluster) -> None:
    with pytest.raises(RecoveryError, match="pgBackRest info .*failed"):
        cluster.find("anything", config=str(cluster.root / "missing.conf"))
