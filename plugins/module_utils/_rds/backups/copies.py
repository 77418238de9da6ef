# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of snapshots, within a region or into another, which is what survives the loss of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.backups.snapshots import (
    OF_CLUSTER,
    OF_INSTANCE,
    Snapshot,
    SnapshotKind,
    Snapshots,
    facts,
)
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds, error_text, tag_list, tags_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import INSTANCE, busy, code_of
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import arn_region, check_key
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.status import look_at_snapshot

# "Cannot copy more than 5 snapshots across regions" has the same code as a quota of snapshots that is used up.
_TOO_MANY_AT_ONCE = re.compile(r"across regions|in progress|concurrent", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """Where a copy comes from."""

    kind: SnapshotKind
    region: str
    identifier: str
    arn: Optional[str]


@dataclass(frozen=True)
class DesiredSettings:
    """How the copy is to be: its name, its key in its own region (None: the source's), tags, option group."""

    identifier: str
    kms_key_id: Optional[str]
    tags: Mapping[str, Any]
    copy_tags: bool
    option_group_name: Optional[str]


def source_of(kind: SnapshotKind, given: str, from_option: Optional[str], region: str) -> Source:
    """The source: ``given`` is a name, with its region from the option, or an ARN, which says the region itself.

    Raises RecoveryError for an ARN of another region than the option's, or of another kind.
    """
    from_arn = arn_region(given)
    if from_arn and from_option and from_arn != from_option:
        raise RecoveryError(
            f"{kind.option} {given} is of {from_arn}, but source_region says {from_option}. Nothing was copied. Leave "
            "source_region out, or give the ARN that is meant."
        )
    name = given.split(f":{kind.arn_type}:", 1)[-1] if from_arn else given
    if from_arn and name == given:
        raise RecoveryError(
            f"{kind.option} {given} is no ARN of a snapshot of a {kind.of.noun}: that has ':{kind.arn_type}:' in it. "
            f"Nothing was copied. Snapshots of the other kind go into "
            f"{(OF_CLUSTER if kind is OF_INSTANCE else OF_INSTANCE).option}."
        )
    return Source(kind, from_arn or from_option or region, name, given if from_arn else None)


def default_name(source: Source, region: str) -> str:
    """The source's own name, without what AWS puts before those of automated ones."""
    name = source.identifier.split(":")[-1]
    if source.region == region and name == source.identifier:
        raise RecoveryError(
            f"a copy of {name} within {region} needs a name of its own. Nothing was copied. Give copy_identifier."
        )
    return name


def _moment(snapshot: Snapshot) -> Any:
    return snapshot.get("OriginalSnapshotCreateTime") or snapshot.get("SnapshotCreateTime")


class Copying:
    """One copy: from a source, which may be in another region, into the region of ``copies``."""

    def __init__(self, source_rds: Rds, copies: Snapshots, source: Source, wish: DesiredSettings) -> None:
        self.source_rds = source_rds
        self.copies = copies
        self.source = source
        self.wish = wish
        self.region = copies.rds.region
        self.original: Optional[dict[str, Any]] = None

    def read_source(self) -> dict[str, Any]:
        """The source; RecoveryError when it is not there."""
        if self.original is None:
            found = self.source.kind.find(self.source_rds, self.source.identifier)
            if found is None or (self.source.arn and found.get(self.source.kind.arn) != self.source.arn):
                named = self.source.arn or self.source.identifier
                raise RecoveryError(
                    f"there is no snapshot {named} of this account in {self.source.region}. Nothing was copied. See: "
                    f"aws rds describe-{self.source.kind.cli}s --region {self.source.region}"
                )
            self.original = found
        return self.original

    def ours(self, found: Snapshot) -> bool:
        """Whether a snapshot is a copy of the source. Asks for the source only where the copy does not name it."""
        copied_from = str(found.get(self.source.kind.copied_from) or "")
        if copied_from:
            name = copied_from.split(f":{self.source.kind.arn_type}:", 1)[-1]
            same = (arn_region(copied_from), name) == (self.source.region, self.source.identifier)
            return copied_from == self.source.arn if self.source.arn else same
        if self.source.kind.of is not INSTANCE or self.source.region != self.region:
            return False
        # AWS tells the origin of a copy only where it comes from another region or account.
        original = self.read_source()
        key = self.source.kind.of.resource_id
        return found.get(key) == original.get(key) and _moment(found) == _moment(original)

    def check(self, original: Snapshot) -> None:
        """RecoveryError when AWS would refuse the copy, or make one that is not as it should be."""
        encrypted = bool(original.get(self.source.kind.encrypted))
        if encrypted and self.source.region != self.region and not self.wish.kms_key_id:
            raise RecoveryError(
                f"snapshot {self.source.identifier} is encrypted with a key of {self.source.region}, which cannot be "
                f"used in {self.region}. Nothing was copied. Give kms_key_id, a key of {self.region}: aws kms "
                f"list-aliases --region {self.region}"
            )
        if not encrypted and self.wish.kms_key_id and self.source.kind is OF_CLUSTER:
            raise RecoveryError(
                f"cluster snapshot {self.source.identifier} is not encrypted, and AWS cannot encrypt a cluster "
                "snapshot while it copies it. Nothing was copied. Leave kms_key_id out; restore the copy with a key to "
                "encrypt it."
            )

    def request(self, original: Snapshot) -> dict[str, Any]:
        """Arguments of the call. Tags are merged here, since AWS leaves the source's out where others are given."""
        kind, other_region = self.source.kind, self.source.region != self.region
        tags = {**(tags_of(original.get("TagList")) if self.wish.copy_tags else {}), **self.wish.tags}
        wanted = {
            f"Source{kind.identifier}": original[kind.arn] if other_region else self.source.identifier,
            f"Target{kind.identifier}": self.wish.identifier,
            "KmsKeyId": self.wish.kms_key_id,
            "Tags": tag_list(tags) or None,
            # Makes botocore sign the request for the other region too, which lets RDS read there.
            "SourceRegion": self.source.region if other_region else None,
        }
        if self.wish.option_group_name:
            wanted["OptionGroupName"] = self.wish.option_group_name
        return wanted

    def what(self) -> str:
        return f"copy {self.wish.identifier} of snapshot {self.source.identifier} ({self.source.region})"

    def wait_for_source(self) -> dict[str, Any]:
        """The source, once it is complete."""
        name = self.source.identifier
        return dict(
            self.copies.waiting.until(
                f"snapshot {name} in {self.source.region}, before it can be copied",
                lambda: look_at_snapshot(self.source.kind.find(self.source_rds, name), name),
                "Nothing was copied yet.",
            )
        )


def passing(error: BaseException) -> Optional[str]:
    """Why AWS does not take the copy now but will later; None for what does not pass."""
    if code_of(error) == "SnapshotQuotaExceeded" and _TOO_MANY_AT_ONCE.search(error_text(error)):
        return f"{error_text(error)}: AWS copies only so many into a region at a time; waiting for one of them to end"
    return busy(error)


def ensure_copy(copying: Copying, check_mode: bool) -> dict[str, Any]:
    """A complete copy under the wanted name; the module's result."""
    copies, source, wish = copying.copies, copying.source, copying.wish
    waiting = copies.waiting
    check_key(wish.kms_key_id, copying.region)
    if wish.option_group_name and source.kind is OF_CLUSTER:
        raise RecoveryError("option_group_name is for snapshots of instances. Nothing was copied. Leave it out.")
    identifier = copies.kind.check_name(wish.identifier)
    began = waiting.clock()
    existing = copies.existing(identifier, copying.ours, copying.what(), check_mode)
    result: dict[str, Any] = {
        "changed": False,
        "snapshot": None,
        "source": {"identifier": source.identifier, "region": source.region},
        "replaced_failed": existing.replace,
        "seconds": round(waiting.clock() - began, 1),
        "diff": {"before": {"status": existing.status}, "after": {"status": "available"}},
    }
    if existing.snapshot and not existing.replace:
        result["snapshot"] = facts(copies.kind, existing.snapshot)
        return result
    copying.check(copying.read_source())
    result["changed"] = True
    if check_mode:
        return result
    original = copying.wait_for_source()
    if existing.replace:
        copies.remove(identifier)
    request = copying.request(original)
    copied = copies.make(
        identifier,
        copying.what(),
        copying.ours,
        lambda: copies.rds.call(copies.kind.copy, **request),
        passing,
    )
    result["snapshot"] = facts(copies.kind, copied)
    result["seconds"] = round(waiting.clock() - began, 1)
    return result
