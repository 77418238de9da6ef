# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which copies of snapshots are due, and what is to be copied. Pure functions.

Nothing remembers when a copy was last made but the copies themselves: whoever runs this, however often, gets the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.ages import parse_age
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.names import check_key, derived

# A copy is due a little before its time, or one that is looked for once a day would be made every other day.
DUE = 0.9
# What a snapshot is in while there is nothing wrong with it.
USABLE = ("available", "creating")

Facts = Mapping[str, Any]  # of window.snapshot_facts


def plan_copies(
    found: Mapping[str, Any],
    copies: Iterable[Mapping[str, Any]],
    policy: Mapping[str, Any],
    identifier: str,
    tags: Mapping[str, str],
    now: datetime,
) -> dict[str, Any]:
    """What is to be copied where, and what may stay where.

    ``found`` is what rds_recovery_window_info returned for all regions, with ``region``, that of the database;
    ``copies`` are ``{region, kms_key_id, keep_count, max_age}``; ``policy`` is of ``policy.rds_policy``; ``tags`` mark
    the snapshots that are made for this. The answer: ``snapshot``, the name of what is to be copied; ``copies``, those
    that are due; ``limits``, for each region how many and how old; ``left_out``, regions that need no copy.

    Raises RecoveryError for what AWS would refuse and for a region that cannot be looked into.
    """
    home = str(found["region"])
    wanted = [copy for copy in copies if copy["region"] != home]
    _check(found, wanted, identifier)
    ours = [snapshot for snapshot in found["snapshots"] if _is_ours(snapshot, str(found["resource_id"]), tags)]
    fresh = [snapshot for snapshot in ours if _is_fresh(snapshot, DUE * policy["copy_every"])]
    due = [
        {"region": copy["region"], "kms_key_id": copy.get("kms_key_id") or None}
        for copy in wanted
        if not any(it["region"] == copy["region"] and it["status"] == "available" for it in fresh)
    ]
    here = [snapshot for snapshot in fresh if snapshot["region"] == home and snapshot["status"] in USABLE]
    # One without a time has just been begun.
    newest = min(here, key=lambda snapshot: snapshot["age"] or 0, default=None)
    return {
        "snapshot": newest["identifier"] if newest else derived(identifier, f"dbre-{now:%Y%m%dt%H%M%Sz}"),
        "copies": due,
        "limits": [_limits(copy, policy) for copy in wanted],
        "left_out": sorted(str(copy["region"]) for copy in copies if copy["region"] == home),
    }


def _check(found: Mapping[str, Any], copies: Iterable[Mapping[str, Any]], identifier: str) -> None:
    seen: set[str] = set()
    settings = found.get("settings") or {}
    for copy in copies:
        region = str(copy["region"])
        if region in seen:
            raise RecoveryError(
                f"rds_backup_copies names {region} twice. Nothing was copied. Give each region once; keep_count and "
                "max_age can be set together."
            )
        seen.add(region)
        state = (found.get("regions") or {}).get(region) or {"reachable": False, "error": "nobody looked"}
        if not state["reachable"]:
            raise RecoveryError(
                f"{region} cannot be looked into, so nobody knows which copies of {identifier} are there "
                f"({state['error']}). Nothing was copied. Run again when it answers; the snapshots in "
                f"{found['region']} are untouched."
            )
        check_key(copy.get("kms_key_id") or None, region)
        if settings.get("StorageEncrypted") and not copy.get("kms_key_id"):
            raise RecoveryError(
                f"{identifier} is encrypted with a key of {found['region']}, which cannot be used in {region}. Nothing "
                f"was copied. Give kms_key_id, a key of {region}, in rds_backup_copies: aws kms list-aliases --region "
                f"{region}"
            )


def _is_ours(snapshot: Facts, resource_id: str, tags: Mapping[str, str]) -> bool:
    marked = all((snapshot.get("tags") or {}).get(key) == text for key, text in tags.items())
    return snapshot["type"] == "manual" and snapshot["resource_id"] == resource_id and marked


def _is_fresh(snapshot: Facts, seconds: float) -> bool:
    age: Optional[int] = snapshot["age"]
    return age is None or age < seconds


def _limits(copy: Mapping[str, Any], policy: Mapping[str, Any]) -> dict[str, Any]:
    """How many copies stay, and how old they may be: as given, else as many as reach back as far as the tier says."""
    count, age = copy.get("keep_count"), copy.get("max_age")
    if count is None and not age:
        count = policy["copy_count"]
    if age:
        parse_age(age)
    return {"region": copy["region"], "keep_count": count, "max_age": age or None}
