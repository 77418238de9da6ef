# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import tag_list
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import CLUSTER, INSTANCE
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Waiting
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.provenance import Provenance
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.remove import ensure_absent
from ansible_collections.dbre.recovery.tests.unit.plugins.module_utils._rds.scripted import ScriptedAws

ORIGIN = Provenance("shop", "db-SHOP", "2026-11-25T03:11:59+00:00", "shop-side", "incident-7", True)
PARAMS = (INSTANCE, "shop-side", "incident-7")
COPY: dict[str, Any] = {
    "DBInstanceIdentifier": "shop-side",
    "DbiResourceId": "db-SIDE",
    "DBInstanceStatus": "available",
    "DeletionProtection": False,
    "TagList": tag_list(ORIGIN.tags()),
}


def shown(**changes: Any) -> dict[str, Any]:
    return {"DBInstances": [{**COPY, **changes}]}


def test_a_copy_is_deleted_and_waited_for_until_it_is_gone(aws: ScriptedAws, waiting: Waiting) -> None:
    deleting = shown(DBInstanceStatus="deleting")
    aws.script("DescribeDBInstances", shown(), deleting, deleting, {"DBInstances": []})
    aws.script("DeleteDBInstance", {"DBInstance": {}})
    result = ensure_absent(*PARAMS, aws.rds(), waiting)
    assert (result["changed"], result["action"], result["restored_from"]) == (True, "remove", "shop")
    assert aws.called("DeleteDBInstance") == [
        {"DBInstanceIdentifier": "shop-side", "DeleteAutomatedBackups": True, "SkipFinalSnapshot": True}
    ]


def test_a_copy_that_is_busy_is_deleted_when_aws_allows_it(aws: ScriptedAws, waiting: Waiting) -> None:
    backing_up = shown(DBInstanceStatus="backing-up")
    aws.script(
        "DescribeDBInstances", shown(), backing_up, shown(), shown(DBInstanceStatus="deleting"), "DBInstanceNotFound"
    )
    aws.script("DeleteDBInstance", "InvalidDBInstanceState", "InvalidDBInstanceState", {"DBInstance": {}})
    assert ensure_absent(*PARAMS, aws.rds(), waiting)["changed"] is True
    assert len(aws.called("DeleteDBInstance")) == 3


def test_a_copy_that_is_being_deleted_already_is_asked_for_once(aws: ScriptedAws, waiting: Waiting) -> None:
    aws.script("DescribeDBInstances", shown(), shown(DBInstanceStatus="deleting"), {"DBInstances": []})
    aws.script("DeleteDBInstance", "InvalidDBInstanceState")
    assert ensure_absent(*PARAMS, aws.rds(), waiting)["changed"] is True
    assert len(aws.called("DeleteDBInstance")) == 1


def test_a_copy_that_is_renamed_while_it_is_busy_stays(aws: ScriptedAws, waiting: Waiting) -> None:
    aws.script("DescribeDBInstances", shown(), shown(DBInstanceIdentifier="shop"))
    aws.script("DeleteDBInstance", "InvalidDBInstanceState", {"DBInstance": {}})
    with pytest.raises(RecoveryError, match="renamed to shop meanwhile"):
        ensure_absent(*PARAMS, aws.rds(), waiting)
    assert len(aws.called("DeleteDBInstance")) == 1


def test_a_copy_that_stays_busy_ends_the_wait_with_what_aws_says(aws: ScriptedAws, waiting: Waiting) -> None:
    aws.script("DescribeDBInstances", shown())
    aws.script("DeleteDBInstance", "InvalidDBInstanceState")
    with pytest.raises(RecoveryError) as caught:
        ensure_absent(*PARAMS, aws.rds(), waiting)
    assert "removal of shop-side was not done" in caught.value.msg
    assert "(InvalidDBInstanceState)" in caught.value.msg


def test_a_final_snapshot_is_made_where_one_is_named(aws: ScriptedAws, waiting: Waiting) -> None:
    aws.script("DescribeDBInstances", shown(), {"DBInstances": []})
    aws.script("DeleteDBInstance", {"DBInstance": {}})
    ensure_absent(*PARAMS, aws.rds(), waiting, final_snapshot="shop-side-last")
    (asked,) = aws.called("DeleteDBInstance")
    assert (asked["SkipFinalSnapshot"], asked["FinalDBSnapshotIdentifier"]) == (False, "shop-side-last")


def test_a_removal_that_was_killed_waits_on(aws: ScriptedAws, waiting: Waiting) -> None:
    aws.script("DescribeDBInstances", shown(DBInstanceStatus="deleting"), {"DBInstances": []})
    assert ensure_absent(*PARAMS, aws.rds(), waiting)["changed"] is True
    assert aws.written() == []


def test_a_copy_that_is_gone_is_fine(aws: ScriptedAws, waiting: Waiting) -> None:
    aws.script("DescribeDBInstances", "DBInstanceNotFound")
    assert ensure_absent(*PARAMS, aws.rds(), waiting) == {"changed": False, "action": "none"}


def test_check_mode_deletes_nothing(aws: ScriptedAws, waiting: Waiting) -> None:
    aws.script("DescribeDBInstances", shown())
    assert ensure_absent(*PARAMS, aws.rds(), waiting, check_mode=True)["changed"] is True
    assert aws.written() == []


@pytest.mark.parametrize(
    ("changes", "incident", "said"),
    [
        ({"TagList": []}, "incident-7", "is no restored copy"),
        ({"TagList": [{"Key": "dbre:incident", "Value": "incident-7"}]}, "incident-7", "is no restored copy"),
        ({}, "incident-8", "was restored for incident incident-7, not for incident-8"),
        ({}, "", "not for (none)"),
        ({"DeletionProtection": True}, "incident-7", "--no-deletion-protection"),
        (
            {"TagList": tag_list({**ORIGIN.tags(), "dbre:restored-as": "shop-incident-7"})},
            "incident-7",
            "has taken a place in production",
        ),
    ],
)
@pytest.mark.parametrize("check_mode", [False, True])
def test_nothing_is_deleted_that_is_not_a_copy_of_this_incident_under_its_own_name(
    aws: ScriptedAws, waiting: Waiting, changes: dict[str, Any], incident: str, said: str, check_mode: bool
) -> None:
    aws.script("DescribeDBInstances", shown(**changes))
    with pytest.raises(RecoveryError) as caught:
        ensure_absent(INSTANCE, "shop-side", incident, aws.rds(), waiting, check_mode=check_mode)
    assert said in caught.value.msg
    assert "It was not touched." in caught.value.msg
    assert aws.written() == []


@pytest.mark.parametrize("status", ["failed", "incompatible-restore", "incompatible-network"])
def test_a_broken_copy_goes_only_without_a_final_snapshot(aws: ScriptedAws, waiting: Waiting, status: str) -> None:
    aws.script("DescribeDBInstances", shown(DBInstanceStatus=status))
    with pytest.raises(RecoveryError, match="Leave final_snapshot_identifier out"):
        ensure_absent(*PARAMS, aws.rds(), waiting, final_snapshot="last")
    assert aws.written() == []


def cluster(**changes: Any) -> dict[str, Any]:
    return {
        "DBClusters": [
            {
                "DBClusterIdentifier": "shop-side",
                "DbClusterResourceId": "cluster-SIDE",
                "Status": "available",
                "Engine": "aurora-postgresql",
                "DBClusterMembers": [{"DBInstanceIdentifier": f"shop-side-{number}"} for number in (1, 2, 3)],
                "TagList": tag_list(ORIGIN.tags()),
                **changes,
            }
        ]
    }


def member(number: int, status: str = "available") -> dict[str, Any]:
    identifier = f"shop-side-{number}"
    shown = {"DBInstanceIdentifier": identifier, "DbiResourceId": f"db-{number}", "DBInstanceStatus": status}
    return {"DBInstances": [shown]}


def test_an_aurora_cluster_goes_with_its_members(aws: ScriptedAws, waiting: Waiting) -> None:
    aws.script("DescribeDBClusters", cluster(), cluster(Status="deleting"), {"DBClusters": []})
    aws.script(
        "DescribeDBInstances",
        member(1),
        member(2, "deleting"),
        member(3),
    )
    aws.script("DeleteDBInstance", {"DBInstance": {}}, "DBInstanceNotFound")
    aws.script("DeleteDBCluster", {"DBCluster": {}})
    ensure_absent(CLUSTER, "shop-side", "incident-7", aws.rds(), waiting)
    assert [asked["DBInstanceIdentifier"] for asked in aws.called("DeleteDBInstance")] == ["shop-side-1", "shop-side-3"]
    assert aws.written()[-1] == "DeleteDBCluster"


def test_members_of_a_multi_az_cluster_are_left_to_aws(aws: ScriptedAws, waiting: Waiting) -> None:
    aws.script("DescribeDBClusters", cluster(Engine="postgres"), {"DBClusters": []})
    aws.script("DeleteDBCluster", {"DBCluster": {}})
    ensure_absent(CLUSTER, "shop-side", "incident-7", aws.rds(), waiting)
    assert aws.written() == ["DeleteDBCluster"]


def test_a_cluster_that_is_busy_is_deleted_when_aws_allows_it(aws: ScriptedAws, waiting: Waiting) -> None:
    aws.script("DescribeDBClusters", cluster(), cluster(), cluster(Status="deleting"), {"DBClusters": []})
    aws.script("DescribeDBInstances", *(member(number, "deleting") for number in (1, 2, 3)))
    aws.script("DeleteDBCluster", "InvalidDBClusterStateFault", {"DBCluster": {}})
    ensure_absent(CLUSTER, "shop-side", "incident-7", aws.rds(), waiting)
    assert aws.written() == ["DeleteDBCluster", "DeleteDBCluster"]
