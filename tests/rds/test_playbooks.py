# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user sees of the RDS playbooks, on databases that hold real rows."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud import ABANDON, AWAY, HOME, PLANTED, Cloud

TABLE_DROP = "dbre.recovery.dr_rds_table_drop"
FAILOVER = "dbre.recovery.dr_rds_failover"


@pytest.fixture(scope="module")
def cloud(emulated_rds: Any, tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    return Cloud(emulated_rds, tmp_path_factory.mktemp("operator"))


@pytest.fixture(scope="module")
def shop(cloud: Cloud) -> str:
    """A Multi-AZ instance of its own for the tests of a dropped table."""
    cloud.make_shop("shop", MultiAZ=True)
    return "shop"


@pytest.fixture
def lost(cloud: Cloud, shop: str) -> Iterator[dict[str, Any]]:
    """The shop with its orders dropped two seconds after the last of them."""
    before = cloud.checksum(shop, "public.orders")
    time.sleep(2.1)
    # The statement that is found in the log holds a secret, too.
    secret = PLANTED.plant("a statement", "$%")
    cloud.sql(shop, f"DROP TABLE public.orders CASCADE; ALTER ROLE shop_reports PASSWORD E'{secret}'")
    time.sleep(1)
    yield {"orders": before}
    if not cloud.sql(shop, "SELECT to_regclass('public.orders')")[0][0]:
        pytest.fail("the table is not back, so the next test has nothing to lose")


def test_a_dropped_table_is_back_with_all_that_fell_with_it(cloud: Cloud, shop: str, lost: dict[str, Any]) -> None:
    given = {"dr_database": "shop", "dr_tables": "public.orders", "dr_contain": "read_only", "dr_incident_id": "drop1"}
    run = cloud.play(TABLE_DROP, shop, host=cloud.in_secret("db-shop"), **given)
    assert run.rc == 0, run.output
    lifted = r"TASK \[Let applications write again\] \*+\nchanged"
    assert re.search(lifted, run.output), "not only when AWS has deleted the side instance"
    assert cloud.checksum(shop, "public.orders") == lost["orders"]
    assert cloud.sql(shop, "SELECT count(*) FROM reports.totals") == [(100,)]
    keys = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'public.items'::regclass AND contype = 'f'"
    assert cloud.sql(shop, f"{keys} AND convalidated") == [(1,)]
    assert cloud.sql(
        shop, "SELECT tgname FROM pg_trigger WHERE tgrelid = 'public.orders'::regclass AND NOT tgisinternal"
    ) == [("stamp",)]
    assert cloud.sql(shop, "SELECT tableowner FROM pg_tables WHERE tablename = 'orders'") == [("shop_owner",)]
    report = cloud.report("drop1")
    assert report["verdict"] == "proved"
    assert report["incident"]["found_by"]
    assert report["rpo"]["seconds"] is not None
    assert cloud.identifiers() == {shop}, "the side instance is deleted when what was lost is back and proved"
    cloud.sql(shop, "CREATE TABLE public.writable (a int); DROP TABLE public.writable")


@pytest.mark.whole
def test_a_record_that_can_no_longer_be_kept_leaves_nothing_read_only_and_no_secret_on_the_screen(
    cloud: Cloud, shop: str, lost: dict[str, Any]
) -> None:
    given = {"dr_database": "shop", "dr_tables": "public.orders", "dr_contain": "read_only", "dr_incident_id": "disk1"}
    record, away = cloud.reports / "disk1", cloud.reports / "disk1.away"

    ended = threading.Event()

    def lose_the_record() -> None:
        while not ended.wait(0.05):
            with contextlib.suppress(OSError):
                if '"restore"' in (record / "events.jsonl").read_text():
                    record.rename(away)
                    record.write_text("not a folder any more")
                    return

    thread = threading.Thread(target=lose_the_record)
    thread.start()
    try:
        run = cloud.play(TABLE_DROP, shop, "-vvv", **given)
    finally:
        ended.set()
        thread.join()
    assert run.rc != 0
    # Which of the two depends on the moment: between two tasks, or in the middle of one that keeps the record.
    assert re.search("there is no incident disk1|incident record in .* cannot be kept", run.output), run.output
    assert "-e dr_incident_id=disk1" in run.output, "how to go on"
    assert cloud.sql(shop, "SHOW default_transaction_read_only") == [("off",)], "applications may write again"
    record.unlink()
    away.rename(record)
    run = cloud.play(TABLE_DROP, shop, **given)
    assert run.rc == 0, run.output
    assert cloud.checksum(shop, "public.orders") == lost["orders"]


def test_a_recovery_killed_while_it_restores_goes_on(cloud: Cloud, shop: str, lost: dict[str, Any]) -> None:
    given: dict[str, Any] = {"dr_database": "shop", "dr_tables": "public.orders", "dr_incident_id": "drop2"}
    # A passfile that names production alone, and paths from the home directory on, as the README has them.
    given["host"] = cloud.in_passfile(cloud.endpoint(shop)[0])
    cloud.play_killed_in(TABLE_DROP, shop, "restore", 2.0, **given)
    run = cloud.play(TABLE_DROP, shop, "-vvv", **given)
    assert run.rc == 0, run.output
    assert cloud.checksum(shop, "public.orders") == lost["orders"]
    assert cloud.identifiers() == {shop}
    assert cloud.report("drop2")["runs"] == 2
    plan = json.loads((cloud.reports / "drop2" / "plan.json").read_text())
    assert plan["restore_plan"]["beside"] == [], "its own copy is none of another incident"


def test_a_password_that_production_does_not_take_is_told_before_anything_is_done(cloud: Cloud, shop: str) -> None:
    before, began = cloud.world(), time.monotonic()
    given = {"dr_database": "shop", "dr_tables": "public.orders", "dr_incident_id": "wrong1"}
    run = cloud.play(TABLE_DROP, shop, host={"rds_login_password": PLANTED.plant("a wrong password")}, **given)
    assert run.rc != 0
    said = " ".join(run.output.split())
    refused = r"does not let shopmaster in with the password that is in rds_login_password \(\S+ authentication failed"
    assert re.search(refused, said), run.output
    assert "aws rds modify-db-instance --db-instance-identifier shop --region eu-central-1 --manage-master-" in said
    assert cloud.world() == before
    run = cloud.play(TABLE_DROP, shop, "--check", host=cloud.in_passfile("shop.example.com"), **given)
    assert run.rc != 0
    assert "its lines are for the hosts shop.example.com" in " ".join(run.output.split())
    assert time.monotonic() - began < 60


@pytest.mark.whole
def test_a_moment_that_nothing_tells_is_found_by_restores(cloud: Cloud, shop: str) -> None:
    cloud.sql(shop, "CREATE TABLE public.silent AS SELECT n FROM generate_series(1, 100) n")
    time.sleep(1.1)
    since = cloud.now(shop)
    time.sleep(9)
    cloud.sql(shop, "DO $$ BEGIN EXECUTE 'DROP TABLE public.silent'; END $$")
    until = cloud.now(shop)
    given = {
        "dr_database": "shop",
        "dr_tables": "public.silent",
        "dr_bisect": True,
        "dr_bisect_precision": 4,
        "dr_since": since.isoformat(),
        "dr_until": until.isoformat(),
        "dr_incident_id": "bisect1",
    }
    asked = cloud.play(TABLE_DROP, shop, "--check", **given)
    assert asked.rc != 0
    assert "restores" in asked.output
    run = cloud.play(TABLE_DROP, shop, **given)
    assert run.rc == 0, run.output
    assert cloud.sql(shop, "SELECT count(*) FROM public.silent") == [(100,)]
    report = cloud.report("bisect1")
    assert report["incident"]["found_by"] == "a search by restores"
    assert 0 < report["rpo"]["seconds"] <= 4
    assert cloud.identifiers() == {shop}


@pytest.mark.whole
def test_check_mode_prints_the_plan_and_changes_nothing(cloud: Cloud, shop: str) -> None:
    moment = cloud.now(shop)
    time.sleep(4)
    before = cloud.world()
    run = cloud.play(
        TABLE_DROP,
        shop,
        "--check",
        dr_database="shop",
        dr_tables="public.orders",
        dr_target_time=moment.isoformat(),
        dr_incident_id="check1",
    )
    assert run.rc == 0, run.output
    assert "shop-dr-check1 in eu-central-1" in run.output
    assert run.changed == 0
    assert cloud.world() == before
    assert not (cloud.reports / "check1").exists()


def test_a_moment_outside_the_window_is_refused_with_the_window(cloud: Cloud, shop: str) -> None:
    before = cloud.world()
    run = cloud.play(
        TABLE_DROP, shop, dr_database="shop", dr_tables="public.orders", dr_target_time="2020-01-01T00:00:00+00:00"
    )
    assert run.rc != 0
    earliest = cloud.api().describe_db_instance_automated_backups(DBInstanceIdentifier=shop)
    window = earliest["DBInstanceAutomatedBackups"][0]["RestoreWindow"]
    assert window["EarliestTime"].strftime("%Y-%m-%dT%H:%M:%S") in run.output
    assert cloud.world() == before


def test_a_database_that_is_not_there_is_refused_in_check_mode_too(cloud: Cloud, shop: str) -> None:
    run = cloud.play(TABLE_DROP, "nosuch", "--check", dr_database="shop", dr_tables="public.orders")
    assert run.rc != 0
    assert "nosuch" in run.output


REFUSED = {
    "a moment outside the window": (
        {"source_db_instance_identifier": "shop", "db_instance_identifier": "new", "at": "2020-01-01T00:00:00Z"},
        "What can be restored",
    ),
    "a name that is taken": (
        {"source_db_instance_identifier": "shop", "db_instance_identifier": "shop", "latest": True},
        "the name is taken",
    ),
    "a key of another region": (
        {
            "source_db_instance_identifier": "shop",
            "db_instance_identifier": "new",
            "latest": True,
            "performance_insights_kms_key_id": f"arn:aws:kms:{AWAY}:123456789012:key/1",
        },
        f"a key of {AWAY}",
    ),
    "a region that is none": (
        {
            "source_db_instance_identifier": "shop",
            "db_instance_identifier": "new",
            "latest": True,
            "region": "eu-centrl-1",
        },
        f"did you mean {HOME}?",
    ),
    "backtrack": (
        {
            "source_db_instance_identifier": "shop",
            "db_instance_identifier": "new",
            "latest": True,
            "restore_type": "backtrack",
        },
        "Aurora MySQL only",
    ),
    "removal of what is no copy of the incident": (
        {"db_instance_identifier": "shop", "incident": "x", "state": "absent"},
        "is no restored copy",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_and_changes_nothing(cloud: Cloud, shop: str, what: str) -> None:
    arguments, words = REFUSED[what]
    before = cloud.world()
    run = cloud.module("rds_restore", **arguments)
    assert run.rc != 0
    assert words in run.output
    assert cloud.world() == before


def test_a_failover_moves_to_the_other_zone_and_proves_it(cloud: Cloud, shop: str) -> None:
    before = cloud.instance(shop)["AvailabilityZone"]
    run = cloud.play(FAILOVER, shop, dr_incident_id="failover1", host={"rds_login_db": "shop"})
    assert run.rc == 0, run.output
    after = cloud.instance(shop)["AvailabilityZone"]
    assert after != before
    report = cloud.report("failover1")
    assert (report["switch"]["before"], report["switch"]["now"]) == (before, after)
    assert report["verdict"] == "proved"
    again = cloud.play(FAILOVER, shop, dr_incident_id="failover1", host={"rds_login_db": "shop"})
    assert again.rc == 0, again.output
    assert cloud.instance(shop)["AvailabilityZone"] == after, "the same incident never fails over back"


def test_a_read_replica_is_promoted(cloud: Cloud, shop: str) -> None:
    cloud.api().create_db_instance_read_replica(DBInstanceIdentifier="shop-read", SourceDBInstanceIdentifier=shop)
    cloud.wait("shop-read")
    cloud.sql(shop, "SET ROLE shop_owner; INSERT INTO public.customers (name) VALUES ('the last one')")
    rows = cloud.checksum(shop, "public.customers")
    for _attempt in range(100):
        if cloud.checksum("shop-read", "public.customers") == rows:
            break
        time.sleep(0.1)
    given = {"dr_replica": "shop-read", "dr_incident_id": "promote1"}
    # Production's port, a pooler's say, is not the replica's.
    host = {"rds_login_db": "shop", "rds_login_port": 6432, **cloud.in_secret("db-failover")}
    run = cloud.play(FAILOVER, shop, host=host, **given)
    assert run.rc == 0, run.output
    assert not cloud.wait("shop-read").get("ReadReplicaSourceDBInstanceIdentifier")
    assert cloud.checksum("shop-read", "public.customers") == rows
    cloud.sql("shop-read", "CREATE TABLE public.writable (a int)")
    report = cloud.report("promote1")
    assert any("Point applications" in item["what"] for item in report["left_to_do"])
    assert 0 <= report["rpo"]["seconds"] < 60, "how much may be lost was asked of the replica before"


# --- Aurora ----------------------------------------------------------------------------------------------------------


def test_an_aurora_cluster_gets_its_table_back_and_fails_over(cloud: Cloud) -> None:
    cloud.make_cluster("orders")
    host = {"rds_cluster": "orders", "rds_login_db": "shop"}
    before = cloud.checksum("orders", "public.orders")
    time.sleep(2.1)
    cloud.sql("orders", "DROP TABLE public.orders CASCADE")
    time.sleep(1)
    given = {"dr_database": "shop", "dr_tables": "public.orders", "dr_incident_id": "aurora1"}
    run = cloud.play(TABLE_DROP, "orders", host=host, **given)
    assert run.rc == 0, run.output
    assert cloud.checksum("orders", "public.orders") == before
    assert cloud.report("aurora1")["verdict"] == "proved"
    assert {c["DBClusterIdentifier"] for c in cloud.api().describe_db_clusters()["DBClusters"]} == {"orders"}

    writer = cloud.writer("orders")
    run = cloud.play(FAILOVER, "orders", host=host, dr_incident_id="aurora2")
    assert run.rc == 0, run.output
    assert cloud.writer("orders") != writer
    assert cloud.checksum("orders", "public.orders") == before


# --- a region is lost -----------------------------------------------------------------------------------------------


def test_a_lost_region_is_restored_in_another(cloud: Cloud, tmp_path: Path) -> None:
    cloud.make_shop("far")
    policy = {
        "backup_tier": "standard",
        "rds_backup_replica_region": AWAY,
        "rds_backup_settings_dir": str(tmp_path),
    }
    backed_up = cloud.play("dbre.recovery.rds_backup", "far", host=policy)
    assert backed_up.rc == 0, backed_up.output
    good = cloud.checksum("far", "public.orders")
    time.sleep(4)
    cloud.emulated.control(f"region/{HOME}/lost")
    try:
        run = cloud.play(
            FAILOVER,
            "far",
            dr_to_region=AWAY,
            dr_settings=str(tmp_path / "far.json"),
            dr_incident_id="region1",
            host={"rds_login_db": "shop"},
        )
        assert run.rc == 0, run.output
        assert cloud.checksum("far", "public.orders", AWAY) == good
        assert cloud.instance("far", AWAY)["DBInstanceClass"] == "db.r6g.large"
        assert cloud.report("region1")["rpo"]["seconds"] is not None
    finally:
        cloud.emulated.control(f"region/{HOME}/restored")


@pytest.mark.whole
def test_what_a_failed_restore_leaves_in_another_region_is_told_by_whoever_is_asked(
    cloud: Cloud, tmp_path: Path
) -> None:
    cloud.make_shop("remote")
    policy = {"rds_backup_replica_region": AWAY, "rds_backup_settings_dir": str(tmp_path)}
    backed_up = cloud.play("dbre.recovery.rds_backup", "remote", host=policy)
    assert backed_up.rc == 0, backed_up.output
    good = cloud.checksum("remote", "public.orders")
    time.sleep(4)
    given: dict[str, Any] = {
        "dr_to_region": AWAY,
        "dr_settings": str(tmp_path / "remote.json"),
        "dr_incident_id": "region4",
        "dr_overrides": {"deletion_protection": False},
        "host": {"rds_login_db": "shop"},
    }
    cloud.emulated.control(f"region/{HOME}/lost")
    try:
        cloud.emulated.control("next/incompatible-restore", times=1)
        failed = cloud.play(FAILOVER, "remote", **given)
        assert failed.rc != 0
        # It has production's name, and costs for as long as nobody knows of it.
        words = " ".join(failed.output.split())
        remove = f"'db_instance_identifier=remote incident=region4 state=absent region={AWAY}'"
        assert f"(To give it up instead: delete remote, which was restored in {AWAY}. It stays until" in words
        assert remove in words
        abandoned = cloud.play(ABANDON, "remote", policy="dr-rds-failover", dr_incident_id="region4")
        assert abandoned.rc != 0
        assert remove in " ".join(abandoned.output.split())
        removed = cloud.module("rds_restore", AWAY, **dict(word.split("=") for word in remove.strip("'").split()[:3]))
        assert removed.rc == 0, removed.output
        assert "remote" not in cloud.identifiers(AWAY)

        run = cloud.play(FAILOVER, "remote", **given)
        assert run.rc == 0, run.output
        assert cloud.checksum("remote", "public.orders", AWAY) == good
    finally:
        cloud.emulated.control(f"region/{HOME}/restored")


@pytest.mark.whole
def test_a_lost_regions_replica_elsewhere_is_promoted(cloud: Cloud, shop: str) -> None:
    arn = cloud.wait(shop)["DBInstanceArn"]
    cloud.api(AWAY).create_db_instance_read_replica(DBInstanceIdentifier="shop-west", SourceDBInstanceIdentifier=arn)
    cloud.wait("shop-west", AWAY)
    rows = cloud.checksum(shop, "public.customers")
    cloud.emulated.control(f"region/{HOME}/lost")
    try:
        given = {"dr_replica": "shop-west", "dr_to_region": AWAY, "dr_incident_id": "region3"}
        run = cloud.play(FAILOVER, shop, host={"rds_login_db": "shop"}, **given)
        assert run.rc == 0, run.output
        assert not cloud.wait("shop-west", AWAY).get("ReadReplicaSourceDBInstanceIdentifier")
        assert cloud.checksum("shop-west", "public.customers", AWAY) == rows
        assert cloud.report("region3")["verdict"] == "proved"
    finally:
        cloud.emulated.control(f"region/{HOME}/restored")


@pytest.mark.whole
def test_a_lost_regions_cluster_is_restored_from_a_copied_snapshot(cloud: Cloud, tmp_path: Path) -> None:
    host = {"rds_cluster": "orders", "rds_login_db": "shop", "rds_login_host": "production.invalid"}
    policy = {"rds_backup_copies": [{"region": AWAY}], "rds_backup_settings_dir": str(tmp_path)}
    backed_up = cloud.play("dbre.recovery.rds_backup", "orders", host={**host, **policy})
    assert backed_up.rc == 0, backed_up.output
    (copy,) = cloud.api(AWAY).describe_db_cluster_snapshots(SnapshotType="manual")["DBClusterSnapshots"]
    good = cloud.checksum("orders", "public.orders")
    given: dict[str, Any] = {"dr_to_region": AWAY, "dr_settings": str(tmp_path / "orders.json"), "host": host}
    cloud.emulated.control(f"region/{HOME}/lost")
    try:
        run = cloud.play(
            FAILOVER, "orders", dr_snapshot=copy["DBClusterSnapshotIdentifier"], dr_incident_id="region2", **given
        )
        assert run.rc == 0, run.output
        assert cloud.checksum("orders", "public.orders", AWAY) == good
        assert len(cloud.cluster("orders", AWAY)["DBClusterMembers"]) == 2
        assert cloud.report("region2")["rpo"]["seconds"] > 0
    finally:
        cloud.emulated.control(f"region/{HOME}/restored")


# --- what AWS is asked for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("playbook", ["dr-rds-table-drop", "dr-rds-failover"])
def test_a_policy_allows_no_more_than_is_asked_for(cloud: Cloud, playbook: str) -> None:
    assert cloud.allowed_for_nothing(playbook) == set()
