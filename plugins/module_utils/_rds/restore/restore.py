# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore an instance or a cluster beside its source, with the source's settings. Killed and run again, it goes on.

The order is AWS's: what the restore call takes goes into it, since the copy would otherwise start with the default
security group and the default parameters; the rest is modified when the copy is available; then roles, then members.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.times import parse_time
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import ClientError, Rds, tags_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import CLUSTER, INSTANCE, Kind, code_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import (
    check_identifier,
    derived,
    endpoint_of,
    iso,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.status import look_at_snapshot
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Status, Waiting
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore import settings as tables
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.inherit import (
    Plan,
    differences,
    plan_settings,
    refuse_foreign,
    refuse_unknown,
    restore_arguments,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.provenance import Provenance, provenance
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.settling import Reconciler, worst
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.source import (
    CLUSTER_SOURCES,
    INSTANCE_SOURCES,
    Regions,
    Source,
    SourceFinder,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.window import predecessors, refuse_outside

# What a source has and no restore can give to a copy: key that AWS shows, name in the result, what to do about it.
_STAYS = (
    (
        "MasterUserSecret",
        "manage_master_user_password",
        "the secret stays with the source, and the copy has master_user_password or else the password of that time",
    ),
    ("ReadReplicaDBInstanceIdentifiers", "read_replicas", "replicas stay with the source: make new ones of the copy"),
    ("ReadReplicaIdentifiers", "read_replicas", "replicas stay with the source: make new ones of the copy"),
    (
        "DBInstanceAutomatedBackupsReplications",
        "backup_replication",
        "replication of backups stays with the source: set it up again with dbre.recovery.rds_backup_replication",
    ),
    ("HttpEndpointEnabled", "http_endpoint", "the Data API is off: aws rds enable-http-endpoint --resource-arn ARN"),
    (
        "AwsBackupRecoveryPointArn",
        "aws_backup",
        "the recovery point of AWS Backup stays with the source: see that a backup plan has the copy, too, by its tags",
    ),
    (
        "GlobalWriteForwardingRequested",
        "global_write_forwarding",
        "the copy is in no global cluster, so that it hands no writes on to one",
    ),
    (
        "GlobalClusterIdentifier",
        "global_cluster",
        "the copy is in no global cluster: aws rds create-global-cluster --source-db-cluster-identifier ARN",
    ),
)
_MISSING = "Nothing was changed."


@dataclass
class Member:
    """One member that an Aurora cluster is to have."""

    identifier: str
    plan: Plan


@dataclass
class Wanted:
    """The whole copy as it is to be."""

    source: Source
    table: tuple[tables.Setting, ...]
    plan: Plan
    origin: Provenance
    members: list[Member] = field(default_factory=list)


@dataclass(frozen=True)
class Asked:
    """The copy that is asked for, named by one of two options, and what it is restored from, by one of seven.

    ``overrides`` are options of ``settings.argument_spec`` in which it is to be unlike its source.
    """

    db_instance_identifier: Optional[str] = None
    db_cluster_identifier: Optional[str] = None
    source_db_instance_identifier: Optional[str] = None
    source_dbi_resource_id: Optional[str] = None
    source_db_instance_automated_backups_arn: Optional[str] = None
    db_snapshot_identifier: Optional[str] = None
    source_db_cluster_identifier: Optional[str] = None
    source_db_cluster_resource_id: Optional[str] = None
    db_cluster_snapshot_identifier: Optional[str] = None
    source_region: Optional[str] = None
    source_settings: Optional[Mapping[str, Any]] = None
    inherit: bool = True
    at: Optional[str] = None
    latest: bool = False
    restore_type: Optional[str] = None
    members: Optional[Sequence[Mapping[str, Any]]] = None
    master_user_password: Optional[str] = None
    incident: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)


class Restore:
    """One run. ``rds`` is the region of the copy, ``regions`` gives others to look in."""

    def __init__(self, asked: Asked, rds: Rds, regions: Regions, waiting: Waiting, check_mode: bool = False) -> None:
        self.asked = asked
        self.rds = rds
        self.regions = regions
        self.waiting = waiting
        self.check_mode = check_mode
        self.seconds: dict[str, float] = {}
        self.changed: list[str] = []
        self.option, self.named = _source(asked)
        self.kind: Kind = CLUSTER if self.option in CLUSTER_SOURCES else INSTANCE
        self.target = self._target()
        self.at = self._at()

    # What was asked for

    def _target(self) -> str:
        cluster = self.kind is CLUSTER
        name = self.asked.db_cluster_identifier if cluster else self.asked.db_instance_identifier
        wanted = "db_cluster_identifier" if cluster else "db_instance_identifier"
        if not name:
            raise RecoveryError(
                f"{self.option} is a {self.kind.word}'s, so the copy is a {self.kind.word}: give {wanted} as its name. "
                + _MISSING
            )
        return check_identifier(name, wanted)

    def _at(self) -> Optional[datetime]:
        """The asked moment to the second, which is how exact RDS is; None for the latest or a snapshot."""
        at, latest = self.asked.at, self.asked.latest
        if "snapshot" in self.option:
            if at or latest:
                raise RecoveryError(f"a snapshot has its own moment: leave out at and latest. {_MISSING}")
            return None
        if bool(at) == latest:
            raise RecoveryError(
                f"give either at (a time with its UTC offset, such as 2026-11-25T03:12:00+00:00) or latest: true. "
                f"{_MISSING}"
            )
        return parse_time(at, "at").replace(microsecond=0) if at else None

    def _moment(self, source: Source) -> str:
        if source.snapshot is not None:
            created = source.snapshot.get("OriginalSnapshotCreateTime") or source.snapshot.get("SnapshotCreateTime")
            return f"snapshot {iso(created) or ''}".strip()
        return str(iso(self.at)) if self.at else f"latest {iso(source.windows[0].latest)}"

    # The run

    def run(self) -> dict[str, Any]:
        """Ensure that the copy is there and as wanted; the result of the module."""
        refuse_foreign(self.asked.overrides, self.rds.region)
        found = self.kind.find(self.rds, self.target)
        if found is None:
            return self._begin()
        origin = self._own(found)
        if origin.done:
            return self._keep(found, origin)
        wanted = self._want(self._find(self.at), origin)
        if self.check_mode:
            return self._result("continue", found, wanted)
        return self._finish("continue", str(found[self.kind.resource_id]), wanted)

    def _begin(self) -> dict[str, Any]:
        source = self._find(self.at)
        if source.windows:
            at = self.at or source.windows[0].latest or _never(source)
            hint = predecessors(self.rds, self.kind.word, source.name, at, source.windows) if source.whole else ""
            refuse_outside(at, source.windows, source.name, hint)
        origin = Provenance(
            source.name,
            source.identity,
            self._moment(source),
            self.target,
            self.asked.incident,
            False,
        )
        wanted = self._want(source, origin)
        arguments = self._request(wanted)
        for member in wanted.members:
            if self.rds.instance(member.identifier) is not None:
                raise RecoveryError(self._taken(INSTANCE, member.identifier))
        if self.check_mode:
            return self._result("restore", None, wanted, arguments)
        self._wait_for_snapshot(source)
        with self._step("restore"):
            resource_id = self._call(source.method, arguments, origin)
        self.changed.append("restore")
        return self._finish("restore", resource_id, wanted)

    def _find(self, at: Optional[datetime]) -> Source:
        source = SourceFinder(
            self.option,
            self.named,
            self.rds,
            self.regions,
            source_region=self.asked.source_region,
            inherit=self.asked.inherit,
            source_settings=self.asked.source_settings,
        ).find(at)
        kind = self.asked.restore_type
        if kind == "backtrack":
            aurora = source.engine.startswith("aurora-mysql")
            raise RecoveryError(
                f"{source.name} ({source.engine}) cannot be backtracked: "
                + (
                    "that turns production itself back in place, which this module never does"
                    if aurora
                    else "backtracking exists for Aurora MySQL only, PostgreSQL has nothing like it"
                )
                + f". {_MISSING} Restore beside it instead: leave restore_type out and give at; or clone it as it is "
                "now with restore_type: copy-on-write and latest: true."
            )
        if kind == "copy-on-write" and not tables.is_aurora(source.engine):
            raise RecoveryError(
                f"{source.name} is of engine {source.engine}; only Aurora clones by copy-on-write. {_MISSING} Leave "
                "restore_type out."
            )
        if kind == "copy-on-write" and self.at:
            raise RecoveryError(
                f"a clone (restore_type: copy-on-write) is of the present only, not of {iso(self.at)}. {_MISSING} "
                "Leave restore_type out to restore to a moment, or give latest: true instead of at."
            )
        return source

    def _want(self, source: Source, origin: Provenance) -> Wanted:
        """What the copy is to have; RecoveryError where that is not known or makes no sense."""
        overrides = self.asked.overrides
        cluster = self.kind is CLUSTER
        table = tables.cluster_settings(source.engine) if cluster else tables.INSTANCE
        elsewhere = source.region if source.region != self.rds.region else None
        known = (*table, *tables.MEMBER) if cluster else table
        refuse_unknown(known, overrides, f"a {'cluster of engine ' + source.engine if cluster else 'DB instance'}")
        if cluster and overrides.get("backup_retention_period") == 0:
            raise RecoveryError(f"a cluster always keeps backups: backup_retention_period is at least 1. {_MISSING}")
        plan = plan_settings(table, source.settings, overrides, elsewhere, source.unknown)
        for key, name, reason in _STAYS:
            if (source.settings or {}).get(key):
                plan.not_inherited.append({"name": name, "reason": reason})
        wanted = Wanted(source, table, plan, origin)
        if cluster and tables.is_aurora(source.engine):
            wanted.members = self._want_members(source, overrides, elsewhere)
            for member in wanted.members:
                plan.not_inherited += [
                    {"name": f"{member.identifier}.{left['name']}", "reason": left["reason"]}
                    for left in member.plan.not_inherited
                ]
        elif self.asked.members:
            raise RecoveryError(f"members are given for Aurora clusters only. {_MISSING} Leave members out.")
        return wanted

    def _want_members(self, source: Source, overrides: Mapping[str, Any], elsewhere: Optional[str]) -> list[Member]:
        there = source.members
        given = self.asked.members
        if given is None and there is None:
            raise RecoveryError(
                f"Aurora restores a cluster without instances, and which ones {source.name} has is not known"
                + (f" ({source.unknown})" if source.unknown else "")
                + f". {_MISSING} Give members, such as [{{db_instance_class: db.r6g.large}}], or source_settings."
            )
        members: list[Member] = []
        specs = given if given is not None else [{} for _member in there or []]
        for number, spec in enumerate(specs):
            model = (there[number] if number < len(there) else there[-1]) if there else None
            own = {option: value for option, value in spec.items() if value is not None}
            # Members beyond those of the source go where AWS has room.
            if number and (not there or number >= len(there)):
                own.setdefault("availability_zone", "")
            member_plan = plan_settings(tables.MEMBER, model, {**overrides, **own}, elsewhere, source.unknown)
            name = str(own.get("db_instance_identifier") or derived(self.target, str(number + 1)))
            if not member_plan.wanted.get("db_instance_class"):
                raise RecoveryError(
                    f"the class of member {name} is not known. {_MISSING} Give db_instance_class, for all members or "
                    "in members."
                )
            members.append(Member(check_identifier(name, "members"), member_plan))
        return members

    def _request(self, wanted: Wanted) -> dict[str, Any]:
        """Arguments of the restore call."""
        source = wanted.source
        target = "TargetDBInstanceIdentifier" if "to_point_in_time" in source.method else "DBInstanceIdentifier"
        arguments = {"DBClusterIdentifier" if self.kind is CLUSTER else target: self.target, **source.arguments}
        if "to_point_in_time" in source.method:
            time = "RestoreToTime" if self.kind is CLUSTER else "RestoreTime"
            arguments.update({time: self.at} if self.at else {"UseLatestRestorableTime": True})
        if self.asked.restore_type:
            arguments["RestoreType"] = self.asked.restore_type
        tagged = {**wanted.plan.wanted, "tags": self._tags(wanted)}
        arguments.update(restore_arguments(wanted.table, tagged, self.rds.takes(source.method)))
        return arguments

    @staticmethod
    def _tags(wanted: Wanted) -> dict[str, str]:
        return {**(wanted.plan.wanted.get("tags") or {}), **wanted.origin.tags()}

    def _wait_for_snapshot(self, source: Source) -> None:
        if source.snapshot is None:
            return
        name = next(
            source.arguments[key] for key in ("DBSnapshotIdentifier", "SnapshotIdentifier") if key in source.arguments
        )
        find = self.rds.cluster_snapshot if self.kind is CLUSTER else self.rds.snapshot
        with self._step("snapshot"):
            self.waiting.until(
                f"snapshot {name}", lambda: look_at_snapshot(find(name), name), "Nothing has been restored yet."
            )

    def _call(self, method: str, arguments: Mapping[str, Any], origin: Provenance) -> str:
        """Restore; the resource ID of the copy."""
        try:
            made = self.rds.call(method, **arguments).get(self.kind.response) or {}
        except ClientError as error:
            if code_of(error) not in ("DBInstanceAlreadyExists", "DBClusterAlreadyExists"):
                raise
            # A call that was asked again because its answer got lost has made the copy itself.
            made = self.kind.find(self.rds, self.target) or {}
            if provenance(tags_of(made.get("TagList"))) != origin:
                raise RecoveryError(self._taken(self.kind, self.target)) from error
        if made.get(self.kind.resource_id):
            return str(made[self.kind.resource_id])

        def there() -> Status:
            found = self.kind.find(self.rds, self.target)
            return Status("not there yet", False) if found is None else Status("there", True, None, found)

        found = self.waiting.until(f"restore of {self.target}", there, "The source is untouched.")
        return str(found[self.kind.resource_id])

    def _finish(self, action: str, resource_id: str, wanted: Wanted) -> dict[str, Any]:
        """Everything after the restore call; each step looks what is still to be done."""
        copy = Reconciler(self.rds, self.waiting, self.kind, self.target, resource_id)
        with self._step("available"):
            copy.available(f"restore of {self.target}")
        with self._step("settings"):
            self.changed += copy.bring(wanted.table, wanted.plan.wanted)
        with self._step("roles"):
            self.changed += copy.add_roles(wanted.plan.wanted.get("associated_roles") or [])
        if self.kind is CLUSTER:
            with self._step("members"):
                self._bring_members(copy, wanted)
        else:
            with self._step("parameters"):
                copy.reboot_if_pending(copy.group_status)
        self._set_password(copy)
        copy.tag(self._tags(replace(wanted, origin=replace(wanted.origin, done=True))))
        self.changed.append("done")
        return self._result(action, copy.now(), wanted)

    def _set_password(self, copy: Reconciler) -> None:
        if self.asked.master_user_password:
            with self._step("password"):
                copy.set_password(self.asked.master_user_password)
            self.changed.append("master_user_password")

    def _bring_members(self, copy: Reconciler, wanted: Wanted) -> None:
        """Make the members that are missing, all at once, then wait for each and bring it to what is wanted."""
        takes = self.rds.takes("create_db_instance")
        for member in wanted.members:
            found = self.rds.instance(member.identifier)
            if found is None:
                tags = {**(member.plan.wanted.get("tags") or {}), **wanted.origin.tags()}
                self.rds.call(
                    "create_db_instance",
                    DBInstanceIdentifier=member.identifier,
                    DBClusterIdentifier=self.target,
                    Engine=wanted.source.engine,
                    **restore_arguments(tables.MEMBER, {**member.plan.wanted, "tags": tags}, takes),
                )
                self.changed.append(member.identifier)
            elif found.get("DBClusterIdentifier") != self.target:
                raise RecoveryError(self._taken(INSTANCE, member.identifier))
        plans = {member.identifier: member.plan.wanted for member in wanted.members}
        for identifier in plans or self._member_names(copy):
            settler = self._member(identifier)
            settler.available(f"member {identifier} of {self.target}")
            if identifier in plans:
                self.changed += settler.bring(tables.MEMBER, plans[identifier])
            settler.reboot_if_pending(partial(self._member_group_status, copy, settler))

    def _member(self, identifier: str) -> Reconciler:
        def there() -> Status:
            found = self.rds.instance(identifier)
            return Status("not there yet", False) if found is None else Status("there", True, None, found)

        found = self.waiting.until(f"member {identifier}", there, "The source is untouched.")
        return Reconciler(self.rds, self.waiting, INSTANCE, identifier, str(found["DbiResourceId"]))

    @staticmethod
    def _member_names(copy: Reconciler) -> list[str]:
        return [member["DBInstanceIdentifier"] for member in (copy.now() or {}).get("DBClusterMembers") or []]

    @staticmethod
    def _member_group_status(cluster: Reconciler, member: Reconciler) -> str:
        entries = (cluster.now() or {}).get("DBClusterMembers") or []
        of_cluster = [
            entry.get("DBClusterParameterGroupStatus")
            for entry in entries
            if entry.get("DBInstanceIdentifier") == member.identifier
        ]
        return worst([member.group_status(), *of_cluster])

    # A copy that is there already

    def _own(self, found: Mapping[str, Any]) -> Provenance:
        """Where the copy that is there comes from; RecoveryError when that is not what is asked for."""
        origin = provenance(tags_of(found.get("TagList")))
        if origin is None:
            raise RecoveryError(self._taken(self.kind, self.target))
        asked = iso(self.at) or ("snapshot" if "snapshot" in self.option else "latest")
        incident = self.asked.incident
        if not self._same_source(origin) or not origin.is_moment(asked) or (incident and incident != origin.incident):
            raise RecoveryError(
                f"{self.kind.noun} {self.target} is there and was restored from {origin}"
                + (f" for incident {origin.incident}" if origin.incident else "")
                + f"; what is asked for now is {self.named} to {asked}"
                + (f" for incident {incident}" if incident else "")
                + f". A restore never changes a copy into another one. {_MISSING} Give another name, or remove this "
                f"copy first with state: absent and incident: {origin.incident or 'its incident'}.",
                restored_from=origin.name,
                restored_to=origin.moment,
            )
        status = str(found.get("DBInstanceStatus") or found.get("Status") or "")
        if status == "deleting":
            raise RecoveryError(
                f"{self.kind.noun} {self.target} is being deleted. {_MISSING} Wait until it is gone, then run the same "
                "again."
            )
        return origin

    def _same_source(self, origin: Provenance) -> bool:
        named = self.named
        if self.option.endswith("resource_id"):
            return origin.identity == named
        if "snapshot" in self.option:
            return named == origin.identity or origin.identity.partition("snapshot:")[2] == named.lower()
        if self.option.endswith("backups_arn"):
            backups = self.rds.automated_backups(DBInstanceAutomatedBackupsArn=named)
            return any(backup.get("DbiResourceId") == origin.identity for backup in backups)
        if (self.asked.source_region or self.rds.region) == self.rds.region:
            # After a swap the name is another database's.
            live = self.kind.find(self.rds, named)
            if live is not None and live.get(self.kind.resource_id) != origin.identity:
                return False
        return named.lower() == origin.name

    def _keep(self, found: Mapping[str, Any], origin: Provenance) -> dict[str, Any]:
        """A copy that was finished before: only what is asked for by option is kept as asked."""
        engine = str(found.get("Engine", ""))
        table = tables.cluster_settings(engine) if self.kind is CLUSTER else tables.INSTANCE
        source = Source(self.kind.word, origin.name, origin.identity, "", {}, self.rds.region, engine=engine)
        wanted = Wanted(source, table, plan_settings(table, None, self.asked.overrides), origin)
        if self.check_mode:
            changes = differences(table, wanted.plan.wanted, found, self.rds.takes(self.kind.modify))
            self.changed = [setting.option for setting in changes]
            if self.asked.master_user_password:
                self.changed.append("master_user_password")
            return self._result("none", found, wanted)
        copy = Reconciler(self.rds, self.waiting, self.kind, self.target, str(found[self.kind.resource_id]))
        copy.available(f"{self.target}")
        self.changed += copy.bring(table, wanted.plan.wanted)
        self.changed += copy.add_roles(wanted.plan.wanted.get("associated_roles") or [])
        if self.kind is INSTANCE:
            copy.reboot_if_pending(copy.group_status)
        else:
            for member in map(self._member, self._member_names(copy)):
                member.reboot_if_pending(partial(self._member_group_status, copy, member))
        self._set_password(copy)
        if copy.tag(self._tags(wanted)):
            self.changed.append("tags")
        return self._result("none", copy.now(), wanted)

    # Results and words

    @staticmethod
    def _taken(kind: Kind, name: str) -> str:
        return (
            f"{kind.noun} {name} exists and is not the copy that is asked for (its tag dbre:restored-from says so, or "
            "it has none): the name is taken. It was not touched. Give another name, or remove it if nobody needs it."
        )

    def _result(
        self,
        action: str,
        found: Optional[Mapping[str, Any]],
        wanted: Wanted,
        arguments: Optional[Mapping[str, Any]] = None,
    ) -> dict[str, Any]:
        described = dict(found or {})
        address, port = endpoint_of(described)
        plan = wanted.plan
        result: dict[str, Any] = {
            "changed": action != "none" or bool(self.changed),
            "action": action,
            self.kind.word: described,
            "endpoint": address,
            "port": port,
            "resource_id": described.get(self.kind.resource_id),
            "arn": described.get(self.kind.arn),
            "restored_from": wanted.origin.name,
            "restored_from_id": wanted.origin.identity,
            "restored_to": wanted.origin.moment.rpartition(" ")[2],
            "inherited": plan.inherited,
            "overridden": plan.overridden,
            "not_inherited": plan.not_inherited,
            "windows": [window.facts() for window in wanted.source.windows],
            "seconds": self.seconds,
        }
        if self.kind is CLUSTER:
            names = [member["DBInstanceIdentifier"] for member in described.get("DBClusterMembers") or []]
            shown = [] if self.check_mode else [self.rds.instance(name) for name in names]
            result["members"] = [member for member in shown if member is not None]
        if self.check_mode:
            result["request"] = self._show_request(wanted, arguments)
        return result

    def _show_request(self, wanted: Wanted, arguments: Optional[Mapping[str, Any]]) -> dict[str, Any]:
        """What would be called, for a person."""
        if arguments is None:
            return {"call": None, "arguments": {}, "modified_after": self.changed, "members": []}
        sent = {setting.option for setting in wanted.table if setting.parameter in arguments}
        shown = {key: iso(value) if isinstance(value, datetime) else value for key, value in arguments.items()}
        return {
            "call": wanted.source.method,
            "arguments": shown,
            "modified_after": sorted(set(wanted.plan.wanted) - sent - {"associated_roles"}),
            "members": [{"identifier": member.identifier, **member.plan.wanted} for member in wanted.members],
        }

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        began = self.waiting.clock()
        try:
            yield
        finally:
            self.seconds[name] = round(self.waiting.clock() - began, 1)


def _source(asked: Asked) -> tuple[str, str]:
    """The one option that names the source, and the name."""
    options = (*INSTANCE_SOURCES, *CLUSTER_SOURCES)
    given = [option for option in options if getattr(asked, option)]
    if len(given) != 1:
        raise RecoveryError(
            f"say what to restore from with one of: {', '.join(options)}"
            + (f". Given are {', '.join(given)}" if given else "")
            + f". {_MISSING}"
        )
    return given[0], str(getattr(asked, given[0]))


def _never(source: Source) -> datetime:
    raise RecoveryError(
        f"AWS tells no moment that {source.name} can be restored to: its first automated backup is not finished. "
        "Nothing was changed. Wait for it, or restore from a snapshot."
    )
