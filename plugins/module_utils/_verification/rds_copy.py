# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The copy that a restore test makes of a database on RDS or Aurora: apart, never public, removed, and proved gone.

It has one name for each database, so that there is one at a time and what a killed test left is found. Tags say of
which test it is, and until when that may last.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.times import parse_time
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds, tags_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import CLUSTER, Kind
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import derived, iso
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Waiting
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.isolate import isolation
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.parameter_group import ParameterGroup
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.parameter_group import Wanted as WantedGroup
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.provenance import provenance, without_own
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.remove import ensure_absent
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.restore import Asked, Restore
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.settings import argument_spec
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.source import MEMBERS, Regions
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.window import (
    cluster_windows,
    instance_windows,
    list_snapshots,
)

EXPIRES = "dbre:expires"
REMOVAL = 3600.0  # seconds that the removal may take, beside the test
LOOKS = 10  # for a copy that was asked for and is not shown yet
_TEST = re.compile(r"verify-.+-\d{8}T\d{6}Z")


@dataclass
class Bounded(Waiting):
    """Waits that all end at one moment of the clock."""

    ends: float = 0.0

    def until(self, what: str, look: Any, safe: str, accepted: bool = True) -> Any:
        """As Waiting, for no longer than is left."""
        left = max(min(self.timeout, self.ends - self.clock()), 0.0)
        return Waiting(left, self.progress, self.sleep, self.clock).until(what, look, safe, accepted)


class Copy:
    """The copy of one database, ``source`` (of a kind), in the region of ``rds``."""

    def __init__(self, kind: Kind, source: str, rds: Rds, regions: Regions) -> None:
        self.kind = kind
        self.source = source.lower()
        self.rds = rds
        self.regions = regions
        self.name = derived(source, "dbre-verify")
        self.group = derived(self.name, "isolated")
        self._asked = False

    def _groups(self, waiting: Waiting) -> ParameterGroup:
        return ParameterGroup("cluster" if self.kind is CLUSTER else "instance", self.group, self.rds, waiting)

    # What an earlier test left

    def clear(self, dead: Collection[str], waiting: Waiting) -> list[str]:
        """Remove what tests left that have ended (``dead``), or whose time is over; what was done.

        Raises RecoveryError for anything else of the name.
        """
        found = self.kind.find(self.rds, self.name)
        told = []
        if found is not None:
            test = self._removable(found, dead)
            ensure_absent(self.kind, self.name, test, self.rds, waiting, unprotect=True)
            told.append(f"{self.name}, which {test} left, is removed")
        if self._groups(waiting).absent()["changed"]:
            told.append(f"parameter group {self.group}, which an earlier test left, is removed")
        return told

    def _removable(self, found: Mapping[str, Any], dead: Collection[str]) -> str:
        """The test that a copy was made for, which is over."""
        tags = tags_of(found.get("TagList"))
        origin = provenance(tags)
        safe = "It was not touched, and nothing was restored."
        if origin is None or origin.target != self.name or not _TEST.fullmatch(origin.incident):
            raise RecoveryError(
                f"{self.kind.noun} {self.name} is there and is no copy of a restore test: the name that a test of "
                f"{self.source} needs is taken. {safe} Rename it, or remove it if nobody needs it.",
                code="COPY_IN_THE_WAY",
            )
        until = _expires(tags)
        if origin.incident not in dead and (until is None or until > datetime.now(timezone.utc)):
            raise RecoveryError(
                f"{self.kind.noun} {self.name} is of the restore test {origin.incident}, which began elsewhere and may "
                f"run until {iso(until) or 'an unknown moment'}. {safe} From then on the next test removes it; if it "
                "is known to be dead: ansible HOST -m dbre.recovery.rds_restore -a "
                f"'{self.kind.option}={self.name} incident={origin.incident} state=absent'",
                code="COPY_IN_THE_WAY",
            )
        return origin.incident

    # Making it

    def settings(self, shown: Mapping[str, Any], until: datetime) -> dict[str, Any]:
        """Options of rds_restore in which it is unlike its source."""
        cluster = self.kind is CLUSTER
        apart = isolation(self.group, True, takes_over=False, cluster=cluster, engine=str(shown.get("Engine", "")))
        tags = without_own(tags_of(shown.get("TagList")))
        own = {"publicly_accessible": False, "tags": {**tags, EXPIRES: str(iso(until))}}
        return {**dict.fromkeys(argument_spec()), **apart["settings"], **own}

    def make(
        self, test: str, at: str, until: datetime, shown: Mapping[str, Any], password: str, waiting: Waiting
    ) -> dict[str, Any]:
        """Restore it; what rds_restore returns."""
        cluster = self.kind is CLUSTER
        groups = shown.get("DBParameterGroups") or [{}]
        group = shown.get("DBClusterParameterGroup") if cluster else groups[0].get("DBParameterGroupName")
        self._groups(waiting).present(
            WantedGroup(source=str(group), isolate=True, tags={"dbre:incident": test, EXPIRES: str(iso(until))})
        )
        overrides = self.settings(shown, until)
        members = overrides.pop("members")
        asked = Asked(
            db_cluster_identifier=self.name if cluster else None,
            db_instance_identifier=None if cluster else self.name,
            source_db_cluster_identifier=self.source if cluster else None,
            source_db_instance_identifier=None if cluster else self.source,
            incident=test,
            at=at,
            members=members,
            master_user_password=password,
            overrides=overrides,
        )
        self._asked = True
        return Restore(asked, self.rds, self.regions, waiting).run()

    # Removing it

    def remove(self, test: str, waiting: Waiting) -> dict[str, Any]:
        """Remove what this test made; what proves that it is gone, with all that is not in ``left``."""
        found = self._find(waiting)
        origin = provenance(tags_of(found.get("TagList"))) if found else None
        left: list[str] = []
        resource_id: Optional[str] = None
        if found is not None and origin is not None and origin.incident == test:
            resource_id = str(found[self.kind.resource_id])
            try:
                ensure_absent(self.kind, self.name, test, self.rds, waiting, unprotect=True)
            except RecoveryError as error:
                left.append(error.msg)
        elif found is not None:
            whose = f"of {origin.incident}" if origin else "without the tags of a restore test"
            left.append(f"{self.kind.noun} {self.name} is there, {whose}: it was not touched")
        if found is None or resource_id:
            try:
                self._groups(waiting).absent()
            except RecoveryError as error:
                left.append(error.msg)
        return {
            "copy": self.name,
            "region": self.rds.region,
            "resource_id": resource_id,
            "left": [*left, *self._left(resource_id)],
        }

    def _find(self, waiting: Waiting) -> Optional[dict[str, Any]]:
        """The copy. What AWS was asked for a moment ago it may show only later, also where its answer got lost."""
        found = self.kind.find(self.rds, self.name)
        for _look in range(LOOKS if self._asked else 0):
            if found is not None:
                break
            waiting.sleep(2.0)
            found = self.kind.find(self.rds, self.name)
        return found

    def _left(self, resource_id: Optional[str]) -> list[str]:
        """What AWS still shows of a copy."""
        if resource_id is None:
            return []
        kind, cluster, left = self.kind, self.kind is CLUSTER, []
        if kind.find_by_resource_id(self.rds, resource_id) is not None:
            left.append(f"{kind.noun} {self.name} ({resource_id}) is still there")
        if cluster:
            for member in self.rds.all("describe_db_instances", "DBInstances"):
                if member.get("DBClusterIdentifier") == self.name:
                    left.append(f"member {member['DBInstanceIdentifier']} is still there")
        windows = (cluster_windows if cluster else instance_windows)(self.rds, None, resource_id=resource_id)
        left += [f"automated backups {one.arn or one.identifier} are kept" for one in windows]
        for snapshot in list_snapshots(self.rds, kind.word, self.name, datetime.now(timezone.utc)):
            if snapshot["resource_id"] == resource_id:
                left.append(f"snapshot {snapshot['identifier']} of {self.name} is kept")
        if self._group_is_there():
            left.append(f"parameter group {self.group} is still there")
        return left

    def _group_is_there(self) -> bool:
        method, key, name = "describe_db_parameter_groups", "DBParameterGroups", "DBParameterGroupName"
        if self.kind is CLUSTER:
            method, key, name = (
                "describe_db_cluster_parameter_groups",
                "DBClusterParameterGroups",
                "DBClusterParameterGroupName",
            )
        return any(True for _group in self.rds.all(method, key, **{name: self.group}))


def _expires(tags: Mapping[str, str]) -> Optional[datetime]:
    try:
        return parse_time(tags[EXPIRES], EXPIRES)
    except (KeyError, RecoveryError):
        return None


def expiry(timeout: float) -> datetime:
    """Until when a test that begins now may have its copy."""
    return datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=timeout + REMOVAL)


def cost(
    shown: Mapping[str, Any], settings: Mapping[str, Any], timeout: float, earlier: list[Mapping[str, Any]]
) -> dict[str, Any]:
    """What the copy occupies and for how long: AWS's prices are not known here, its units are.

    ``earlier`` are tests before; ``hours_expected`` is what those that ended well took, None where none did.
    """
    members = shown.get(MEMBERS) or []
    model = members[0] if members else shown
    spans = []
    for one in earlier:
        if one.get("ended") and one.get("verdict") == "verified":
            spans.append((parse_time(one["ended"], "ended") - parse_time(one["began"], "began")).total_seconds())
    spent = sorted(spans)[len(spans) // 2] / 3600 if spans else None
    # Those of a Multi-AZ cluster come together; of an Aurora cluster one is made.
    number = 1 if settings.get("members") or not members else len(members)
    found = {
        "instances": number,
        "class": str(model.get("DBInstanceClass") or shown.get("DBClusterInstanceClass") or "of an unknown class"),
        "storage_gib": shown.get("AllocatedStorage"),
        "storage_type": shown.get("StorageType"),
        "hours_expected": None if spent is None else round(spent, 2),
        "hours_at_most": round((timeout + REMOVAL) / 3600, 2),
    }
    aurora = str(shown.get("Engine", "")).startswith("aurora")
    storage = "the data's own size" if aurora else f"{found['storage_gib']} GiB {found['storage_type'] or ''}".strip()
    usual = "no test has told how long yet" if spent is None else f"{found['hours_expected']} h as tests before"
    found["text"] = (
        f"{number} x {found['class']} with {storage}: {usual}, {found['hours_at_most']} h at most. "
        "AWS bills ten minutes at least"
    )
    return found
