# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Automated backups of an instance, replicated into another region, which can restore to a moment when ours is lost.

The API can start and stop a replication, and nothing else; retention and key cannot be changed while it runs. Stopping
it leaves what is there, "retained", until its retention has passed. Nothing here ever deletes a replicated backup.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds, error_text, tag_list
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import (
    INSTANCE,
    busy,
    code_of,
    when_allowed,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import arn_region, check_key, iso
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Status, Waiting

try:
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:  # AnsibleAWSModule says so, before anything here is called
    BotoCoreError = ClientError = Exception

Backup = Mapping[str, Any]
KEPT = "Backups that were replicated before are kept until their retention has passed."


@dataclass(frozen=True)
class DesiredSettings:
    """How the replicated backups are to be; None leaves it to AWS, or as it is."""

    retention: Optional[int]
    kms_key_id: Optional[str]
    tags: Mapping[str, Any]


def status_of(backup: Optional[Backup]) -> str:
    """Status in small letters (AWS writes it in capitals or not); "absent" for no backup."""
    return str(backup.get("Status", "")).lower() if backup else "absent"


def facts(backup: Backup) -> dict[str, Any]:
    """What people want to know of replicated backups; ``retention`` in days, the window as ISO 8601 in UTC."""
    window = backup.get("RestoreWindow") or {}
    return {
        "arn": backup.get("DBInstanceAutomatedBackupsArn"),
        "status": status_of(backup),
        "source_arn": backup.get("DBInstanceArn"),
        "resource_id": backup.get("DbiResourceId"),
        "retention": backup.get("BackupRetentionPeriod"),
        "encrypted": bool(backup.get("Encrypted")),
        "kms_key_id": backup.get("KmsKeyId") or None,
        "window": {"earliest": iso(window.get("EarliestTime")), "latest": iso(window.get("LatestTime"))},
    }


def _same_key(wanted: Optional[str], found: Optional[str]) -> bool:
    """Whether a key id or ARN is the one that was found (an ARN). An alias cannot be told without asking KMS."""
    if not wanted or not found or "alias/" in wanted:
        return True
    return wanted.split("/")[-1] == found.split("/")[-1]


class Replication:
    """Replicated backups of one instance: made in ``source``'s region, kept in ``here``'s."""

    def __init__(self, source: Rds, here: Rds, waiting: Waiting, identifier: str) -> None:
        self.source = source
        self.here = here
        self.waiting = waiting
        self.identifier = identifier
        if source.region == here.region:
            raise RecoveryError(
                f"source_region and region are both {here.region}: a replica there would be lost with the region. "
                "Nothing was changed. region is where the backups are to go, source_region where the database is."
            )

    def instance(self) -> dict[str, Any]:
        """The source; RecoveryError for what AWS cannot replicate backups of."""
        found = self.source.instance(self.identifier)
        cluster = (found or {}).get("DBClusterIdentifier")
        if cluster is None and found is None and self.source.cluster(self.identifier) is not None:
            cluster = self.identifier
        if cluster is not None:
            raise RecoveryError(
                f"{cluster} is a DB cluster, and AWS replicates automated backups of single DB instances only, neither "
                "of Aurora nor of Multi-AZ clusters. Nothing was changed. Copy its snapshots into "
                f"{self.here.region} instead, on a schedule: dbre.recovery.rds_snapshot_copy."
            )
        return found or INSTANCE.require(self.source, self.identifier)

    def instance_if_region_answers(self) -> Optional[dict[str, Any]]:
        """The source; None where it is gone, or its region is: that must not keep anybody from clearing up here."""
        try:
            return self.source.instance(self.identifier)
        except (BotoCoreError, ClientError) as error:
            answer = getattr(error, "response", {}).get("ResponseMetadata", {})
            if answer and int(answer.get("HTTPStatusCode", 0)) < 500:
                raise
            return None

    def backups(self, resource_id: str) -> list[dict[str, Any]]:
        """Backups of the source that are here, the replication that runs first."""
        found = self.here.automated_backups(DbiResourceId=resource_id)
        # A resource id is unique only within its region.
        ours = [backup for backup in found if arn_region(str(backup.get("DBInstanceArn"))) == self.source.region]
        return sorted(ours, key=lambda backup: status_of(backup) != "replicating")

    def running(self, resource_id: str) -> Optional[dict[str, Any]]:
        """The replication that runs, begins or has failed; None where there is none."""
        found = [backup for backup in self.backups(resource_id) if status_of(backup) != "retained"]
        return found[0] if found else None

    def retained(self, resource_id: str) -> list[dict[str, Any]]:
        """Backups of replications that were stopped."""
        return [backup for backup in self.backups(resource_id) if status_of(backup) == "retained"]

    def running_by_name(self) -> Optional[dict[str, Any]]:
        """The replication of a source that is gone, or whose region is, by its name."""
        for backup in self.here.automated_backups():
            of_source = arn_region(str(backup.get("DBInstanceArn"))) == self.source.region
            if of_source and backup.get("DBInstanceIdentifier") == self.identifier and status_of(backup) != "retained":
                return backup
        return None

    def check(self, instance: Mapping[str, Any], kms_key_id: Optional[str]) -> None:
        """RecoveryError when AWS would refuse to start it."""
        if not instance.get("BackupRetentionPeriod"):
            raise RecoveryError(
                f"{self.identifier} has no automated backups, so there is nothing to replicate. Nothing was changed. "
                "Switch them on first: dbre.recovery.rds_backup_settings or the role dbre.recovery.rds_backup."
            )
        if instance.get("StorageEncrypted") and not kms_key_id:
            raise RecoveryError(
                f"{self.identifier} is encrypted with a key of {self.source.region}, which cannot be used in "
                f"{self.here.region}. Nothing was changed. Give kms_key_id, a key of {self.here.region}: aws kms "
                f"list-aliases --region {self.here.region}"
            )

    def refuse_other_key(self, backups: list[dict[str, Any]], wish: DesiredSettings) -> None:
        """RecoveryError when backups are here under another key. AWS starts none beside them, and they stay."""
        for backup in backups:
            found = backup.get("KmsKeyId")
            if not _same_key(wish.kms_key_id, found):
                arn = backup.get("DBInstanceAutomatedBackupsArn")
                raise RecoveryError(
                    f"backups of {self.identifier} are in {self.here.region} already, encrypted with {found} "
                    f"(status {status_of(backup)}), and AWS cannot change the key. Nothing was changed: another key "
                    "would mean to delete them, which is left to you. Give that key, or delete them when they are no "
                    "longer needed (state absent first if they are being replicated): aws rds "
                    f"delete-db-instance-automated-backup --db-instance-automated-backups-arn {arn} --region "
                    f"{self.here.region}",
                    replication=facts(backup),
                )

    def start(self, arn: str, wish: DesiredSettings) -> None:
        """Start it, waiting while the source or the end of an earlier replication keeps AWS from it."""

        def call() -> dict[str, Any]:
            return self.here.call(
                "start_db_instance_automated_backups_replication",
                SourceDBInstanceArn=arn,
                BackupRetentionPeriod=wish.retention,
                KmsKeyId=wish.kms_key_id,
                Tags=tag_list(wish.tags) or None,
                # Makes botocore sign the request for the source's region too, which lets RDS read there.
                SourceRegion=self.source.region,
            )

        try:
            when_allowed(self.waiting, f"begin of replication of {self.identifier}", call, KEPT, passing)
        except ClientError as error:
            if code_of(error) != "DBInstanceAutomatedBackupQuotaExceeded":
                raise
            raise RecoveryError(
                f"AWS replicates no further backups into {self.here.region}: {error_text(error)}. The database is "
                f"untouched. {KEPT} Have the quota raised (aws service-quotas list-service-quotas --service-code rds "
                f"--region {self.here.region}), or stop one that nobody needs (state absent)."
            ) from error

    def wait_running(self, resource_id: str) -> dict[str, Any]:
        """The replication, once it runs. RecoveryError when it has failed."""

        def look() -> Status:
            found = self.running(resource_id)
            self.refuse_failed(found)
            return Status(status_of(found), status_of(found) == "replicating", found=found)

        what = f"replication of the backups of {self.identifier} into {self.here.region}"
        return dict(self.waiting.until(what, look, "The database is untouched."))

    def refuse_failed(self, backup: Optional[Backup]) -> None:
        """RecoveryError for a replication that has failed."""
        if backup is not None and status_of(backup) == "failed":
            raise RecoveryError(
                f"replication of the backups of {self.identifier} into {self.here.region} has failed. The database "
                f"is untouched. {KEPT} See: aws rds describe-events --source-type db-instance --source-identifier "
                f"{self.identifier} --duration 1440 --region {self.source.region}; mend the cause (its KMS keys in "
                "both regions), stop it with state absent, then start it again.",
                replication=facts(backup),
            )

    def refuse_lost(self, before: Backup, backups: list[dict[str, Any]], wish: DesiredSettings) -> None:
        """RecoveryError when what was replicated before the replication was started anew is not there any more."""
        arn, earliest = before.get("DBInstanceAutomatedBackupsArn"), _earliest(before)
        same = next((backup for backup in backups if backup.get("DBInstanceAutomatedBackupsArn") == arn), None)
        longer = int(wish.retention or 0) >= int(before.get("BackupRetentionPeriod") or 0)
        now = _earliest(same) if same else None
        if same is None or (longer and earliest and now and now > earliest):
            raise RecoveryError(
                f"the replication of {self.identifier} runs with {wish.retention} days, but the backups replicated "
                f"before it was started anew ({arn}, back to {iso(earliest)}) "
                f"{'are no longer listed' if same is None else f'now begin only at {iso(now)}'} in {self.here.region}. "
                f"The database and its backups in {self.source.region} are untouched. Take a snapshot there and copy "
                "it (dbre.recovery.rds_snapshot, dbre.recovery.rds_snapshot_copy), and ask AWS where they are.",
                lost=facts(before),
            )

    def stop(self, arn: str, resource_id: str) -> None:
        """Stop it and wait until it no longer runs. What was replicated stays, retained."""

        def call() -> dict[str, Any]:
            try:
                return self.here.call("stop_db_instance_automated_backups_replication", SourceDBInstanceArn=arn)
            except ClientError as error:
                if "not replicating" in error_text(error) or code_of(error) == "DBInstanceNotFound":
                    return {}
                raise

        when_allowed(self.waiting, f"stop of replication of {self.identifier}", call, KEPT)

        def look() -> Status:
            found = self.running(resource_id)
            return Status(status_of(found), found is None)

        self.waiting.until(f"stop of replication of {self.identifier}", look, KEPT)


def passing(error: BaseException) -> Optional[str]:
    """Why AWS does not start it now but will later."""
    if code_of(error) == "InvalidDBInstanceAutomatedBackupState":
        return error_text(error)
    return busy(error)


def _earliest(backup: Backup) -> Optional[datetime]:
    found: Optional[datetime] = (backup.get("RestoreWindow") or {}).get("EarliestTime")
    return found


def _state(backup: Optional[Backup]) -> dict[str, Any]:
    if backup is None:
        return {"status": "absent"}
    return {"status": status_of(backup), "retention": backup.get("BackupRetentionPeriod")}


def ensure_replicated(replication: Replication, wish: DesiredSettings, check_mode: bool) -> dict[str, Any]:
    """Backups of the source are replicated into this region, as wished; the module's result.

    Another retention needs a stop and a start, between which nothing is replicated. Afterwards it is looked whether
    everything replicated before is still there.
    """
    check_key(wish.kms_key_id, replication.here.region)
    instance = replication.instance()
    arn, resource_id = str(instance["DBInstanceArn"]), str(instance["DbiResourceId"])
    backups = replication.backups(resource_id)
    replication.refuse_other_key(backups, wish)
    before = next((backup for backup in backups if status_of(backup) != "retained"), None)
    replication.refuse_failed(before)
    other = before is not None and wish.retention not in (None, before.get("BackupRetentionPeriod"))
    changed = before is None or other
    # Backups that are here already know their key.
    known = next((backup["KmsKeyId"] for backup in backups if backup.get("KmsKeyId")), None)
    wanted = DesiredSettings(wish.retention, wish.kms_key_id or known, wish.tags)
    if changed:
        replication.check(instance, wanted.kms_key_id)
    after = {"status": "replicating", "retention": wish.retention or (before or {}).get("BackupRetentionPeriod")}
    result: dict[str, Any] = {
        "changed": changed,
        "restarted": other,
        "replication": facts(before) if before else None,
        "retained": [facts(backup) for backup in backups if status_of(backup) == "retained"],
        "seconds": 0.0,
        "diff": {"before": _state(before), "after": after},
    }
    if check_mode:
        return result
    began = replication.waiting.clock()
    if before is not None:
        before = replication.wait_running(resource_id)
        if other:
            replication.stop(arn, resource_id)
    if changed:
        replication.start(arn, wanted)
    result["replication"] = facts(replication.wait_running(resource_id) if changed else before or {})
    result["seconds"] = round(replication.waiting.clock() - began, 1)
    if changed:
        now = replication.backups(resource_id)
        result["retained"] = [facts(backup) for backup in now if status_of(backup) == "retained"]
        if before is not None:
            replication.refuse_lost(before, now, wish)
    return result


def ensure_stopped(replication: Replication, check_mode: bool) -> dict[str, Any]:
    """Backups of the source are not replicated any more; those that were stay. The module's result."""
    instance = replication.instance_if_region_answers()
    before = replication.running(str(instance["DbiResourceId"])) if instance else replication.running_by_name()
    resource_id = str((instance or before or {}).get("DbiResourceId", ""))
    began = replication.waiting.clock()
    if before is not None and not check_mode:
        replication.stop(str((instance or before)["DBInstanceArn"]), resource_id)
    return {
        "changed": before is not None,
        "restarted": False,
        "replication": facts(before) if before else None,
        "retained": [facts(backup) for backup in replication.retained(resource_id)] if resource_id else [],
        "seconds": round(replication.waiting.clock() - began, 1),
        "diff": {"before": _state(before), "after": {"status": "absent"}},
    }
