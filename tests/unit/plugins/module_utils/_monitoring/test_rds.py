# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import subprocess
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.metrics import METRICS
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.rds import of_rds, rds_metrics
from ansible_collections.dbre.recovery.plugins.module_utils._policy.tiers import resolve

HOME, AWAY = "eu-central-1", "eu-west-1"
NOW = 1795947000.0  # 2026-11-29T10:10:00Z
POLICY = {**resolve("critical", {}, {}), "copy_every": 604800, "run_every": 3600}
WINDOW = {"region": HOME, "earliest": "2026-11-08T04:03:00+00:00", "latest": "2026-11-29T10:05:00+00:00"}
SNAPSHOT = {"region": AWAY, "status": "available", "time": "2026-11-28T01:00:00+00:00"}
FOUND: dict[str, Any] = {
    "exists": True,
    "settings": {"InstanceCreateTime": "2026-01-01T00:00:00+00:00"},
    "windows": [WINDOW],
    "snapshots": [SNAPSHOT, {**SNAPSHOT, "status": "failed", "time": "2026-11-29T01:00:00+00:00"}],
    "regions": {HOME: {"reachable": True, "error": None}, AWAY: {"reachable": True, "error": None}},
}


def values(found: Optional[dict[str, Any]]) -> dict[tuple[str, ...], float]:
    made = {}
    for name, labels, value in of_rds("shop", POLICY, found, [AWAY], NOW):
        assert set(labels) == set(METRICS[name].labels)
        made[(name, *(labels[label] for label in METRICS[name].labels if label != "stanza"))] = value
    return made


def test_a_database_is_told_by_the_metrics_of_servers() -> None:
    found = values(FOUND)
    assert found[("dbre_backup_stanza_seen",)] == 1
    assert found[("dbre_backup_collector_success",)] == 1
    assert found[("dbre_backup_collector_interval_seconds",)] == 3600
    assert found[("dbre_backup_first_seen_timestamp_seconds",)] == 1767225600
    assert found[("dbre_backup_window_start_timestamp_seconds", HOME)] == NOW - 21 * 86400 - 6 * 3600 - 7 * 60
    assert found[("dbre_backup_window_end_timestamp_seconds", HOME)] == NOW - 300
    assert found[("dbre_backup_archive_lag_seconds", HOME)] == 300
    assert found[("dbre_backup_objective_seconds", "rpo")] == 60
    # The one that failed does not count, and at home AWS makes its own.
    assert found[("dbre_backup_last_completion_timestamp_seconds", AWAY, "full")] == NOW - 33 * 3600 - 600
    assert ("dbre_backup_known", HOME, "full") not in found
    assert found[("dbre_backup_schedule_interval_seconds", "full")] == 604800


def test_copies_that_are_not_there_are_told() -> None:
    found = values({**FOUND, "snapshots": []})
    assert found[("dbre_backup_known", AWAY, "full")] == 0
    assert ("dbre_backup_last_completion_timestamp_seconds", AWAY, "full") not in found


def test_a_region_that_cannot_be_reached_is_no_region_without_backups() -> None:
    found = values({**FOUND, "regions": {**FOUND["regions"], AWAY: {"reachable": False, "error": "no answer"}}})
    assert found[("dbre_backup_repository_status", AWAY)] == 99
    assert ("dbre_backup_known", AWAY, "full") not in found


def test_a_database_that_is_gone_and_a_cloud_that_does_not_answer_are_told_apart() -> None:
    gone = {**FOUND, "exists": False, "settings": {}}
    assert values(gone)[("dbre_backup_stanza_seen",)] == 0
    silent = values(None)
    assert silent[("dbre_backup_collector_success",)] == 0
    assert ("dbre_backup_stanza_seen",) not in silent


def test_the_text_is_what_prometheus_reads() -> None:
    attempt = {"began": WINDOW["latest"], "ended": WINDOW["latest"], "verdict": "verified", "rto": {"seconds": 900}}
    history = json.dumps({"attempts": [attempt]})
    text = rds_metrics("shop", POLICY, FOUND, [AWAY], NOW, history)
    assert 'dbre_restore_test_rto_seconds{stanza="shop"} 900\n' in text
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
