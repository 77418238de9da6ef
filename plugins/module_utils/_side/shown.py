# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plans of a side restore and of a standby say to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import SIDE_INSTANCE, Shown
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted, duration, moment, size
from ansible_collections.dbre.recovery.plugins.module_utils._side.expected import expected_shown


def side_restore_shown(plan: Mapping[str, Any]) -> list[Shown]:
    """The backup set, the WAL, the side instance and the time that a plan of ``pgbackrest_restore`` will take."""
    chosen = plan["set"]
    measured = plan.get("expected")
    taken = f"taken {moment(chosen['stop_time'])}, {size(chosen['size'])}, repository {chosen['repo']}"
    found: list[Shown] = [
        {"label": "Backup set", "lines": [f"{chosen['label']} ({chosen['type']}), {taken}"]},
        {"label": "WAL to replay", "lines": _wal_lines(plan["wal"])},
        side_instance_shown(plan),
    ]
    return [*found, {"label": "Restore takes", "lines": expected_shown(measured)}] if measured else found


def _wal_lines(wal: Mapping[str, Any]) -> list[str]:
    lines = [f"{counted(wal['count'], 'segment')}, {wal['first']} to {wal['last']}"]
    if wal.get("waiting_for"):
        lines.append(f"{wal['waiting_for']} is not archived yet; production switches to the next segment first")
    if wal.get("from_production"):
        lost = ", ".join(wal["from_production"])
        lines.append(f"the archive has lost {lost}, which production still has and archives again first")
    return [*lines, "without a gap" if wal["continuous"] else "NOT ALL IN THE ARCHIVE"]


def side_instance_shown(plan: Mapping[str, Any]) -> Shown:
    """What a side instance that is made takes of its host (``disk``, ``databases``, ``tablespaces``), and its cage."""
    disk = plan["disk"]
    lines = [f"disk needed {size(disk['needed'])}, free {size(disk['free'])} ({disk['path']})"]
    if plan.get("databases"):
        lines.append(f"with the files of {', '.join(plan['databases'])}; other databases stay empty there")
    if plan.get("tablespaces"):
        lines.append(f"{counted(len(plan['tablespaces']), 'tablespace')}, each mapped below that path")
    isolated = "isolated: archives nothing, follows nobody, has no slots, jobs or subscriptions; that is read back"
    return {"label": SIDE_INSTANCE, "lines": [*lines, f"{isolated} before anything is taken from it"]}


def standby_shown(plan: Mapping[str, Any]) -> list[Shown]:
    """Where the standby stands in a plan of ``postgresql_standby_recovery``, how long for, and where it will stop."""
    standby = plan["standby"]
    delay, left = standby["delay_seconds"], standby["seconds_left"]
    lines = [
        f"{standby['host']}, port {standby['port']}, "
        + (f"{duration(delay)} behind by its delay" if delay else "NOT DELAYED")
        + f", has replayed up to LSN {standby['replay_lsn']}: before the target"
    ]
    if standby["held"]:
        lines.append("replay was paused when this run began, and stays paused until the incident is over")
    elif left is not None:
        when = f"in {duration(left)}" if left > 0 else "AT ANY MOMENT"
        warning = "HURRY: " if standby["soon"] else ""
        lines.append(f"{warning}it replays the incident {when}; carrying out the plan pauses it first")
    source = "has received that already" if standby["wal"] == "received" else "takes that from the archive"
    lines.append(f"advances {size(standby['bytes'])} of WAL to the target ({source}); nothing is restored")
    if plan["locked"]:
        lines.append(
            f"stops at LSN {plan['position']}, where {counted(plan['locked'], 'relation')} began to be locked for "
            "the incident, which a standby cannot show; nobody else changed what was lost from there to the target"
        )
    lines.append("it is never promoted, is restarted twice, and follows again when the incident is over")
    return [{"label": "Standby", "lines": lines}]
