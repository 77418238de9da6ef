# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import ClientError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Waiting
from ansible_collections.dbre.recovery.plugins.module_utils._rds.takeover.replica import Replica
from ansible_collections.dbre.recovery.tests.unit.plugins.module_utils._rds.scripted import ScriptedAws

ARN = "arn:aws:rds:eu-central-1:123456789012:db"


def instance(name: str, **more: Any) -> dict[str, Any]:
    return {
        "DBInstanceIdentifier": name,
        "DbiResourceId": f"db-{name.upper()}",
        "DBInstanceArn": f"{ARN}:{name}",
        "DBInstanceStatus": "available",
        "Endpoint": {"Address": f"{name}.x", "Port": 5432},
        "BackupRetentionPeriod": 7,
        "StorageType": "gp3",
        "AllocatedStorage": 100,
        "Iops": 3000,
        "StorageThroughput": 125,
        "TagList": [{"Key": "team", "Value": "shop"}],
        **more,
    }


class Rds:
    """An AWS after a takeover: shop serves, and shop-read still replicates the one that is kept, shop-old."""

    def __init__(self, aws: ScriptedAws, **source: Any) -> None:
        self.statuses: list[str] = []  # of shop, look by look
        self.instances = {
            "shop": instance("shop", **source),
            "shop-read": instance(
                "shop-read", ReadReplicaSourceDBInstanceIdentifier="shop-old", BackupRetentionPeriod=0
            ),
        }
        aws.script("DescribeDBInstances", self.describe)
        aws.script("ModifyDBInstance", self.modify)
        aws.script("CreateDBInstanceReadReplica", self.create)
        aws.script("AddTagsToResource", {})

    def describe(self, asked: dict[str, Any]) -> Any:
        if "Filters" in asked:
            (wanted,) = asked["Filters"][0]["Values"]
            found = [item for item in self.instances.values() if item["DbiResourceId"] == wanted]
        else:
            found = [item for name, item in self.instances.items() if name == asked["DBInstanceIdentifier"]]
        if not found:
            return "DBInstanceNotFound"
        if found[0] is self.instances["shop"]:
            found[0]["DBInstanceStatus"] = self.statuses.pop(0) if self.statuses else "available"
        return {"DBInstances": [dict(item) for item in found]}

    def modify(self, asked: dict[str, Any]) -> dict[str, Any]:
        if "NewDBInstanceIdentifier" in asked:
            moved = self.instances.pop(asked["DBInstanceIdentifier"])
            moved["DBInstanceIdentifier"] = asked["NewDBInstanceIdentifier"]
            self.instances[moved["DBInstanceIdentifier"]] = moved
        return {"DBInstance": {}}

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        name, source = asked["DBInstanceIdentifier"], self.instances[asked["SourceDBInstanceIdentifier"]]
        storage = {key: asked.get(key, source[key]) for key in ("StorageType", "AllocatedStorage", "Iops")}
        self.instances[name] = instance(
            name,
            DbiResourceId="db-NEW",
            ReadReplicaSourceDBInstanceIdentifier="shop",
            TagList=asked.get("Tags", []),
            StorageThroughput=asked.get("StorageThroughput", source["StorageThroughput"]),
            **storage,
        )
        return {"DBInstance": dict(self.instances[name])}


def run(aws: ScriptedAws, waiting: Waiting, check_mode: bool = False) -> dict[str, Any]:
    return Replica(aws.rds(), waiting, "shop-read", "shop", "shop-read-old", check_mode).run()


def test_a_replica_of_the_database_that_serves_gets_the_name_and_the_settings(
    aws: ScriptedAws, waiting: Waiting
) -> None:
    rds = Rds(aws)
    result = run(aws, waiting)
    assert result["steps"] == ["shop-read renamed to shop-read-old", "shop-read made, a replica of shop"]
    assert rds.instances["shop-read-old"]["ReadReplicaSourceDBInstanceIdentifier"] == "shop-old"
    (made,) = aws.called("CreateDBInstanceReadReplica")
    assert (made["DBInstanceIdentifier"], made["SourceDBInstanceIdentifier"]) == ("shop-read", "shop")
    assert made["Tags"] == [{"Key": "team", "Value": "shop"}]
    aws.calls.clear()
    assert run(aws, waiting)["changed"] is False
    assert aws.written() == []


def test_check_mode_makes_no_replica(aws: ScriptedAws, waiting: Waiting) -> None:
    Rds(aws)
    assert len(run(aws, waiting, check_mode=True)["steps"]) == 2
    assert aws.written() == []


@pytest.mark.parametrize(
    ("kind", "model", "source", "sent"),
    [
        ("gp3", 100, 100, ()),
        ("gp3", 100, 500, ()),
        ("gp3", 500, 100, ()),
        ("gp3", 500, 500, ("Iops", "StorageThroughput")),
        ("io1", 100, 100, ("Iops",)),
    ],
)
def test_a_replica_is_not_asked_for_the_speeds_of_a_baseline_which_aws_refuses(
    aws: ScriptedAws, waiting: Waiting, kind: str, model: int, source: int, sent: tuple[str, ...]
) -> None:
    rds = Rds(aws, AllocatedStorage=source)
    rds.instances["shop-read"].update(AllocatedStorage=model, StorageType=kind)
    run(aws, waiting)
    (made,) = aws.called("CreateDBInstanceReadReplica")
    assert {"AllocatedStorage", "Iops", "StorageThroughput"} & set(made) == set(sent)


def test_a_replica_is_made_when_its_source_is_available(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    rds.statuses = ["modifying", "backing-up"]
    seen: list[str] = []

    def create(asked: dict[str, Any]) -> dict[str, Any]:
        seen.append(rds.instances["shop"]["DBInstanceStatus"])
        return rds.create(asked)

    aws.script("CreateDBInstanceReadReplica", create)
    run(aws, waiting)
    assert seen == ["available"]


def test_a_source_that_becomes_busy_right_then_is_asked_again(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    aws.script("CreateDBInstanceReadReplica", "InvalidDBInstanceState", "InvalidDBInstanceState", rds.create)
    assert run(aws, waiting)["instance"]["DbiResourceId"] == "db-NEW"


def test_a_call_that_was_heard_though_its_answer_got_lost_has_made_the_replica(
    aws: ScriptedAws, waiting: Waiting
) -> None:
    rds = Rds(aws)

    def create(asked: dict[str, Any]) -> Any:
        rds.create(asked)
        return "DBInstanceAlreadyExists"

    aws.script("CreateDBInstanceReadReplica", create)
    assert run(aws, waiting)["instance"]["DbiResourceId"] == "db-NEW"


def test_a_name_that_still_counts_as_taken_after_the_rename_is_waited_for(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)
    aws.script("CreateDBInstanceReadReplica", "DBInstanceAlreadyExists", rds.create)
    assert run(aws, waiting)["instance"]["DbiResourceId"] == "db-NEW"


def test_somebody_elses_instance_of_that_name_is_not_taken_for_the_replica(aws: ScriptedAws, waiting: Waiting) -> None:
    rds = Rds(aws)

    def create(asked: dict[str, Any]) -> Any:
        rds.instances["shop-read"] = instance("shop-read", DbiResourceId="db-THEIRS")
        return "DBInstanceAlreadyExists"

    aws.script("CreateDBInstanceReadReplica", create)
    with pytest.raises(RecoveryError, match="does not replicate shop. It was not touched"):
        run(aws, waiting)


def test_any_other_refusal_is_no_reason_to_wait(aws: ScriptedAws, waiting: Waiting) -> None:
    Rds(aws)
    aws.script("CreateDBInstanceReadReplica", "StorageQuotaExceeded")
    with pytest.raises(ClientError):
        run(aws, waiting)
    assert len(aws.called("CreateDBInstanceReadReplica")) == 1


def test_a_source_without_automated_backups_is_said_before_anything_is_renamed(
    aws: ScriptedAws, waiting: Waiting
) -> None:
    Rds(aws, BackupRetentionPeriod=0)
    with pytest.raises(RecoveryError, match="no automated backups"):
        run(aws, waiting)
    assert aws.written() == []
