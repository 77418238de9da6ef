# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Alert rules of Prometheus for backups. Thresholds are metrics of the stanza's policy: none is written here twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring import woblerr
from ansible_collections.dbre.recovery.plugins.module_utils._policy.tiers import resolve

SOURCES = ("dbre", "woblerr")  # whose metrics: of the collector here, or of woblerr/pgbackrest_exporter
# Which tier a stanza has, laid over what is found of it.
TIER = " * on(stanza) group_left(tier, severity) dbre_backup_expected"


class Alert(NamedTuple):
    """``when`` holds for ``lasting`` before the alert fires; ``summary`` follows the name of the stanza."""

    when: str
    lasting: str
    summary: str


ALERTS: dict[str, Alert] = {
    "BackupMissed": Alert(
        "time() - dbre_backup_last_completion_timestamp_seconds"
        " - on(instance, stanza, repo, type) dbre_backup_usual_duration_seconds"
        " - on(instance, stanza, type) group_left() dbre_backup_schedule_interval_seconds"
        " - on(instance, stanza) group_left() dbre_backup_schedule_grace_seconds > 0",
        "5m",
        "the {{ $labels.type }} backup in repository {{ $labels.repo }} is overdue by {{ $value | humanizeDuration }}",
    ),
    "BackupNever": Alert(
        "dbre_backup_known == 0",
        "1h",
        "there has never been a {{ $labels.type }} backup in repository {{ $labels.repo }}",
    ),
    "BackupFailed": Alert(
        "pgbackrest_backup_error == 1",
        "0m",
        "the last {{ $labels.type }} backup to repository {{ $labels.repo }} failed",
    ),
    "BackupTimerFailed": Alert(
        "dbre_backup_timer_success == 0 unless on(instance, stanza, type) pgbackrest_backup_error == 1",
        "0m",
        "the last run of the timer of {{ $labels.type }} backups was ended, or failed without a word of why",
    ),
    "BackupStuck": Alert(
        # pgBackRest before 2.48 does not say how far it is: there the time that the lock is held has to do.
        "dbre_backup_lock_held == 1 and on(instance, stanza) changes(dbre_backup_lock_complete_bytes[10m]) == 0"
        " or time() - dbre_backup_lock_since_timestamp_seconds"
        " - on(instance, stanza) max by (instance, stanza) (dbre_backup_usual_duration_seconds)"
        " - on(instance, stanza) dbre_backup_schedule_grace_seconds > 0"
        " unless on(instance, stanza) dbre_backup_lock_complete_bytes",
        "20m",
        "a backup or expire command runs and does not come forward",
    ),
    "BackupSizeAnomaly": Alert(
        "dbre_backup_last_size_bytes / on(instance, stanza, repo, type) dbre_backup_usual_size_bytes < 0.5"
        " or dbre_backup_last_size_bytes / on(instance, stanza, repo, type) dbre_backup_usual_size_bytes > 2",
        "0m",
        "the last {{ $labels.type }} backup in repository {{ $labels.repo }} has {{ $value }} times its usual size",
    ),
    "BackupTimerStopped": Alert(
        "dbre_backup_timer_active == 0",
        "10m",
        "the timer of {{ $labels.type }} backups is stopped",
    ),
    "BackupChainDirty": Alert(
        "dbre_backup_chain_page_errors == 1",
        "0m",
        "what would be restored now from repository {{ $labels.repo }} holds damaged pages",
    ),
    "BackupWindowShort": Alert(
        # The oldest backup may have taken longer than the one whose end let the one before it expire.
        "(time() - dbre_backup_window_start_timestamp_seconds"
        " + on(instance, stanza) group_left() dbre_backup_schedule_grace_seconds"
        ' < on(instance, stanza) group_left() dbre_backup_objective_seconds{objective="window"})'
        " and on(instance, stanza) (time() - dbre_backup_first_seen_timestamp_seconds"
        ' > on(instance, stanza) dbre_backup_objective_seconds{objective="window"})',
        "1h",
        "repository {{ $labels.repo }} reaches back only {{ $value | humanizeDuration }}, less than promised",
    ),
    "BackupExpireRefused": Alert(
        "time() - dbre_backup_oldest_full_timestamp_seconds"
        " - on(instance, stanza) group_left() dbre_backup_retention_reach_seconds"
        ' - on(instance, stanza) group_left() dbre_backup_schedule_interval_seconds{type="full"}'
        " - on(instance, stanza) group_left() dbre_backup_schedule_grace_seconds > 0",
        "1h",
        "old backups in repository {{ $labels.repo }} do not expire, and it fills",
    ),
    "BackupRepositoryBehind": Alert(
        "max by (instance, stanza, type) (dbre_backup_last_completion_timestamp_seconds)"
        " - on(instance, stanza, type) group_right() dbre_backup_last_completion_timestamp_seconds"
        # A timer takes them one repository after the other.
        " - on(instance, stanza, type) group_left()"
        " max by (instance, stanza, type) (dbre_backup_usual_duration_seconds)"
        " - on(instance, stanza, type) group_left() dbre_backup_schedule_interval_seconds"
        " - on(instance, stanza) group_left() dbre_backup_schedule_grace_seconds > 0"
        # One more or less may have come while the repositories were read.
        " or dbre_backup_archive_behind_segments > 1",
        "15m",
        "the newest backup or WAL in repository {{ $labels.repo }} is older than another repository's",
    ),
    "BackupRepositoryUnreadable": Alert(
        "dbre_backup_repository_status != 0",
        "15m",
        "pgBackRest reports status {{ $value }} for repository {{ $labels.repo }}",
    ),
    "BackupRepositoryFilling": Alert(
        # What is written in the first hours goes on for ever by such a prediction: only where there is little left.
        "predict_linear(dbre_backup_repository_free_bytes[1d], 4 * 86400) < 0"
        " and on(instance, stanza, repo)"
        " dbre_backup_repository_free_bytes / dbre_backup_repository_capacity_bytes < 0.3",
        "1h",
        "the file system of repository {{ $labels.repo }} will be full within four days",
    ),
    "BackupStanzaMismatch": Alert(
        "dbre_backup_system_identifier_match == 0",
        "5m",
        "the server on {{ $labels.instance }} is not the cluster whose backups are in repository {{ $labels.repo }}",
    ),
    "BackupMissingAfterPromotion": Alert(
        "dbre_backup_last_timeline < on(instance, stanza) group_left() dbre_backup_timeline",
        "1h",
        "the server was promoted, and repository {{ $labels.repo }} has no backup since",
    ),
    "BackupArchiveStuck": Alert(
        "time() - dbre_backup_ready_oldest_timestamp_seconds"
        ' - on(instance, stanza) group_left() dbre_backup_objective_seconds{objective="rpo"} > 0',
        "2m",
        "WAL waits to be archived on {{ $labels.instance }} for longer than may be lost",
    ),
    "BackupArchiveLagging": Alert(
        # Of RDS, where no queue is seen. AWS needs about five minutes at best, whatever was promised.
        "dbre_backup_archive_lag_seconds > on(stanza) group_left()"
        ' clamp_min(max by (stanza) (dbre_backup_objective_seconds{objective="rpo"}), 900)'
        " unless on(instance, stanza) dbre_backup_ready_segments",
        "10m",
        "the latest moment that can be restored in {{ $labels.repo }} is {{ $value | humanizeDuration }} ago",
    ),
    "BackupArchiveLost": Alert(
        'dbre_backup_wal_gap_segments{state="lost"} > 0',
        "5m",
        "{{ $value }} WAL segments since the newest backup are missing from repository {{ $labels.repo }}",
    ),
    "BackupArchiveDropped": Alert(
        "dbre_backup_archive_dropped_segments > 0",
        "5m",
        "{{ $value }} WAL segments were dropped that repository {{ $labels.repo }} does not have",
    ),
    "BackupCheckBlind": Alert(
        "dbre_backup_check_known == 0",
        "1h",
        "the check {{ $labels.check }} of repository {{ $labels.repo }} could not be made, and nothing is known",
    ),
    "BackupCertificateExpiring": Alert(
        "dbre_backup_certificate_expiry_timestamp_seconds - time() < 14 * 86400",
        "1h",
        "{{ $labels.file }} on {{ $labels.instance }} expires in {{ $value | humanizeDuration }}",
    ),
    "BackupCertificateUnreadable": Alert(
        "dbre_backup_certificate_known == 0",
        "1h",
        "{{ $labels.file }} on {{ $labels.instance }} cannot be read, and when it expires is not known",
    ),
    "BackupCollectorFailed": Alert(
        "dbre_backup_collector_success == 0",
        "10m",
        "pgBackRest on {{ $labels.instance }} gives no answer, and nothing is known of the backups",
    ),
    "BackupCollectorStale": Alert(
        "time() - dbre_backup_collector_timestamp_seconds"
        " - on(instance, stanza) 3 * dbre_backup_collector_interval_seconds > 900",
        "5m",
        "the metrics of {{ $labels.instance }} are {{ $value | humanizeDuration }} too old",
    ),
    "RestoreTestSilent": Alert(
        # Where none was ever made, or what it found went with its host: since the stanza is looked at.
        "time() - (max by (stanza) (dbre_restore_test_last_attempt_timestamp_seconds)"
        " or min by (stanza) (dbre_backup_first_seen_timestamp_seconds))"
        " - max by (stanza) (dbre_restore_test_interval_seconds)"
        " - max by (stanza) (dbre_backup_schedule_grace_seconds) > 0",
        "5m",
        "no restore test was made for {{ $value | humanizeDuration }} longer than promised",
    ),
    "RestoreTestUnproved": Alert(
        'dbre_restore_test_verdict{verdict="could_not_verify"} == 1 or dbre_restore_test_known == 0',
        "0m",
        "the last restore test could not tell whether the backups are good",
    ),
    "RestoreTestFailed": Alert(
        'dbre_restore_test_verdict{verdict="failed"} == 1',
        "0m",
        "the last restore test failed: the backups cannot be relied on",
    ),
    "RtoExceeded": Alert(
        "dbre_restore_test_rto_seconds"
        ' > on(stanza) group_left() max by (stanza) (dbre_backup_objective_seconds{objective="rto"})',
        "0m",
        "the last restore test took {{ $value | humanizeDuration }}, longer than promised",
    ),
    "RpoExceeded": Alert(
        "dbre_restore_test_rpo_seconds"
        ' > on(stanza) group_left() max by (stanza) (dbre_backup_objective_seconds{objective="rpo"})',
        "0m",
        "the last restore test lost {{ $value | humanizeDuration }} of data, more than promised",
    ),
}
# No series of the stanza itself is left, so its tier comes from the inventory alone.
VANISHED = Alert(
    "dbre_backup_expected unless on(stanza) (dbre_backup_stanza_seen == 1 or dbre_backup_collector_success == 0)",
    "10m",
    "the stanza is in the inventory, and no host reports it",
)


def runbook_name(alert: str) -> str:
    """BackupMissed -> backup-missed."""
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in alert).lstrip("-")


def alert_rules(
    stanzas: Mapping[str, Mapping[str, Any]], tiers: Mapping[str, Any], runbooks: str, source: str = "dbre"
) -> dict[str, list[dict[str, Any]]]:
    """The rules file of Prometheus for the stanzas of an inventory: ``{NAME: {tier, policy, gaps}}``.

    ``runbooks`` is the address of the directory of runbooks. With ``source`` woblerr the metrics are those of its
    exporter, and ``gaps``, the seconds between two backups of each type, are needed. Raises RecoveryError for a tier or
    a source that is not known, where there is no stanza, and where gaps are missing.
    """
    if source not in SOURCES:
        raise RecoveryError(
            f"backup_monitoring_source {source!r} is none of {', '.join(SOURCES)}. Nothing was changed. Correct it."
        )
    if not stanzas:
        raise RecoveryError(
            "backup_monitoring_stanzas is empty, and rules for no stanza would never fire. Nothing was changed. Name "
            "each stanza with its tier, such as {main: {tier: critical}}."
        )
    rules: list[dict[str, Any]] = []
    for stanza, given in sorted(stanzas.items()):
        policy = resolve(str(given.get("tier", "standard")), tiers, given.get("policy") or {})
        labels = {"stanza": stanza, "tier": policy["tier"], "severity": policy["severity"]}
        rules.append({"record": "dbre_backup_expected", "expr": "vector(1)", "labels": labels})
        if source == "woblerr":
            gaps = {kind: float(seconds) for kind, seconds in (given.get("gaps") or {}).items()}
            if set(gaps) != set(policy["schedule"]):
                raise RecoveryError(
                    f"stanza {stanza} has no gaps for {', '.join(sorted(set(policy['schedule']) ^ set(gaps)))}, and "
                    "no collector exports them with backup_monitoring_source woblerr. Nothing was changed. The role "
                    "backup_monitoring works them out on the host of Prometheus."
                )
            rules += woblerr.records(stanza, {**policy, "gaps": gaps})
    if source == "woblerr":
        rules += woblerr.mapping()
    for name, alert in [*ALERTS.items(), ("BackupStanzaVanished", VANISHED)]:
        rules.append(
            {
                "alert": name,
                "expr": alert.when if alert is VANISHED else tiered(alert),
                "for": alert.lasting,
                "annotations": {
                    "summary": f"Stanza {{{{ $labels.stanza }}}}: {alert.summary}.",
                    "runbook": f"{runbooks.rstrip('/')}/{runbook_name(name)}.md",
                },
            }
        )
    return {"groups": [{"name": "dbre_backup", "rules": rules}]}


def tiered(alert: Alert) -> str:
    """The condition, with the tier and the severity of the stanza as labels, and the value that it has.

    What primary and repository host both see is one fault, unless the summary says on which of them it is.
    """
    when = alert.when if "$labels.instance" in alert.summary else f"max without (instance, job) ({alert.when})"
    return f"({when}){TIER}"
