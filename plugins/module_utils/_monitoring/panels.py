# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the dashboards show: can I recover, to when, how long will it take, is it proved. Pure data."""

from __future__ import annotations

from typing import NamedTuple

NONE, SECONDS, BYTES, AGO = "none", "s", "bytes", "dateTimeFromNow"
YES = {"0": "no", "1": "yes"}
NO = {"0": "no", "1": "YES"}
STATUS = {"0": "ok", "1": "no path", "2": "no valid backup", "3": "no stanza data", "99": "unreadable"}
# What is red, from which value on.
RED_AT_1, RED_AT_0, NEVER_RED = (("green", 0), ("red", 1)), (("red", 0), ("green", 1)), (("text", 0),)


class Panel(NamedTuple):
    """``queries``: expression and legend; OF stands for the labels of the chosen stanza."""

    title: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "stat"
    unit: str = NONE
    mapping: dict[str, str] = {}
    colours: tuple[tuple[str, float], ...] = NEVER_RED
    text: str = ""


def moment(metric: str, how: str = "max", by: str = "repo") -> str:
    """A moment, in the milliseconds that Grafana counts in."""
    return f"{how} by ({by}) ({metric}{{OF}}) * 1000"


def by_repo(metric: str, how: str = "max") -> str:
    return f"{how} by (repo) ({metric}{{OF}})"


REPO, RUN = "repository {{repo}}", "{{type}}, repository {{repo}}"
ALERTS = 'ALERTS{alertname=~"Backup.+|RestoreTest.+|R[tp]oExceeded",alertstate="firing",OF}'

STANZA: dict[str, list[Panel]] = {
    "Can I recover?": [
        Panel("Alerts", ((f"count({ALERTS}) or vector(0)", ""),), colours=RED_AT_1),
        Panel("Expected, and its tier", (("dbre_backup_expected{OF}", "{{tier}}"),), mapping={"1": "yes"}),
        Panel("Seen in a repository", (("max(dbre_backup_stanza_seen{OF})", ""),), mapping=YES, colours=RED_AT_0),
        Panel(
            "Repositories",
            ((by_repo("dbre_backup_repository_status"), REPO),),
            mapping=STATUS,
            colours=RED_AT_1,
            text="pgBackRest's status of each.",
        ),
        Panel(
            "Damaged pages in what would be restored",
            ((by_repo("dbre_backup_chain_page_errors"), REPO),),
            mapping=NO,
            colours=RED_AT_1,
        ),
        Panel(
            "There is a backup",
            (("min by (type, repo) (dbre_backup_known{OF})", RUN),),
            mapping=YES,
            colours=RED_AT_0,
        ),
        Panel(
            "Server and stanza are the same cluster",
            ((by_repo("dbre_backup_system_identifier_match", "min"), REPO),),
            mapping=YES,
            colours=RED_AT_0,
        ),
        Panel(
            "Timeline",
            (("max(dbre_backup_timeline{OF})", "server"), (by_repo("dbre_backup_last_timeline"), f"backup, {REPO}")),
            text="A backup of an older timeline than the server's: no backup since it was promoted.",
        ),
        Panel(
            "Checks that could be made",
            (("min by (check, repo) (dbre_backup_check_known{OF})", "{{check}}, repository {{repo}}"),),
            mapping=YES,
            colours=RED_AT_0,
        ),
    ],
    "To when?": [
        Panel("Earliest moment", ((moment("dbre_backup_window_start_timestamp_seconds"), REPO),), unit=AGO),
        Panel("Latest moment at least", ((moment("dbre_backup_window_end_timestamp_seconds"), REPO),), unit=AGO),
        Panel(
            "Promised: reach back, loss",
            (('max by (objective) (dbre_backup_objective_seconds{OF,objective!="rto"})', "{{objective}}"),),
            unit=SECONDS,
        ),
        Panel(
            "Missing WAL",
            (("max by (repo, state) (dbre_backup_wal_gap_segments{OF})", "{{state}}, repository {{repo}}"),),
            colours=RED_AT_1,
        ),
        Panel("Dropped WAL", ((by_repo("dbre_backup_archive_dropped_segments"), REPO),), colours=RED_AT_1),
        Panel("Segments behind", ((by_repo("dbre_backup_archive_behind_segments"), REPO),)),
        Panel(
            "Archive lag",
            (
                (by_repo("dbre_backup_archive_lag_seconds"), REPO),
                ('max(dbre_backup_objective_seconds{OF,objective="rpo"})', "promised"),
            ),
            "timeseries",
            SECONDS,
        ),
        Panel(
            "WAL on its way",
            (
                (by_repo("dbre_backup_archive_lag_segments"), f"not in {REPO}"),
                ("max(dbre_backup_ready_segments{OF})", "waits on the server"),
            ),
            "timeseries",
        ),
    ],
    "How long will it take?": [
        Panel(
            "Recovery time",
            (
                ("max(dbre_restore_test_rto_seconds{OF})", "measured"),
                ('max(dbre_backup_objective_seconds{OF,objective="rto"})', "promised"),
            ),
            unit=SECONDS,
        ),
        Panel("Loss, measured", (("max(dbre_restore_test_rpo_seconds{OF})", ""),), unit=SECONDS),
        Panel("Size of the cluster", ((by_repo("dbre_backup_last_size_bytes"), REPO),), "timeseries", BYTES),
    ],
    "Is it proved?": [
        Panel(
            "Last restore test found",
            (("max by (verdict) (dbre_restore_test_verdict{OF}) == 1", "{{verdict}}"),),
            mapping={"1": " "},
            text="verified, failed or could_not_verify.",
        ),
        Panel(
            "Last proof",
            (("max(dbre_restore_test_last_success_timestamp_seconds{OF}) * 1000", ""),),
            unit=AGO,
        ),
        Panel(
            "Last attempt",
            (("max(dbre_restore_test_last_attempt_timestamp_seconds{OF}) * 1000", ""),),
            unit=AGO,
        ),
        Panel("Promised every", (("max(dbre_restore_test_interval_seconds{OF})", ""),), unit=SECONDS),
    ],
    "Backups": [
        Panel(
            "Age of the newest",
            (("time() - max by (type, repo) (dbre_backup_last_completion_timestamp_seconds{OF})", RUN),),
            "timeseries",
            SECONDS,
        ),
        Panel(
            "Duration",
            (
                ("max by (type, repo) (dbre_backup_last_duration_seconds{OF})", RUN),
                ("max by (type, repo) (dbre_backup_usual_duration_seconds{OF})", f"longest, {RUN}"),
            ),
            "timeseries",
            SECONDS,
        ),
        Panel(
            "Last scheduled run failed",
            (("max by (type, repo) (pgbackrest_backup_error{OF})", RUN),),
            mapping=NO,
            colours=RED_AT_1,
        ),
        Panel(
            "Last scheduled run",
            ((moment("pgbackrest_backup_last_run_timestamp_seconds", by="type, repo"), RUN),),
            unit=AGO,
        ),
        Panel(
            "Last one that was whole",
            ((moment("pgbackrest_backup_timestamp_last_success", by="type, repo"), RUN),),
            unit=AGO,
        ),
        Panel(
            "Scheduled runs took",
            (("max by (type, repo) (pgbackrest_backup_last_run_duration_seconds{OF})", RUN),),
            "timeseries",
            SECONDS,
        ),
        Panel(
            "Timers",
            (("min by (type) (dbre_backup_timer_active{OF})", "{{type}}"),),
            mapping={"0": "stopped", "1": "on"},
            colours=RED_AT_0,
        ),
        Panel("Runs now", (("max(dbre_backup_lock_held{OF})", ""),), mapping=YES),
        Panel(
            "Oldest full backup",
            ((moment("dbre_backup_oldest_full_timestamp_seconds", "min"), REPO),),
            unit=AGO,
        ),
    ],
    "Room": [
        Panel("Backups in the repository", ((by_repo("dbre_backup_repository_bytes"), REPO),), "timeseries", BYTES),
        Panel(
            "Free on its disk",
            (
                (by_repo("dbre_backup_repository_free_bytes", "min"), REPO),
                (by_repo("dbre_backup_repository_capacity_bytes", "min"), f"size of {REPO}"),
            ),
            "timeseries",
            BYTES,
        ),
    ],
    "Who looks": [
        Panel(
            "pgBackRest answers",
            (("min by (instance) (dbre_backup_collector_success{OF})", "{{instance}}"),),
            mapping=YES,
            colours=RED_AT_0,
        ),
        Panel(
            "Last look",
            (("max by (instance) (dbre_backup_collector_timestamp_seconds{OF}) * 1000", "{{instance}}"),),
            unit=AGO,
        ),
        Panel("A look is due every", (("max(dbre_backup_collector_interval_seconds{OF})", ""),), unit=SECONDS),
        Panel(
            "A look takes",
            (("max by (instance) (dbre_backup_collector_duration_seconds{OF})", "{{instance}}"),),
            "timeseries",
            SECONDS,
        ),
    ],
}

EACH = "{{stanza}}"
FLEET: dict[str, list[Panel]] = {
    "Can I recover?": [
        Panel("Stanzas", (("count(dbre_backup_expected)", ""),)),
        Panel(
            "Stanzas that alarm",
            ((f"count(count by (stanza) ({ALERTS.replace(',OF', '')})) or vector(0)", ""),),
            colours=RED_AT_1,
        ),
        Panel(
            "Repositories that are not ok",
            (("count(dbre_backup_repository_status != 0) or vector(0)", ""),),
            colours=RED_AT_1,
        ),
        Panel(
            "Stanzas without a full backup",
            (('count(dbre_backup_known{type="full"} == 0) or vector(0)', ""),),
            colours=RED_AT_1,
        ),
        Panel(
            "Alerts by stanza",
            (
                (
                    (
                        f"count by (stanza) ({ALERTS.replace(',OF', '')})"
                        " or on(stanza) 0 * max by (stanza) (dbre_backup_expected)"
                    ),
                    EACH,
                ),
            ),
            "bargauge",
            colours=RED_AT_1,
        ),
    ],
    "To when?": [
        Panel(
            "Earliest moment",
            (("min by (stanza) (dbre_backup_window_start_timestamp_seconds) * 1000", EACH),),
            unit=AGO,
        ),
        Panel(
            "Latest moment at least",
            (("max by (stanza) (dbre_backup_window_end_timestamp_seconds) * 1000", EACH),),
            unit=AGO,
        ),
        Panel("Archive lag", (("max by (stanza) (dbre_backup_archive_lag_seconds)", EACH),), "timeseries", SECONDS),
    ],
    "How long will it take?": [
        Panel(
            "Measured recovery time of what is promised",
            (
                (
                    (
                        "max by (stanza) (dbre_restore_test_rto_seconds)"
                        ' / max by (stanza) (dbre_backup_objective_seconds{objective="rto"})'
                    ),
                    EACH,
                ),
            ),
            "bargauge",
            "percentunit",
            colours=RED_AT_1,
        ),
    ],
    "Is it proved?": [
        Panel(
            "Last proof",
            (("max by (stanza) (dbre_restore_test_last_success_timestamp_seconds) * 1000", EACH),),
            unit=AGO,
        ),
        Panel(
            "Stanzas without any proof",
            (
                (
                    (
                        "count(dbre_backup_expected unless on(stanza) dbre_restore_test_last_success_timestamp_seconds)"
                        " or vector(0)"
                    ),
                    "",
                ),
            ),
            colours=RED_AT_1,
        ),
    ],
}
