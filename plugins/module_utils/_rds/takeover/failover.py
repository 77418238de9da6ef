# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Failovers that are proved: another zone, another writer, or a replica that replicates no more.

AWS answers a call for a failover before it has begun, and may abandon it without an error. So the proof is what is read
afterwards; events of AWS explain it. Whoever gives the zone or the writer that failed may run again: where another one
has taken over already, by us or by AWS, nothing is done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import (
    CLUSTER,
    INSTANCE,
    Kind,
    events,
    when_allowed,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import iso
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.status import look_at_instance
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Status, Waiting

Item = Mapping[str, Any]

# "Amazon RDS event categories and event messages": RDS-EVENT-0013, 0015, 0049 to 0051, 0065, 0069 to 0073, and those
# about promotion.
_ABOUT_FAILOVER = re.compile(r"fail(ed)?[ -]?over|Multi-AZ instance activation|promot", re.IGNORECASE)
# RDS-EVENT-0034 and RDS-EVENT-0069.
_GIVEN_UP = re.compile(r"Abandoning user requested failover|failover failed", re.IGNORECASE)
_COMPLETED = re.compile(r"complete|promoted", re.IGNORECASE)
# Seconds that the event of the end may come later than the end itself.
LATE_EVENT = 30.0
RETENTION = 7


@dataclass
class Failover:
    """One database, and what its events were before anything was asked."""

    rds: Rds
    waiting: Waiting
    kind: Kind
    identifier: str

    def __post_init__(self) -> None:
        self.known: list[dict[str, Any]] = []

    def about(self, minutes: int = 60) -> list[dict[str, Any]]:
        """Events about a failover, of the last ``minutes``, oldest first, times in ISO 8601."""
        told = events(self.rds, self.kind.event_source, self.identifier, minutes)
        return [
            {**event, "time": iso(event["time"])} for event in told if _ABOUT_FAILOVER.search(str(event["message"]))
        ]

    def since(self) -> list[dict[str, Any]]:
        """Events about a failover that were not there before. No clock of ours is compared with AWS's."""
        return [event for event in self.about() if event not in self.known]

    def request(self, what: str, call: Callable[[], dict[str, Any]]) -> None:
        """Ask for it, waiting while the database is busy."""
        self.known = self.about()
        when_allowed(self.waiting, f"begin of {what}", call, "Nothing was failed over.")

    def prove(self, what: str, look: Callable[[], Status], unchanged: str) -> tuple[dict[str, Any], float]:
        """Wait for the proof; what was found, and the seconds it took. RecoveryError when there is none in time."""
        began = self.waiting.clock()
        try:
            found = self.waiting.until(what, look, f"It is not proved: {unchanged}.")
        except RecoveryError as error:
            error.details.update(proved=False, events=self.since())
            raise
        return dict(found), round(self.waiting.clock() - began, 1)

    def refuse_given_up(self, what: str) -> None:
        """RecoveryError when AWS says that it has given the failover up."""
        for event in self.since():
            if _GIVEN_UP.search(event["message"]):
                raise RecoveryError(
                    f"AWS gave {what} up: {event['message']} ({event['time']}). The database runs where it ran before. "
                    f"See: aws rds describe-events --source-type {self.kind.event_source} --source-identifier "
                    f"{self.identifier} --duration 60, and run the same again when the cause is gone."
                )

    def told(self) -> list[dict[str, Any]]:
        """The events of this failover, given some time to arrive. None of them is no error: AWS may lose them."""

        def look() -> Status:
            found = self.since()
            return Status("events", any(_COMPLETED.search(event["message"]) for event in found), found=found)

        with suppress(RecoveryError):
            waiting = Waiting(LATE_EVENT, sleep=self.waiting.sleep, clock=self.waiting.clock)
            return list(waiting.until("events", look, ""))
        return self.since()


def _result(kind: str, changed: bool, before: dict[str, Any], **more: Any) -> dict[str, Any]:
    result = {"changed": changed, "kind": kind, "proved": False, "before": before, "after": None}
    return {**result, "seconds": None, "events": [], **more}


def ensure_instance_failover(
    rds: Rds, waiting: Waiting, identifier: str, from_az: Optional[str], check_mode: bool
) -> dict[str, Any]:
    """A Multi-AZ instance runs in its other zone; the module's result.

    With ``from_az`` nothing is done where it runs in another zone already.
    """
    instance = INSTANCE.require(rds, identifier)
    resource_id = str(instance["DbiResourceId"])
    if instance.get("DBClusterIdentifier"):
        raise RecoveryError(
            f"DB instance {identifier} is a member of DB cluster {instance['DBClusterIdentifier']}. Nothing was failed "
            f"over. Give db_cluster_identifier {instance['DBClusterIdentifier']}."
        )
    failover = Failover(rds, waiting, INSTANCE, identifier)
    if not check_mode:
        instance = INSTANCE.wait_available(rds, waiting, identifier, "Nothing was failed over yet.", resource_id)
    zone = str(instance.get("AvailabilityZone", ""))
    if from_az and zone != from_az:
        return _result(
            "multi_az_instance",
            False,
            {"availability_zone": from_az},
            proved=look_at_instance(instance, identifier).done,
            after={"availability_zone": zone},
            events=failover.about(1440),
            database=INSTANCE.facts(instance),
        )
    if not instance.get("MultiAZ"):
        raise RecoveryError(
            f"DB instance {identifier} is not Multi-AZ, so there is nothing to fail over to; AWS would only refuse. "
            "Nothing was changed. Promote a read replica (promote), or restore: dbre.recovery.rds_restore."
        )
    if check_mode:
        return _result("multi_az_instance", True, {"availability_zone": zone}, database=INSTANCE.facts(instance))
    what = f"failover of {identifier}"
    failover.request(what, lambda: rds.call("reboot_db_instance", DBInstanceIdentifier=identifier, ForceFailover=True))

    def look() -> Status:
        found = rds.instance_by_resource_id(resource_id)
        seen = look_at_instance(found, identifier)
        now = str((found or {}).get("AvailabilityZone", "unknown"))
        if seen.done and now == zone:
            failover.refuse_given_up(what)
        return Status(f"{seen.status} in {now}", seen.done and now != zone, found=found)

    found, seconds = failover.prove(
        what,
        look,
        f"{identifier} was in {zone} and is not known to be in another zone. Give from_az {zone} to the next run, "
        "which else would fail over back if AWS still does it",
    )
    return _result(
        "multi_az_instance",
        True,
        {"availability_zone": zone},
        proved=True,
        after={"availability_zone": found["AvailabilityZone"]},
        seconds=seconds,
        events=failover.told(),
        database=INSTANCE.facts(found),
    )


def writer_of(cluster: Item) -> Optional[str]:
    """Instance that writes in a cluster."""
    members = cluster.get("DBClusterMembers") or []
    return next((str(member["DBInstanceIdentifier"]) for member in members if member.get("IsClusterWriter")), None)


def _check_candidates(rds: Rds, cluster: Item, target: Optional[str]) -> None:
    """RecoveryError when no member could take over, or not the wanted one."""
    identifier, writer = cluster["DBClusterIdentifier"], writer_of(cluster)
    members = [str(member["DBInstanceIdentifier"]) for member in cluster.get("DBClusterMembers") or []]
    if target and target not in members:
        raise RecoveryError(
            f"{target} is no member of DB cluster {identifier}; its members are {', '.join(sorted(members))}, its "
            f"writer {writer}. Nothing was failed over. Give one of them as target."
        )
    if len(members) < 2:
        raise RecoveryError(
            f"DB cluster {identifier} has no member beside its writer {writer}, so there is nothing to fail over to. "
            "Nothing was changed. Add a reader first (aws rds create-db-instance --db-cluster-identifier "
            f"{identifier} --engine {cluster.get('Engine', 'ENGINE')} --db-instance-class CLASS "
            "--db-instance-identifier NAME), or reboot the writer."
        )
    statuses = {}
    for member in [target] if target else sorted(name for name in members if name != writer):
        found = rds.instance(str(member)) or {}
        statuses[member] = str(found.get("DBInstanceStatus", "missing"))
    if "available" not in statuses.values():
        states = ", ".join(f"{member} is {status}" for member, status in statuses.items())
        raise RecoveryError(
            f"no member of DB cluster {identifier} can take over now: {states}. Nothing was failed over. Wait until "
            "one is available, then run the same again."
        )


def ensure_cluster_failover(
    rds: Rds, waiting: Waiting, identifier: str, target: Optional[str], writer_not: Optional[str], check_mode: bool
) -> dict[str, Any]:
    """Another member of a cluster writes (``target``, where given); the module's result.

    With ``writer_not`` nothing is done where another one writes already.
    """
    cluster = CLUSTER.require(rds, identifier)
    resource_id = str(cluster["DbClusterResourceId"])
    kind = "aurora_cluster" if str(cluster.get("Engine", "")).startswith("aurora") else "multi_az_cluster"
    failover = Failover(rds, waiting, CLUSTER, identifier)
    if not check_mode:
        cluster = CLUSTER.wait_available(rds, waiting, identifier, "Nothing was failed over yet.", resource_id)
    writer = writer_of(cluster)
    if writer and (writer == target or (writer_not and writer != writer_not)):
        return _result(
            kind,
            False,
            {"writer": writer_not or writer},
            proved=CLUSTER.look(cluster, identifier).done,
            after={"writer": writer},
            events=failover.about(1440),
            database=CLUSTER.facts(cluster),
        )
    _check_candidates(rds, cluster, target)
    if check_mode:
        return _result(kind, True, {"writer": writer}, database=CLUSTER.facts(cluster))
    what = f"failover of {identifier}"
    failover.request(
        what,
        lambda: rds.call("failover_db_cluster", DBClusterIdentifier=identifier, TargetDBInstanceIdentifier=target),
    )

    def look() -> Status:
        found = rds.cluster_by_resource_id(resource_id)
        seen = CLUSTER.look(found, identifier)
        now = writer_of(found or {})
        if not seen.done or not now or now == writer:
            if seen.done:
                failover.refuse_given_up(what)
            return Status(f"{seen.status}, writer {now}", False)
        if target and now != target:
            raise RecoveryError(
                f"{what} went to {now} instead of {target}. {identifier} is available and {now} writes. See why "
                f"{target} did not take over (aws rds describe-events --source-type db-instance --source-identifier "
                f"{target} --duration 60), then run the same again if it has to be {target}."
            )
        member = look_at_instance(rds.instance(now), now)
        return Status(f"writer {now} is {member.status}", member.done, found=found)

    found, seconds = failover.prove(
        what,
        look,
        f"{writer} was the writer and no other one is known to write. Give writer_not {writer} to the next run, which "
        "else would fail over back if AWS still does it",
    )
    return _result(
        kind,
        True,
        {"writer": writer},
        proved=True,
        after={"writer": writer_of(found)},
        seconds=seconds,
        events=failover.told(),
        database=CLUSTER.facts(found),
    )


def source_of(replica: Item) -> Optional[str]:
    """Database that an instance replicates: an identifier, or an ARN where that is in another region."""
    found = replica.get("ReadReplicaSourceDBInstanceIdentifier") or replica.get("ReadReplicaSourceDBClusterIdentifier")
    return str(found) if found else None


def _name(identifier: str) -> str:
    """Identifier, also from an ARN."""
    return identifier.rpartition(":")[2].lower()


def _replication(replica: Item) -> Optional[dict[str, Any]]:
    """What AWS says of a replica's replication: its status, whether that is normal, and why not."""
    for info in replica.get("StatusInfos") or []:
        if info.get("StatusType") == "read replication":
            return {
                "status": info.get("Status"),
                "normal": bool(info.get("Normal")),
                "message": info.get("Message") or None,
            }
    return None


def ensure_promotion(
    rds: Rds,
    waiting: Waiting,
    identifier: str,
    replica_of: Optional[str],
    retention: Optional[int],
    check_mode: bool,
) -> dict[str, Any]:
    """A read replica is a database of its own, with automated backups; the module's result.

    With ``replica_of`` an instance that replicates nothing counts as promoted; without it that is an error.
    """
    replica = INSTANCE.require(rds, identifier)
    resource_id, source = str(replica["DbiResourceId"]), source_of(replica)
    if replica.get("DBClusterIdentifier"):
        raise RecoveryError(
            f"DB instance {identifier} is a member of DB cluster {replica['DBClusterIdentifier']}. Nothing was "
            f"promoted. Give db_cluster_identifier {replica['DBClusterIdentifier']} and target {identifier}."
        )
    if source is None and not replica_of:
        raise RecoveryError(
            f"DB instance {identifier} is no read replica: it replicates nothing. Nothing was promoted. If it was one "
            "and has been promoted, give replica_of, the source it had."
        )
    if source and replica_of and _name(source) != _name(replica_of):
        raise RecoveryError(
            f"DB instance {identifier} is a read replica of {source}, not of {replica_of}. Nothing was promoted."
        )
    failover = Failover(rds, waiting, INSTANCE, identifier)
    wanted = retention if retention is not None else int(replica.get("BackupRetentionPeriod") or RETENTION)
    more = {"replication": _replication(replica)}
    before = {"source": source or replica_of}
    if check_mode:
        return _result("read_replica", source is not None, before, database=INSTANCE.facts(replica), **more)
    what = f"promotion of {identifier}"
    if source:
        # A replica that is being backed up cannot be promoted.
        INSTANCE.wait_available(rds, waiting, identifier, "Nothing was promoted yet.", resource_id)
        failover.request(
            what,
            lambda: rds.call("promote_read_replica", DBInstanceIdentifier=identifier, BackupRetentionPeriod=wanted),
        )

    def look() -> Status:
        found = rds.instance_by_resource_id(resource_id)
        seen = look_at_instance(found, identifier)
        still = source_of(found or {})
        kept = (found or {}).get("BackupRetentionPeriod")
        if still:
            return Status(f"{seen.status}, replica of {still}", False)
        backed_up = kept == wanted or not source
        return Status(
            seen.status if backed_up else f"{seen.status}, backups kept {kept} days",
            seen.done and backed_up,
            found=found,
        )

    found, seconds = failover.prove(
        what,
        look,
        f"{identifier} was a replica of {source or replica_of}. Give replica_of to the next run, which then knows a "
        "promotion that is done",
    )
    return _result(
        "read_replica",
        source is not None,
        before,
        proved=True,
        after={"source": None, "backup_retention_period": found.get("BackupRetentionPeriod")},
        seconds=seconds if source else None,
        events=failover.told() if source else failover.about(1440),
        database=INSTANCE.facts(found),
        **more,
    )
