"""The emulated RDS does what AWS does, with real rows."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any

import psycopg2
import pytest
from botocore.exceptions import ClientError
from conftest import AWAY, HOME, PASSWORD, EmulatedRds, wait

COUNT = "SELECT count(*) FROM orders"


def refused(code: str) -> Any:
    return pytest.raises(ClientError, match=rf"\({code}\)")


@pytest.fixture(scope="module")
def shop(emulated_rds: EmulatedRds) -> dict[str, Any]:
    """An instance with three orders, all its settings unlike AWS's defaults."""
    rds = emulated_rds.client()
    families = {group["DBParameterGroupFamily"] for group in rds.describe_db_parameter_groups()["DBParameterGroups"]}
    family = next(name for name in families if name.startswith("postgres"))
    rds.create_db_parameter_group(DBParameterGroupName="shop", DBParameterGroupFamily=family, Description="shop")
    found = emulated_rds.create(
        "shop", DBParameterGroupName="shop", MultiAZ=True, DeletionProtection=True, CopyTagsToSnapshot=True,
        Tags=[{"Key": "tier", "Value": "gold"}], PreferredBackupWindow="03:00-03:30",
        PreferredMaintenanceWindow="sun:05:00-sun:05:30", EnablePerformanceInsights=True,
    )  # fmt: skip
    emulated_rds.sql(found, "CREATE TABLE orders AS SELECT generate_series(1, 3) AS id")
    return found


def test_a_new_instance_has_the_roles_of_rds(emulated_rds: EmulatedRds, shop: dict[str, Any]) -> None:
    assert shop["EngineVersion"] == emulated_rds.sql(shop, "SHOW server_version").split()[0]
    assert emulated_rds.sql(shop, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    assert emulated_rds.sql(shop, "SELECT pg_has_role('rds_superuser', 'member')") is True
    assert emulated_rds.sql(shop, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'shop'") == "boss"
    assert (
        emulated_rds.sql(shop, "SET session_replication_role = replica", "SHOW session_replication_role") == "replica"
    )
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        emulated_rds.sql(shop, "ALTER SYSTEM SET work_mem = '1MB'")
    with pytest.raises(psycopg2.OperationalError, match="no encryption"):
        psycopg2.connect(
            host=shop["Endpoint"]["Address"],
            port=5432,
            user="boss",
            password=PASSWORD,
            dbname="shop",
            sslmode="disable",
        )


def test_point_in_time_restore_brings_back_a_dropped_table_with_the_defaults_of_aws(
    emulated_rds: EmulatedRds, shop: dict[str, Any]
) -> None:
    rds = emulated_rds.client()
    emulated_rds.sql(shop, "CREATE TABLE lost AS SELECT generate_series(1, 5) AS id")
    time.sleep(1.1)
    before = datetime.now(timezone.utc)
    time.sleep(1.1)
    emulated_rds.sql(shop, "DROP TABLE lost")
    wait(lambda: emulated_rds.instance("shop")["LatestRestorableTime"] >= before)
    answer = rds.restore_db_instance_to_point_in_time(
        SourceDBInstanceIdentifier="shop", TargetDBInstanceIdentifier="shop-before", RestoreTime=before
    )
    assert answer["DBInstance"]["DBInstanceStatus"] == "creating"
    assert "Endpoint" not in answer["DBInstance"]
    with refused("InvalidDBInstanceState"):
        rds.modify_db_instance(DBInstanceIdentifier="shop-before", DeletionProtection=True)
    restored = emulated_rds.available("shop-before")
    assert emulated_rds.sql(restored, "SELECT count(*) FROM lost") == 5
    with pytest.raises(psycopg2.errors.UndefinedTable):
        emulated_rds.sql(shop, "SELECT count(*) FROM lost")
    assert restored["DBParameterGroups"][0]["DBParameterGroupName"].startswith("default.postgres")
    assert restored["DBSubnetGroup"]["DBSubnetGroupName"] == "default"
    for name in ("MultiAZ", "DeletionProtection", "CopyTagsToSnapshot", "PerformanceInsightsEnabled"):
        assert shop[name] is True
        assert restored[name] is False, name
    assert restored["TagList"] == []
    assert restored["PreferredMaintenanceWindow"] != shop["PreferredMaintenanceWindow"]
    assert restored["BackupRetentionPeriod"] == 7
    with refused("DBInstanceAlreadyExists"):
        rds.restore_db_instance_to_point_in_time(
            SourceDBInstanceIdentifier="shop", TargetDBInstanceIdentifier="shop-before", UseLatestRestorableTime=True
        )


def test_times_outside_the_window_are_refused(emulated_rds: EmulatedRds, shop: dict[str, Any]) -> None:
    rds = emulated_rds.client()
    (backup,) = rds.describe_db_instance_automated_backups(DBInstanceIdentifier="shop")["DBInstanceAutomatedBackups"]
    window = backup["RestoreWindow"]
    for moment, said in (
        (window["EarliestTime"] - timedelta(seconds=1), "earlier"),
        (datetime.now(timezone.utc) + timedelta(seconds=5), "later"),
    ):
        with pytest.raises(ClientError, match=rf"InvalidParameterValue.*{said}"):
            rds.restore_db_instance_to_point_in_time(
                SourceDbiResourceId=shop["DbiResourceId"], TargetDBInstanceIdentifier="never", RestoreTime=moment
            )
    with refused("InvalidParameterCombination"):
        rds.restore_db_instance_to_point_in_time(SourceDBInstanceIdentifier="shop", TargetDBInstanceIdentifier="never")


def test_without_retention_there_is_no_point_in_time_restore(emulated_rds: EmulatedRds) -> None:
    found = emulated_rds.create("bare", BackupRetentionPeriod=0)
    assert "LatestRestorableTime" not in found
    rds = emulated_rds.client()
    with refused("PointInTimeRestoreNotEnabled"):
        rds.restore_db_instance_to_point_in_time(
            SourceDBInstanceIdentifier="bare", TargetDBInstanceIdentifier="never", UseLatestRestorableTime=True
        )
    rds.modify_db_instance(DBInstanceIdentifier="bare", BackupRetentionPeriod=1, ApplyImmediately=True)
    wait(lambda: emulated_rds.instance("bare").get("LatestRestorableTime"))
    rds.delete_db_instance(DBInstanceIdentifier="bare", SkipFinalSnapshot=True)
    wait(lambda: not rds.describe_db_instances(Filters=[{"Name": "db-instance-id", "Values": ["bare"]}])["DBInstances"])
    assert not (emulated_rds.state / HOME / found["DbiResourceId"] / "data").exists()


def test_an_encrypted_snapshot_is_copied_to_another_region_with_a_key_of_it(emulated_rds: EmulatedRds) -> None:
    found = emulated_rds.create("secret", StorageEncrypted=True)
    assert ":kms:eu-central-1:" in found["KmsKeyId"]
    emulated_rds.sql(found, "CREATE TABLE orders AS SELECT generate_series(1, 4) AS id")
    here, there = emulated_rds.client(), emulated_rds.client(region=AWAY)
    made = here.create_db_snapshot(DBInstanceIdentifier="secret", DBSnapshotIdentifier="keep")["DBSnapshot"]
    assert made["Status"] == "creating"
    here.get_waiter("db_snapshot_available").wait(DBSnapshotIdentifier="keep", WaiterConfig={"Delay": 1})
    emulated_rds.sql(emulated_rds.available("secret"), "DROP TABLE orders")
    with refused("KMSKeyNotAccessibleFault"):
        there.copy_db_snapshot(SourceDBSnapshotIdentifier=made["DBSnapshotArn"], TargetDBSnapshotIdentifier="kept")
    with refused("KMSKeyNotAccessibleFault"):
        there.copy_db_snapshot(
            SourceDBSnapshotIdentifier=made["DBSnapshotArn"],
            TargetDBSnapshotIdentifier="kept",
            KmsKeyId=found["KmsKeyId"],
        )
    key = emulated_rds.client("kms", AWAY).create_key()["KeyMetadata"]["Arn"]
    there.copy_db_snapshot(
        SourceDBSnapshotIdentifier=made["DBSnapshotArn"], TargetDBSnapshotIdentifier="kept", KmsKeyId=key,
        Tags=[{"Key": "from", "Value": "home"}],
    )  # fmt: skip
    there.get_waiter("db_snapshot_available").wait(DBSnapshotIdentifier="kept", WaiterConfig={"Delay": 1})
    (copy,) = there.describe_db_snapshots(DBSnapshotIdentifier="kept")["DBSnapshots"]
    assert (copy["KmsKeyId"], copy["SourceRegion"], copy["PercentProgress"]) == (key, HOME, 100)
    assert copy["TagList"] == [{"Key": "from", "Value": "home"}]
    there.restore_db_instance_from_db_snapshot(DBInstanceIdentifier="secret", DBSnapshotIdentifier="kept")
    assert emulated_rds.sql(emulated_rds.available("secret", AWAY), COUNT) == 4
    automated = here.describe_db_snapshots(DBInstanceIdentifier="secret", SnapshotType="automated")["DBSnapshots"][0]
    with refused("InvalidDBSnapshotState"):
        here.delete_db_snapshot(DBSnapshotIdentifier=automated["DBSnapshotIdentifier"])


def test_swapping_identifiers_moves_the_addresses(emulated_rds: EmulatedRds) -> None:
    rds = emulated_rds.client()
    live, other = emulated_rds.create("live"), emulated_rds.create("other", BackupRetentionPeriod=0)
    emulated_rds.sql(live, "CREATE TABLE orders AS SELECT generate_series(1, 1) AS id")
    emulated_rds.sql(other, "CREATE TABLE orders AS SELECT generate_series(1, 2) AS id")
    rds.create_db_instance_read_replica(DBInstanceIdentifier="reader", SourceDBInstanceIdentifier="live")
    reader = emulated_rds.available("reader")
    with refused("DBInstanceAlreadyExists"):
        rds.modify_db_instance(DBInstanceIdentifier="live", NewDBInstanceIdentifier="other", ApplyImmediately=True)
    for old, new in (("live", "live-old"), ("other", "live")):
        rds.modify_db_instance(DBInstanceIdentifier=old, NewDBInstanceIdentifier=new, ApplyImmediately=True)
        named = [{"Name": "db-instance-id", "Values": [new]}]
        wait(lambda named=named: rds.describe_db_instances(Filters=named)["DBInstances"])
        with refused("DBInstanceNotFound"):
            emulated_rds.instance(old)
        emulated_rds.available(new)
    swapped = emulated_rds.available("live")
    assert swapped["Endpoint"] == live["Endpoint"]
    assert swapped["DbiResourceId"] == other["DbiResourceId"]
    assert emulated_rds.sql(live, COUNT) == 2
    with pytest.raises(psycopg2.OperationalError):
        emulated_rds.sql(other, COUNT)
    # The replica stays with the renamed instance.
    renamed = emulated_rds.instance("live-old")
    assert renamed["ReadReplicaDBInstanceIdentifiers"] == ["reader"]
    assert emulated_rds.instance("reader")["ReadReplicaSourceDBInstanceIdentifier"] == "live-old"
    emulated_rds.sql(renamed, "INSERT INTO orders VALUES (7)")
    wait(lambda: emulated_rds.sql(reader, COUNT) == 2)
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        emulated_rds.sql(reader, "DELETE FROM orders")
    rds.promote_read_replica(DBInstanceIdentifier="reader")
    wait(lambda: "ReadReplicaSourceDBInstanceIdentifier" not in emulated_rds.instance("reader"))
    emulated_rds.available("reader")
    emulated_rds.sql(reader, "DELETE FROM orders")
    assert emulated_rds.sql(renamed, COUNT) == 2


def test_failover_needs_multi_az_and_swaps_the_zones(emulated_rds: EmulatedRds, shop: dict[str, Any]) -> None:
    rds = emulated_rds.client()
    found = emulated_rds.available("shop")
    started = emulated_rds.sql(found, "SELECT pg_postmaster_start_time()")
    rds.reboot_db_instance(DBInstanceIdentifier="shop", ForceFailover=True)
    after = emulated_rds.available("shop")
    assert emulated_rds.sql(after, "SELECT pg_postmaster_start_time()") > started
    assert after["AvailabilityZone"] == found["SecondaryAvailabilityZone"]
    assert after["SecondaryAvailabilityZone"] == found["AvailabilityZone"]
    events = rds.describe_events(SourceIdentifier="shop", SourceType="db-instance", EventCategories=["failover"])[
        "Events"
    ]
    assert [event["Message"] for event in events] == [
        "Multi-AZ instance failover started.",
        "Multi-AZ instance failover completed.",
    ]
    emulated_rds.create("single", BackupRetentionPeriod=0)
    with refused("InvalidParameterCombination"):
        rds.reboot_db_instance(DBInstanceIdentifier="single", ForceFailover=True)


def test_a_lost_region_is_restored_from_its_replicated_backups(emulated_rds: EmulatedRds) -> None:
    region = "us-east-1"  # a region of its own, so that no other test loses its instances
    found = emulated_rds.create("ledger", region)
    emulated_rds.sql(found, "CREATE TABLE orders AS SELECT generate_series(1, 6) AS id")
    there = emulated_rds.client(region=AWAY)
    there.start_db_instance_automated_backups_replication(SourceDBInstanceArn=found["DBInstanceArn"])
    written = datetime.now(timezone.utc)

    def replicated() -> Any:
        (backup,) = there.describe_db_instance_automated_backups(DBInstanceIdentifier="ledger")[
            "DBInstanceAutomatedBackups"
        ]
        return backup if backup.get("RestoreWindow", {}).get("LatestTime", written) > written else None

    backup = wait(replicated)
    assert (backup["Status"], backup["Region"]) == ("replicating", region)
    emulated_rds.control(f"region/{region}/lost")
    with refused("ServiceUnavailable"):
        emulated_rds.instance("ledger", region)
    with pytest.raises(psycopg2.OperationalError):
        emulated_rds.sql(found, COUNT)
    there.restore_db_instance_to_point_in_time(
        SourceDBInstanceAutomatedBackupsArn=backup["DBInstanceAutomatedBackupsArn"],
        TargetDBInstanceIdentifier="ledger", UseLatestRestorableTime=True,
    )  # fmt: skip
    assert emulated_rds.sql(emulated_rds.available("ledger", AWAY), COUNT) == 6
    emulated_rds.control(f"region/{region}/restored")
    assert emulated_rds.sql(emulated_rds.available("ledger", region), COUNT) == 6


def test_deletion_wants_no_protection_and_a_word_about_the_last_snapshot(
    emulated_rds: EmulatedRds, shop: dict[str, Any]
) -> None:
    rds = emulated_rds.client()
    with refused("InvalidParameterCombination"):
        rds.delete_db_instance(DBInstanceIdentifier="shop", SkipFinalSnapshot=True)
    found = emulated_rds.create("brief")
    emulated_rds.sql(found, "CREATE TABLE orders AS SELECT generate_series(1, 9) AS id")
    with refused("InvalidParameterCombination"):
        rds.delete_db_instance(DBInstanceIdentifier="brief")
    written = datetime.now(timezone.utc)

    def restorable() -> bool:
        latest = emulated_rds.instance("brief").get("LatestRestorableTime")
        return latest is not None and latest >= written

    wait(restorable)
    rds.delete_db_instance(DBInstanceIdentifier="brief", FinalDBSnapshotIdentifier="last", DeleteAutomatedBackups=False)
    wait(
        lambda: not rds.describe_db_instances(Filters=[{"Name": "db-instance-id", "Values": ["brief"]}])["DBInstances"]
    )
    (backup,) = rds.describe_db_instance_automated_backups(DBInstanceIdentifier="brief")["DBInstanceAutomatedBackups"]
    assert backup["Status"] == "retained"
    (last,) = rds.describe_db_snapshots(DBSnapshotIdentifier="last")["DBSnapshots"]
    assert (last["Status"], last["SnapshotType"]) == ("available", "manual")
    rds.restore_db_instance_to_point_in_time(
        SourceDbiResourceId=found["DbiResourceId"], TargetDBInstanceIdentifier="from-retained",
        UseLatestRestorableTime=True,
    )  # fmt: skip
    assert emulated_rds.sql(emulated_rds.available("from-retained"), COUNT) == 9


def test_parameters_and_passwords_reach_the_server(emulated_rds: EmulatedRds, shop: dict[str, Any]) -> None:
    rds = emulated_rds.client()
    immediate = {"ParameterName": "log_statement", "ParameterValue": "ddl", "ApplyMethod": "immediate"}
    static = {"ParameterName": "max_connections", "ParameterValue": "77", "ApplyMethod": "immediate"}
    with refused("InvalidParameterCombination"):
        rds.modify_db_parameter_group(DBParameterGroupName="shop", Parameters=[static])
    rds.modify_db_parameter_group(
        DBParameterGroupName="shop", Parameters=[immediate, {**static, "ApplyMethod": "pending-reboot"}]
    )
    found = emulated_rds.available("shop")
    assert found["DBParameterGroups"][0]["ParameterApplyStatus"] == "pending-reboot"
    wait(lambda: emulated_rds.sql(found, "SHOW log_statement") == "ddl")
    assert emulated_rds.sql(found, "SHOW max_connections") != "77"
    rds.reboot_db_instance(DBInstanceIdentifier="shop")
    assert emulated_rds.sql(emulated_rds.available("shop"), "SHOW max_connections") == "77"
    pages = rds.get_paginator("describe_db_parameters").paginate(DBParameterGroupName="shop", Source="user")
    assert {entry["ParameterName"] for page in pages for entry in page["Parameters"]} == {
        "log_statement",
        "max_connections",
    }
    everything = rds.get_paginator("describe_db_parameters").paginate(DBParameterGroupName="shop")
    assert "rds.force_ssl" in {entry["ParameterName"] for page in everything for entry in page["Parameters"]}
    rds.modify_db_instance(DBInstanceIdentifier="shop", MasterUserPassword="another-password")
    emulated_rds.available("shop")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        emulated_rds.sql(found, COUNT)
    emulated_rds.sql(found, f"ALTER ROLE boss PASSWORD '{PASSWORD}'", password="another-password")


def test_log_files_are_the_servers_own(emulated_rds: EmulatedRds, shop: dict[str, Any]) -> None:
    rds = emulated_rds.client()
    emulated_rds.sql(shop, "DO $$ BEGIN RAISE WARNING 'a line of ours'; END $$")
    files = rds.describe_db_log_files(DBInstanceIdentifier="shop")["DescribeDBLogFiles"]
    assert files[-1]["LogFileName"].startswith("error/postgresql.log.20")
    text = ""
    for name in (entry["LogFileName"] for entry in files):
        pages = rds.get_paginator("download_db_log_file_portion").paginate(
            DBInstanceIdentifier="shop", LogFileName=name, PaginationConfig={"StartingToken": "0"}
        )
        text += "".join(page["LogFileData"] for page in pages)
    line = next(line for line in text.splitlines() if "a line of ours" in line)
    assert ":boss@shop:[" in line


def test_faults_come_as_asked_and_calls_are_written_down(emulated_rds: EmulatedRds, shop: dict[str, Any]) -> None:
    rds = emulated_rds.client()
    emulated_rds.control("throttle", action="DescribeDBInstances", times=1)
    with refused("Throttling"):
        emulated_rds.instance("shop")
    emulated_rds.control("next/snapshot-failed")
    emulated_rds.available("shop")
    rds.create_db_snapshot(DBInstanceIdentifier="shop", DBSnapshotIdentifier="broken")
    wait(lambda: rds.describe_db_snapshots(DBSnapshotIdentifier="broken")["DBSnapshots"][0]["Status"] == "failed")
    with refused("DBSnapshotAlreadyExists"):
        emulated_rds.available("shop")
        rds.create_db_snapshot(DBInstanceIdentifier="shop", DBSnapshotIdentifier="broken")
    emulated_rds.control("next/incompatible-restore")
    rds.restore_db_instance_to_point_in_time(
        SourceDBInstanceIdentifier="shop", TargetDBInstanceIdentifier="unlucky", UseLatestRestorableTime=True
    )
    wait(lambda: emulated_rds.instance("unlucky")["DBInstanceStatus"] == "incompatible-restore")
    emulated_rds.create("full", BackupRetentionPeriod=0)
    emulated_rds.control(f"instance/{HOME}/full/storage-full")
    assert emulated_rds.instance("full")["DBInstanceStatus"] == "storage-full"
    rds.modify_db_instance(DBInstanceIdentifier="full", AllocatedStorage=40, ApplyImmediately=True)
    assert emulated_rds.sql(emulated_rds.available("full"), "SELECT 1") == 1
    call = next(call for call in emulated_rds.calls() if call["action"] == "CreateDBInstance")
    assert (call["service"], call["region"], call["status"]) == ("rds", HOME, 200)
    assert call["parameters"]["MasterUserPassword"] == "***"
    assert any(call["error"] == "Throttling" for call in emulated_rds.calls())


def test_a_stopped_instance_answers_nobody(emulated_rds: EmulatedRds) -> None:
    rds = emulated_rds.client()
    found = emulated_rds.create("idle", BackupRetentionPeriod=0)
    rds.add_tags_to_resource(ResourceName=found["DBInstanceArn"], Tags=[{"Key": "tier", "Value": "gold"}])
    assert emulated_rds.instance("idle")["TagList"] == [{"Key": "tier", "Value": "gold"}]
    rds.stop_db_instance(DBInstanceIdentifier="idle")
    wait(lambda: emulated_rds.instance("idle")["DBInstanceStatus"] == "stopped")
    with pytest.raises(psycopg2.OperationalError):
        emulated_rds.sql(found, "SELECT 1")
    with refused("InvalidDBInstanceState"):
        rds.create_db_snapshot(DBInstanceIdentifier="idle", DBSnapshotIdentifier="never")
    rds.start_db_instance(DBInstanceIdentifier="idle")
    assert emulated_rds.sql(emulated_rds.available("idle"), "SELECT 1") == 1


def cluster_of(emulated_rds: EmulatedRds, identifier: str) -> dict[str, Any]:
    """The cluster, once it is available with nothing pending."""
    rds = emulated_rds.client()

    def ready() -> Any:
        (found,) = rds.describe_db_clusters(DBClusterIdentifier=identifier)["DBClusters"]
        return found if found["Status"] == "available" and not found.get("PendingModifiedValues") else None

    return dict(wait(ready))


def add_member(emulated_rds: EmulatedRds, cluster: str, identifier: str) -> None:
    emulated_rds.client().create_db_instance(
        DBInstanceIdentifier=identifier, DBInstanceClass="db.r6g.large", Engine="aurora-postgresql",
        DBClusterIdentifier=cluster,
    )  # fmt: skip


def at(address: str) -> dict[str, Any]:
    return {"Endpoint": {"Address": address, "Port": 5432}}


def roles(found: dict[str, Any]) -> dict[str, bool]:
    return {member["DBInstanceIdentifier"]: member["IsClusterWriter"] for member in found["DBClusterMembers"]}


def test_an_aurora_cluster_fails_over_and_is_restored_without_instances(emulated_rds: EmulatedRds) -> None:
    rds = emulated_rds.client()
    rds.create_db_cluster(
        DBClusterIdentifier="aurora", Engine="aurora-postgresql", MasterUsername="boss", MasterUserPassword=PASSWORD,
        DatabaseName="shop", DeletionProtection=True, BackupRetentionPeriod=3,
        ServerlessV2ScalingConfiguration={"MinCapacity": 0.5, "MaxCapacity": 2},
    )  # fmt: skip
    cluster = cluster_of(emulated_rds, "aurora")
    assert cluster["DBClusterMembers"] == []
    add_member(emulated_rds, "aurora", "one")
    emulated_rds.available("one")
    with refused("InvalidDBClusterStateFault"):
        rds.failover_db_cluster(DBClusterIdentifier="aurora")
    writer = at(cluster["Endpoint"])
    emulated_rds.sql(writer, "CREATE TABLE orders AS SELECT generate_series(1, 3) AS id")
    add_member(emulated_rds, "aurora", "two")
    emulated_rds.available("two")
    reader = at(cluster["ReaderEndpoint"])
    wait(lambda: emulated_rds.sql(reader, COUNT) == 3)
    assert emulated_rds.sql(reader, "SELECT pg_is_in_recovery()") is True
    rds.failover_db_cluster(DBClusterIdentifier="aurora", TargetDBInstanceIdentifier="two")
    assert roles(cluster_of(emulated_rds, "aurora")) == {"one": False, "two": True}
    emulated_rds.sql(writer, "INSERT INTO orders VALUES (4)")
    assert emulated_rds.sql(emulated_rds.instance("two"), "SELECT pg_is_in_recovery()") is False
    wait(lambda: emulated_rds.sql(emulated_rds.instance("one"), COUNT) == 4)
    # Everything up to a moment, in a cluster that has no instance until one is created.
    time.sleep(1.1)
    before = datetime.now(timezone.utc)
    time.sleep(1.1)
    emulated_rds.sql(writer, "TRUNCATE orders")
    wait(lambda: cluster_of(emulated_rds, "aurora")["LatestRestorableTime"] >= before)
    rds.restore_db_cluster_to_point_in_time(
        DBClusterIdentifier="aurora-before", SourceDBClusterIdentifier="aurora", RestoreToTime=before
    )
    restored = cluster_of(emulated_rds, "aurora-before")
    assert (restored["DBClusterMembers"], restored["DeletionProtection"]) == ([], False)
    assert "ServerlessV2ScalingConfiguration" not in restored
    assert restored["BackupRetentionPeriod"] == 3
    add_member(emulated_rds, "aurora-before", "three")
    emulated_rds.available("three")
    assert emulated_rds.sql(at(restored["Endpoint"]), COUNT) == 4
    # Swap the names: the endpoints follow them.
    with refused("DBClusterAlreadyExistsFault"):
        rds.modify_db_cluster(
            DBClusterIdentifier="aurora", NewDBClusterIdentifier="aurora-before", ApplyImmediately=True
        )
    for old, new in (("aurora", "aurora-old"), ("aurora-before", "aurora")):
        rds.modify_db_cluster(DBClusterIdentifier=old, NewDBClusterIdentifier=new, ApplyImmediately=True)
        wait(lambda new=new: new in {c["DBClusterIdentifier"] for c in rds.describe_db_clusters()["DBClusters"]})
        cluster_of(emulated_rds, new)
    assert cluster_of(emulated_rds, "aurora")["DbClusterResourceId"] == restored["DbClusterResourceId"]
    assert emulated_rds.sql(writer, COUNT) == 4
    # A snapshot of a cluster, restored; the last instance takes nothing with it.
    rds.create_db_cluster_snapshot(DBClusterIdentifier="aurora", DBClusterSnapshotIdentifier="of-cluster")
    rds.get_waiter("db_cluster_snapshot_available").wait(
        DBClusterSnapshotIdentifier="of-cluster", WaiterConfig={"Delay": 1}
    )
    rds.delete_db_instance(DBInstanceIdentifier="three", SkipFinalSnapshot=True)
    with refused("InvalidParameterCombination"):
        rds.delete_db_cluster(DBClusterIdentifier="aurora-old", SkipFinalSnapshot=True)
    rds.modify_db_cluster(DBClusterIdentifier="aurora-old", DeletionProtection=False)
    with refused("InvalidDBClusterStateFault"):
        rds.delete_db_cluster(DBClusterIdentifier="aurora-old", SkipFinalSnapshot=True)
    rds.restore_db_cluster_from_snapshot(
        DBClusterIdentifier="copy", SnapshotIdentifier="of-cluster", Engine="aurora-postgresql"
    )
    cluster_of(emulated_rds, "copy")
    wait(lambda: not cluster_of(emulated_rds, "aurora")["DBClusterMembers"])
    add_member(emulated_rds, "copy", "four")
    add_member(emulated_rds, "aurora", "five")
    for cluster_name, member in (("copy", "four"), ("aurora", "five")):
        emulated_rds.available(member)
        assert emulated_rds.sql(at(cluster_of(emulated_rds, cluster_name)["Endpoint"]), COUNT) == 4
    # Deleting a writer hands over to the reader.
    rds.delete_db_instance(DBInstanceIdentifier="two")
    wait(lambda: roles(cluster_of(emulated_rds, "aurora-old")) == {"one": True})
    assert emulated_rds.sql(emulated_rds.available("one"), COUNT) == 0


def test_a_multi_az_cluster_has_three_instances(emulated_rds: EmulatedRds) -> None:
    rds = emulated_rds.client()
    rds.create_db_cluster(
        DBClusterIdentifier="trio", Engine="postgres", MasterUsername="boss", MasterUserPassword=PASSWORD,
        DatabaseName="shop", DBClusterInstanceClass="db.m6gd.large", AllocatedStorage=100, StorageType="io1", Iops=1000,
    )  # fmt: skip
    cluster = cluster_of(emulated_rds, "trio")
    assert sorted(roles(cluster).values()) == [False, False, True]
    emulated_rds.sql(at(cluster["Endpoint"]), "CREATE TABLE orders AS SELECT generate_series(1, 2) AS id")
    rds.failover_db_cluster(DBClusterIdentifier="trio")
    assert roles(cluster_of(emulated_rds, "trio")) != roles(cluster)
    emulated_rds.sql(at(cluster["Endpoint"]), "INSERT INTO orders VALUES (3)")
    wait(lambda: emulated_rds.sql(at(cluster["ReaderEndpoint"]), COUNT) == 3)
    rds.delete_db_cluster(DBClusterIdentifier="trio", SkipFinalSnapshot=True)
    wait(lambda: "trio" not in [c["DBClusterIdentifier"] for c in rds.describe_db_clusters()["DBClusters"]])
