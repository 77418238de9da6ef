# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.copies import (
    Copying,
    DesiredSettings,
    default_name,
    ensure_copy,
    source_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.snapshots import (
    OF_CLUSTER,
    OF_INSTANCE,
    Snapshots,
)

TAKEN = datetime(2026, 11, 25, 3, 12, tzinfo=timezone.utc)
FAR, NEAR = "eu-central-1", "eu-west-1"
ARN = f"arn:aws:rds:{FAR}:123456789012:snapshot:rds:shop-1"
COPY_ARN = f"arn:aws:rds:{NEAR}:123456789012:snapshot:shop-1"
KEY = f"arn:aws:kms:{NEAR}:123456789012:key/2222"
CLUSTER_ARN = f"arn:aws:rds:{FAR}:123456789012:cluster-snapshot:before"


def original(status: str = "available", encrypted: bool = True, **more: Any) -> dict[str, Any]:
    item = {
        "DBSnapshotIdentifier": "rds:shop-1",
        "DBSnapshotArn": ARN,
        "DBInstanceIdentifier": "shop",
        "DbiResourceId": "db-A",
        "Status": status,
        "Encrypted": encrypted,
        "SnapshotCreateTime": TAKEN,
        "TagList": [{"Key": "team", "Value": "shop"}, {"Key": "aws:backup", "Value": "x"}],
        **more,
    }
    return {"DBSnapshots": [item]}


def copied(status: str = "available", source: Optional[str] = ARN, **more: Any) -> dict[str, Any]:
    item = {
        "DBSnapshotIdentifier": "shop-1",
        "DBSnapshotArn": COPY_ARN,
        "DbiResourceId": "db-A",
        "SnapshotType": "manual",
        "Status": status,
        "Encrypted": True,
        **more,
    }
    return {"DBSnapshots": [{**item, "SourceDBSnapshotIdentifier": source} if source else item]}


def copying(world: Any, region: str = NEAR, **options: Any) -> Copying:
    params = {"kind": OF_INSTANCE, "snapshot": "rds:shop-1", "source_region": FAR, **options}
    source = source_of(params["kind"], params["snapshot"], params["source_region"], region)
    wish = DesiredSettings(
        identifier=params.get("copy_identifier") or default_name(source, region),
        kms_key_id=params.get("kms_key_id", KEY),
        tags=params.get("tags", {}),
        copy_tags=params.get("copy_tags", False),
        option_group_name=params.get("option_group_name"),
    )
    copies = Snapshots(world.region(region).rds, world.waiting, source.kind)
    return Copying(world.region(source.region).rds, copies, source, wish)


def test_an_automated_snapshot_is_copied_into_another_region_under_a_key_of_that_region(world: Any) -> None:
    far, near = world.region(FAR), world.region(NEAR)
    near.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    far.answers("describe_db_snapshots", original(), DBSnapshotIdentifier="rds:shop-1", SnapshotType="automated")
    far.answers("describe_db_snapshots", original("creating"))
    far.answers("describe_db_snapshots", original())
    near.answers(
        "copy_db_snapshot",
        {},
        SourceDBSnapshotIdentifier=ARN,
        TargetDBSnapshotIdentifier="shop-1",
        KmsKeyId=KEY,
        SourceRegion=FAR,
        Tags=[{"Key": "kept", "Value": "yes"}, {"Key": "team", "Value": "shop"}],
    )
    near.answers("describe_db_snapshots", copied("creating", PercentProgress=30))
    near.answers("describe_db_snapshots", copied())
    result = ensure_copy(copying(world, copy_tags=True, tags={"kept": "yes"}), False)
    assert result["changed"]
    assert result["snapshot"]["copied_from"] == ARN
    assert result["source"] == {"identifier": "rds:shop-1", "region": FAR}
    assert result["seconds"] == world.clock.now > 0


def test_a_key_of_another_region_is_refused_before_any_call(world: Any) -> None:
    with pytest.raises(RecoveryError, match=r"is a key of eu-central-1.*list-aliases --region eu-west-1"):
        ensure_copy(copying(world, kms_key_id=f"arn:aws:kms:{FAR}:123456789012:key/1111"), False)


@pytest.mark.parametrize("check_mode", [True, False])
def test_an_encrypted_snapshot_needs_a_key_there(world: Any, check_mode: bool) -> None:
    world.region(NEAR).refuses("describe_db_snapshots", "DBSnapshotNotFound")
    world.region(FAR).answers("describe_db_snapshots", original())
    with pytest.raises(RecoveryError, match=r"encrypted with a key of eu-central-1.*Give kms_key_id"):
        ensure_copy(copying(world, kms_key_id=None), check_mode)


def test_a_copy_that_is_there_needs_neither_the_source_nor_its_region(world: Any) -> None:
    world.region(NEAR).answers("describe_db_snapshots", copied())
    assert not ensure_copy(copying(world), False)["changed"]


def test_a_copy_that_a_killed_run_began_is_waited_for(world: Any) -> None:
    world.region(NEAR).answers("describe_db_snapshots", copied("copying"))
    world.region(NEAR).answers("describe_db_snapshots", copied("copying", PercentProgress=60))
    world.region(NEAR).answers("describe_db_snapshots", copied())
    assert not ensure_copy(copying(world), False)["changed"]


def test_a_failed_copy_is_made_anew(world: Any) -> None:
    far, near = world.region(FAR), world.region(NEAR)
    near.answers("describe_db_snapshots", copied("failed"))
    far.answers("describe_db_snapshots", original())
    far.answers("describe_db_snapshots", original())
    near.answers("delete_db_snapshot", {}, DBSnapshotIdentifier="shop-1")
    near.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    near.answers("copy_db_snapshot", {})
    near.answers("describe_db_snapshots", copied())
    result = ensure_copy(copying(world), False)
    assert result["changed"]
    assert result["replaced_failed"]


@pytest.mark.parametrize(
    "other",
    [
        copied(source=f"arn:aws:rds:{FAR}:123456789012:snapshot:accounts-1"),
        copied(source="arn:aws:rds:us-east-1:123456789012:snapshot:rds:shop-1"),
        copied(source=None),
    ],
)
def test_a_snapshot_that_is_no_copy_of_this_one_is_not_touched(world: Any, other: dict[str, Any]) -> None:
    world.region(NEAR).answers("describe_db_snapshots", other)
    with pytest.raises(RecoveryError, match="name shop-1 is taken in eu-west-1"):
        ensure_copy(copying(world), False)


def test_too_many_copies_at_once_are_waited_for(world: Any) -> None:
    far, near = world.region(FAR), world.region(NEAR)
    near.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    far.answers("describe_db_snapshots", original())
    far.answers("describe_db_snapshots", original())
    near.refuses("copy_db_snapshot", "SnapshotQuotaExceeded", "Cannot copy more than 5 snapshots across regions")
    near.refuses("copy_db_snapshot", "SnapshotQuotaExceeded", "Cannot copy more than 5 snapshots across regions")
    near.answers("copy_db_snapshot", {})
    near.answers("describe_db_snapshots", copied())
    assert ensure_copy(copying(world), False)["changed"]
    assert world.clock.now >= 4


def test_copies_of_others_that_never_end_are_an_error_with_the_reason(world: Any) -> None:
    far, near = world.region(FAR), world.region(NEAR)
    world.waiting.timeout = 2.0
    near.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    far.answers("describe_db_snapshots", original())
    far.answers("describe_db_snapshots", original())
    for _again in range(2):
        near.refuses("copy_db_snapshot", "SnapshotQuotaExceeded", "Cannot copy more than 5 snapshots across regions")
    with pytest.raises(RecoveryError, match=r"more than 5 snapshots across regions.*only so many into a region"):
        ensure_copy(copying(world), False)


def test_a_full_quota_of_snapshots_is_not_waited_for(world: Any) -> None:
    far, near = world.region(FAR), world.region(NEAR)
    near.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    far.answers("describe_db_snapshots", original())
    far.answers("describe_db_snapshots", original())
    near.refuses("copy_db_snapshot", "SnapshotQuotaExceeded", "Cannot create more than 100 manual snapshots")
    with pytest.raises(RecoveryError, match=r"no further manual snapshot in eu-west-1"):
        ensure_copy(copying(world), False)


def test_a_source_that_failed_is_not_copied(world: Any) -> None:
    far, near = world.region(FAR), world.region(NEAR)
    near.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    far.answers("describe_db_snapshots", original("failed"))
    far.answers("describe_db_snapshots", original("failed"))
    with pytest.raises(RecoveryError, match="has failed"):
        ensure_copy(copying(world), False)


def test_a_source_that_is_not_there_is_said_with_its_region(world: Any) -> None:
    world.region(NEAR).refuses("describe_db_snapshots", "DBSnapshotNotFound")
    world.region(FAR).refuses("describe_db_snapshots", "DBSnapshotNotFound")
    with pytest.raises(RecoveryError, match=r"no snapshot rds:shop-1 of this account in eu-central-1"):
        ensure_copy(copying(world), True)


def test_check_mode_copies_nothing(world: Any) -> None:
    world.region(NEAR).refuses("describe_db_snapshots", "DBSnapshotNotFound")
    world.region(FAR).answers("describe_db_snapshots", original())
    result = ensure_copy(copying(world), True)
    assert result["changed"]
    assert result["snapshot"] is None


def test_an_arn_says_its_region_and_must_not_contradict_the_option() -> None:
    assert source_of(OF_INSTANCE, ARN, None, NEAR).region == FAR
    assert source_of(OF_INSTANCE, ARN, None, NEAR).identifier == "rds:shop-1"
    assert source_of(OF_INSTANCE, "shop-1", None, NEAR).region == NEAR
    with pytest.raises(RecoveryError, match="source_region says us-east-1"):
        source_of(OF_INSTANCE, ARN, "us-east-1", NEAR)
    with pytest.raises(RecoveryError, match="db_cluster_snapshot_identifier"):
        source_of(OF_INSTANCE, CLUSTER_ARN, None, NEAR)


def test_an_arn_of_another_account_is_not_taken_for_the_snapshot_of_that_name(world: Any) -> None:
    world.region(NEAR).refuses("describe_db_snapshots", "DBSnapshotNotFound")
    world.region(FAR).answers("describe_db_snapshots", original())
    other = ARN.replace("123456789012", "999999999999")
    with pytest.raises(RecoveryError, match="999999999999"):
        ensure_copy(copying(world, snapshot=other, source_region=None), False)


def test_a_copy_within_the_region_is_known_by_the_moment_of_its_original(world: Any) -> None:
    region = world.region(FAR)
    region.answers("describe_db_snapshots", copied(source=None, OriginalSnapshotCreateTime=TAKEN))
    region.answers("describe_db_snapshots", original())
    within = copying(world, FAR, copy_identifier="kept", kms_key_id=None)
    assert not ensure_copy(within, False)["changed"]
    other = datetime(2026, 11, 24, tzinfo=timezone.utc)
    region.answers("describe_db_snapshots", copied(source=None, OriginalSnapshotCreateTime=other))
    region.answers("describe_db_snapshots", original())
    with pytest.raises(RecoveryError, match="is taken"):
        ensure_copy(copying(world, FAR, copy_identifier="kept", kms_key_id=None), False)


def test_a_copy_within_the_region_is_asked_for_by_name_and_without_another_region(world: Any) -> None:
    region = world.region(FAR)
    region.refuses("describe_db_snapshots", "DBSnapshotNotFound")
    region.answers("describe_db_snapshots", original())
    region.answers("describe_db_snapshots", original())
    region.answers("copy_db_snapshot", {}, SourceDBSnapshotIdentifier="rds:shop-1", TargetDBSnapshotIdentifier="kept")
    region.answers("describe_db_snapshots", copied(source=None))
    assert ensure_copy(copying(world, FAR, copy_identifier="kept", kms_key_id=None), False)["changed"]


def test_a_copy_within_the_region_needs_a_name_of_its_own() -> None:
    with pytest.raises(RecoveryError, match="copy_identifier"):
        default_name(source_of(OF_INSTANCE, "before", None, NEAR), NEAR)


def cluster_snapshot(encrypted: bool) -> dict[str, Any]:
    item = {
        "DBClusterSnapshotIdentifier": "before",
        "DBClusterSnapshotArn": CLUSTER_ARN,
        "Status": "available",
        "StorageEncrypted": encrypted,
    }
    return {"DBClusterSnapshots": [item]}


def test_a_cluster_snapshot_is_copied_by_its_own_names(world: Any) -> None:
    far, near = world.region(FAR), world.region(NEAR)
    near.refuses("describe_db_cluster_snapshots", "DBClusterSnapshotNotFoundFault")
    far.answers("describe_db_cluster_snapshots", cluster_snapshot(True))
    far.answers("describe_db_cluster_snapshots", cluster_snapshot(True))
    near.refuses("copy_db_cluster_snapshot", "InvalidDBClusterSnapshotStateFault")
    near.answers(
        "copy_db_cluster_snapshot",
        {},
        SourceDBClusterSnapshotIdentifier=CLUSTER_ARN,
        TargetDBClusterSnapshotIdentifier="before",
        KmsKeyId=KEY,
        SourceRegion=FAR,
    )
    made = {"DBClusterSnapshotIdentifier": "before", "SourceDBClusterSnapshotArn": CLUSTER_ARN, "Status": "available"}
    near.answers("describe_db_cluster_snapshots", {"DBClusterSnapshots": [made]})
    options = {"kind": OF_CLUSTER, "snapshot": CLUSTER_ARN}
    assert ensure_copy(copying(world, **options), False)["snapshot"]["copied_from"] == CLUSTER_ARN


def test_a_cluster_snapshot_cannot_be_encrypted_by_copying(world: Any) -> None:
    world.region(NEAR).refuses("describe_db_cluster_snapshots", "DBClusterSnapshotNotFoundFault")
    world.region(FAR).answers("describe_db_cluster_snapshots", cluster_snapshot(False))
    options = {"kind": OF_CLUSTER, "snapshot": CLUSTER_ARN}
    with pytest.raises(RecoveryError, match="cannot encrypt a cluster snapshot"):
        ensure_copy(copying(world, **options), False)
    with pytest.raises(RecoveryError, match="option_group_name"):
        ensure_copy(copying(world, **options, option_group_name="x"), False)
