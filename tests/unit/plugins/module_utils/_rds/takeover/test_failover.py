# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.takeover.failover import (
    ensure_cluster_failover,
    ensure_instance_failover,
    ensure_promotion,
)

STARTED = "Multi-AZ instance failover started."
COMPLETED = "Multi-AZ instance failover completed"
ABANDONED = "Abandoning user requested failover since a failover recently occurred on the database instance"


def instance(zone: str = "eu-central-1a", status: str = "available", name: str = "shop", **more: Any) -> dict[str, Any]:
    item = {
        "DBInstanceIdentifier": name,
        "DbiResourceId": "db-A",
        "DBInstanceStatus": status,
        "AvailabilityZone": zone,
        "MultiAZ": True,
        "Endpoint": {"Address": "shop.example.com", "Port": 5432},
        **more,
    }
    return {"DBInstances": [item]}


def told(here: Any, *messages: str, minutes: int = 60, source: str = "db-instance") -> None:
    """The next look at the events shows these, the oldest first."""
    found = [
        {
            "SourceIdentifier": "shop",
            "Message": message,
            "Date": datetime(2026, 11, 25, 3, number, tzinfo=timezone.utc),
        }
        for number, message in enumerate(messages)
    ]
    here.answers("describe_events", {"Events": found}, SourceIdentifier="shop", SourceType=source, Duration=minutes)


def fail_over(world: Any, here: Any, from_az: Optional[str] = None, check_mode: bool = False) -> dict[str, Any]:
    return ensure_instance_failover(here.rds, world.waiting, "shop", from_az, check_mode)


def test_a_failover_is_proved_by_another_zone_and_told_by_its_events(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    here.answers("describe_db_instances", instance())
    told(here, STARTED, COMPLETED)
    here.answers("reboot_db_instance", {}, DBInstanceIdentifier="shop", ForceFailover=True)
    here.answers("describe_db_instances", instance())
    told(here, STARTED, COMPLETED)
    here.answers("describe_db_instances", instance(status="rebooting"))
    here.answers("describe_db_instances", instance("eu-central-1b", "rebooting"))
    here.answers("describe_db_instances", instance("eu-central-1b"))
    told(here, STARTED, COMPLETED, STARTED)
    told(here, STARTED, COMPLETED, STARTED, COMPLETED)
    result = fail_over(world, here, from_az="eu-central-1a")
    assert result["changed"]
    assert result["proved"]
    assert result["kind"] == "multi_az_instance"
    assert result["before"] == {"availability_zone": "eu-central-1a"}
    assert result["after"] == {"availability_zone": "eu-central-1b"}
    assert 0 < result["seconds"] < world.clock.now
    assert [event["message"] for event in result["events"]] == [STARTED, COMPLETED]
    assert result["events"][0]["time"] == "2026-11-25T03:02:00+00:00"
    assert result["database"]["host"] == "shop.example.com"


def test_events_that_never_come_do_not_unprove_it(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    here.answers("describe_db_instances", instance())
    told(here)
    here.answers("reboot_db_instance", {})
    here.answers("describe_db_instances", instance("eu-central-1b"))
    world.waiting.sleep = lambda seconds: world.clock.sleep(30)
    for _again in range(3):
        told(here)
    result = fail_over(world, here)
    assert result["proved"]
    assert result["events"] == []


def test_a_second_run_of_the_same_incident_does_not_fail_over_back(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance("eu-central-1b", "rebooting"))
    here.answers("describe_db_instances", instance("eu-central-1b", "rebooting"))
    here.answers("describe_db_instances", instance("eu-central-1b"))
    told(here, STARTED, COMPLETED, "DB instance restarted", minutes=1440)
    result = fail_over(world, here, from_az="eu-central-1a")
    assert not result["changed"]
    assert result["proved"]
    assert [event["message"] for event in result["events"]] == [STARTED, COMPLETED]


def test_a_failover_that_aws_abandons_is_an_error_at_once(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    here.answers("describe_db_instances", instance())
    told(here, STARTED, COMPLETED)
    here.answers("reboot_db_instance", {})
    here.answers("describe_db_instances", instance())
    told(here, STARTED, COMPLETED, ABANDONED)
    told(here, STARTED, COMPLETED, ABANDONED)
    with pytest.raises(RecoveryError, match=r"AWS gave failover of shop up: Abandoning user requested") as error:
        fail_over(world, here)
    assert error.value.details["proved"] is False
    assert [event["message"] for event in error.value.details["events"]] == [ABANDONED]


def test_a_zone_that_does_not_change_is_an_error_and_no_success(world: Any, here: Any) -> None:
    world.waiting.timeout = 2.0
    here.answers("describe_db_instances", instance())
    here.answers("describe_db_instances", instance())
    told(here)
    here.answers("reboot_db_instance", {})
    here.answers("describe_db_instances", instance(status="rebooting"))
    here.answers("describe_db_instances", instance())
    told(here, STARTED)
    told(here, STARTED)
    with pytest.raises(RecoveryError, match=r"available in eu-central-1a.*not proved.*not known to be in another"):
        fail_over(world, here)


def test_a_database_that_is_busy_is_waited_for_before_the_call(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance(status="backing-up"))
    here.answers("describe_db_instances", instance(status="backing-up"))
    here.answers("describe_db_instances", instance())
    told(here)
    here.refuses("reboot_db_instance", "InvalidDBInstanceState")
    here.answers("reboot_db_instance", {})
    here.refuses("describe_db_instances", "DBInstanceNotFound")
    here.answers("describe_db_instances", instance("eu-central-1b"))
    told(here, COMPLETED)
    assert fail_over(world, here)["proved"]


@pytest.mark.parametrize("check_mode", [True, False])
def test_an_instance_in_one_zone_is_refused_before_the_call(world: Any, here: Any, check_mode: bool) -> None:
    for _again in range(1 if check_mode else 2):
        here.answers("describe_db_instances", instance(MultiAZ=False))
    with pytest.raises(RecoveryError, match="is not Multi-AZ"):
        fail_over(world, here, check_mode=check_mode)


def test_a_member_of_a_cluster_is_refused_with_the_cluster(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance(DBClusterIdentifier="shop-aurora"))
    with pytest.raises(RecoveryError, match="Give db_cluster_identifier shop-aurora"):
        fail_over(world, here)


def test_check_mode_fails_nothing_over(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", instance())
    result = fail_over(world, here, check_mode=True)
    assert result["changed"]
    assert not result["proved"]
    assert result["before"] == {"availability_zone": "eu-central-1a"}
    here.answers("describe_db_instances", instance("eu-central-1b"))
    told(here, minutes=1440)
    assert not fail_over(world, here, from_az="eu-central-1a", check_mode=True)["changed"]


def cluster(
    writer: str = "shop-1",
    status: str = "available",
    members: tuple[str, ...] = ("shop-1", "shop-2", "shop-3"),
    engine: str = "aurora-postgresql",
) -> dict[str, Any]:
    item = {
        "DBClusterIdentifier": "shop",
        "DbClusterResourceId": "cluster-A",
        "Status": status,
        "Engine": engine,
        "Endpoint": "shop.cluster.example.com",
        "Port": 5432,
        "DBClusterMembers": [{"DBInstanceIdentifier": name, "IsClusterWriter": name == writer} for name in members],
    }
    return {"DBClusters": [item]}


def fail_cluster_over(
    world: Any,
    here: Any,
    target: Optional[str] = None,
    writer_not: Optional[str] = None,
    check_mode: bool = False,
) -> dict[str, Any]:
    return ensure_cluster_failover(here.rds, world.waiting, "shop", target, writer_not, check_mode)


def cluster_is_ready(here: Any, **how: Any) -> None:
    here.answers("describe_db_clusters", cluster(**how), DBClusterIdentifier="shop")
    filters = [{"Name": "db-cluster-resource-id", "Values": ["cluster-A"]}]
    here.answers("describe_db_clusters", cluster(**how), Filters=filters)


@pytest.mark.parametrize(
    ("engine", "kind"), [("aurora-postgresql", "aurora_cluster"), ("postgres", "multi_az_cluster")]
)
def test_another_member_writes(world: Any, here: Any, engine: str, kind: str) -> None:
    cluster_is_ready(here, engine=engine)
    here.answers("describe_db_instances", instance(name="shop-2"), DBInstanceIdentifier="shop-2")
    told(here, source="db-cluster")
    here.answers("failover_db_cluster", {}, DBClusterIdentifier="shop", TargetDBInstanceIdentifier="shop-2")
    here.answers("describe_db_clusters", cluster())
    told(here, source="db-cluster")
    here.answers("describe_db_clusters", cluster(status="failing-over"))
    here.answers("describe_db_clusters", cluster("shop-2"))
    here.answers("describe_db_instances", instance(status="rebooting"), DBInstanceIdentifier="shop-2")
    here.answers("describe_db_clusters", cluster("shop-2", engine=engine))
    here.answers("describe_db_instances", instance())
    told(here, "Started cross AZ failover to DB instance: shop-2", "Completed failover to DB instance: shop-2",
         source="db-cluster")  # fmt: skip
    result = fail_cluster_over(world, here, "shop-2", "shop-1")
    assert result["changed"]
    assert result["proved"]
    assert result["kind"] == kind
    assert result["before"] == {"writer": "shop-1"}
    assert result["after"] == {"writer": "shop-2"}
    assert result["seconds"] > 0
    assert len(result["events"]) == 2
    assert result["database"]["host"] == "shop.cluster.example.com"


def test_without_a_target_aws_chooses_among_members_that_are_there(world: Any, here: Any) -> None:
    cluster_is_ready(here)
    here.answers("describe_db_instances", instance(status="creating"), DBInstanceIdentifier="shop-2")
    here.answers("describe_db_instances", instance(), DBInstanceIdentifier="shop-3")
    told(here, source="db-cluster")
    here.refuses("failover_db_cluster", "InvalidDBClusterStateFault")
    here.answers("failover_db_cluster", {}, DBClusterIdentifier="shop")
    here.answers("describe_db_clusters", cluster("shop-3"))
    here.answers("describe_db_instances", instance())
    told(here, "Completed failover to DB instance: shop-3", source="db-cluster")
    assert fail_cluster_over(world, here)["after"] == {"writer": "shop-3"}


@pytest.mark.parametrize(("target", "writer_not"), [("shop-2", None), (None, "shop-1"), ("shop-3", "shop-1")])
def test_where_another_one_writes_already_nothing_is_done(
    world: Any, here: Any, target: Optional[str], writer_not: Optional[str]
) -> None:
    cluster_is_ready(here, writer="shop-2")
    told(here, source="db-cluster", minutes=1440)
    result = fail_cluster_over(world, here, target, writer_not)
    assert not result["changed"]
    assert result["proved"]
    assert result["after"] == {"writer": "shop-2"}


def test_a_failover_to_another_one_than_the_target_is_said(world: Any, here: Any) -> None:
    cluster_is_ready(here)
    here.answers("describe_db_instances", instance())
    told(here, source="db-cluster")
    here.answers("failover_db_cluster", {})
    here.answers("describe_db_clusters", cluster("shop-3"))
    told(here, source="db-cluster")
    with pytest.raises(RecoveryError, match="went to shop-3 instead of shop-2"):
        fail_cluster_over(world, here, "shop-2")


def test_a_failover_that_failed_is_said_with_aws_own_words(world: Any, here: Any) -> None:
    failed = "Cluster failover failed, check the health of your cluster instances and try again"
    cluster_is_ready(here)
    here.answers("describe_db_instances", instance())
    told(here, source="db-cluster")
    here.answers("failover_db_cluster", {})
    here.answers("describe_db_clusters", cluster())
    told(here, failed, source="db-cluster")
    told(here, failed, source="db-cluster")
    with pytest.raises(RecoveryError, match="check the health of your cluster instances"):
        fail_cluster_over(world, here, "shop-2")


def test_a_target_that_is_no_member_is_refused_with_the_members(world: Any, here: Any) -> None:
    here.answers("describe_db_clusters", cluster())
    with pytest.raises(RecoveryError, match=r"shop-9 is no member .*shop-1, shop-2, shop-3, its writer shop-1"):
        fail_cluster_over(world, here, "shop-9", check_mode=True)


def test_a_cluster_of_one_is_refused(world: Any, here: Any) -> None:
    here.answers("describe_db_clusters", cluster(members=("shop-1",)))
    with pytest.raises(RecoveryError, match="no member beside its writer shop-1"):
        fail_cluster_over(world, here, check_mode=True)


def test_members_that_are_not_available_are_refused(world: Any, here: Any) -> None:
    here.answers("describe_db_clusters", cluster())
    here.answers("describe_db_instances", instance(status="storage-full"))
    here.refuses("describe_db_instances", "DBInstanceNotFound")
    with pytest.raises(RecoveryError, match="shop-2 is storage-full, shop-3 is missing"):
        fail_cluster_over(world, here, check_mode=True)


def test_check_mode_fails_no_cluster_over(world: Any, here: Any) -> None:
    here.answers("describe_db_clusters", cluster())
    here.answers("describe_db_instances", instance())
    result = fail_cluster_over(world, here, "shop-2", check_mode=True)
    assert result["changed"]
    assert result["after"] is None


SOURCE = "arn:aws:rds:eu-west-1:123456789012:db:shop-main"
LAGGING = {"StatusType": "read replication", "Status": "error", "Normal": False, "Message": "no connection"}


def replica(source: Optional[str] = SOURCE, status: str = "available", days: int = 0, **more: Any) -> dict[str, Any]:
    sources = {"ReadReplicaSourceDBInstanceIdentifier": source} if source else {}
    return instance(status=status, MultiAZ=False, BackupRetentionPeriod=days, **sources, **more)


def promote(
    world: Any,
    here: Any,
    replica_of: Optional[str] = None,
    retention: Optional[int] = None,
    check_mode: bool = False,
) -> dict[str, Any]:
    return ensure_promotion(here.rds, world.waiting, "shop", replica_of, retention, check_mode)


def test_a_replica_whose_source_is_lost_becomes_a_database_with_backups(world: Any, here: Any) -> None:
    promoted = "Promoted Read Replica instance to a stand-alone database instance"
    here.answers("describe_db_instances", replica(status="backing-up", StatusInfos=[LAGGING]))
    here.answers("describe_db_instances", replica(status="backing-up"))
    here.answers("describe_db_instances", replica())
    told(here)
    here.refuses("promote_read_replica", "InvalidDBInstanceState")
    here.answers("promote_read_replica", {}, DBInstanceIdentifier="shop", BackupRetentionPeriod=7)
    here.answers("describe_db_instances", replica())
    here.answers("describe_db_instances", replica(None, "modifying"))
    here.answers("describe_db_instances", replica(None))
    here.answers("describe_db_instances", replica(None, "backing-up", days=7))
    here.answers("describe_db_instances", replica(None, days=7))
    told(here, promoted)
    result = promote(world, here, replica_of="shop-main")
    assert result["changed"]
    assert result["proved"]
    assert result["kind"] == "read_replica"
    assert result["before"] == {"source": SOURCE}
    assert result["after"] == {"source": None, "backup_retention_period": 7}
    assert result["replication"] == {"status": "error", "normal": False, "message": "no connection"}
    assert [event["message"] for event in result["events"]] == [promoted]


@pytest.mark.parametrize(("days", "retention", "wanted"), [(14, None, 14), (14, 3, 3), (0, None, 7), (0, 0, 0)])
def test_backups_are_kept_as_asked_or_as_they_were(
    world: Any, here: Any, days: int, retention: Optional[int], wanted: int
) -> None:
    here.answers("describe_db_instances", replica(days=days))
    here.answers("describe_db_instances", replica(days=days))
    told(here)
    here.answers("promote_read_replica", {}, DBInstanceIdentifier="shop", BackupRetentionPeriod=wanted)
    here.answers("describe_db_instances", replica(None, days=wanted))
    told(here, "Promoted Read Replica instance")
    assert promote(world, here, retention=retention)["after"]["backup_retention_period"] == wanted


def test_a_second_run_finds_it_promoted(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", replica(None, "modifying", days=7))
    here.answers("describe_db_instances", replica(None, "modifying", days=7))
    here.answers("describe_db_instances", replica(None, days=7))
    told(here, minutes=1440)
    result = promote(world, here, replica_of=SOURCE)
    assert not result["changed"]
    assert result["proved"]
    assert result["before"] == {"source": SOURCE}


def test_what_is_no_replica_is_refused(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", replica(None))
    with pytest.raises(RecoveryError, match="is no read replica"):
        promote(world, here)


def test_a_replica_of_another_source_is_refused(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", replica())
    with pytest.raises(RecoveryError, match="not of accounts"):
        promote(world, here, replica_of="accounts")


def test_a_member_of_a_cluster_is_no_replica_to_promote(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", replica(None, DBClusterIdentifier="shop-aurora"))
    with pytest.raises(RecoveryError, match="Give db_cluster_identifier shop-aurora and target shop"):
        promote(world, here)


def test_a_promotion_that_does_not_end_is_not_proved(world: Any, here: Any) -> None:
    world.waiting.timeout = 2.0
    here.answers("describe_db_instances", replica())
    here.answers("describe_db_instances", replica())
    told(here)
    here.answers("promote_read_replica", {})
    for _again in range(2):
        here.answers("describe_db_instances", replica())
    told(here)
    with pytest.raises(RecoveryError, match=r"replica of arn:aws:rds:eu-west-1.*It is not proved"):
        promote(world, here)


def test_check_mode_promotes_nothing(world: Any, here: Any) -> None:
    here.answers("describe_db_instances", replica())
    result = promote(world, here, check_mode=True)
    assert result["changed"]
    assert result["before"] == {"source": SOURCE}
