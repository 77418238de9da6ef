# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import ClientError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Waiting
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.isolate import isolated_parameters
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.parameter_group import ParameterGroup, Wanted
from ansible_collections.dbre.recovery.tests.unit.plugins.module_utils._rds.scripted import ScriptedAws


def parameter(name: str, value: Optional[str] = None, source: str = "system", **more: Any) -> dict[str, Any]:
    made = {"ParameterName": name, "Source": source, "ApplyType": "dynamic", "IsModifiable": True, **more}
    return made if value is None else {**made, "ParameterValue": value}


SHOP = [
    parameter("max_logical_replication_workers", ApplyType="static"),
    parameter("shared_preload_libraries", "pg_stat_statements,pg_cron", "user", ApplyType="static"),
    parameter("work_mem", "8192", "user"),
    parameter("autovacuum", "1"),
    parameter("rds.extensions", "many", IsModifiable=False),
]
WANTED = Wanted(source="shop-17", isolate=True)


class Groups:
    """An AWS with the parameter group shop-17 and whatever is made of it."""

    def __init__(self, aws: ScriptedAws, **more: list[dict[str, Any]]) -> None:
        self.groups = {"shop-17": [dict(item) for item in SHOP], "default.postgres17": [], **more}
        self.tags: dict[str, list[dict[str, str]]] = {}
        self.shown_late = 0
        aws.script("DescribeDBParameterGroups", self.describe)
        aws.script("DescribeDBParameters", self.parameters)
        aws.script("CopyDBParameterGroup", self.copy)
        aws.script("CreateDBParameterGroup", self.create)
        aws.script("ModifyDBParameterGroup", self.modify)
        aws.script("DeleteDBParameterGroup", self.delete)
        aws.script("ListTagsForResource", lambda asked: {"TagList": self.tags.get(asked["ResourceName"][3:], [])})
        aws.script("AddTagsToResource", self.add_tags)

    def describe(self, asked: dict[str, Any]) -> Any:
        name = asked["DBParameterGroupName"]
        if name not in self.groups:
            return "DBParameterGroupNotFound"
        shown = {
            "DBParameterGroupName": name,
            "DBParameterGroupFamily": "postgres17",
            "DBParameterGroupArn": f"pg:{name}",
        }
        return {"DBParameterGroups": [shown]}

    def parameters(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked.get("Source") == "user" and self.shown_late:
            self.shown_late -= 1
            return {"Parameters": []}
        source = asked.get("Source")
        found = self.groups[asked["DBParameterGroupName"]]
        return {"Parameters": [dict(item) for item in found if source in (None, item["Source"])]}

    def copy(self, asked: dict[str, Any]) -> dict[str, Any]:
        source, name = asked["SourceDBParameterGroupIdentifier"], asked["TargetDBParameterGroupIdentifier"]
        self.groups[name] = [dict(item) for item in self.groups[source]]
        self.tags[name] = asked["Tags"]
        return {}

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.groups[asked["DBParameterGroupName"]] = [{**item, "Source": "system"} for item in SHOP]
        self.tags[asked["DBParameterGroupName"]] = asked["Tags"]
        return {}

    def modify(self, asked: dict[str, Any]) -> dict[str, Any]:
        for change in asked["Parameters"]:
            for item in self.groups[asked["DBParameterGroupName"]]:
                if item["ParameterName"] == change["ParameterName"]:
                    item.update(ParameterValue=change["ParameterValue"], Source="user")
        return {}

    def delete(self, asked: dict[str, Any]) -> dict[str, Any]:
        del self.groups[asked["DBParameterGroupName"]]
        return {}

    def add_tags(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.tags.setdefault(asked["ResourceName"][3:], []).extend(asked["Tags"])
        return {}


def ensure(aws: ScriptedAws, waiting: Waiting, check_mode: bool = False, **more: Any) -> dict[str, Any]:
    name, kind = more.pop("name", "shop-isolated"), more.pop("kind", "instance")
    return ParameterGroup(kind, name, aws.rds(), waiting, check_mode).present(dataclasses.replace(WANTED, **more))


def remove(aws: ScriptedAws, waiting: Waiting, check_mode: bool = False) -> dict[str, Any]:
    return ParameterGroup("instance", "shop-isolated", aws.rds(), waiting, check_mode).absent()


def refused(aws: ScriptedAws, waiting: Waiting, **more: Any) -> str:
    with pytest.raises(RecoveryError) as caught:
        ensure(aws, waiting, **more)
    assert aws.written() == []
    return caught.value.msg


def test_an_isolated_copy_starts_no_subscription_and_no_job(aws: ScriptedAws, waiting: Waiting) -> None:
    groups = Groups(aws)
    groups.shown_late = 2
    result = ensure(aws, waiting, parameters={"autovacuum": False}, tags={"team": "shop"})
    (modified,) = aws.called("ModifyDBParameterGroup")
    assert modified["Parameters"] == [
        {"ParameterName": "autovacuum", "ParameterValue": "0", "ApplyMethod": "immediate"},
        {
            "ParameterName": "max_logical_replication_workers",
            "ParameterValue": "0",
            "ApplyMethod": "pending-reboot",
        },
        {
            "ParameterName": "shared_preload_libraries",
            "ParameterValue": "pg_stat_statements",
            "ApplyMethod": "pending-reboot",
        },
    ]
    assert result["created"] is True
    assert result["family"] == "postgres17"
    assert {tag["Key"]: tag["Value"] for tag in groups.tags["shop-isolated"]} == {
        "dbre:isolates": "shop-17",
        "team": "shop",
    }
    assert {item["ParameterName"]: item.get("ParameterValue") for item in groups.groups["shop-17"]}["autovacuum"] == "1"


def test_a_second_run_changes_nothing(aws: ScriptedAws, waiting: Waiting) -> None:
    Groups(aws)
    ensure(aws, waiting)
    aws.calls.clear()
    result = ensure(aws, waiting)
    assert (result["changed"], result["parameters"]) == (False, {})
    assert aws.written() == []


def test_a_run_that_was_killed_after_the_copy_goes_on(aws: ScriptedAws, waiting: Waiting) -> None:
    def killed(_asked: dict[str, Any]) -> Any:
        raise KeyboardInterrupt

    groups = Groups(aws)
    aws.script("ModifyDBParameterGroup", killed)
    with pytest.raises(KeyboardInterrupt):
        ensure(aws, waiting)
    aws.script("ModifyDBParameterGroup", groups.modify)
    result = ensure(aws, waiting)
    assert result["created"] is False
    assert result["parameters"]["max_logical_replication_workers"] == "0"


def test_a_value_that_was_set_in_the_source_later_is_taken_over(aws: ScriptedAws, waiting: Waiting) -> None:
    groups = Groups(aws)
    ensure(aws, waiting)
    groups.groups["shop-17"][2]["ParameterValue"] = "16384"
    assert ensure(aws, waiting)["parameters"] == {"work_mem": "16384"}


@pytest.mark.parametrize("there", [False, True])
def test_check_mode_says_what_would_change_and_changes_nothing(aws: ScriptedAws, waiting: Waiting, there: bool) -> None:
    Groups(aws)
    if there:
        ensure(aws, waiting)
        aws.calls.clear()
    result = ensure(aws, waiting, check_mode=True, parameters={"work_mem": 4096})
    assert result["changed"] is True
    assert result["parameters"]["work_mem"] == "4096"
    assert result["diff"]["before"] == ({"work_mem": "8192"} if there else {})
    assert aws.written() == []


def test_a_default_group_is_made_anew_since_aws_does_not_copy_it(aws: ScriptedAws, waiting: Waiting) -> None:
    Groups(aws, **{"default.postgres17": [{**item, "Source": "system"} for item in SHOP]})
    ensure(aws, waiting, source="default.postgres17")
    (made,) = aws.called("CreateDBParameterGroup")
    assert made["DBParameterGroupFamily"] == "postgres17"
    assert aws.called("CopyDBParameterGroup") == []


def test_a_group_of_a_family_is_checked_against_the_defaults_of_the_engine(aws: ScriptedAws, waiting: Waiting) -> None:
    Groups(aws)
    first = {"EngineDefaults": {"Parameters": SHOP[:2], "Marker": "2"}}
    aws.script("DescribeEngineDefaultParameters", first, {"EngineDefaults": {"Parameters": SHOP[2:]}})
    result = ensure(aws, waiting, source=None, family="postgres17", isolate=False, parameters={"autovacuum": 0})
    assert result["parameters"] == {"autovacuum": "0"}


def test_more_parameters_than_one_call_takes_are_set_in_several(aws: ScriptedAws, waiting: Waiting) -> None:
    groups = Groups(aws)
    groups.groups["shop-17"] += [parameter(f"p{number:02}", "0") for number in range(45)]
    ensure(aws, waiting, isolate=False, parameters={f"p{number:02}": 1 for number in range(45)})
    assert [len(asked["Parameters"]) for asked in aws.called("ModifyDBParameterGroup")] == [20, 20, 5]


def test_tags_are_added_to_a_group_that_is_there(aws: ScriptedAws, waiting: Waiting) -> None:
    groups = Groups(aws)
    ensure(aws, waiting)
    assert ensure(aws, waiting, tags={"team": "shop"})["changed"] is True
    assert {"Key": "team", "Value": "shop"} in groups.tags["shop-isolated"]


def test_production_is_never_isolated_by_mistake(aws: ScriptedAws, waiting: Waiting) -> None:
    Groups(aws, **{"shop-isolated": [dict(item) for item in SHOP]})
    assert "was not made to isolate copies" in refused(aws, waiting)
    assert "cannot be a copy of itself" in refused(aws, waiting, name="Shop-17")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"source": "nobody"}, "there is no parameter group nobody in eu-central-1"),
        ({"parameters": {"wrok_mem": 1}}, "wrok_mem: there is no such parameter"),
        ({"parameters": {"rds.extensions": "few"}}, "rds.extensions: RDS does not let it be changed"),
        ({"name": "default.postgres17", "source": None, "family": "postgres16", "isolate": False}, "of family"),
    ],
)
def test_bad_input_is_refused_before_anything_is_changed(
    aws: ScriptedAws, waiting: Waiting, more: dict[str, Any], said: str
) -> None:
    Groups(aws)
    assert said in refused(aws, waiting, **more)


def test_a_group_is_removed_and_may_be_gone_already(aws: ScriptedAws, waiting: Waiting) -> None:
    groups = Groups(aws)
    ensure(aws, waiting)
    assert remove(aws, waiting, check_mode=True)["changed"] is True
    assert "shop-isolated" in groups.groups
    assert remove(aws, waiting)["changed"] is True
    assert remove(aws, waiting)["changed"] is False


def test_a_group_is_removed_as_soon_as_the_copy_that_is_gone_no_longer_counts_as_its_user(
    aws: ScriptedAws, waiting: Waiting
) -> None:
    groups = Groups(aws)
    ensure(aws, waiting)
    busy = "InvalidDBParameterGroupState"
    aws.script("DeleteDBParameterGroup", busy, "InvalidDBInstanceState", busy, groups.delete)
    assert remove(aws, waiting)["changed"] is True
    assert "shop-isolated" not in groups.groups


def test_a_group_that_is_used_stays_and_the_error_says_how_to_find_its_user(aws: ScriptedAws, waiting: Waiting) -> None:
    groups = Groups(aws)
    ensure(aws, waiting)
    aws.script("DeleteDBParameterGroup", "InvalidDBParameterGroupState")
    with pytest.raises(RecoveryError) as caught:
        remove(aws, waiting)
    assert "removal of parameter group shop-isolated was not done after 300 s" in caught.value.msg
    assert "(InvalidDBParameterGroupState)" in caught.value.msg
    assert "aws rds describe-db-instances --region eu-central-1" in caught.value.msg
    assert "shop-isolated" in groups.groups


def test_a_removal_that_aws_had_heard_before_is_fine(aws: ScriptedAws, waiting: Waiting) -> None:
    Groups(aws)
    ensure(aws, waiting)
    aws.script("DeleteDBParameterGroup", "DBParameterGroupNotFound")
    assert remove(aws, waiting)["changed"] is True


def test_any_other_refusal_of_a_removal_is_no_reason_to_wait(aws: ScriptedAws, waiting: Waiting) -> None:
    Groups(aws)
    ensure(aws, waiting)
    aws.script("DeleteDBParameterGroup", "AccessDenied")
    with pytest.raises(ClientError):
        remove(aws, waiting)
    assert len(aws.called("DeleteDBParameterGroup")) == 1


def test_a_cluster_group_is_asked_for_by_the_calls_of_clusters(aws: ScriptedAws, waiting: Waiting) -> None:
    shown = {"DBClusterParameterGroupName": "x", "DBParameterGroupFamily": "f", "DBClusterParameterGroupArn": "arn"}
    there = {"DBClusterParameterGroups": [shown]}
    changed = {"Parameters": [{**item, "ParameterValue": "0", "Source": "user"} for item in SHOP[:1]]}
    aws.script("DescribeDBClusterParameterGroups", there, "DBParameterGroupNotFound", there)
    aws.script("DescribeDBClusterParameters", {"Parameters": SHOP[:1]}, changed)
    aws.script("CopyDBClusterParameterGroup", {})
    aws.script("ModifyDBClusterParameterGroup", {})
    assert ensure(aws, waiting, kind="cluster")["arn"] == "arn"
    assert aws.written() == ["CopyDBClusterParameterGroup", "ModifyDBClusterParameterGroup"]


@pytest.mark.parametrize(
    ("loaded", "kept"),
    [
        ("pg_stat_statements,pg_cron", "pg_stat_statements"),
        ("pg_cron", "pg_stat_statements"),
        ("pgaudit, pglogical ,auto_explain", "pgaudit,auto_explain"),
        ('"pg_partman_bgw",pgactive', "pg_stat_statements"),
        ("pg_stat_statements,pgaudit", None),
        ("", None),
    ],
)
def test_libraries_that_work_by_themselves_are_not_loaded(loaded: str, kept: Optional[str]) -> None:
    changes = isolated_parameters(
        [parameter("max_logical_replication_workers"), parameter("shared_preload_libraries", loaded)]
    )
    assert changes.get("shared_preload_libraries") == kept
    assert changes["max_logical_replication_workers"] == "0"


@pytest.mark.parametrize("group", [[], [parameter("max_logical_replication_workers", IsModifiable=False)]])
def test_a_group_that_cannot_be_isolated_is_an_error_not_a_half_isolated_copy(group: list[dict[str, Any]]) -> None:
    with pytest.raises(RecoveryError, match="subscriptions in a copy would come to life"):
        isolated_parameters(group)
