# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWS says of the backups of an RDS or Aurora database, as the same metrics. Pure functions.

The stanza is the database's identifier, a repository is a region.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.metrics import METRICS, Sample
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.restore_tests import of_restore_tests

UNREADABLE = 99


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def of_rds(
    database: str, policy: Mapping[str, Any], found: Optional[Mapping[str, Any]], away: Sequence[str], now: float
) -> Iterator[Sample]:
    """``found``: the result of rds_recovery_window_info, or None where AWS gave none.

    ``policy`` is that of the tier, with ``copy_every``, the seconds between two copies into the regions ``away``, and
    ``run_every``, those between two runs of the playbook.
    """
    stanza = {"stanza": database}
    seconds = policy["seconds"]
    for objective in ("rpo", "rto", "window"):
        yield Sample("dbre_backup_objective_seconds", {**stanza, "objective": objective}, seconds[objective])
    yield Sample("dbre_backup_schedule_grace_seconds", stanza, seconds["grace"])
    yield Sample("dbre_backup_schedule_interval_seconds", {**stanza, "type": "full"}, policy["copy_every"])
    yield Sample("dbre_backup_collector_interval_seconds", stanza, policy["run_every"])
    yield Sample("dbre_backup_collector_timestamp_seconds", stanza, now)
    yield Sample("dbre_backup_collector_success", stanza, int(found is not None))
    if found is None:
        return
    yield Sample("dbre_backup_stanza_seen", stanza, int(bool(found["exists"])))
    made = found["settings"].get("InstanceCreateTime") or found["settings"].get("ClusterCreateTime")
    if made:
        yield Sample("dbre_backup_first_seen_timestamp_seconds", stanza, _seconds(str(made)))
    for region, state in found["regions"].items():
        labels = {**stanza, "repo": region}
        yield Sample("dbre_backup_repository_status", labels, 0 if state["reachable"] else UNREADABLE)
        if state["reachable"]:
            yield from _of_region(labels, found, region in away, now)


def _of_region(labels: Mapping[str, str], found: Mapping[str, Any], copied: bool, now: float) -> Iterator[Sample]:
    region = labels["repo"]
    windows = [window for window in found["windows"] if window["region"] == region and window["latest"]]
    if windows:
        latest = max(_seconds(window["latest"]) for window in windows)
        yield Sample("dbre_backup_window_end_timestamp_seconds", labels, latest)
        yield Sample("dbre_backup_archive_lag_seconds", labels, max(now - latest, 0.0))
    earliest = [_seconds(window["earliest"]) for window in windows if window["earliest"]]
    if earliest:
        yield Sample("dbre_backup_window_start_timestamp_seconds", labels, min(earliest))
    snapshots = [
        snapshot
        for snapshot in found["snapshots"]
        if snapshot["region"] == region and snapshot["status"] == "available" and snapshot["time"]
    ]
    run = {**labels, "type": "full"}
    if copied:
        yield Sample("dbre_backup_known", run, int(bool(snapshots)))
    if snapshots and copied:
        newest = max(_seconds(snapshot["time"]) for snapshot in snapshots)
        yield Sample("dbre_backup_last_completion_timestamp_seconds", run, newest)
        # AWS does not say how long it took; grace has to do.
        yield Sample("dbre_backup_usual_duration_seconds", run, 0)


def rds_metrics(
    database: str,
    policy: Mapping[str, Any],
    found: Optional[Mapping[str, Any]],
    away: Sequence[str],
    now: float,
    restore_tests: str = "",
) -> str:
    """The text for the textfile collector; ``restore_tests`` is their history, empty where there is none."""
    samples = [*of_rds(database, policy, found, away, now)]
    if restore_tests:
        samples += of_restore_tests(database, restore_tests, now)
    return render(samples)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def render(samples: Iterable[Sample]) -> str:
    """Samples in Prometheus' text format, for where there is no prometheus_client."""
    lines: dict[str, list[str]] = {}
    for name, labels, value in samples:
        shown = ",".join(f'{label}="{_escape(text)}"' for label, text in labels.items())
        lines.setdefault(name, []).append(f"{name}{{{shown}}} {float(value):.3f}".replace(".000", ""))
    return "".join(
        f"# HELP {name} {METRICS[name].text}\n# TYPE {name} gauge\n" + "\n".join(rows) + "\n"
        for name, rows in lines.items()
    )
