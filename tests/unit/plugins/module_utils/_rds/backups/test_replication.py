# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.replication import (
    DesiredSettings,
    Replication,
    ensure_replicated,
    ensure_stopped,
)
from botocore.exceptions import ClientError, EndpointConnectionError

FAR, NEAR = "eu-central-1", "eu-west-1"
ARN = f"arn:aws:rds:{FAR}:123456789012:db:shop"
KEY = f"arn:aws:kms:{NEAR}:123456789012:key/2222"
BACKUP = f"arn:aws:rds:{NEAR}:123456789012:auto-backup:ab-1"
EARLIEST = datetime(2026, 11, 18, tzinfo=timezone.utc)
LATEST = datetime(2026, 11, 25, 3, 7, tzinfo=timezone.utc)


def source(retention: int = 14, encrypted: bool = True, **more: Any) -> dict[str, Any]:
    item = {
        "DBInstanceIdentifier": "shop",
        "DBInstanceArn": ARN,
        "DbiResourceId": "db-A",
        "BackupRetentionPeriod": retention,
        "StorageEncrypted": encrypted,
        **more,
    }
    return {"DBInstances": [item]}


def backup(
    status: str, retention: int = 7, earliest: Optional[datetime] = EARLIEST, arn: str = BACKUP, **more: Any
) -> dict[str, Any]:
    window = {"RestoreWindow": {"EarliestTime": earliest, "LatestTime": LATEST}} if earliest else {}
    return {
        "DBInstanceAutomatedBackupsArn": arn,
        "DBInstanceArn": ARN,
        "DBInstanceIdentifier": "shop",
        "DbiResourceId": "db-A",
        "Status": status,
        "BackupRetentionPeriod": retention,
        "Encrypted": True,
        "KmsKeyId": KEY,
        **window,
        **more,
    }


class Story:
    """What the two regions are asked and answer."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.far, self.near = world.region(FAR), world.region(NEAR)

    def source(self, **how: Any) -> None:
        self.far.answers("describe_db_instances", source(**how), DBInstanceIdentifier="shop")

    def backups(self, *found: dict[str, Any]) -> None:
        self.near.answers(
            "describe_db_instance_automated_backups",
            {"DBInstanceAutomatedBackups": list(found)},
            DbiResourceId="db-A",
        )

    def start(self, **more: Any) -> None:
        self.near.answers(
            "start_db_instance_automated_backups_replication",
            {},
            SourceDBInstanceArn=ARN,
            SourceRegion=FAR,
            **more,
        )

    def stop(self) -> None:
        self.near.answers("stop_db_instance_automated_backups_replication", {}, SourceDBInstanceArn=ARN)

    def replication(self) -> Replication:
        return Replication(self.far.rds, self.near.rds, self.world.waiting, "shop")

    def ensure(
        self, retention: Optional[int] = 7, key: Optional[str] = KEY, check_mode: bool = False
    ) -> dict[str, Any]:
        return ensure_replicated(self.replication(), DesiredSettings(retention, key, {"team": "shop"}), check_mode)


@pytest.fixture
def story(world: Any) -> Story:
    return Story(world)


def test_a_replication_is_started_and_waited_for_until_aws_replicates(world: Any, story: Story) -> None:
    story.source()
    story.backups()
    story.near.refuses("start_db_instance_automated_backups_replication", "InvalidDBInstanceState", "backing-up")
    story.start(BackupRetentionPeriod=7, KmsKeyId=KEY, Tags=[{"Key": "team", "Value": "shop"}])
    story.backups()
    story.backups(backup("Pending", earliest=None))
    story.backups(backup("Replicating"))
    story.backups(backup("Replicating"))
    result = story.ensure()
    assert result["changed"]
    assert not result["restarted"]
    assert result["seconds"] == world.clock.now > 0
    assert result["diff"] == {
        "before": {"status": "absent"},
        "after": {"status": "replicating", "retention": 7},
    }
    assert result["replication"] == {
        "arn": BACKUP,
        "status": "replicating",
        "source_arn": ARN,
        "resource_id": "db-A",
        "retention": 7,
        "encrypted": True,
        "kms_key_id": KEY,
        "window": {"earliest": "2026-11-18T00:00:00+00:00", "latest": "2026-11-25T03:07:00+00:00"},
    }


@pytest.mark.parametrize("retention", [7, None])
def test_one_that_runs_as_wished_is_left_alone(story: Story, retention: Optional[int]) -> None:
    story.source()
    story.backups(backup("retained", arn="old"), backup("replicating"))
    story.backups(backup("replicating"))
    result = story.ensure(retention)
    assert not result["changed"]
    assert [kept["arn"] for kept in result["retained"]] == ["old"]


def test_one_that_a_killed_run_started_is_waited_for(story: Story) -> None:
    story.source()
    story.backups(backup("pending"))
    story.backups(backup("pending"))
    story.backups(backup("replicating"))
    assert not story.ensure()["changed"]


def test_another_retention_stops_and_starts_it_and_looks_whether_all_is_there(story: Story) -> None:
    story.source()
    story.backups(backup("replicating"))
    story.backups(backup("replicating"))
    story.stop()
    story.backups(backup("replicating"))
    story.backups(backup("retained"))
    story.near.refuses(
        "start_db_instance_automated_backups_replication", "InvalidDBInstanceAutomatedBackupState", "busy"
    )
    story.start(BackupRetentionPeriod=14, KmsKeyId=KEY, Tags=[{"Key": "team", "Value": "shop"}])
    story.backups(backup("pending", 14))
    story.backups(backup("replicating", 14))
    story.backups(backup("replicating", 14))
    result = story.ensure(14, key=None)
    assert result["changed"]
    assert result["restarted"]
    assert result["replication"]["retention"] == 14


@pytest.mark.parametrize(
    "now",
    [
        [backup("replicating", 14, arn="new")],
        [backup("replicating", 14, earliest=LATEST)],
    ],
)
def test_backups_that_vanish_with_the_restart_are_never_passed_over(story: Story, now: list[dict[str, Any]]) -> None:
    story.source()
    story.backups(backup("replicating"))
    story.backups(backup("replicating"))
    story.stop()
    story.backups()
    story.start(BackupRetentionPeriod=14, KmsKeyId=KEY, Tags=[{"Key": "team", "Value": "shop"}])
    story.backups(*now)
    story.backups(*now)
    with pytest.raises(RecoveryError, match=r"replicated before it was started anew .*Take a snapshot") as error:
        story.ensure(14)
    assert error.value.details["lost"]["arn"] == BACKUP


@pytest.mark.parametrize(
    ("wanted", "now"),
    [
        (14, [backup("replicating", 14, arn="new"), backup("retained")]),
        (3, [backup("replicating", 3, earliest=LATEST)]),
        (14, [backup("replicating", 14, earliest=None)]),
    ],
)
def test_backups_that_are_kept_beside_or_were_to_expire_are_not_lost(
    story: Story, wanted: int, now: list[dict[str, Any]]
) -> None:
    story.source()
    story.backups(backup("replicating"))
    story.backups(backup("replicating"))
    story.stop()
    story.backups(backup("retained"))
    story.start(BackupRetentionPeriod=wanted, KmsKeyId=KEY, Tags=[{"Key": "team", "Value": "shop"}])
    story.backups(*now)
    story.backups(*now)
    assert story.ensure(wanted)["changed"]


def test_a_run_killed_between_stop_and_start_starts_with_the_key_of_what_is_there(story: Story) -> None:
    story.source()
    story.backups(backup("retained"))
    story.start(BackupRetentionPeriod=14, KmsKeyId=KEY, Tags=[{"Key": "team", "Value": "shop"}])
    story.backups(backup("replicating", 14))
    story.backups(backup("replicating", 14))
    assert story.ensure(14, key=None)["changed"]


@pytest.mark.parametrize("status", ["replicating", "retained"])
@pytest.mark.parametrize("check_mode", [True, False])
def test_another_key_is_refused_since_it_would_cost_what_is_there(story: Story, status: str, check_mode: bool) -> None:
    story.source()
    story.backups(backup(status))
    with pytest.raises(RecoveryError, match=r"encrypted with .*/2222.*cannot change the key.*is left to you"):
        story.ensure(key=f"arn:aws:kms:{NEAR}:123456789012:key/3333", check_mode=check_mode)


@pytest.mark.parametrize("key", ["2222", "alias/backups", KEY])
def test_the_same_key_by_id_or_alias_is_no_other_key(story: Story, key: str) -> None:
    story.source()
    story.backups(backup("replicating"))
    assert not story.ensure(key=key, check_mode=True)["changed"]


def test_a_key_of_another_region_is_refused_before_any_call(story: Story) -> None:
    with pytest.raises(RecoveryError, match="is a key of eu-central-1"):
        story.ensure(key=KEY.replace(NEAR, FAR))


def test_an_encrypted_instance_needs_a_key_there(story: Story) -> None:
    story.source()
    story.backups()
    with pytest.raises(RecoveryError, match=r"Give kms_key_id, a key of eu-west-1"):
        story.ensure(key=None, check_mode=True)


def test_an_instance_without_backups_has_nothing_to_replicate(story: Story) -> None:
    story.source(retention=0)
    story.backups()
    with pytest.raises(RecoveryError, match="has no automated backups"):
        story.ensure(check_mode=True)


def test_a_replication_that_failed_is_an_error(story: Story) -> None:
    story.source()
    story.backups(backup("failed"))
    with pytest.raises(RecoveryError, match=r"has failed.*mend the cause") as error:
        story.ensure(check_mode=True)
    assert error.value.details["replication"]["status"] == "failed"


def test_one_that_fails_while_it_begins_is_an_error_too(story: Story) -> None:
    story.source()
    story.backups()
    story.start(BackupRetentionPeriod=7, KmsKeyId=KEY, Tags=[{"Key": "team", "Value": "shop"}])
    story.backups(backup("pending"))
    story.backups(backup("failed"))
    with pytest.raises(RecoveryError, match="has failed"):
        story.ensure()


def test_a_quota_that_is_used_up_is_said(story: Story) -> None:
    story.source()
    story.backups()
    story.near.refuses(
        "start_db_instance_automated_backups_replication",
        "DBInstanceAutomatedBackupQuotaExceeded",
        "more than 20",
    )
    with pytest.raises(RecoveryError, match=r"no further backups into eu-west-1: more than 20"):
        story.ensure()


def test_what_else_aws_refuses_is_said_by_aws(story: Story) -> None:
    story.source()
    story.backups()
    story.near.refuses("start_db_instance_automated_backups_replication", "KMSKeyNotAccessibleFault")
    with pytest.raises(ClientError, match="KMSKeyNotAccessibleFault"):
        story.ensure()


def test_check_mode_starts_nothing(story: Story) -> None:
    story.source()
    story.backups()
    result = story.ensure(check_mode=True)
    assert result["changed"]
    assert result["replication"] is None


def test_a_cluster_is_refused_with_what_helps_instead(story: Story) -> None:
    story.far.refuses("describe_db_instances", "DBInstanceNotFound")
    story.far.answers("describe_db_clusters", {"DBClusters": [{"DBClusterIdentifier": "shop"}]})
    with pytest.raises(RecoveryError, match=r"shop is a DB cluster.*rds_snapshot_copy"):
        story.ensure()
    story.source(DBClusterIdentifier="shop-aurora")
    with pytest.raises(RecoveryError, match=r"shop-aurora is a DB cluster"):
        story.ensure()


def test_an_instance_that_is_missing_is_said_with_its_region(story: Story) -> None:
    story.far.refuses("describe_db_instances", "DBInstanceNotFound")
    story.far.refuses("describe_db_clusters", "DBClusterNotFoundFault")
    story.far.refuses("describe_db_instances", "DBInstanceNotFound")
    with pytest.raises(RecoveryError, match="no DB instance shop in eu-central-1"):
        story.ensure(check_mode=True)


def test_the_region_of_the_database_is_no_other_region(world: Any) -> None:
    region = world.region(FAR)
    with pytest.raises(RecoveryError, match="would be lost with the region"):
        Replication(region.rds, region.rds, world.waiting, "shop")


def test_backups_of_another_region_under_the_same_resource_id_are_not_ours(story: Story) -> None:
    story.source()
    story.backups(backup("replicating", DBInstanceArn=ARN.replace(FAR, "us-east-1")))
    assert story.ensure(check_mode=True)["changed"]


def test_stopping_keeps_what_was_replicated(story: Story) -> None:
    story.source()
    story.backups(backup("replicating"))
    story.stop()
    story.backups(backup("replicating"))
    story.backups(backup("retained"))
    story.backups(backup("retained"))
    result = ensure_stopped(story.replication(), False)
    assert result["changed"]
    assert result["replication"]["arn"] == BACKUP
    assert [kept["arn"] for kept in result["retained"]] == [BACKUP]


def test_stopping_what_is_stopped_changes_nothing(story: Story) -> None:
    story.source()
    story.backups(backup("retained"))
    story.backups(backup("retained"))
    assert not ensure_stopped(story.replication(), False)["changed"]


def test_a_stop_that_was_accepted_before_is_no_error(story: Story) -> None:
    story.source()
    story.backups(backup("replicating"))
    message = "DB instance is not replicating to the current region"
    story.near.refuses("stop_db_instance_automated_backups_replication", "InvalidDBInstanceState", message)
    story.backups(backup("retained"))
    story.backups(backup("retained"))
    assert ensure_stopped(story.replication(), False)["changed"]


def test_a_replication_is_stopped_without_the_region_of_its_source(story: Story) -> None:
    class Lost:
        def describe_db_instances(self, **arguments: Any) -> dict[str, Any]:
            raise EndpointConnectionError(endpoint_url="https://rds.eu-central-1.amazonaws.com")

    replication = story.replication()
    replication.source.client = Lost()
    others = backup("replicating", DBInstanceIdentifier="accounts", DbiResourceId="db-B")
    story.near.answers(
        "describe_db_instance_automated_backups",
        {"DBInstanceAutomatedBackups": [others, backup("retained"), backup("replicating")]},
    )
    story.stop()
    story.backups(backup("retained"))
    story.backups(backup("retained"))
    assert ensure_stopped(replication, False)["changed"]


def test_a_region_that_only_says_it_is_unavailable_is_lost_too(story: Story) -> None:
    story.far.stubber.add_client_error("describe_db_instances", "ServiceUnavailable", http_status_code=503)
    story.near.answers(
        "describe_db_instance_automated_backups", {"DBInstanceAutomatedBackups": [backup("replicating")]}
    )
    story.stop()
    story.backups(backup("retained"))
    story.backups(backup("retained"))
    assert ensure_stopped(story.replication(), False)["changed"]


def test_credentials_that_may_not_look_are_no_lost_region(story: Story) -> None:
    story.far.refuses("describe_db_instances", "AccessDenied")
    with pytest.raises(ClientError, match="AccessDenied"):
        ensure_stopped(story.replication(), False)


def test_check_mode_stops_nothing(story: Story) -> None:
    story.source()
    story.backups(backup("replicating"))
    story.backups(backup("replicating"))
    assert ensure_stopped(story.replication(), True)["changed"]
