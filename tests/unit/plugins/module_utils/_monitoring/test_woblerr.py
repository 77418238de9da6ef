# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The alerts with the metrics of woblerr/pgbackrest_exporter 0.23.0: its names, labels and values."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.metrics import METRICS
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.rules import ALERTS, alert_rules
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.woblerr import RECORDS

# Its page of metrics, of those that are used: labels of each.
SIX = "backup_name,backup_type,block_incr,database_id,repo_key,stanza"
LAST = "backup_type,block_incr,stanza"
THEIRS = {
    "pgbackrest_stanza_status": "stanza",
    "pgbackrest_stanza_backup_lock_status": "stanza",
    "pgbackrest_stanza_backup_complete_bytes": "stanza",
    "pgbackrest_repo_status": "cipher,repo_key,stanza",
    "pgbackrest_backup_info": "backrest_ver,lsn_start,lsn_stop,pg_version,prior,wal_start,wal_stop," + SIX,
    "pgbackrest_backup_duration_seconds": SIX + ",start_time,stop_time",
    "pgbackrest_backup_size_bytes": SIX,
    "pgbackrest_backup_repo_delta_bytes": SIX,
    "pgbackrest_backup_since_last_completion_seconds": LAST,
    "pgbackrest_backup_last_duration_seconds": LAST,
    "pgbackrest_backup_last_size_bytes": LAST,
    "pgbackrest_backup_last_error_status": LAST,
    "pgbackrest_exporter_status": "stanza",
}
HOUR, DAY, STEP = 3600, 86400, 300
STANZAS = {"main": {"tier": "low", "gaps": {"full": DAY}}}
Key = tuple[str, tuple[tuple[str, str], ...]]


def sample(name: str, value: float, **labels: str) -> tuple[Key, float]:
    usual = {"stanza": "main", "backup_type": "full", "repo_key": "1", "block_incr": "n"}
    given = {label: labels.get(label, usual.get(label, "x")) for label in THEIRS[name].split(",")}
    return (name, tuple(sorted({**given, "instance": "db1"}.items()))), value


def healthy(now: float) -> dict[Key, float]:
    """A full backup every night at 1:00, which takes ten minutes."""
    return dict(
        [
            sample("pgbackrest_stanza_status", 0),
            sample("pgbackrest_stanza_backup_lock_status", 0),
            sample("pgbackrest_repo_status", 0),
            sample("pgbackrest_exporter_status", 1, stanza="all-stanzas"),
            *(sample("pgbackrest_backup_info", 1, backup_name=name) for name in "abc"),
            *(sample("pgbackrest_backup_duration_seconds", 600, backup_name=name) for name in "abc"),
            *(sample("pgbackrest_backup_size_bytes", 1000, backup_name=name) for name in "abc"),
            *(sample("pgbackrest_backup_repo_delta_bytes", 500, backup_name=name) for name in "abc"),
            sample("pgbackrest_backup_since_last_completion_seconds", (now - 4200) % DAY),
            sample("pgbackrest_backup_last_duration_seconds", 600),
            sample("pgbackrest_backup_last_size_bytes", 1000),
            sample("pgbackrest_backup_last_error_status", 0),
        ]
    )


Change = Callable[[dict[Key, float], float], None]


def put(name: str, value: Callable[[float], float], **labels: str) -> Change:
    def change(moment: dict[Key, float], now: float) -> None:
        key, is_now = sample(name, value(now), **labels)
        moment[key] = is_now

    return change


def drop(*names: str) -> Change:
    def change(moment: dict[Key, float], _now: float) -> None:
        for key in [key for key in moment if key[0] in names]:
            del moment[key]

    return change


def stuck(moment: dict[Key, float], now: float) -> None:
    put("pgbackrest_stanza_backup_lock_status", lambda _now: 1)(moment, now)
    put("pgbackrest_stanza_backup_complete_bytes", lambda _now: 5)(moment, now)


CAUSES: dict[str, Change] = {
    "BackupMissed": put("pgbackrest_backup_since_last_completion_seconds", lambda now: 2 * DAY + now),
    "BackupNever": drop(*(name for name in THEIRS if name.startswith("pgbackrest_backup_"))),
    "BackupStuck": stuck,
    "BackupSizeAnomaly": put("pgbackrest_backup_last_size_bytes", lambda _now: 10),
    "BackupChainDirty": put("pgbackrest_backup_last_error_status", lambda _now: 1),
    "BackupRepositoryUnreadable": put("pgbackrest_repo_status", lambda _now: 99),
    "BackupCollectorFailed": put("pgbackrest_exporter_status", lambda _now: 0, stanza="all-stanzas"),
    "BackupStanzaVanished": drop("pgbackrest_stanza_status"),
}


def fires(tmp_path: Path, moments: list[dict[Key, float]]) -> set[str]:
    """The alerts that fire in the end."""
    rules, test = tmp_path / "rules.yml", tmp_path / "test.yml"
    rules.write_text(yaml.safe_dump(alert_rules(STANZAS, {}, "docs", "woblerr"), width=10**9))
    series = [
        {
            "series": key[0] + "{" + ",".join(f'{name}="{value}"' for name, value in key[1]) + "}",
            "values": " ".join(repr(moment[key]) if key in moment else "_" for moment in moments),
        }
        for key in dict.fromkeys(key for moment in moments for key in moment)
    ]
    asked = [
        {"eval_time": f"{(len(moments) - 1) * STEP}s", "alertname": name, "exp_alerts": []}
        for name in [*ALERTS, "BackupStanzaVanished"]
    ]
    one = {"interval": f"{STEP}s", "input_series": series, "alert_rule_test": asked}
    whole: dict[str, Any] = {"rule_files": [str(rules)], "evaluation_interval": f"{STEP}s", "tests": [one]}
    test.write_text(yaml.safe_dump(whole, width=10**9))
    done = subprocess.run(["promtool", "test", "rules", str(test)], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert "could not parse" not in said
    assert "execution" not in said, said
    return set(re.findall(r'alertname="(\w+)"', said))


def life(hours: int, change: Change = lambda _moment, _now: None) -> list[dict[Key, float]]:
    moments = []
    for now in range(0, hours * HOUR + 1, STEP):
        moment = healthy(now)
        change(moment, now)
        moments.append(moment)
    return moments


@pytest.mark.parametrize("hours", [3, 24, 26, 47])
def test_a_server_that_is_well_is_silent(tmp_path: Path, hours: int) -> None:
    assert fires(tmp_path, life(hours)) == set()


@pytest.mark.parametrize("alert", CAUSES)
def test_an_alert_fires_by_its_cause_and_no_other_does(tmp_path: Path, alert: str) -> None:
    assert fires(tmp_path, life(3, CAUSES[alert])) == {alert}


def test_names_on_both_sides_are_those_that_are_exported() -> None:
    used = set().union(*(re.findall(r"\bpgbackrest_\w+", expression) for expression in RECORDS.values()))
    assert used == set(THEIRS)
    assert set(RECORDS) <= set(METRICS)
    assert not used & set(METRICS)  # a host with both shows no name with two meanings


def test_gaps_and_a_source_that_are_not_known_are_refused() -> None:
    with pytest.raises(RecoveryError, match="stanza main has no gaps for full"):
        alert_rules({"main": {"tier": "low"}}, {}, "docs", "woblerr")
    with pytest.raises(RecoveryError, match="'other' is none of dbre, woblerr"):
        alert_rules(STANZAS, {}, "docs", "other")
