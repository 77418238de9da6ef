# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the error codes of the RDS API mean for somebody who is recovering, and what to do next. A table.

Codes: ``error.code`` of the shapes in botocore/data/rds/2014-10-31/service-2.json, and "Common errors" in the RDS API
reference. The API puts "Fault" behind some of them, and not always behind the same.
"""

from __future__ import annotations

from dataclasses import dataclass

# Nothing that AWS refuses is half done: a call is accepted whole or not at all.
KEPT = "What AWS had accepted before it stays, and the source is untouched."


@dataclass(frozen=True)
class Explanation:
    """``wrong`` says what the code means here, ``next`` what to do about it, ``safe`` what has not been harmed."""

    wrong: str
    next: str
    safe: str = KEPT

    def __str__(self) -> str:
        return f"{self.wrong}. {self.safe} {self.next}"


_AGAIN = "then run the same again: it goes on where it stopped."
_DENIED = Explanation(
    "these credentials may not do this",
    "The policies in docs/iam list what each playbook needs. Who they are: aws sts get-caller-identity",
)
_BUSY = Explanation(
    "AWS refuses requests because there were too many, and went on refusing through all retries",
    "Wait some minutes, " + _AGAIN,
)
_TROUBLE = Explanation(
    "AWS has trouble of its own, and went on having it through all retries",
    "Look at https://health.aws.amazon.com, " + _AGAIN,
)
_CREDENTIALS = Explanation(
    "the credentials are unknown, wrong or expired",
    "Renew them (aws sts get-caller-identity must answer), " + _AGAIN,
)
_KMS = Explanation(
    "RDS cannot use the KMS key: it is disabled, in another region or account, or its key policy does not let this "
    "user and RDS use it",
    "Look at it: aws kms describe-key --key-id KEY --region REGION; enable it or give a key of this region, " + _AGAIN,
)
_INSTANCE_CAPACITY = Explanation(
    "AWS has no such instance class free in that zone now",
    "Give another db_instance_class (aws rds describe-orderable-db-instance-options lists them) or availability_zone, "
    + _AGAIN,
)
_STORAGE_CAPACITY = Explanation(
    "AWS has not enough storage free in the zones of the subnet group",
    "Give a db_subnet_group_name with other zones, " + _AGAIN,
)
_STATE = Explanation(
    "it is busy with something else, or in a state that does not allow this",
    "See its status (aws rds describe-db-instances, describe-db-clusters) and wait until it is available, " + _AGAIN,
)
_SNAPSHOT_STATE = Explanation(
    "the snapshot is not complete, or has failed",
    "See its status: aws rds describe-db-snapshots or describe-db-cluster-snapshots. Take another if it has failed, "
    + _AGAIN,
)


def _missing(thing: str, how: str, option: str) -> Explanation:
    return Explanation(f"{thing} that was asked for does not exist in this region", f"List: {how}. Give {option}.")


def _taken(thing: str) -> Explanation:
    return Explanation(
        f"{thing} of that name exists already",
        "Give another name, or remove that one if nobody needs it.",
        "The one that exists is untouched.",
    )


def _quota(thing: str, code: str) -> Explanation:
    return Explanation(
        f"the account's quota of {thing} in this region is used up",
        f"Raise it (aws service-quotas list-service-quotas --service-code {code}) or delete what nobody needs, "
        + _AGAIN,
    )


# Keys are codes without "Fault" at their end.
EXPLANATIONS: dict[str, Explanation] = {
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "UnauthorizedOperation": _DENIED,
    "KMSAccessDenied": _DENIED,
    "ExpiredToken": _CREDENTIALS,
    "InvalidClientTokenId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "UnrecognizedClientException": _CREDENTIALS,
    "RequestLimitExceeded": _BUSY,
    "Throttling": _BUSY,
    "ThrottlingException": _BUSY,
    "TooManyRequestsException": _BUSY,
    "InternalFailure": _TROUBLE,
    "InternalError": _TROUBLE,
    "ServiceUnavailable": _TROUBLE,
    "Unavailable": _TROUBLE,
    "KMSKeyNotAccessible": _KMS,
    "DBInstanceNotFound": _missing("the DB instance", "aws rds describe-db-instances", "one of these"),
    "DBClusterNotFound": _missing("the DB cluster", "aws rds describe-db-clusters", "one of these"),
    "DBSnapshotNotFound": _missing("the snapshot", "aws rds describe-db-snapshots", "one of these"),
    "DBClusterSnapshotNotFound": _missing("the snapshot", "aws rds describe-db-cluster-snapshots", "one of these"),
    "DBInstanceAutomatedBackupNotFound": _missing(
        "the automated backup", "aws rds describe-db-instance-automated-backups", "one of these, or a snapshot"
    ),
    "DBClusterAutomatedBackupNotFound": _missing(
        "the automated backup", "aws rds describe-db-cluster-automated-backups", "one of these, or a snapshot"
    ),
    "DBParameterGroupNotFound": _missing(
        "the parameter group", "aws rds describe-db-parameter-groups", "db_parameter_group_name"
    ),
    "DBClusterParameterGroupNotFound": _missing(
        "the cluster parameter group", "aws rds describe-db-cluster-parameter-groups", "db_cluster_parameter_group_name"
    ),
    "OptionGroupNotFound": _missing("the option group", "aws rds describe-option-groups", "option_group_name"),
    "DBSubnetGroupNotFound": _missing("the subnet group", "aws rds describe-db-subnet-groups", "db_subnet_group_name"),
    "DBSecurityGroupNotFound": _missing(
        "the security group", "aws ec2 describe-security-groups", "vpc_security_group_ids"
    ),
    "CertificateNotFound": _missing("the CA certificate", "aws rds describe-certificates", "ca_certificate_identifier"),
    "DomainNotFound": _missing("the directory", "aws ds describe-directories", "domain"),
    "DBInstanceAlreadyExists": _taken("a DB instance"),
    "DBClusterAlreadyExists": _taken("a DB cluster"),
    "DBSnapshotAlreadyExists": _taken("a snapshot"),
    "DBClusterSnapshotAlreadyExists": _taken("a snapshot"),
    "DBParameterGroupAlreadyExists": _taken("a parameter group"),
    "InstanceQuotaExceeded": _quota("DB instances", "rds"),
    "DBClusterQuotaExceeded": _quota("DB clusters", "rds"),
    "StorageQuotaExceeded": _quota("storage", "rds"),
    "SnapshotQuotaExceeded": _quota("manual snapshots", "rds"),
    "DBParameterGroupQuotaExceeded": _quota("parameter groups", "rds"),
    "DBInstanceAutomatedBackupQuotaExceeded": _quota("retained automated backups", "rds"),
    "DBClusterAutomatedBackupQuotaExceeded": _quota("retained automated backups", "rds"),
    "DBInstanceRoleQuotaExceeded": _quota("IAM roles of one DB instance", "rds"),
    "DBClusterRoleQuotaExceeded": _quota("IAM roles of one DB cluster", "rds"),
    "InsufficientDBInstanceCapacity": _INSTANCE_CAPACITY,
    "InsufficientDBClusterCapacity": _INSTANCE_CAPACITY,
    "InsufficientStorageClusterCapacity": _STORAGE_CAPACITY,
    "ProvisionedIopsNotAvailableInAZ": Explanation(
        "that zone has no provisioned IOPS", "Give another availability_zone or storage_type, " + _AGAIN
    ),
    "StorageTypeNotSupported": Explanation(
        "this instance class cannot have that storage type", "Give storage_type or db_instance_class, " + _AGAIN
    ),
    "StorageTypeNotAvailable": Explanation(
        "the storage type was changed less than a month ago and cannot be changed back yet",
        "Give storage_type as it is now, " + _AGAIN,
    ),
    "NetworkTypeNotSupported": Explanation(
        "the subnet group does not know that network type",
        "Give network_type IPV4, or a db_subnet_group_name whose subnets have IPv6, " + _AGAIN,
    ),
    "InvalidRestore": Explanation(
        "this backup cannot be restored in that way: one taken in a VPC needs a subnet group of a VPC, and the moment "
        "must be inside the window",
        "See the window with dbre.recovery.rds_recovery_window_info and give db_subnet_group_name, " + _AGAIN,
    ),
    "PointInTimeRestoreNotEnabled": Explanation(
        "automated backups of the source are switched off, so there is no moment to restore to",
        "Restore from a snapshot (db_snapshot_identifier; dbre.recovery.rds_recovery_window_info lists them).",
    ),
    "InvalidDBInstanceState": _STATE,
    "InvalidDBClusterState": _STATE,
    "InvalidGlobalClusterState": _STATE,
    "InvalidDBSnapshotState": _SNAPSHOT_STATE,
    "InvalidDBClusterSnapshotState": _SNAPSHOT_STATE,
    "InvalidDBParameterGroupState": Explanation(
        "the parameter group is in use, or still being made",
        "See who uses it: aws rds describe-db-instances --query "
        "'DBInstances[].[DBInstanceIdentifier,DBParameterGroups]'. When nobody does, run the same again.",
    ),
    "InvalidSubnet": Explanation(
        "the subnets are not all of one VPC, or one of them is gone", "Give another db_subnet_group_name, " + _AGAIN
    ),
    "InvalidVPCNetworkState": Explanation(
        "the subnet group no longer has a subnet in every zone it needs",
        "Mend the subnet group or give another db_subnet_group_name, " + _AGAIN,
    ),
    "DBSubnetGroupDoesNotCoverEnoughAZs": Explanation(
        "the subnet group needs subnets in at least two zones", "Give another db_subnet_group_name, " + _AGAIN
    ),
    "AuthorizationNotFound": Explanation(
        "RDS may not use one of the security groups or roles",
        "Check vpc_security_group_ids and the IAM roles, " + _AGAIN,
    ),
    "InvalidParameterCombination": Explanation(
        "two of the settings do not go together", "Override one of those that AWS names, " + _AGAIN
    ),
    "InvalidParameterValue": Explanation(
        "AWS does not take one of the values", "Override the one that AWS names, " + _AGAIN
    ),
}
_OTHER = Explanation("this is no error that is known here", "Mend the cause that AWS names, " + _AGAIN)


def explain(code: str) -> Explanation:
    """What ``code`` means and what to do; for an unknown one, what always holds."""
    return EXPLANATIONS.get(code[: -len("Fault")] if code.endswith("Fault") else code, _OTHER)
