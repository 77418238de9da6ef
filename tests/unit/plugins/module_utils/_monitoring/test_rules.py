# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.archive import (
    of_archives,
    of_gaps,
    of_lag,
    of_queue,
)
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.metrics import METRICS, Sample
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.restore_tests import of_restore_tests
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.rules import (
    ALERTS,
    VANISHED,
    alert_rules,
    runbook_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.samples import (
    of_server,
    of_stanza,
    promised,
)
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.continuity import Continuity
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import iso_time
from ansible_collections.dbre.recovery.plugins.module_utils._policy.tiers import resolve

ROOT = Path(__file__).resolve().parents[5]
DOCS = "https://docs.example.com/runbooks"
HOUR, DAY, WEEK = 3600, 86400, 604800
STEP = 300  # seconds between two samples: Prometheus forgets a series after them
Plain = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:dbre|pgbackrest)_\w+", expression))


def life(now: float, every: dict[str, int], keep: int, until: float = float("inf")) -> Plain:
    """What a server exports that is well at ``now``, by the collector's own functions.

    Backups of each type have been taken every so many seconds, each for ten minutes; ``until`` none was any more.
    """
    full = every["full"]
    policy = {
        **resolve("critical", {}, {"retention": {"full": keep}, "rpo": "1h", "window": f"{(keep - 1) * full}s"}),
        "gaps": {kind: float(gap) for kind, gap in every.items()},
    }
    policy["seconds"]["restore_test"] = WEEK
    moment = iso_time(now // WEEK * WEEK)
    measured = {"rto": {"seconds": 60}, "rpo": {"seconds": 1}}
    tested = json.dumps({"attempts": [{"began": moment, "ended": moment, "verdict": "verified", **measured}]})
    backups = []
    oldest = max(int(now - 600) // full - keep + 1, -keep) * full
    for kind, gap in every.items():
        last = int(min(now, until) - 600) // gap
        for number in {*range(-(-oldest // gap), last + 1)} if kind == "full" else {last - 1, last}:
            start = number * gap
            if kind != "full" and start % full == 0:
                continue  # the full one takes its place
            backups.append(backup(kind, start, start + 600))
    backups.sort(key=lambda one: str(one["stop_time"]))
    facts = {
        "name": "main",
        "status": {"code": 0},
        "lock": {"backup": None, "size_complete": None},
        "repositories": [{"repo": 1, "status": {"code": 0}}],
        "databases": [{"id": 1, "repo": 1, "system_identifier": 7, "version": "15"}],
        "archives": [{"repo": 1, "id": "15-1", "database_id": 1, "max": "000000010000000000000001"}],
        "backups": backups,
    }
    samples = [
        *promised("main", policy),
        *of_stanza(facts, every, [1]),
        *of_server(facts, {"system_identifier": 7, "timeline": 1}),
        *of_queue("main", []),
        *of_archives(facts),
        *of_lag(facts, 1, [], now),
        *of_gaps(facts, 1, Continuity(backups[-1] if backups else {}, [], set(), int(now) - 600), []),
        *of_restore_tests("main", tested, now),
        Sample("dbre_backup_collector_success", {"stanza": "main"}, 1),
        Sample("dbre_backup_collector_interval_seconds", {"stanza": "main"}, 60),
        Sample("dbre_backup_collector_timestamp_seconds", {"stanza": "main"}, now),
        Sample("dbre_backup_first_seen_timestamp_seconds", {"stanza": "main"}, -keep * full),
        Sample("dbre_backup_repository_free_bytes", {"stanza": "main", "repo": "1"}, 1e12 - now % full),
        Sample("dbre_backup_repository_capacity_bytes", {"stanza": "main", "repo": "1"}, 3e12),
        Sample("dbre_backup_certificate_known", {"stanza": "main", "file": "/c"}, 1),
        Sample("dbre_backup_certificate_expiry_timestamp_seconds", {"stanza": "main", "file": "/c"}, now + 90 * DAY),
        *(Sample("dbre_backup_timer_active", {"stanza": "main", "type": kind}, 1) for kind in every),
        *(Sample("dbre_backup_timer_success", {"stanza": "main", "type": kind}, 1) for kind in every),
        *(Sample("pgbackrest_backup_error", {"stanza": "main", "type": kind, "repo": "1"}, 0) for kind in every),
    ]
    return {(name, tuple(sorted(labels.items()))): float(value) for name, labels, value in samples}


def backup(kind: str, start: float, stop: float) -> dict[str, Any]:
    return {
        "label": f"{start}", "type": kind, "references": [], "repo": 1, "database_id": 1, "error": False,
        "stop_time": iso_time(stop), "duration": stop - start, "size": 100, "repo_delta": 50,
        "archive_start": "000000010000000000000001", "archive_stop": "000000010000000000000001", "start_lsn": None,
    }  # fmt: skip


def series(moments: list[Plain], rename: str = "", instance: str = "db1") -> Iterator[dict[str, str]]:
    """Input series of promtool; ``rename``: a metric that goes by another name."""
    for key in dict.fromkeys(key for moment in moments for key in moment):
        name, labels = key
        shown = ",".join(f'{label}="{value}"' for label, value in (*labels, ("instance", instance)))
        values = " ".join(repr(moment[key]) if key in moment else "_" for moment in moments)
        yield {"series": f"{name}{'_renamed' if name == rename else ''}{{{shown}}}", "values": values}


def promtool(
    tmp_path: Path,
    moments: list[Plain],
    step: int,
    expected: list[Any],
    rename: str = "",
    instances: Sequence[str] = ("db1",),
) -> tuple[bool, str]:
    """Whether exactly what is expected fires: [(seconds, alert, labels or None)]."""
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump(alert_rules({"main": {"tier": "critical"}}, {}, DOCS)))
    tests = [
        {"eval_time": f"{when}s", "alertname": name, "exp_alerts": [] if labels is None else [labels]}
        for when, name, labels in expected
    ]
    seen = [entry for instance in instances for entry in series(moments, rename, instance)]
    one = {"interval": f"{step}s", "input_series": seen, "alert_rule_test": tests}
    test = tmp_path / "test.yml"
    test.write_text(
        yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": f"{step}s", "tests": [one]}, width=10**9)
    )
    done = subprocess.run(["promtool", "test", "rules", str(test)], capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout + done.stderr


ALL = [*ALERTS, "BackupStanzaVanished"]


@pytest.mark.parametrize(
    ("every", "keep", "days"),
    [({"full": DAY, "incr": HOUR}, 8, 3), ({"full": WEEK, "diff": DAY}, 4, 15), ({"full": 30 * DAY}, 3, 65)],
    ids=["daily", "weekly", "monthly"],
)
def test_a_healthy_schedule_is_silent(tmp_path: Path, every: dict[str, int], keep: int, days: int) -> None:
    step = STEP if days < 10 else HOUR
    moments = [life(now, every, keep) for now in range(0, days * DAY, step)]
    # Every few hours of it, and just before and after the next backup is due.
    asked = {*range(0, days * DAY, 7 * HOUR), *(days // 2 * DAY + more for more in (-HOUR, 0, HOUR))}
    ok, said = promtool(tmp_path, moments, step, [(when, name, None) for when in sorted(asked) for name in ALL])
    assert ok, said[:3000]


DAILY = {"full": DAY, "incr": HOUR}
Change = Callable[[Plain, float], None]


def put(name: str, value: float, **only: str) -> Change:
    """The metric has this value, where its labels are these."""

    def change(moment: Plain, _now: float) -> None:
        for key in [key for key in moment if key[0] == name and set(only.items()) <= set(key[1])]:
            moment[key] = value

    return change


def add(name: str, value: Callable[[float], float], **labels: str) -> Change:
    def change(moment: Plain, now: float) -> None:
        moment[(name, tuple(sorted({"stanza": "main", **labels}.items())))] = value(now)

    return change


def nothing(moment: Plain, _now: float) -> None:
    moment.clear()


def stuck(moment: Plain, now: float) -> None:
    put("dbre_backup_lock_held", 1)(moment, now)
    add("dbre_backup_lock_complete_bytes", lambda _now: 5)(moment, now)


def behind(moment: Plain, now: float) -> None:
    for name, labels in [key for key in moment if key[0] == "dbre_backup_last_completion_timestamp_seconds"]:
        moment[(name, tuple((label, "2" if label == "repo" else value) for label, value in labels))] = now - 3 * DAY


def without(*names: str) -> Change:
    def change(moment: Plain, _now: float) -> None:
        for key in [key for key in moment if key[0] in names]:
            del moment[key]

    return change


def lagging(moment: Plain, now: float) -> None:
    """As of RDS: no queue is seen."""
    put("dbre_backup_archive_lag_seconds", 2 * HOUR)(moment, now)
    without("dbre_backup_ready_segments")(moment, now)


# What makes each alert fire: a change of the metrics of a healthy server, from the first moment on.
CAUSES: dict[str, Change] = {
    "BackupMissed": put("dbre_backup_last_completion_timestamp_seconds", -WEEK, type="full"),
    "BackupNever": put("dbre_backup_known", 0, type="full"),
    "BackupFailed": put("pgbackrest_backup_error", 1, type="full"),
    "BackupTimerFailed": put("dbre_backup_timer_success", 0, type="full"),
    "BackupStuck": stuck,
    "BackupSizeAnomaly": put("dbre_backup_last_size_bytes", 10, type="full"),
    "BackupTimerStopped": put("dbre_backup_timer_active", 0, type="full"),
    "BackupChainDirty": put("dbre_backup_chain_page_errors", 1),
    "BackupWindowShort": put("dbre_backup_window_start_timestamp_seconds", 0),
    "BackupExpireRefused": put("dbre_backup_oldest_full_timestamp_seconds", -90 * DAY),
    "BackupRepositoryBehind": behind,
    "BackupRepositoryUnreadable": put("dbre_backup_repository_status", 99),
    "BackupRepositoryFilling": add("dbre_backup_repository_free_bytes", lambda now: 8e11 - 1e7 * now, repo="1"),
    "BackupStanzaMismatch": put("dbre_backup_system_identifier_match", 0),
    "BackupMissingAfterPromotion": put("dbre_backup_timeline", 2),
    "BackupArchiveStuck": add("dbre_backup_ready_oldest_timestamp_seconds", lambda _now: -HOUR),
    "BackupArchiveLagging": lagging,
    "BackupArchiveLost": put("dbre_backup_wal_gap_segments", 3, state="lost"),
    "BackupArchiveDropped": put("dbre_backup_archive_dropped_segments", 3),
    "BackupCheckBlind": put("dbre_backup_check_known", 0, check="wal_gap"),
    "BackupCertificateExpiring": add("dbre_backup_certificate_expiry_timestamp_seconds", lambda _: 9 * DAY, file="/c"),
    "BackupCertificateUnreadable": put("dbre_backup_certificate_known", 0),
    "BackupCollectorFailed": put("dbre_backup_collector_success", 0),
    "BackupCollectorStale": put("dbre_backup_collector_timestamp_seconds", -HOUR),
    "RestoreTestSilent": put("dbre_restore_test_last_attempt_timestamp_seconds", -2 * WEEK),
    "RestoreTestUnproved": put("dbre_restore_test_verdict", 1, verdict="could_not_verify"),
    "RestoreTestFailed": put("dbre_restore_test_verdict", 1, verdict="failed"),
    "RtoExceeded": put("dbre_restore_test_rto_seconds", 2 * HOUR),
    "RpoExceeded": put("dbre_restore_test_rpo_seconds", 2 * HOUR),
    "BackupStanzaVanished": nothing,
}
LASTS = 3 * HOUR


def sick(alert: str, *changes: Change) -> list[Plain]:
    moments = []
    for now in range(0, LASTS + 1, STEP):
        moment = life(now, DAILY, 8)
        for change in changes or [CAUSES[alert]]:
            change(moment, now)
        moments.append(moment)
    return moments


def fires(tmp_path: Path, alert: str, moments: list[Plain], rename: str = "") -> bool:
    """Whether the alert, and only then, is among those that fire at the end; its labels are read from promtool."""
    ok, said = promtool(tmp_path, moments, STEP, [(LASTS, alert, None)], rename)
    return not ok and f'alertname="{alert}"' in said


def test_each_alert_has_a_cause() -> None:
    assert set(CAUSES) == set(ALL)


@pytest.mark.parametrize("alert", ALL)
def test_an_alert_fires_by_its_series_and_no_longer_when_a_metric_is_renamed(tmp_path: Path, alert: str) -> None:
    moments = sick(alert)
    ok, said = promtool(tmp_path, moments, STEP, [(LASTS, alert, None)])
    assert not ok, "it is silent"
    assert 'severity="critical"' in said
    assert 'tier="critical"' in said
    assert "Stanza main: " in said
    assert "<no value>" not in said
    if alert == "BackupStanzaVanished":
        return  # nothing is left that could be renamed
    silent = {name for name in names_in(ALERTS[alert].when) if not fires(tmp_path, alert, moments, rename=name)}
    assert silent == names_in(ALERTS[alert].when) - OTHER_WAYS.get(alert, set())


# Of an alert that has two ways to fire, what the other one, which is shown below, goes by.
OTHER_WAYS = {
    "BackupArchiveLagging": {"dbre_backup_ready_segments"},
    "BackupTimerFailed": {"pgbackrest_backup_error"},
    "BackupStuck": {
        "dbre_backup_lock_since_timestamp_seconds",
        "dbre_backup_usual_duration_seconds",
        "dbre_backup_schedule_grace_seconds",
    },
    "BackupRepositoryBehind": {"dbre_backup_archive_behind_segments"},
    "RestoreTestSilent": {
        "dbre_backup_first_seen_timestamp_seconds",
        "dbre_restore_test_last_attempt_timestamp_seconds",  # without it, it goes by the other
    },
    "RestoreTestUnproved": {"dbre_restore_test_known"},
}


SECOND_WAYS: list[tuple[str, list[Change], set[str]]] = [
    (
        "BackupStuck",  # pgBackRest before 2.48
        [
            put("dbre_backup_lock_held", 1),
            add("dbre_backup_lock_since_timestamp_seconds", lambda _now: -HOUR),
        ],
        OTHER_WAYS["BackupStuck"],
    ),
    (
        "BackupRepositoryBehind",
        [put("dbre_backup_archive_behind_segments", 2)],
        {"dbre_backup_archive_behind_segments"},
    ),
    (
        "RestoreTestSilent",
        [without("dbre_restore_test_last_attempt_timestamp_seconds")],
        {"dbre_backup_first_seen_timestamp_seconds"},
    ),
    ("RestoreTestUnproved", [put("dbre_restore_test_known", 0)], {"dbre_restore_test_known"}),
]


@pytest.mark.parametrize(("alert", "changes", "by"), SECOND_WAYS, ids=[way[0] for way in SECOND_WAYS])
def test_the_other_way_to_fire(tmp_path: Path, alert: str, changes: list[Change], by: set[str]) -> None:
    moments = sick(alert, *changes)
    assert fires(tmp_path, alert, moments)
    assert {name for name in names_in(ALERTS[alert].when) if not fires(tmp_path, alert, moments, rename=name)} >= by


def test_a_timers_run_that_says_why_it_failed_has_one_alert(tmp_path: Path) -> None:
    moments = sick("", put("dbre_backup_timer_success", 0, type="full"), put("pgbackrest_backup_error", 1, type="full"))
    assert fires(tmp_path, "BackupFailed", moments)
    assert not fires(tmp_path, "BackupTimerFailed", moments)


def test_a_restore_test_of_today_is_silence_and_nothing_else(tmp_path: Path) -> None:
    moments = [life(now, DAILY, 8) for now in range(0, LASTS + 1, STEP)]
    assert not fires(tmp_path, "RestoreTestSilent", moments)
    assert fires(tmp_path, "RestoreTestSilent", moments, rename="dbre_restore_test_last_attempt_timestamp_seconds")


@pytest.mark.parametrize(
    ("alert", "times"), [("BackupMissed", 1), ("BackupChainDirty", 1), ("BackupCollectorFailed", 2)]
)
def test_what_primary_and_repository_host_both_see_is_one_fault(tmp_path: Path, alert: str, times: int) -> None:
    asked = [(LASTS, alert, None)]
    _ok, said = promtool(tmp_path, sick(alert), STEP, asked, instances=("db1", "backup1"))
    assert said.count(f'alertname="{alert}"') == times


def test_a_repository_whose_turn_comes_first_is_not_behind(tmp_path: Path) -> None:
    """Backups that take two hours, every hour by the schedule, in one repository after the other."""
    moments = sick("", put("dbre_backup_usual_duration_seconds", 2 * HOUR))
    for number, moment in enumerate(moments):
        for key in [key for key in moment if key[0] == "dbre_backup_last_completion_timestamp_seconds"]:
            second = tuple((label, "2" if label == "repo" else value) for label, value in key[1])
            moment[key], moment[(key[0], second)] = number * STEP - 3 * HOUR, number * STEP - HOUR
            usual = ("dbre_backup_usual_duration_seconds", second)
            moment[usual] = 2 * HOUR
    assert not fires(tmp_path, "BackupRepositoryBehind", moments)


def test_a_lag_of_a_server_has_one_alert(tmp_path: Path) -> None:
    moments = sick("", put("dbre_backup_archive_lag_seconds", 2 * HOUR))
    assert not fires(tmp_path, "BackupArchiveLagging", moments)


def test_a_disk_that_a_first_backup_begins_to_use_is_no_disk_that_fills(tmp_path: Path) -> None:
    moments = sick("", add("dbre_backup_repository_free_bytes", lambda now: 2.9e12 - 1e7 * now, repo="1"))
    assert not fires(tmp_path, "BackupRepositoryFilling", moments)


def test_wal_that_the_server_will_still_archive_is_not_lost(tmp_path: Path) -> None:
    moments = sick("", put("dbre_backup_wal_gap_segments", 3, state="waiting"))
    assert not fires(tmp_path, "BackupArchiveLost", moments)


def test_a_stanza_that_is_reported_has_not_vanished_and_one_under_another_name_has(tmp_path: Path) -> None:
    moments = [life(now, DAILY, 8) for now in range(0, LASTS + 1, STEP)]
    assert not fires(tmp_path, "BackupStanzaVanished", moments)
    assert fires(tmp_path, "BackupStanzaVanished", moments, rename="dbre_backup_stanza_seen")
    for moment in moments:
        put("dbre_backup_collector_success", 0)(moment, 0)
    assert not fires(tmp_path, "BackupStanzaVanished", moments, rename="dbre_backup_stanza_seen")


def test_an_alert_ends_with_the_backup_that_was_missed(tmp_path: Path) -> None:
    moments = [life(now, DAILY, 8, until=DAY if now < 3 * DAY else float("inf")) for now in range(0, 4 * DAY, STEP)]
    at = {hours: promtool(tmp_path, moments, STEP, [(hours * HOUR, "BackupMissed", None)])[0] for hours in (24, 60, 80)}
    assert at == {24: True, 60: False, 80: True}


def test_rules_name_only_what_something_exports() -> None:
    used = set().union(*(names_in(alert.when) for alert in [*ALERTS.values(), VANISHED]))
    assert used <= set(METRICS)


def test_severity_is_the_tiers_and_of_ones_own_tier_a_warning() -> None:
    given = {"a": {"tier": "critical"}, "b": {"tier": "low"}, "c": {"tier": "own"}}
    own = {"own": {**resolve("low", {}, {}), "severity": None}}
    del own["own"]["severity"], own["own"]["tier"], own["own"]["seconds"]
    rules = alert_rules(given, own, DOCS)["groups"][0]["rules"]
    assert [rule["labels"]["severity"] for rule in rules if "record" in rule] == ["critical", "info", "warning"]


def test_rules_for_no_stanza_are_refused() -> None:
    with pytest.raises(RecoveryError, match="would never fire"):
        alert_rules({}, {}, DOCS)


@pytest.mark.parametrize("alert", ALL)
def test_an_alerts_runbook_begins_with_the_command_to_run(alert: str) -> None:
    text = (ROOT / "docs" / "runbooks" / f"{runbook_name(alert)}.md").read_text()
    lines = text.split("\n")
    assert lines[:3] == [f"# {alert}", "", "```sh"]
    assert lines[3].startswith("sudo ")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    rule = next(
        rule for rule in alert_rules({"main": {}}, {}, DOCS)["groups"][0]["rules"] if rule.get("alert") == alert
    )
    assert rule["annotations"]["runbook"] == f"{DOCS}/{runbook_name(alert)}.md"


def test_there_is_no_runbook_without_an_alert() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} - {"README"}
    assert pages == {runbook_name(alert) for alert in ALL}
