# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the IAM policies in docs/iam allow and what not, and that the matcher decides as AWS does."""

from __future__ import annotations

import json
import re
from typing import Any, Optional

import botocore.session
import pytest
from iam import ACCOUNT, FOR_CLUSTERS, POLICIES, ROWS, UNSEEN, Result, actions, check, load

PLAYBOOKS = (
    "rds-backup",
    "snapshot-before-change",
    "dr-rds-table-drop",
    "dr-rds-corruption",
    "dr-rds-failover",
    "verify-backups",
)
HOME, AWAY = "eu-central-1", "eu-west-1"
SIDE = "shop-dr-drop1"
SCHEDULED: dict[str, Any] = {"Tags.Tag.1.Key": "dbre:purpose", "Tags.Tag.1.Value": "scheduled"}
INCIDENT: dict[str, Any] = {"Tags.Tag.1.Key": "dbre:incident", "Tags.Tag.1.Value": "drop1"}
# Permissions without a call of the same name.
NO_CALLS = {"rds:CrossRegionCommunication", "iam:PassRole"}

Call = dict[str, Any]


def call(action: str, region: str = HOME, status: int = 200, service: str = "rds", **parameters: Any) -> Call:
    return {"service": service, "region": region, "action": action, "parameters": parameters, "status": status}


def restored(
    source: str = "shop",
    target: str = SIDE,
    tags: Optional[dict[str, Any]] = None,
    region: str = HOME,
    status: int = 200,
) -> Call:
    names: dict[str, Any] = {"SourceDBInstanceIdentifier": source, "TargetDBInstanceIdentifier": target}
    return call("RestoreDBInstanceToPointInTime", region, status, **names, **(INCIDENT if tags is None else tags))


def arn(kind: str, name: str, region: str = HOME) -> str:
    return f"arn:aws:rds:{region}:{ACCOUNT}:{kind}:{name}"


def decide(playbook: str, *calls: Call) -> Result:
    return check(load(playbook), calls)


def allowed(playbook: str, *calls: Call) -> bool:
    return not decide(playbook, *calls).denied


# -- the policies as such --------------------------------------------------------------------------------------------


def test_each_playbook_that_works_on_rds_has_a_policy_and_no_policy_is_without_a_playbook() -> None:
    assert {path.stem for path in POLICIES.glob("*.json")} == set(PLAYBOOKS)


@pytest.fixture(scope="module", params=PLAYBOOKS)
def policy(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(request.param)


def test_a_policy_can_be_attached_as_it_is(policy: dict[str, Any]) -> None:
    """AWS takes Sids of letters and digits, each once, and 6144 characters without white space."""
    assert policy["Version"] == "2012-10-17"
    sids = [statement["Sid"] for statement in policy["Statement"]]
    assert len(set(sids)) == len(sids)
    assert all(re.fullmatch(r"[A-Z][A-Za-z0-9]{11,}", sid) for sid in sids), "a Sid says why"
    assert len(re.sub(r"\s", "", json.dumps(policy))) < 6144


def test_every_action_is_one_of_aws(policy: dict[str, Any]) -> None:
    session = botocore.session.get_session()
    for action in actions(policy):
        service, _colon, name = action.partition(":")
        if action not in NO_CALLS:
            assert name in session.get_service_model(service).operation_names, action


def test_no_action_is_a_wildcard_and_what_changes_anything_has_resources(policy: dict[str, Any]) -> None:
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        assert not any("*" in action for action in statement["Action"]), statement["Sid"]
        changing = [one for one in statement["Action"] if not re.match(r"rds:(Describe|List|CrossRegion)", one)]
        if changing:
            assert statement["Resource"] != "*", statement["Sid"]
            assert all(len(resource.split(":")) > 5 for resource in statement["Resource"]), statement["Sid"]
            # A type of resource at least; never all that the account has.
            assert all(not resource.split(":", 5)[5].startswith("*") for resource in statement["Resource"])


def test_whatever_deletes_names_what_it_deletes(policy: dict[str, Any]) -> None:
    for statement in policy["Statement"]:
        for action in statement["Action"]:
            if ":Delete" not in action:
                continue
            for resource in statement["Resource"]:
                # The final snapshot that DeleteDBCluster may make is a resource of it too.
                final = action == "rds:DeleteDBCluster" and ":cluster-snapshot:" in resource
                assert final or re.search(r":\*-(dr|dbre)-\*(-isolated)?$", resource), (statement["Sid"], resource)


def test_what_a_statement_names_is_what_its_actions_work_on(policy: dict[str, Any]) -> None:
    """Every resource type of a statement belongs to one of its actions, so that nothing is there for nothing."""
    for statement in policy["Statement"]:
        rows = [ROWS[action.partition(":")[2]] for action in statement["Action"] if action.partition(":")[2] in ROWS]
        kinds = {named.kind for row in rows for named in row.all}
        for resource in statement["Resource"] if statement["Resource"] != "*" and rows else []:
            assert "" in kinds or resource.split(":")[5] in kinds, (statement["Sid"], resource)


def test_everything_that_a_policy_allows_beside_reading_is_known_to_the_matcher(policy: dict[str, Any]) -> None:
    for action in actions(policy):
        service, _colon, name = action.partition(":")
        if service == "rds" and not name.startswith(("Describe", "List")) and action not in NO_CALLS:
            assert name in ROWS


def test_roles_and_keys_go_to_rds_alone(policy: dict[str, Any]) -> None:
    for statement in policy["Statement"]:
        condition = statement.get("Condition") or {}
        if "iam:PassRole" in statement["Action"]:
            assert set(condition["StringEquals"]["iam:PassedToService"]) <= {
                "rds.amazonaws.com",
                "monitoring.rds.amazonaws.com",
            }
        if any(action.startswith("kms:") for action in statement["Action"]):
            assert condition["StringLike"] == {"kms:ViaService": "rds.*.amazonaws.com"}
        if "kms:CreateGrant" in statement["Action"]:
            assert condition["Bool"] == {"kms:GrantIsForAWSResource": "true"}


# -- what nobody may do ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("playbook", PLAYBOOKS)
@pytest.mark.parametrize(
    "forbidden",
    [
        call("DeleteDBInstance", DBInstanceIdentifier="shop"),
        call("DeleteDBCluster", DBClusterIdentifier="orders"),
        call("DeleteDBSnapshot", DBSnapshotIdentifier="before-the-great-migration"),
        call("DeleteDBSnapshot", DBSnapshotIdentifier="shop-evidence-drop1"),
        call("DeleteDBClusterSnapshot", DBClusterSnapshotIdentifier="orders-before-release-4"),
        call("DeleteDBParameterGroup", DBParameterGroupName="shop-params"),
        call("ModifyDBParameterGroup", DBParameterGroupName="shop-params"),
        call("DeleteDBInstanceAutomatedBackup", DbiResourceId="db-ABC"),
        call("ModifyDBSnapshotAttribute", DBSnapshotIdentifier="shop-dbre-20261125"),
        call("StopDBInstance", DBInstanceIdentifier="shop"),
        call("CreateDBInstance", DBInstanceIdentifier="miner"),
        call("RemoveTagsFromResource", ResourceName=arn("db", "shop")),
        call("DeleteLogGroup", service="logs", logGroupName="/aws/rds/instance/shop/postgresql"),
        call("AssumeRole", service="sts"),
    ],
    ids=lambda one: one["action"],
)
def test_no_policy_lets_production_or_what_is_kept_be_harmed(playbook: str, forbidden: Call) -> None:
    assert decide(playbook, forbidden).denied


@pytest.mark.parametrize("playbook", ["snapshot-before-change", "dr-rds-table-drop", "dr-rds-failover"])
def test_production_is_modified_only_where_that_is_the_job(playbook: str) -> None:
    modify = call("ModifyDBInstance", DBInstanceIdentifier="shop", DeletionProtection="false")
    assert decide(playbook, modify).denied
    renamed = call("ModifyDBInstance", DBInstanceIdentifier="shop", NewDBInstanceIdentifier=SIDE)
    assert decide(playbook, renamed).denied


@pytest.mark.parametrize("playbook", ["rds-backup", "snapshot-before-change"])
def test_who_backs_up_cannot_restore_reboot_or_fail_over(playbook: str) -> None:
    assert decide(playbook, restored()).denied
    assert decide(playbook, call("RebootDBInstance", DBInstanceIdentifier="shop")).denied
    assert decide(playbook, call("FailoverDBCluster", DBClusterIdentifier="orders")).denied


@pytest.mark.parametrize("playbook", ["dr-rds-table-drop", "dr-rds-corruption"])
def test_only_a_failover_reboots_or_promotes_what_serves(playbook: str) -> None:
    assert decide(playbook, call("RebootDBInstance", DBInstanceIdentifier="shop", ForceFailover="true")).denied
    assert decide(playbook, call("PromoteReadReplica", DBInstanceIdentifier="shop-read")).denied


# -- what the playbooks have to do -----------------------------------------------------------------------------------


def test_a_table_drop_makes_settles_and_deletes_its_side_instance() -> None:
    group = f"{SIDE}-isolated"
    done = decide(
        "dr-rds-table-drop",
        call("DescribeDBInstances", DBInstanceIdentifier="shop"),
        call("DescribeDBLogFiles", DBInstanceIdentifier="shop"),
        call("FilterLogEvents", service="logs", logGroupName="/aws/rds/instance/shop/postgresql"),
        call(
            "CopyDBParameterGroup",
            SourceDBParameterGroupIdentifier="shop-params",
            TargetDBParameterGroupIdentifier=group,
            **INCIDENT,
        ),
        call("ModifyDBParameterGroup", DBParameterGroupName=group),
        restored(),
        call("ModifyDBInstance", DBInstanceIdentifier=SIDE, MasterUserPassword="***", DBParameterGroupName=group),
        call("RebootDBInstance", DBInstanceIdentifier=SIDE),
        call("AddTagsToResource", ResourceName=arn("db", SIDE), **INCIDENT),
        call("DeleteDBInstance", DBInstanceIdentifier=SIDE, SkipFinalSnapshot="true"),
        call("DeleteDBParameterGroup", DBParameterGroupName=group),
    )
    assert done.denied == []
    assert "rds:DeleteDBInstance" not in done.unused
    assert "rds:DeleteDBCluster" in done.unused
    assert not set(done.unused) & set(UNSEEN)


def test_the_side_instance_may_go_only_if_it_was_made_for_an_incident() -> None:
    delete = call("DeleteDBInstance", DBInstanceIdentifier=SIDE)
    assert allowed("dr-rds-table-drop", restored(), delete)
    assert decide("dr-rds-table-drop", delete).denied, "somebody's own shop-dr-drop1"
    assert decide("dr-rds-table-drop", restored(status=400), delete).denied, "the restore was refused"
    other: dict[str, Any] = {"Tags.Tag.1.Key": "team", "Tags.Tag.1.Value": "shop"}
    assert decide("dr-rds-table-drop", restored(tags=other)).denied
    assert decide("dr-rds-table-drop", restored(), delete, restored(region=AWAY, status=400)).denied == []


def test_a_restore_under_the_name_of_production_is_not_what_a_table_drop_may_tag() -> None:
    assert any("AddTagsToResource" in why for why in decide("dr-rds-table-drop", restored(target="shop2")).denied)


def test_a_corruption_swaps_names_keeps_evidence_and_makes_replicas_again() -> None:
    assert allowed(
        "dr-rds-corruption",
        call("CreateDBSnapshot", DBInstanceIdentifier="shop", DBSnapshotIdentifier="shop-evidence-drop1", **INCIDENT),
        restored(),
        call("ModifyDBInstance", DBInstanceIdentifier="shop", NewDBInstanceIdentifier="shop-before-drop1"),
        call("ModifyDBInstance", DBInstanceIdentifier=SIDE, NewDBInstanceIdentifier="shop"),
        call("ModifyDBInstance", DBInstanceIdentifier="shop-read", NewDBInstanceIdentifier="shop-read-before-drop1"),
        call(
            "CreateDBInstanceReadReplica",
            DBInstanceIdentifier="shop-read",
            SourceDBInstanceIdentifier="shop",
            **INCIDENT,
        ),
    )
    evidence = call("CreateDBSnapshot", DBInstanceIdentifier="shop", DBSnapshotIdentifier="mine")
    assert decide("dr-rds-corruption", evidence).denied
    assert decide("dr-rds-corruption", call("DeleteDBInstance", DBInstanceIdentifier="shop-before-drop1")).denied


def test_a_renamed_copy_keeps_its_tags() -> None:
    """So that what a table drop made cannot be hidden from the matcher, nor anything be passed off as it."""
    renamed = call("ModifyDBInstance", DBInstanceIdentifier=SIDE, NewDBInstanceIdentifier="shop-dr-other")
    delete = call("DeleteDBInstance", DBInstanceIdentifier="shop-dr-other")
    assert allowed("dr-rds-table-drop", restored(), renamed, delete)
    assert decide("dr-rds-table-drop", restored(), renamed, call("DeleteDBInstance", DBInstanceIdentifier=SIDE)).denied


def test_a_failover_reboots_fails_over_or_promotes() -> None:
    assert allowed(
        "dr-rds-failover",
        call("RebootDBInstance", DBInstanceIdentifier="shop", ForceFailover="true"),
        call("FailoverDBCluster", DBClusterIdentifier="orders"),
        call("PromoteReadReplica", DBInstanceIdentifier="shop-read"),
        call("DescribeEvents", SourceIdentifier="shop"),
    )


def test_a_lost_region_is_restored_in_another_and_only_that_copy_is_settled() -> None:
    backups = arn("auto-backup", "ab-abcdef", AWAY)
    restore = call(
        "RestoreDBInstanceToPointInTime",
        AWAY,
        SourceDBInstanceAutomatedBackupsArn=backups,
        TargetDBInstanceIdentifier="shop",
        **INCIDENT,
    )
    done: dict[str, Any] = {"Tags.Tag.1.Key": "dbre:restore-state", "Tags.Tag.1.Value": "done"}
    assert allowed(
        "dr-rds-failover",
        restore,
        call("ModifyDBInstance", AWAY, DBInstanceIdentifier="shop", DeletionProtection="true"),
        call("AddTagsToResource", AWAY, ResourceName=arn("db", "shop", AWAY), **done),
        call("CreateDBSnapshot", AWAY, DBInstanceIdentifier="shop", DBSnapshotIdentifier="shop-dbre-20261125t010000z"),
    )
    at_home = call("ModifyDBInstance", HOME, DBInstanceIdentifier="shop")
    assert decide("dr-rds-failover", restore, at_home).denied, "the one at home has the same name"
    assert decide("dr-rds-failover", call("AddTagsToResource", ResourceName=arn("db", "shop"), **done)).denied


def test_backups_are_kept_copied_to_another_region_and_pruned() -> None:
    snapshot = "shop-dbre-20261125t010000z"
    done = decide(
        "rds-backup",
        call("ModifyDBInstance", DBInstanceIdentifier="shop", BackupRetentionPeriod="14"),
        call("CreateDBSnapshot", DBInstanceIdentifier="shop", DBSnapshotIdentifier=snapshot, **SCHEDULED),
        call(
            "CopyDBSnapshot",
            AWAY,
            SourceDBSnapshotIdentifier=arn("snapshot", snapshot),
            TargetDBSnapshotIdentifier=snapshot,
            **SCHEDULED,
        ),
        call("StartDBInstanceAutomatedBackupsReplication", AWAY, SourceDBInstanceArn=arn("db", "shop"), **SCHEDULED),
        call("StopDBInstanceAutomatedBackupsReplication", AWAY, SourceDBInstanceArn=arn("db", "shop")),
        call("DeleteDBSnapshot", AWAY, DBSnapshotIdentifier=snapshot),
    )
    assert done.denied == []
    assert "rds:CrossRegionCommunication" not in done.unused


def test_pruning_spares_a_snapshot_that_is_only_named_like_a_scheduled_one() -> None:
    named: dict[str, Any] = {"DBInstanceIdentifier": "shop", "DBSnapshotIdentifier": "shop-dbre-mine"}
    delete = call("DeleteDBSnapshot", DBSnapshotIdentifier="shop-dbre-mine")
    earlier = [call("CreateDBSnapshot", **named, **SCHEDULED)]
    assert not check(load("rds-backup"), [delete], earlier).denied
    assert check(load("rds-backup"), [delete], [call("CreateDBSnapshot", **named)]).denied
    assert check(load("rds-backup"), [delete]).denied


def test_a_snapshot_before_a_change_is_taken_and_tagged() -> None:
    snapshot = call(
        "CreateDBSnapshot", DBInstanceIdentifier="shop", DBSnapshotIdentifier="shop-before-r4-2026", **INCIDENT
    )
    assert allowed("snapshot-before-change", snapshot)
    scheduled = call("CreateDBSnapshot", DBInstanceIdentifier="shop", DBSnapshotIdentifier="shop-dbre-2026")
    assert decide("snapshot-before-change", scheduled).denied


# -- the matcher -----------------------------------------------------------------------------------------------------


def statement(action: str, resource: str, effect: str = "Allow", **condition: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"Sid": f"{effect}It", "Effect": effect, "Action": action, "Resource": resource}
    return {**found, "Condition": condition} if condition else found


def of(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


DELETE = call("DeleteDBInstance", DBInstanceIdentifier="Shop")


def test_actions_match_with_wildcards_in_any_case() -> None:
    assert not check(of(statement("RDS:delete*", arn("db", "shop"))), [DELETE]).denied
    assert check(of(statement("rds:Describe*", "*")), [DELETE]).denied
    assert check(of(statement("rds-data:*", "*")), [DELETE]).denied


def test_a_wildcard_stays_within_its_part_of_an_arn() -> None:
    assert not check(of(statement("rds:*", f"arn:aws:rds:*:{ACCOUNT}:db:*")), [DELETE]).denied
    assert check(of(statement("rds:*", "arn:aws:*:db:shop")), [DELETE]).denied
    assert check(of(statement("rds:*", f"arn:aws:rds:{AWAY}:{ACCOUNT}:db:*")), [DELETE]).denied
    assert check(of(statement("rds:*", f"arn:aws:rds:{HOME}:000000000000:db:*")), [DELETE]).denied
    assert check(of(statement("rds:*", arn("db", "[s]hop"))), [DELETE]).denied


def test_a_denial_wins() -> None:
    everything = statement("*", "*")
    why = check(of(everything, statement("rds:DeleteDBInstance", arn("db", "sh?p"), "Deny")), [DELETE]).denied
    assert why == [f"rds:DeleteDBInstance on {arn('db', 'shop')}: DenyIt denies it"]


def test_every_resource_of_a_call_has_to_be_allowed() -> None:
    database, snapshot = f"arn:aws:rds:*:{ACCOUNT}:db:*", f"arn:aws:rds:*:{ACCOUNT}:snapshot:*"
    take = call("CreateDBSnapshot", DBInstanceIdentifier="shop", DBSnapshotIdentifier="mine")
    assert check(of(statement("rds:*", database)), [take]).denied
    assert not check(of(statement("rds:*", database), statement("rds:*", snapshot)), [take]).denied


def test_default_groups_are_checked_too_where_aws_checks_them() -> None:
    database = statement("rds:*", f"arn:aws:rds:*:{ACCOUNT}:db:*")
    (og, pg, subgrp) = check(of(database), [restored()]).denied
    assert all(kind in why for kind, why in (("og:default", og), ("pg:default", pg), ("subgrp:default", subgrp)))


def test_tags_in_a_call_need_the_permission_to_tag() -> None:
    take = call("CreateDBSnapshot", DBInstanceIdentifier="shop", DBSnapshotIdentifier="mine", **INCIDENT)
    (why,) = check(of(statement("rds:CreateDBSnapshot", "*")), [take]).denied
    assert why.startswith(f"rds:AddTagsToResource on {arn('snapshot', 'mine')}")


def test_a_role_in_a_call_needs_the_permission_to_pass_it() -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/rds-monitoring"
    modify = call("ModifyDBInstance", DBInstanceIdentifier="shop", MonitoringRoleArn=role)
    database = statement("rds:*", "*")
    assert check(of(database), [modify]).denied
    to_monitoring = {"iam:PassedToService": "monitoring.rds.amazonaws.com"}
    assert not check(of(database, statement("iam:PassRole", role, StringEquals=to_monitoring)), [modify]).denied
    to_another = {"iam:PassedToService": "ec2.amazonaws.com"}
    assert check(of(database, statement("iam:PassRole", role, StringEquals=to_another)), [modify]).denied


def test_a_condition_on_tags_nobody_knows_is_not_met() -> None:
    made_for_it = statement("rds:*", "*", StringLike={"aws:ResourceTag/dbre:incident": "drop?"})
    tag = call("AddTagsToResource", ResourceName=arn("db", "shop"), **INCIDENT)
    assert check(of(made_for_it), [DELETE]).denied
    assert not check(of(made_for_it, statement("rds:AddTagsToResource", "*")), [tag, DELETE]).denied


def test_what_cannot_be_checked_is_an_error_and_no_pass() -> None:
    with pytest.raises(ValueError, match="rds:Vpc"):
        check(of(statement("rds:*", "*", StringEquals={"rds:Vpc": "true"})), [DELETE])
    with pytest.raises(ValueError, match="IpAddress"):
        check(of(statement("rds:*", "*", IpAddress={"aws:RequestedRegion": HOME})), [DELETE])


def test_an_action_that_no_call_needed_is_unused() -> None:
    mine = of(
        statement("rds:DeleteDBInstance", "*"), statement("rds:StopDBInstance", "*"), statement("kms:CreateGrant", "*")
    )
    assert check(mine, [DELETE]).unused == ["rds:StopDBInstance"]


def test_what_only_clusters_need_is_told_apart() -> None:
    of_instances = [action for action in actions(load("dr-rds-table-drop")) if not FOR_CLUSTERS.fullmatch(action)]
    assert "rds:DeleteDBInstance" in of_instances
    assert "rds:ModifyDBParameterGroup" in of_instances
    assert not {"rds:DeleteDBCluster", "rds:CreateDBInstance", "rds:ModifyDBClusterParameterGroup"} & set(of_instances)
