# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user sees of rds-backup and of snapshots before a change."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cloud import AWAY, HOME, MASTER, PASSWORD, Cloud

BACKUP = "dbre.recovery.rds_backup"
BEFORE = "dbre.recovery.snapshot_before_change"
WRITES = ("Modify", "Create", "Copy", "Delete", "Start", "Stop", "Add", "Remove")


@pytest.fixture(scope="module")
def cloud(emulated_rds: Any, tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    return Cloud(emulated_rds, tmp_path_factory.mktemp("operator"))


@pytest.fixture(scope="module")
def policy(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An instance that nobody has cared for, and what its host says of its backups."""
    cloud.make_shop("kept", DeletionProtection=False, CopyTagsToSnapshot=False, MultiAZ=True)
    return {
        "backup_tier": "critical",
        "rds_backup_replica_region": AWAY,
        "rds_backup_copies": [{"region": AWAY}],
        "rds_backup_settings_dir": str(tmp_path_factory.mktemp("controller") / "settings"),
        "rds_backup_metrics_dir": str(tmp_path_factory.mktemp("metrics")),
    }


def snapshots(cloud: Cloud, region: str, identifier: str = "kept") -> list[dict[str, Any]]:
    found = cloud.api(region).describe_db_snapshots(DBInstanceIdentifier=identifier, SnapshotType="manual")
    return found["DBSnapshots"]


def writes(cloud: Cloud, since: int) -> list[dict[str, Any]]:
    return [call for call in cloud.emulated.calls()[since:] if call["action"].startswith(WRITES)]


def test_check_mode_says_what_would_be_done_and_does_nothing(cloud: Cloud, policy: dict[str, Any]) -> None:
    before, since = cloud.world(), len(cloud.emulated.calls())
    run = cloud.play(BACKUP, "kept", "--check", "--diff", host=policy)
    assert run.rc == 0, run.output
    assert re.search(r'\+ +"?backup_retention_period"?: 21', run.output)
    assert f"would be copied into {AWAY}" in run.output
    assert cloud.world() == before
    assert writes(cloud, since) == []
    assert not Path(policy["rds_backup_settings_dir"]).exists()


def test_a_first_run_does_all_of_it_and_a_second_changes_nothing(cloud: Cloud, policy: dict[str, Any]) -> None:
    before, since = cloud.instance("kept"), len(cloud.emulated.calls())
    run = cloud.play(BACKUP, "kept", host=policy)
    assert run.rc == 0, run.output
    after = cloud.instance("kept")
    assert (after["BackupRetentionPeriod"], after["PreferredBackupWindow"]) == (21, "01:00-01:30")
    assert (after["DeletionProtection"], after["CopyTagsToSnapshot"]) == (True, True)
    untouched = ("DBInstanceClass", "MultiAZ", "TagList", "DBParameterGroups", "AllocatedStorage", "DbiResourceId")
    assert {key: after[key] for key in untouched} == {key: before[key] for key in untouched}
    (change,) = [call for call in writes(cloud, since) if call["action"] == "ModifyDBInstance"]
    assert "DBInstanceClass" not in json.dumps(change)
    assert "MultiAZ" not in json.dumps(change)

    (here,), (there,) = snapshots(cloud, HOME), snapshots(cloud, AWAY)
    assert here["DBSnapshotIdentifier"] == there["DBSnapshotIdentifier"]
    assert re.fullmatch(r"kept-dbre-\d{8}t\d{6}z", here["DBSnapshotIdentifier"])
    tags = {tag["Key"]: tag["Value"] for tag in there["TagList"]}
    assert tags["dbre:purpose"] == "scheduled"
    (copy,) = cloud.api(AWAY).describe_db_instance_automated_backups(DBInstanceIdentifier="kept")[
        "DBInstanceAutomatedBackups"
    ]
    assert (copy["Status"], copy["BackupRetentionPeriod"]) == ("replicating", 21)

    stored = Path(policy["rds_backup_settings_dir"]) / "kept.json"
    assert stored.stat().st_mode & 0o777 == 0o600
    assert json.loads(stored.read_text())["DbiResourceId"] == after["DbiResourceId"]
    assert "LatestRestorableTime" not in stored.read_text()

    metrics = Path(policy["rds_backup_metrics_dir"]) / "dbre_backup_kept.prom"
    told = metrics.read_text()
    assert f'dbre_backup_known{{stanza="kept",repo="{AWAY}",type="full"}} 1\n' in told
    assert f'dbre_backup_repository_status{{stanza="kept",repo="{AWAY}"}} 0\n' in told
    assert f'dbre_backup_archive_lag_seconds{{stanza="kept",repo="{HOME}"}} ' in told
    assert 'dbre_backup_collector_success{stanza="kept"} 1\n' in told
    assert metrics.stat().st_mode & 0o777 == 0o644

    since, text = len(cloud.emulated.calls()), stored.read_text()
    again = cloud.play(BACKUP, "kept", host=policy)
    assert (again.rc, again.changed) == (0, 0), again.output
    assert writes(cloud, since) == []
    assert stored.read_text() == text
    checked = cloud.play(BACKUP, "kept", "--check", host=policy)
    assert (checked.rc, checked.changed) == (0, 0), checked.output


def test_a_snapshot_that_fails_is_told_and_the_next_run_makes_it_good(cloud: Cloud) -> None:
    cloud.make_shop("flaky")
    host = {"backup_tier": "standard", "rds_backup_copies": [{"region": AWAY, "keep_count": 1}]}
    cloud.emulated.control("next/snapshot-failed", times=1)
    failed = cloud.play(BACKUP, "flaky", host=host)
    assert failed.rc != 0
    assert "has failed" in failed.output
    assert [it["Status"] for it in snapshots(cloud, HOME, "flaky")] == ["failed"]
    again = cloud.play(BACKUP, "flaky", host=host)
    assert again.rc == 0, again.output
    assert [it["Status"] for it in snapshots(cloud, HOME, "flaky")] == ["available"]
    assert [it["Status"] for it in snapshots(cloud, AWAY, "flaky")] == ["available"]


def test_a_tier_that_would_delete_backups_is_refused_until_it_is_allowed(cloud: Cloud) -> None:
    before = cloud.instance("flaky")["BackupRetentionPeriod"]
    refused = cloud.play(BACKUP, "flaky", host={"backup_tier": "low"})
    assert refused.rc != 0
    assert "is shorter than the 7 days" in refused.output
    assert cloud.instance("flaky")["BackupRetentionPeriod"] == before == 7
    allowed = cloud.play(BACKUP, "flaky", host={"backup_tier": "low", "rds_backup_allow_shorter_retention": True})
    assert allowed.rc == 0, allowed.output
    assert cloud.instance("flaky")["BackupRetentionPeriod"] == 3


def test_a_snapshot_before_a_change_says_how_to_come_back(cloud: Cloud, policy: dict[str, Any]) -> None:
    run = cloud.play(BEFORE, "kept", change="release 4.2 (hotfix)", host={**policy, "rds_login_db": "shop"})
    assert run.rc == 0, run.output
    (taken,) = [it for it in snapshots(cloud, HOME) if "before" in it["DBSnapshotIdentifier"]]
    assert re.fullmatch(r"kept-before-release-4-2-hotfix-\d{8}t\d{6}z", taken["DBSnapshotIdentifier"])
    assert {"Key": "before-change", "Value": "release 4.2 _hotfix_"} in taken["TagList"]
    assert re.search(r"dr_rds_corruption -l kept -e dr_database=shop -e dr_target_time=\d{4}-\d\d-\d\dT", run.output)
    assert taken["MasterUsername"] == MASTER
    pruned = cloud.play(BACKUP, "kept", host=policy)
    assert (pruned.rc, pruned.changed) == (0, 0), pruned.output
    assert taken["DBSnapshotIdentifier"] in {it["DBSnapshotIdentifier"] for it in snapshots(cloud, HOME)}


@pytest.mark.whole
def test_a_cluster_is_backed_up_and_copied_too(cloud: Cloud) -> None:
    rds = cloud.api()
    rds.create_db_cluster(
        DBClusterIdentifier="trio",
        Engine="postgres",
        MasterUsername=MASTER,
        MasterUserPassword=PASSWORD,
        DatabaseName="shop",
        DBClusterInstanceClass="db.m6gd.large",
        AllocatedStorage=100,
        StorageType="io1",
        Iops=1000,
    )
    host = {"rds_cluster": "trio", "rds_backup_copies": [{"region": AWAY}]}
    refused = cloud.play(BACKUP, "trio", host={**host, "rds_backup_replica_region": AWAY})
    assert refused.rc != 0
    assert "replicates automated backups of instances only" in refused.output
    run = cloud.play(BACKUP, "trio", host=host)
    assert run.rc == 0, run.output
    cluster = rds.describe_db_clusters(DBClusterIdentifier="trio")["DBClusters"][0]
    assert (cluster["BackupRetentionPeriod"], cluster["PreferredBackupWindow"]) == (7, "01:00-01:30")
    assert (cluster["DeletionProtection"], cluster["CopyTagsToSnapshot"]) == (True, True)
    for region in (HOME, AWAY):
        kept = cloud.api(region).describe_db_cluster_snapshots(SnapshotType="manual")["DBClusterSnapshots"]
        assert [it["Status"] for it in kept if it["DBClusterIdentifier"] == "trio"] == ["available"]
    again = cloud.play(BACKUP, "trio", host=host)
    assert (again.rc, again.changed) == (0, 0), again.output
    before = cloud.play(BEFORE, "trio", change="x", host={"rds_cluster": "trio"})
    assert before.rc == 0, before.output
    assert "aws rds delete-db-cluster-snapshot --db-cluster-snapshot-identifier trio-before-x-" in before.output
    member = cloud.play(BACKUP, cluster["DBClusterMembers"][0]["DBInstanceIdentifier"])
    assert member.rc != 0
    assert "is a member of DB cluster trio" in member.output
