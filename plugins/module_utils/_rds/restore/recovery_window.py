# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a database can be restored, over all regions that can be reached."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds, error_code, error_text
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.kinds import CLUSTER, Kind
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.source import with_members
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.window import (
    Window,
    cluster_windows,
    instance_windows,
    last_before,
    list_snapshots,
    predecessors,
    refuse_outside,
)

try:
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:  # AnsibleAWSModule says so
    BotoCoreError = ClientError = Exception

# What a region answers that is in trouble. Other errors (a missing permission) are the caller's to mend.
_TROUBLE = ("InternalError", "InternalFailure", "RequestTimeout", "ServiceUnavailable", "Unavailable")


def recovery_window(
    kind: Kind, name: str, home: Rds, others: Sequence[Rds], now: datetime, at: Optional[datetime] = None
) -> dict[str, Any]:
    """The result of the module. ``home`` is the region of the database; ``now`` counts ages.

    Raises RecoveryError when nothing of that name is found anywhere, and when no region can restore ``at``.
    """
    windows: list[Window] = []
    snapshots: list[dict[str, Any]] = []
    settings: dict[str, Any] = {}
    regions: dict[str, dict[str, Any]] = {}
    for rds in {rds.region: rds for rds in (home, *others)}.values():
        try:
            found, seen, kept = _look(rds, kind, name, now)
        except (BotoCoreError, ClientError) as error:
            if error_code(error) and error_code(error) not in _TROUBLE:
                raise
            said = error_text(error) if error_code(error) else str(error)
            regions[rds.region] = {"reachable": False, "error": said}
            continue
        regions[rds.region] = {"reachable": True, "error": None}
        windows += seen
        snapshots += kept
        if rds.region == home.region:
            settings = found
    snapshots.sort(key=lambda snapshot: snapshot["time"] or "", reverse=True)
    lost = [f"{region} ({state['error']})" for region, state in regions.items() if not state["reachable"]]
    if not (settings or windows or snapshots):
        raise RecoveryError(
            f"there is no {kind.word} {name}, and no backup and no snapshot of it, in "
            f"{', '.join(region for region, state in regions.items() if state['reachable']) or 'any region'}"
            + (f"; not reached: {', '.join(lost)}" if lost else "")
            + ". Nothing was changed. Check the name, and give the regions that its backups are copied to.",
            regions=regions,
        )
    result: dict[str, Any] = {
        "changed": False,
        "exists": bool(settings) if regions[home.region]["reachable"] else None,
        "resource_id": settings.get("DbiResourceId") or settings.get("DbClusterResourceId"),
        "settings": settings,
        "windows": [window.facts() for window in windows],
        "snapshots": snapshots,
        "regions": regions,
    }
    if at is not None:
        before = last_before(at, snapshots)
        hint = f"Not reached: {', '.join(lost)}. " if lost else ""
        if before:
            hint += f"The last snapshot before is {before['identifier']} of {before['time']} ({before['region']}). "
        if settings:
            hint += predecessors(home, kind.word, name, at, windows)
        refuse_outside(at, windows, name, hint)
        result["able"] = [window.facts() for window in windows if window.holds(at)]
    return result


def _look(rds: Rds, kind: Kind, name: str, now: datetime) -> tuple[dict[str, Any], list[Window], list[dict[str, Any]]]:
    """What one region has: the database itself, windows and snapshots."""
    found = kind.find(rds, name)
    if kind is CLUSTER:
        windows = cluster_windows(rds, found, name)
        found = with_members(rds, found) if found else None
    else:
        windows = instance_windows(rds, found, name)
    return dict(found or {}), windows, list_snapshots(rds, kind.word, name, now)
