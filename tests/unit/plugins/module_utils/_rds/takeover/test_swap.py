# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import CLUSTER, INSTANCE, Kind
from ansible_collections.dbre.recovery.plugins.module_utils._rds.takeover.swap import Names, Swap, ensure_swap
from botocore.exceptions import ClientError

NAMES = Names("shop", "shop-restored", "shop-damaged")


def one(resource_id: str, name: str, status: str = "available", protected: bool = False, **more: Any) -> dict[str, Any]:
    return {
        "DBInstanceIdentifier": name,
        "DbiResourceId": resource_id,
        "DBInstanceStatus": status,
        "Endpoint": {"Address": f"{name}.example.com", "Port": 5432},
        "DeletionProtection": protected,
        **more,
    }


class Story:
    """What AWS is asked and answers, told in the order of a swap of instances."""

    def __init__(self, here: Any) -> None:
        self.here = here

    def by_id(self, resource_id: str, name: Optional[str], status: str = "available", **more: Any) -> None:
        """A look by resource id; a name of None means that AWS does not find it."""
        found = [one(resource_id, name, status, **more)] if name else []
        filters = [{"Name": "dbi-resource-id", "Values": [resource_id]}]
        self.here.answers("describe_db_instances", {"DBInstances": found}, Filters=filters)

    def by_name(self, name: str, found: Optional[dict[str, Any]] = None) -> None:
        self.here.answers("describe_db_instances", {"DBInstances": [found] if found else []}, DBInstanceIdentifier=name)

    def old(self, name: Optional[str], status: str = "available", **more: Any) -> None:
        self.by_id("db-OLD", name, status, **more)

    def new(self, name: Optional[str], status: str = "available", **more: Any) -> None:
        self.by_id("db-NEW", name, status, **more)

    def rename(self, old: str, new: str) -> None:
        self.here.answers(
            "modify_db_instance",
            {},
            DBInstanceIdentifier=old,
            NewDBInstanceIdentifier=new,
            ApplyImmediately=True,
        )

    def protect(self, name: str, wanted: bool = True) -> None:
        self.here.answers("modify_db_instance", {}, DBInstanceIdentifier=name, DeletionProtection=wanted)

    def no_proxies(self) -> None:
        self.here.answers("describe_db_proxies", {"DBProxies": []})

    def no_events(self) -> None:
        for name in ("shop", "shop-damaged", "shop-restored"):
            self.here.answers(
                "describe_events", {"Events": []}, SourceIdentifier=name, SourceType="db-instance", Duration=60
            )

    def prepared(self) -> None:
        """Everything before the first rename, where both are available."""
        self.old("shop")
        self.new("shop-restored")
        self.no_proxies()
        self.old("shop")
        self.new("shop-restored")
        self.by_name("shop-damaged")
        self.old("shop")
        self.new("shop-restored")

    def renamed(self) -> None:
        """The first rename."""
        self.rename("shop", "shop-damaged")
        self.old("shop-damaged")

    def kept_is_protected(self) -> None:
        self.protect("shop-damaged")
        self.old("shop-damaged", protected=True)
        self.no_events()


@pytest.fixture
def story(here: Any) -> Story:
    return Story(here)


def swap(world: Any, here: Any, kind: Kind = INSTANCE, ids: bool = True) -> Swap:
    given = ("db-OLD", "db-NEW") if ids else (None, None)
    return Swap(here.rds, world.waiting, kind, NAMES, *given)


def test_production_is_kept_and_the_restored_database_takes_its_name(world: Any, here: Any, story: Story) -> None:
    here.answers("describe_db_instances", {"DBInstances": [one("db-OLD", "shop")]}, DBInstanceIdentifier="shop")
    story.by_name("shop-restored", one("db-NEW", "shop-restored"))
    story.no_proxies()
    story.old("shop", "backing-up")
    story.old("shop")
    story.new("shop-restored", "modifying")
    story.new("shop-restored")
    story.by_name("shop-damaged")
    story.old("shop")
    story.new("shop-restored")
    story.rename("shop", "shop-damaged")
    # A status of available under the old name, then nothing at all, then the new name while it still works on it.
    story.old("shop", PendingModifiedValues={"DBInstanceIdentifier": "shop-damaged"})
    story.old(None)
    story.old("shop-damaged", "renaming")
    story.old("shop-damaged", PendingModifiedValues={"DBInstanceIdentifier": "shop-damaged"})
    story.old("shop-damaged")
    story.rename("shop-restored", "shop")
    story.new("shop-restored")
    story.new("shop", "rebooting")
    story.new("shop")
    story.kept_is_protected()
    result = ensure_swap(swap(world, here, ids=False), False)
    assert result["changed"]
    assert [step["step"] for step in result["steps"]] == [
        "shop renamed to shop-damaged",
        "shop-restored renamed to shop",
        "deletion protection of shop-damaged on",
    ]
    assert result["production"]["resource_id"] == "db-NEW"
    assert result["production"]["host"] == "shop.example.com"
    assert result["production"]["port"] == 5432
    assert result["kept"]["identifier"] == "shop-damaged"
    assert result["kept"]["deletion_protection"]
    assert result["outage_seconds"] == sum(step["seconds"] for step in result["steps"][:2]) > 0
    assert result["undo"] == {
        "db_instance_identifier": "shop",
        "replacement_identifier": "shop-damaged",
        "kept_identifier": "shop-restored",
        "resource_id": "db-NEW",
        "replacement_resource_id": "db-OLD",
    }


def test_the_new_one_gets_the_deletion_protection_that_production_had(world: Any, here: Any, story: Story) -> None:
    story.old("shop", protected=True)
    story.new("shop-restored")
    story.no_proxies()
    story.old("shop", protected=True)
    story.new("shop-restored")
    story.by_name("shop-damaged")
    story.protect("shop-restored")
    story.new("shop-restored", "modifying")
    story.new("shop-restored", protected=True)
    story.old("shop", protected=True)
    story.new("shop-restored", protected=True)
    story.rename("shop", "shop-damaged")
    story.old("shop-damaged", protected=True)
    story.rename("shop-restored", "shop")
    story.new("shop", protected=True)
    story.no_events()
    result = ensure_swap(swap(world, here), False)
    assert result["plan"][0] == "deletion protection of shop-restored on, as production has"
    assert result["production"]["deletion_protection"]


def test_a_run_killed_after_the_first_rename_goes_on_with_the_second(world: Any, here: Any, story: Story) -> None:
    story.old("shop-damaged")
    story.new("shop-restored")
    story.no_proxies()
    story.old("shop-damaged")
    story.rename("shop-restored", "shop")
    story.new("shop")
    story.kept_is_protected()
    result = ensure_swap(swap(world, here), False)
    assert result["changed"]
    assert [step["changed"] for step in result["steps"]] == [False, True, True]
    assert result["outage_seconds"] is None


def test_a_rename_that_is_under_way_is_waited_for_and_not_asked_again(world: Any, here: Any, story: Story) -> None:
    story.old("shop", "renaming", PendingModifiedValues={"DBInstanceIdentifier": "shop-damaged"})
    story.new("shop-restored")
    story.no_proxies()
    story.old("shop", "renaming", PendingModifiedValues={"DBInstanceIdentifier": "shop-damaged"})
    story.old("shop-damaged")
    story.rename("shop-restored", "shop")
    story.new("shop")
    story.kept_is_protected()
    assert [step["changed"] for step in ensure_swap(swap(world, here), False)["steps"]] == [False, True, True]


def test_a_swap_that_is_done_changes_nothing(world: Any, here: Any, story: Story) -> None:
    story.old("shop-damaged", protected=True)
    story.new("shop")
    story.no_proxies()
    story.old("shop-damaged", protected=True)
    story.new("shop")
    story.no_events()
    result = ensure_swap(swap(world, here), False)
    assert not result["changed"]
    assert result["plan"] == []


def test_a_database_that_aws_does_not_find_right_after_a_rename_is_waited_for(
    world: Any, here: Any, story: Story
) -> None:
    story.old(None)
    story.old(None)
    story.old("shop-damaged", protected=True)
    here.refuses("describe_db_instances", "DBInstanceNotFound")
    story.new("shop")
    story.no_proxies()
    story.old("shop-damaged", protected=True)
    story.new("shop")
    story.no_events()
    assert not ensure_swap(swap(world, here), False)["changed"]


def test_a_call_made_twice_because_its_answer_got_lost_is_no_error(world: Any, here: Any, story: Story) -> None:
    story.prepared()
    here.refuses("modify_db_instance", "DBInstanceNotFound")
    story.old("shop-damaged", "renaming")
    story.old("shop-damaged")
    here.refuses("modify_db_instance", "InvalidDBInstanceState")
    story.new("shop-restored", "renaming", PendingModifiedValues={"DBInstanceIdentifier": "shop"})
    story.new("shop")
    story.kept_is_protected()
    assert ensure_swap(swap(world, here), False)["changed"]


def test_a_backup_that_begins_before_the_rename_is_waited_for(world: Any, here: Any, story: Story) -> None:
    story.prepared()
    here.refuses("modify_db_instance", "InvalidDBInstanceState", "Instance shop is backing up")
    story.old("shop", "backing-up")
    story.renamed()
    story.rename("shop-restored", "shop")
    story.new("shop")
    story.kept_is_protected()
    assert ensure_swap(swap(world, here), False)["changed"]


def test_when_aws_refuses_the_second_rename_production_gets_its_name_back(world: Any, here: Any, story: Story) -> None:
    story.prepared()
    story.renamed()
    here.refuses("modify_db_instance", "DBInstanceAlreadyExists", "DB instance already exists")
    story.rename("shop-damaged", "shop")
    story.old("shop-damaged", "renaming")
    story.old("shop")
    with pytest.raises(
        RecoveryError, match=r"already exists.*turned back: shop is the old database \(db-OLD\)"
    ) as error:
        ensure_swap(swap(world, here), False)
    assert error.value.details["undone"] is True
    assert len(error.value.details["steps"]) == 2


def test_a_second_rename_that_aws_keeps_putting_off_is_turned_back_after_ten_minutes(
    world: Any, here: Any, story: Story
) -> None:
    world.waiting.timeout = 7200.0
    story.prepared()
    story.renamed()

    for _again in range(2):
        here.refuses("modify_db_instance", "InvalidDBInstanceState", "Instance is upgrading")
        story.new("shop-restored", "upgrading")
    story.rename("shop-damaged", "shop")
    story.old("shop")
    world.waiting.sleep = lambda seconds: world.clock.sleep(600)
    with pytest.raises(RecoveryError, match=r"Instance is upgrading.*turned back") as error:
        ensure_swap(swap(world, here), False)
    assert error.value.details["undone"] is True


def test_when_turning_back_fails_too_the_error_says_the_state_and_the_command(
    world: Any, here: Any, story: Story
) -> None:
    story.prepared()
    story.renamed()
    here.refuses("modify_db_instance", "DBInstanceAlreadyExists")
    here.refuses("modify_db_instance", "DBInstanceAlreadyExists")
    with pytest.raises(RecoveryError) as error:
        ensure_swap(swap(world, here), False)
    for words in (
        "db-OLD) is whole and called shop-damaged",
        "db-NEW) is whole and called shop-restored",
        "--db-instance-identifier shop-damaged --new-db-instance-identifier shop --apply-immediately --region eu-c",
    ):
        assert words in error.value.msg
    assert error.value.details["undone"] is False


def test_when_aws_refuses_the_first_rename_nothing_has_changed(world: Any, here: Any, story: Story) -> None:
    story.prepared()
    here.refuses("modify_db_instance", "AccessDenied")
    with pytest.raises(ClientError, match="AccessDenied"):
        ensure_swap(swap(world, here), False)


def test_a_rename_that_takes_too_long_is_left_to_aws(world: Any, here: Any, story: Story) -> None:
    world.waiting.timeout = 3.0
    story.prepared()
    story.rename("shop", "shop-damaged")
    for _again in range(3):
        story.old("shop", "renaming")
    with pytest.raises(RecoveryError, match=r"AWS goes on with it. Both databases are whole.*Run the same again"):
        ensure_swap(swap(world, here), False)


def test_a_status_that_leads_nowhere_after_the_rename_is_said(world: Any, here: Any, story: Story) -> None:
    story.prepared()
    story.renamed()
    story.rename("shop-restored", "shop")
    story.new("shop", "incompatible-network")
    with pytest.raises(RecoveryError, match="subnet group has no free addresses"):
        ensure_swap(swap(world, here), False)


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_kept_name_that_is_taken_stops_everything(world: Any, here: Any, story: Story, check_mode: bool) -> None:
    story.old("shop")
    story.new("shop-restored")
    if not check_mode:
        story.no_proxies()
        story.old("shop")
        story.new("shop-restored")
    story.by_name("shop-damaged", one("db-OTHER", "shop-damaged"))
    with pytest.raises(RecoveryError, match=r"shop-damaged is taken .*db-OTHER"):
        ensure_swap(swap(world, here), check_mode)


@pytest.mark.parametrize("check_mode", [True, False])
def test_modifications_that_the_rename_would_apply_stop_everything(
    world: Any, here: Any, story: Story, check_mode: bool
) -> None:
    pending = {"PendingModifiedValues": {"EngineVersion": "18.1"}}
    story.old("shop", **pending)
    story.new("shop-restored")
    if check_mode:
        story.by_name("shop-damaged")
    else:
        story.no_proxies()
        story.old("shop", **pending)
    with pytest.raises(RecoveryError, match=r"shop has modifications pending \(EngineVersion\)"):
        ensure_swap(swap(world, here), check_mode)


def test_a_database_that_is_stopped_is_not_swapped(world: Any, here: Any, story: Story) -> None:
    story.old("shop")
    story.new("shop-restored", "stopped")
    story.by_name("shop-damaged")
    with pytest.raises(RecoveryError, match="it is stopped"):
        ensure_swap(swap(world, here), True)


def test_without_resource_ids_a_half_done_swap_says_what_it_needs(world: Any, here: Any, story: Story) -> None:
    story.by_name("shop")
    with pytest.raises(RecoveryError, match=r"no DB instance shop .*resource_id, replacement_resource_id"):
        ensure_swap(swap(world, here, ids=False), False)


def test_a_resource_id_that_belongs_to_nobody_is_said(world: Any, here: Any, story: Story) -> None:
    world.waiting.sleep = lambda seconds: setattr(world.clock, "now", world.clock.now + 61)
    story.old(None)
    story.old(None)
    with pytest.raises(RecoveryError, match="no DB instance with resource_id db-OLD"):
        ensure_swap(swap(world, here), False)


def test_names_that_are_none_of_a_swap_are_left_alone(world: Any, here: Any, story: Story) -> None:
    story.old("accounts")
    story.new("shop-restored")
    with pytest.raises(RecoveryError, match=r"db-OLD\) is called accounts") as error:
        ensure_swap(swap(world, here), True)
    assert error.value.details == {"old": "accounts", "new": "shop-restored"}


def test_one_database_cannot_be_swapped_with_itself(world: Any, here: Any, story: Story) -> None:
    story.by_name("shop", one("db-OLD", "shop"))
    story.by_name("shop-restored", one("db-OLD", "shop"))
    with pytest.raises(RecoveryError, match="the same DB instance"):
        ensure_swap(swap(world, here, ids=False), True)


@pytest.mark.parametrize("names", [Names("shop", "shop", "kept"), Names("shop", "new", "SHOP"), Names("a", "b_c", "d")])
def test_names_are_refused_before_any_call(world: Any, here: Any, names: Names) -> None:
    with pytest.raises(RecoveryError, match="Nothing was changed"):
        Swap(here.rds, world.waiting, INSTANCE, names)


def test_check_mode_says_what_would_be_done_and_does_nothing(world: Any, here: Any, story: Story) -> None:
    story.old("shop", ReadReplicaDBInstanceIdentifiers=["shop-replica"])
    story.new("shop-restored", protected=True)
    story.by_name("shop-damaged")
    here.answers("describe_db_proxies", {"DBProxies": [{"DBProxyName": "front"}, {"DBProxyName": "other"}]})
    here.answers("describe_db_proxy_targets", {"Targets": [{"RdsResourceId": "shop"}]}, DBProxyName="front")
    here.answers("describe_db_proxy_targets", {"Targets": [{"RdsResourceId": "x"}]}, DBProxyName="other")
    result = ensure_swap(swap(world, here), True)
    assert result["changed"]
    assert result["plan"] == [
        "deletion protection of shop-restored off, as production has",
        "shop (db-OLD) becomes shop-damaged",
        "shop-restored (db-NEW) becomes shop",
        "deletion protection of shop-damaged on",
    ]
    assert result["renamed"] == 0
    assert result["replicas_left"] == ["shop-replica"]
    assert result["proxies"] == ["front"]
    assert "read replica shop-replica stays with the old database" in result["notes"][0]
    assert "RDS Proxy front" in result["notes"][1]


def test_credentials_that_may_not_ask_for_proxies_do_not_stop_the_swap(world: Any, here: Any, story: Story) -> None:
    story.old("shop-damaged", protected=True)
    story.new("shop")
    here.refuses("describe_db_proxies", "AccessDenied")
    result = ensure_swap(swap(world, here), True)
    assert result["proxies"] is None
    assert not result["changed"]
    assert result["renamed"] == 2


def test_a_replica_in_another_region_is_told_with_the_command_that_makes_it_again(
    world: Any, here: Any, story: Story
) -> None:
    far = "arn:aws:rds:eu-west-1:123456789012:db:shop-far"
    story.old("shop-damaged", protected=True, ReadReplicaDBInstanceIdentifiers=[far])
    story.new("shop")
    here.answers("describe_db_proxies", {"DBProxies": []})
    (note,) = ensure_swap(swap(world, here), True)["notes"]
    source = f"arn:aws:rds:{here.rds.region}:123456789012:db:shop"
    assert f"--source-db-instance-identifier {source} --region eu-west-1 --source-region {here.rds.region}" in note


def test_a_cluster_takes_the_name_and_its_instances_keep_theirs(world: Any, here: Any) -> None:
    def cluster(resource_id: str, name: str, status: str = "available", protected: bool = True) -> dict[str, Any]:
        member = {"DBInstanceIdentifier": f"{resource_id[-3:].lower()}-1", "IsClusterWriter": True}
        item = {
            "DBClusterIdentifier": name,
            "DbClusterResourceId": resource_id,
            "Status": status,
            "Endpoint": f"{name}.cluster.example.com",
            "Port": 5432,
            "DeletionProtection": protected,
            "DBClusterMembers": [member],
            "CustomEndpoints": [f"reports.cluster-custom-{resource_id[-3:].lower()}.example.com"],
        }
        return {"DBClusters": [item]}

    def seen(resource_id: str, *state: str) -> None:
        filters = [{"Name": "db-cluster-resource-id", "Values": [resource_id]}]
        here.answers("describe_db_clusters", cluster(resource_id, *state), Filters=filters)

    seen("cluster-OLD", "shop")
    seen("cluster-NEW", "shop-restored")
    here.answers("describe_db_proxies", {"DBProxies": []})
    seen("cluster-OLD", "shop")
    seen("cluster-NEW", "shop-restored")
    here.refuses("describe_db_clusters", "DBClusterNotFoundFault")
    seen("cluster-OLD", "shop")
    seen("cluster-NEW", "shop-restored")
    here.answers(
        "modify_db_cluster",
        {},
        DBClusterIdentifier="shop",
        NewDBClusterIdentifier="shop-damaged",
        ApplyImmediately=True,
    )
    seen("cluster-OLD", "shop-damaged", "renaming")
    seen("cluster-OLD", "shop-damaged")
    here.answers("modify_db_cluster", {})
    seen("cluster-NEW", "shop")
    for _again in range(3):
        here.refuses("describe_events", "InvalidParameterValue")
    swapping = Swap(here.rds, world.waiting, CLUSTER, NAMES, "cluster-OLD", "cluster-NEW")
    result = ensure_swap(swapping, False)
    assert result["production"]["host"] == "shop.cluster.example.com"
    assert result["production"]["port"] == 5432
    assert result["instance_endpoints"] == {"production": ["new-1"], "kept": ["old-1"]}
    assert "whoever connects to reports.cluster-custom-old.example.com still reads and writes" in result["notes"][0]
    assert "whoever connects to old-1 directly" in result["notes"][1]
    assert result["undo"]["db_cluster_identifier"] == "shop"
    assert result["events"] == []
