# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""DB instances and DB clusters (Aurora, Multi-AZ) side by side: the API names the same things differently for both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds, error_code, error_text
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import endpoint_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.status import look_at_cluster, look_at_instance
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Status, Waiting

try:
    from botocore.exceptions import ClientError
except ImportError:  # AnsibleAWSModule says so, before anything here is called
    ClientError = Exception

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """One of the two kinds of databases: its words in the API, in options and in messages."""

    noun: str
    option: str  # option of our modules that names one
    identifier: str  # keys of what a describe call answers
    resource_id: str
    arn: str
    status: str
    event_source: str  # SourceType of its events
    modify: str  # methods of the client
    new_identifier: str
    cli: str  # as in: aws rds modify-CLI --CLI-identifier
    word: str
    response: str  # key of what a call that changes one answers
    add_role: str

    def find(self, rds: Rds, identifier: str) -> Optional[dict[str, Any]]:
        """The database of that identifier."""
        return rds.instance(identifier) if self is INSTANCE else rds.cluster(identifier)

    def find_by_resource_id(self, rds: Rds, resource_id: str) -> Optional[dict[str, Any]]:
        """The database of that resource id, under whatever identifier."""
        return rds.instance_by_resource_id(resource_id) if self is INSTANCE else rds.cluster_by_resource_id(resource_id)

    def require(self, rds: Rds, identifier: str, resource_id: Optional[str] = None) -> dict[str, Any]:
        """The database; RecoveryError when there is none. A resource id is stronger than an identifier."""
        found = self.find_by_resource_id(rds, resource_id) if resource_id else self.find(rds, identifier)
        if found is None:
            named = f"with resource id {resource_id}" if resource_id else identifier
            raise RecoveryError(
                f"there is no {self.noun} {named} in {rds.region}. Nothing was changed. See: aws rds "
                f"describe-{self.cli}s --region {rds.region} --query '{self.list_key}[].{self.identifier}'"
            )
        return found

    @property
    def list_key(self) -> str:
        """Key of the list in what the describe call answers."""
        return "DBInstances" if self is INSTANCE else "DBClusters"

    def look(self, item: Optional[Item], identifier: str) -> Status:
        """Whether the database can be used now."""
        return look_at_instance(item, identifier) if self is INSTANCE else look_at_cluster(item, identifier)

    def facts(self, item: Item) -> dict[str, Any]:
        """How a database is called and reached now."""
        host, port = endpoint_of(item)
        return {
            "identifier": item.get(self.identifier),
            "resource_id": item.get(self.resource_id),
            "arn": item.get(self.arn),
            "status": item.get(self.status),
            "host": host,
            "port": port,
            "deletion_protection": bool(item.get("DeletionProtection")),
        }

    def wait_available(
        self, rds: Rds, waiting: Waiting, identifier: str, safe: str, resource_id: Optional[str] = None
    ) -> dict[str, Any]:
        """The database, once it can be used. AWS does not find a renamed or new one at once, which is waited for."""

        def look() -> Status:
            found = self.find_by_resource_id(rds, resource_id) if resource_id else self.find(rds, identifier)
            return self.look(found, identifier)

        return dict(waiting.until(f"{self.noun} {identifier} until it is available", look, safe))


INSTANCE = Kind(
    noun="DB instance",
    option="db_instance_identifier",
    identifier="DBInstanceIdentifier",
    resource_id="DbiResourceId",
    arn="DBInstanceArn",
    status="DBInstanceStatus",
    event_source="db-instance",
    modify="modify_db_instance",
    new_identifier="NewDBInstanceIdentifier",
    cli="db-instance",
    word="instance",
    response="DBInstance",
    add_role="add_role_to_db_instance",
)
CLUSTER = Kind(
    noun="DB cluster",
    option="db_cluster_identifier",
    identifier="DBClusterIdentifier",
    resource_id="DbClusterResourceId",
    arn="DBClusterArn",
    status="Status",
    event_source="db-cluster",
    modify="modify_db_cluster",
    new_identifier="NewDBClusterIdentifier",
    cli="db-cluster",
    word="cluster",
    response="DBCluster",
    add_role="add_role_to_db_cluster",
)


def kind_of(instance: Optional[str], cluster: Optional[str]) -> tuple[Kind, str]:
    """Which kind a module was asked for, by its two options, and the identifier."""
    return (INSTANCE, instance) if instance else (CLUSTER, str(cluster))


def code_of(error: BaseException) -> str:
    """Error code without the "Fault" that the API puts behind some."""
    code = error_code(error)
    return code[: -len("Fault")] if code.endswith("Fault") else code


# Right after a look that said "available" a backup may begin, or the status of another part of AWS may lag behind.
BUSY = frozenset(
    {"InvalidDBInstanceState", "InvalidDBClusterState", "InvalidDBSnapshotState", "InvalidDBClusterSnapshotState"}
)


def busy(error: BaseException) -> Optional[str]:
    """What AWS says when the database is busy for the moment; None for any other error."""
    return error_text(error) if code_of(error) in BUSY else None


def when_allowed(
    waiting: Waiting,
    what: str,
    call: Callable[[], dict[str, Any]],
    safe: str,
    passing: Callable[[BaseException], Optional[str]] = busy,
) -> dict[str, Any]:
    """Make a call, again and again while AWS refuses it for a reason that passes (``passing`` tells); its answer."""

    def look() -> Status:
        try:
            return Status("accepted", True, found=call())
        except ClientError as error:
            reason = passing(error)
            if reason is None:
                raise
            return Status(reason, False)

    return dict(waiting.until(what, look, safe, accepted=False))


def events(rds: Rds, source_type: str, identifier: str, minutes: int) -> list[dict[str, Any]]:
    """Events of the last ``minutes``, oldest first: ``time`` (datetime), ``message``, ``source``.

    AWS sends them as well as it can: late, out of order, or not at all. They explain; they never prove alone.
    """
    found = rds.all("describe_events", "Events", SourceIdentifier=identifier, SourceType=source_type, Duration=minutes)
    told = [
        {"time": item.get("Date"), "message": item.get("Message", ""), "source": item.get("SourceIdentifier")}
        for item in found
    ]
    return sorted(told, key=lambda item: str(item["time"]))
