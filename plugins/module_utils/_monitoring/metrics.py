# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every metric of backups, once: what may be exported, what alerts may name, and what docs/metrics.md says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.scheduled import METRICS as SCHEDULED

COLLECTOR, TIMER, RULES = "collector", "backup timer", "rules"


class Metric(NamedTuple):
    """A gauge: its labels, who exports it, what its value means, and when it is absent."""

    labels: tuple[str, ...]
    source: str
    text: str
    absent: str = ""


class Sample(NamedTuple):
    name: str
    labels: Mapping[str, str]
    value: float


STANZA = ("stanza",)
REPO = ("stanza", "repo")
TYPE = ("stanza", "type")
RUN = ("stanza", "repo", "type")
NO_INFO = "pgBackRest did not answer"
NEVER = "there is no such backup"
NO_SERVER = "no server of the stanza is on this host"
NO_PRIMARY = "no primary of the stanza is on this host"
NO_TEST = "no restore test ran on this host"

METRICS: dict[str, Metric] = {
    "dbre_backup_expected": Metric(
        ("stanza", "tier", "severity"),
        RULES,
        "1: the inventory has this stanza. Recorded where the alerts are evaluated.",
    ),
    "dbre_backup_collector_success": Metric(
        STANZA, COLLECTOR, "1: pgBackRest answered; 0: it is missing, failed or hung."
    ),
    "dbre_backup_collector_timestamp_seconds": Metric(STANZA, COLLECTOR, "When the collector last ran."),
    "dbre_backup_collector_duration_seconds": Metric(STANZA, COLLECTOR, "How long the collector ran."),
    "dbre_backup_collector_interval_seconds": Metric(STANZA, COLLECTOR, "Seconds between two looks."),
    "dbre_backup_first_seen_timestamp_seconds": Metric(
        STANZA, COLLECTOR, "When the collector first ran for the stanza."
    ),
    "dbre_backup_objective_seconds": Metric(
        ("stanza", "objective"), COLLECTOR, "What the tier promises; objective is rpo, rto or window."
    ),
    "dbre_backup_schedule_interval_seconds": Metric(TYPE, COLLECTOR, "Longest time between two runs of the timer."),
    "dbre_backup_schedule_grace_seconds": Metric(STANZA, COLLECTOR, "How much later than usual a backup may end."),
    "dbre_backup_retention_reach_seconds": Metric(STANZA, COLLECTOR, "How old the oldest full backup may become."),
    "dbre_backup_timer_active": Metric(
        TYPE,
        COLLECTOR,
        "1: the timer waits for its next run; 0: it is stopped.",
        "systemd did not answer, or the timers are on another host",
    ),
    "dbre_backup_timer_success": Metric(
        TYPE,
        COLLECTOR,
        "1: the timer's last run ended with a backup, whole or not; 0: it was ended, or failed.",
        "it has not run since the host was started, or the timers are on another host",
    ),
    "dbre_backup_stanza_seen": Metric(
        STANZA, COLLECTOR, "1: the stanza is in a repository; 0: it is in none.", NO_INFO
    ),
    "dbre_backup_repository_status": Metric(
        REPO,
        COLLECTOR,
        "pgBackRest's status code: 0 ok, 1 no stanza path, 2 no valid backup, 3 no stanza data, 99 other.",
        NO_INFO,
    ),
    "dbre_backup_repository_bytes": Metric(
        REPO, COLLECTOR, "What all backups take in the repository, without WAL.", NO_INFO
    ),
    "dbre_backup_repository_free_bytes": Metric(
        REPO,
        COLLECTOR,
        "Free space of the file system of the repository.",
        "the repository is no directory of this host",
    ),
    "dbre_backup_repository_capacity_bytes": Metric(
        REPO, COLLECTOR, "Size of that file system.", "the repository is no directory of this host"
    ),
    "dbre_backup_lock_held": Metric(STANZA, COLLECTOR, "1: a backup, expire or stanza command runs.", NO_INFO),
    "dbre_backup_lock_complete_bytes": Metric(
        STANZA, COLLECTOR, "How much the running backup has copied.", "none runs, or pgBackRest is older than 2.48"
    ),
    "dbre_backup_lock_since_timestamp_seconds": Metric(
        STANZA, COLLECTOR, "Since when each look found the lock held.", "it is not held"
    ),
    "dbre_backup_known": Metric(
        RUN, COLLECTOR, "1: a completed backup that serves as this type is there; 0: none ever.", NO_INFO
    ),
    "dbre_backup_last_completion_timestamp_seconds": Metric(
        RUN,
        COLLECTOR,
        "When the newest backup that serves as this type ended; a full one serves as diff and incr.",
        NEVER,
    ),
    "dbre_backup_last_duration_seconds": Metric(RUN, COLLECTOR, "How long that backup took.", NEVER),
    "dbre_backup_last_size_bytes": Metric(RUN, COLLECTOR, "Size of the cluster in that backup.", NEVER),
    "dbre_backup_usual_duration_seconds": Metric(
        RUN, COLLECTOR, "The longest that such a backup took, of those that are kept.", NEVER
    ),
    "dbre_backup_usual_size_bytes": Metric(
        RUN, COLLECTOR, "Median size of the cluster in the backups before it.", "there is no backup before it"
    ),
    "dbre_backup_chain_page_errors": Metric(
        REPO,
        COLLECTOR,
        "1: a backup of the chain that would be restored now holds pages that fail their checksum.",
        "dbre_backup_check_known says 0",
    ),
    "dbre_backup_wal_gap_segments": Metric(
        ("stanza", "repo", "state"),
        COLLECTOR,
        "WAL segments since the newest backup that are missing between others; state is waiting (the server has them "
        "and will archive them) or lost.",
        "dbre_backup_check_known says 0",
    ),
    "dbre_backup_archive_lag_segments": Metric(
        REPO, COLLECTOR, "Finished WAL segments of the server that the repository does not have yet.", NO_PRIMARY
    ),
    "dbre_backup_archive_lag_seconds": Metric(
        REPO, COLLECTOR, "How long ago the oldest of them was finished; 0 when there is none.", NO_PRIMARY
    ),
    "dbre_backup_archive_dropped_segments": Metric(
        REPO,
        COLLECTOR,
        "WAL segments that the server takes for archived and the repository does not have, such as those that "
        "archive-push-queue-max dropped.",
        f"{NO_PRIMARY}, or dbre_backup_check_known says 0",
    ),
    "dbre_backup_archive_behind_segments": Metric(
        REPO, COLLECTOR, "WAL segments that the newest of another repository is ahead.", "no WAL was archived"
    ),
    "dbre_backup_window_start_timestamp_seconds": Metric(
        REPO, COLLECTOR, "The earliest moment that can be restored: when the oldest backup without errors ended.", NEVER
    ),
    "dbre_backup_window_end_timestamp_seconds": Metric(
        REPO,
        COLLECTOR,
        "When the newest WAL segment was stored: what was committed before can be restored.",
        "dbre_backup_check_known says 0",
    ),
    "dbre_backup_check_known": Metric(
        ("stanza", "repo", "check"),
        COLLECTOR,
        "1: the check could be made; 0: it could not, and nothing is known; check is chain, wal_gap or identifier.",
        NO_INFO,
    ),
    "dbre_backup_oldest_full_timestamp_seconds": Metric(
        REPO, COLLECTOR, "When the oldest full backup that is kept ended.", NEVER
    ),
    "dbre_backup_system_identifier_match": Metric(
        REPO, COLLECTOR, "1: server and stanza are the same cluster; 0: they are not.", NO_SERVER
    ),
    "dbre_backup_timeline": Metric(STANZA, COLLECTOR, "Timeline of the server.", NO_SERVER),
    "dbre_backup_last_timeline": Metric(REPO, COLLECTOR, "Timeline of the newest backup.", NEVER),
    "dbre_backup_ready_segments": Metric(STANZA, COLLECTOR, "WAL segments that wait to be archived.", NO_SERVER),
    "dbre_backup_ready_oldest_timestamp_seconds": Metric(
        STANZA, COLLECTOR, "Since when the oldest of them waits.", "none waits"
    ),
    "dbre_backup_certificate_expiry_timestamp_seconds": Metric(
        ("stanza", "file"), COLLECTOR, "When the certificate expires.", "it cannot be read"
    ),
    "dbre_backup_certificate_known": Metric(
        ("stanza", "file"), COLLECTOR, "1: the certificate could be read; 0: it could not."
    ),
    "dbre_restore_test_interval_seconds": Metric(
        STANZA, COLLECTOR, "Longest time between two restore tests, as the tier says.", "the tier has no restore_test"
    ),
    "dbre_restore_test_known": Metric(
        STANZA, COLLECTOR, "1: what the last restore test found could be read; 0: it could not.", NO_TEST
    ),
    "dbre_restore_test_last_attempt_timestamp_seconds": Metric(
        STANZA, COLLECTOR, "When the last restore test began, whatever became of it.", NO_TEST
    ),
    "dbre_restore_test_last_success_timestamp_seconds": Metric(
        STANZA,
        COLLECTOR,
        "When the last restore test that proved the backup ended.",
        "none of those that are kept proved it",
    ),
    "dbre_restore_test_verdict": Metric(
        ("stanza", "verdict"),
        COLLECTOR,
        "1 for what the last restore test found, 0 for the others; verdict is verified, failed or could_not_verify.",
        "no restore test has ended",
    ),
    "dbre_restore_test_rto_seconds": Metric(
        STANZA, COLLECTOR, "How long it took until the data was back, measured last.", "no test measured it"
    ),
    "dbre_restore_test_rpo_seconds": Metric(
        STANZA, COLLECTOR, "How much would have been lost, measured last.", "no test measured it"
    ),
    **{name: Metric(("stanza", "type", "repo"), TIMER, text, "no run yet") for name, text in SCHEDULED.items()},
}


AFTER = [
    "",
    "## Restore tests",
    "",
    "Whatever tests restores leaves what it found in `/var/lib/dbre-recovery/verification-STANZA.json`, as the role",
    "backup_verification does: written atomically, readable by the collector's user, the newest attempt last.",
    "",
    "```json",
    '{"schema": 1, "attempts": [{"began": "2026-11-29T04:00:00+00:00", "ended": "2026-11-29T04:09:30+00:00",',
    '  "verdict": "verified", "rto": {"seconds": 61.5}, "rpo": {"seconds": 0.4}}]}',
    "```",
    "",
    "`verdict` is `verified`, `failed` or `could_not_verify`; what was not measured is null or left out. `ended` is",
    "null while an attempt runs; one that has not ended after a day counts as `could_not_verify`. Other keys are",
    "ignored. A history that cannot be understood counts as no proof, and alarms.",
    "",
    "## RDS and Aurora",
    "",
    "With `rds_backup_metrics_dir` the playbook `rds-backup` leaves the same metrics on the controller: `stanza` is",
    "the database, `repo` a region. The age of copies is that of snapshots in the regions they are copied into, and",
    "`dbre_backup_archive_lag_seconds` how long ago the latest restorable moment is. The history of restore tests",
    "lies in that directory. Run the playbook at least every `rds_backup_metrics_interval` seconds.",
    "",
    "## woblerr's pgbackrest_exporter",
    "",
    "With `backup_monitoring_source: woblerr` recording rules give its metrics these names, so that alerts and",
    "dashboards are the same. None of its own names is used here with another meaning.",
]


def page() -> str:
    """docs/metrics.md."""
    lines = [
        "<!-- Generated from plugins/module_utils/_monitoring/metrics.py: this page. -->",
        "",
        "# Metrics of backups",
        "",
        "Gauges for the textfile collector of Prometheus' node exporter, in `/var/lib/dbre-recovery/metrics`.",
        "[backup_monitoring](../roles/backup_monitoring/README.md) is the role that installs the collector,",
        "[backup_schedule](../roles/backup_schedule/README.md) the one that installs the timer.",
        "What can be *never* is absent, and not 0.",
        "No label holds the name of a backup or of a WAL segment.",
        "Of the identity of server and stanza only whether they match is exported: 64 bits are too many for a gauge.",
        "",
        "| metric | labels | from | meaning | absent when |",
        "|---|---|---|---|---|",
    ]
    for name, metric in METRICS.items():
        labels = ", ".join(metric.labels)
        lines.append(f"| `{name}` | {labels} | {metric.source} | {metric.text} | {metric.absent or 'never'} |")
    return "\n".join([*lines, *AFTER]) + "\n"
