# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.timers import program_files
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring import collector
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.archive import (
    Finished,
    of_archives,
    of_gaps,
    of_lag,
    of_queue,
)
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.metrics import COLLECTOR, METRICS, RULES
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.restore_tests import of_restore_tests
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.samples import (
    control_facts,
    of_certificate,
    of_server,
    of_stanza,
    promised,
    reach,
    timer_success,
)
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.holdings import chain_dirty
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import iso_time, stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._policy.tiers import resolve
from ansible_collections.dbre.recovery.plugins.module_utils._verification import record

ROOT = Path(__file__).resolve().parents[5] / "plugins" / "module_utils"
RECORDED = Path(__file__).resolve().parents[1] / "_pgbackrest" / "data"
VERSIONS = ("2.45", "2.55")
# The first bytes of a pg_control of PostgreSQL 15, of which pg_controldata said 7713481721058617717, timeline 1.
CONTROL = bytes.fromhex(
    "75e92aedc1ca0b6b1405000025770d0c0100000000000000c8ca0b6b0000000018075001000000001807500100000000"
    "01000000010000000100000000000000"
)
POLICY = {**resolve("standard", {}, {}), "gaps": {"full": 86400.0, "incr": 3600.0}}
POLICY["seconds"]["restore_test"] = 604800
TESTED = {
    "id": "one",
    "began": "2026-11-23T21:49:30+00:00",
    "ended": "2026-11-23T21:49:36+00:00",
    "verdict": "verified",
    "rto": {"seconds": 61.5, "objective": 3600, "met": True},
    "rpo": {"seconds": 0.5},
}
Plain = dict[tuple[str, ...], float]


def facts(version: str, name: str = "info") -> dict[str, Any]:
    return stanza_facts(json.loads((RECORDED / version / f"{name}.json").read_text())[0])


def plain(samples: Any) -> Plain:
    """Value by (name, label values in the order of the table)."""
    found: Plain = {}
    for name, labels, value in samples:
        assert set(labels) == set(METRICS[name].labels), name
        key = (name, *(labels[label] for label in METRICS[name].labels))
        assert key not in found
        found[key] = value
    return found


def test_what_a_stanza_exports_word_for_word() -> None:
    found = plain(of_stanza(facts("2.55"), ["full", "incr"], [1]))
    full, last = 1795470576.0, 1795470578.0
    assert found == {
        ("dbre_backup_stanza_seen", "alpha"): 1,
        ("dbre_backup_lock_held", "alpha"): 0,
        ("dbre_backup_repository_status", "alpha", "1"): 0,
        ("dbre_backup_repository_bytes", "alpha", "1"): 4229252,
        ("dbre_backup_known", "alpha", "1", "full"): 1,
        ("dbre_backup_last_completion_timestamp_seconds", "alpha", "1", "full"): full,
        ("dbre_backup_last_duration_seconds", "alpha", "1", "full"): 1,
        ("dbre_backup_usual_duration_seconds", "alpha", "1", "full"): 1,
        ("dbre_backup_last_size_bytes", "alpha", "1", "full"): 23422109,
        ("dbre_backup_known", "alpha", "1", "incr"): 1,
        ("dbre_backup_last_completion_timestamp_seconds", "alpha", "1", "incr"): last,
        ("dbre_backup_last_duration_seconds", "alpha", "1", "incr"): 1,
        ("dbre_backup_usual_duration_seconds", "alpha", "1", "incr"): 1,
        ("dbre_backup_last_size_bytes", "alpha", "1", "incr"): 32425643,
        ("dbre_backup_usual_size_bytes", "alpha", "1", "incr"): 23422109,
        ("dbre_backup_check_known", "alpha", "1", "chain"): 1,
        ("dbre_backup_chain_page_errors", "alpha", "1"): 0,
        ("dbre_backup_oldest_full_timestamp_seconds", "alpha", "1"): full,
        ("dbre_backup_window_start_timestamp_seconds", "alpha", "1"): full,
        ("dbre_backup_last_timeline", "alpha", "1"): 1,
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_never_is_absent_and_said_beside(version: str) -> None:
    found = plain(of_stanza(facts(version, "info-missing"), ["full"], [1]))
    assert found[("dbre_backup_known", "alpha", "1", "full")] == 0
    assert found[("dbre_backup_stanza_seen", "alpha")] == 0
    assert found[("dbre_backup_repository_status", "alpha", "1")] == 1
    assert found[("dbre_backup_check_known", "alpha", "1", "chain")] == 0
    assert {name for name, *_labels in found} & {
        "dbre_backup_last_completion_timestamp_seconds",
        "dbre_backup_chain_page_errors",
        "dbre_backup_oldest_full_timestamp_seconds",
    } == set()


@pytest.mark.parametrize("version", VERSIONS)
def test_page_errors_count_in_the_chain_that_would_be_restored_now(version: str) -> None:
    found = plain(of_stanza(facts(version, "info-page-error"), ["full"], [1]))
    assert found[("dbre_backup_chain_page_errors", "alpha", "1")] == 1


def test_page_errors_of_a_backup_that_a_newer_full_one_replaced_do_not_count() -> None:
    old, new = copy.deepcopy(facts("2.55", "info-page-error")["backups"][-1]), facts("2.55")["backups"][0]
    assert chain_dirty([old, new]) is False
    assert chain_dirty([new, {**old, "error": None}]) is None
    assert chain_dirty([{**new, "error": True}, {**new, "label": "next", "references": [new["label"]]}]) is True
    assert chain_dirty([{**new, "references": ["gone"]}]) is None


def test_a_repository_that_is_expected_and_not_in_info_is_no_hole() -> None:
    found = plain(of_stanza(facts("2.55"), ["full"], [1, 2]))
    assert found[("dbre_backup_repository_status", "alpha", "2")] == 99
    assert found[("dbre_backup_known", "alpha", "2", "full")] == 0


def test_a_backup_that_runs_shows_how_far_it_is() -> None:
    running = {**facts("2.55"), "lock": {"backup": True, "size": 10, "size_complete": 4}}
    found = plain(of_stanza(running, [], []))
    assert found[("dbre_backup_lock_held", "alpha")] == 1
    assert found[("dbre_backup_lock_complete_bytes", "alpha")] == 4


def test_a_server_that_is_not_the_stanzas_is_told() -> None:
    control = control_facts(CONTROL)
    assert control == {"system_identifier": 7713481721058617717, "state": 1, "timeline": 1}
    same = {**control, "system_identifier": 7711487397175719529}
    key = ("dbre_backup_system_identifier_match", "alpha", "1")
    assert plain(of_server(facts("2.55"), control))[key] == 0
    assert plain(of_server(facts("2.55"), same)) == {
        key: 1,
        ("dbre_backup_timeline", "alpha"): 1,
        ("dbre_backup_check_known", "alpha", "1", "identifier"): 1,
    }
    assert plain(of_server(facts("2.55"), None)) == {("dbre_backup_check_known", "alpha", "1", "identifier"): 0}


def test_what_is_no_pg_control_is_refused() -> None:
    for data in (b"", bytes(64)):
        with pytest.raises(ValueError, match="not a pg_control"):
            control_facts(data)


def test_a_quiet_server_has_no_oldest_segment() -> None:
    assert plain(of_queue("main", [])) == {("dbre_backup_ready_segments", "main"): 0}
    waiting = [Finished("2", True, 30.0), Finished("1", True, 20.0), Finished("0", False, 10.0)]
    assert plain(of_queue("main", waiting)) == {
        ("dbre_backup_ready_segments", "main"): 2,
        ("dbre_backup_ready_oldest_timestamp_seconds", "main"): 20.0,
    }


NEWEST = "000000010000000000000004"  # in the recorded archive


def segment(number: int, waits: bool, since: float) -> Finished:
    return Finished(f"{number:024X}".replace("0" * 8, "00000001", 1), waits, since)


def test_what_a_primary_has_finished_and_the_repository_has_not_is_the_lag() -> None:
    def lag(*finished: Finished) -> list[float]:
        return list(plain(of_lag(facts("2.55"), 1, finished, 100.0)).values())

    assert facts("2.55")["archives"][0]["max"] == NEWEST
    assert lag() == [0, 0]
    assert lag(segment(3, False, 10.0), segment(4, False, 20.0)) == [0, 0]
    assert lag(segment(4, False, 20.0), segment(6, True, 90.0), segment(5, True, 40.0)) == [2, 60]
    assert lag(segment(5, True, 101.0)) == [1, 0]  # finished after the look began


def continuity(*missing: str) -> collector.Continuity:
    return collector.Continuity(facts("2.55")["backups"][-1], list(missing), set(), 1795470590)


def gaps(finished: Any, *missing: str) -> Plain:
    return {key: value for key, value in plain(of_gaps(facts("2.55"), 1, continuity(*missing), finished)).items()
            if key[0] in ("dbre_backup_wal_gap_segments", "dbre_backup_archive_dropped_segments")}  # fmt: skip


def test_missing_wal_is_told_by_whether_the_server_still_has_it() -> None:
    waits, lost = segment(2, True, 1.0), segment(3, False, 1.0)
    assert gaps([waits, lost], waits.name, lost.name) == {
        ("dbre_backup_wal_gap_segments", "alpha", "1", "waiting"): 1,
        ("dbre_backup_wal_gap_segments", "alpha", "1", "lost"): 1,
        ("dbre_backup_archive_dropped_segments", "alpha", "1"): 1,
    }
    # On the host of the repository the server's queue is not seen.
    assert gaps(None, waits.name) == {
        ("dbre_backup_wal_gap_segments", "alpha", "1", "waiting"): 0,
        ("dbre_backup_wal_gap_segments", "alpha", "1", "lost"): 1,
    }


def test_what_the_server_takes_for_archived_and_the_repository_has_not_was_dropped() -> None:
    key = ("dbre_backup_archive_dropped_segments", "alpha", "1")
    assert gaps([segment(4, False, 1.0), segment(5, True, 1.0)])[key] == 0
    assert gaps([segment(4, False, 1.0), segment(5, False, 1.0), segment(6, False, 1.0)])[key] == 2


def test_how_far_a_repository_is_behind_another() -> None:
    two = copy.deepcopy(facts("2.55"))
    for name in ("databases", "archives", "backups"):
        two[name] += [{**entry, "repo": 2} for entry in two[name]]
    two["archives"][-1]["max"] = "000000010000000000000002"
    assert plain(of_archives(two)) == {
        ("dbre_backup_archive_behind_segments", "alpha", "1"): 0,
        ("dbre_backup_archive_behind_segments", "alpha", "2"): 2,
    }


def told(*attempts: dict[str, Any], now: float = 1795480000.0) -> Plain:
    return plain(of_restore_tests("main", json.dumps({"schema": 1, "attempts": attempts}), now))


def test_a_restore_test_is_told_by_verdict_and_by_what_it_measured() -> None:
    failed = {
        "began": "2026-11-24T00:26:40+00:00",
        "ended": "2026-11-24T00:27:00+00:00",
        "verdict": "failed",
        "rto": None,
    }
    assert told(TESTED, failed) == {
        ("dbre_restore_test_known", "main"): 1,
        ("dbre_restore_test_last_attempt_timestamp_seconds", "main"): 1795480000.0,
        ("dbre_restore_test_last_success_timestamp_seconds", "main"): 1795470576.0,
        ("dbre_restore_test_verdict", "main", "verified"): 0,
        ("dbre_restore_test_verdict", "main", "failed"): 1,
        ("dbre_restore_test_verdict", "main", "could_not_verify"): 0,
        ("dbre_restore_test_rto_seconds", "main"): 61.5,
        ("dbre_restore_test_rpo_seconds", "main"): 0.5,
    }


def test_what_the_role_backup_verification_leaves_is_understood(tmp_path: Path) -> None:
    path = str(tmp_path / "verification-main.json")
    record.begin(path, "main", "one", "2026-11-23T21:49:30+00:00")
    assert plain(of_restore_tests("main", Path(path).read_text(), 1795470580.0)) == {
        ("dbre_restore_test_known", "main"): 1,
        ("dbre_restore_test_last_attempt_timestamp_seconds", "main"): 1795470570.0,
    }
    record.end(path, {"rpo": None, **TESTED, "seconds": {}, "findings": [], "system_identifier": "7"})
    ended = plain(of_restore_tests("main", Path(path).read_text(), 1795470580.0))
    assert ended[("dbre_restore_test_verdict", "main", "verified")] == 1
    assert ended[("dbre_restore_test_rto_seconds", "main")] == 61.5
    # Another cluster has a stanza of the same name.
    assert plain(of_restore_tests("main", Path(path).read_text(), 1795470580.0, 7)) == ended
    assert plain(of_restore_tests("main", Path(path).read_text(), 1795470580.0, 8)) == {
        ("dbre_restore_test_known", "main"): 1
    }


def test_a_restore_test_that_runs_has_no_verdict_and_one_that_was_killed_proves_nothing() -> None:
    running = {"began": "2026-11-24T00:00:00+00:00", "ended": None, "verdict": None}
    verified, blind = [("dbre_restore_test_verdict", "main", name) for name in ("verified", "could_not_verify")]
    assert verified not in told(running)
    assert told(TESTED, running)[verified] == 1
    killed = told(TESTED, running, now=1795480000.0 + 2 * 86400)
    assert (killed[verified], killed[blind]) == (0, 1)


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"attempts": []}', '{"attempts": [3]}', json.dumps({"attempts": [{**TESTED, "verdict": "fine"}]})],
)
def test_a_history_of_restore_tests_that_cannot_be_understood_is_no_proof(text: str) -> None:
    assert plain(of_restore_tests("main", text, 0)) == {("dbre_restore_test_known", "main"): 0}


@pytest.mark.parametrize(
    ("result", "status", "ended", "success"),
    [
        ("success", 0, 5, True),
        ("exit-code", 3, 5, True),  # a backup was made; that it is not whole has alerts of its own
        ("exit-code", 1, 5, False),
        ("signal", 9, 5, False),
        ("success", 0, 0, None),
    ],
)
def test_the_last_result_of_a_timer(result: str, status: int, ended: int, success: Any) -> None:
    said = f"ExecMainExitTimestampMonotonic={ended}\nExecMainStatus={status}\nResult={result}\n"
    assert timer_success(said) is success
    assert timer_success("") is None


def test_a_certificate_that_cannot_be_read_is_told() -> None:
    assert plain(of_certificate("main", "/c", "notAfter=Nov 23 21:49:35 2026 GMT\n")) == {
        ("dbre_backup_certificate_known", "main", "/c"): 1,
        ("dbre_backup_certificate_expiry_timestamp_seconds", "main", "/c"): 1795470575,
    }
    assert plain(of_certificate("main", "/c", "")) == {("dbre_backup_certificate_known", "main", "/c"): 0}


def test_promises_are_those_of_the_policy() -> None:
    assert plain(promised("main", POLICY)) == {
        ("dbre_backup_objective_seconds", "main", "rpo"): 14400,
        ("dbre_backup_objective_seconds", "main", "rto"): 14400,
        ("dbre_backup_objective_seconds", "main", "window"): 604800,
        ("dbre_backup_schedule_interval_seconds", "main", "full"): 86400,
        ("dbre_backup_schedule_interval_seconds", "main", "incr"): 3600,
        ("dbre_backup_schedule_grace_seconds", "main"): 7200,
        ("dbre_backup_retention_reach_seconds", "main"): 8 * 86400,
        ("dbre_restore_test_interval_seconds", "main"): 604800,
    }
    assert reach({**POLICY, "retention": {"full": 7, "full-type": "time"}}) == 8 * 86400


# --- the program -----------------------------------------------------------------------------------------------------


def look(tmp_path: Path, script: str, timers: Sequence[str] = ()) -> Plain:
    """What the collector finds with this program as pgBackRest, in directories that are there."""
    program = tmp_path / "pgbackrest"
    if script:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    status = tmp_path / "pg_wal" / "archive_status"
    status.mkdir(parents=True, exist_ok=True)
    (status / "000000010000000000000001.ready").touch()
    (status / "000000010000000000000002.done").touch()
    (tmp_path / "global").mkdir(exist_ok=True)
    (tmp_path / "global" / "pg_control").write_bytes(CONTROL[:16] + b"\x06" + CONTROL[17:])  # as of one that runs
    (tmp_path / "verification-alpha.json").write_text(json.dumps({"attempts": [TESTED]}))
    settings = {
        "stanza": "alpha",
        "policy": POLICY,
        "repositories": [1],
        "repository_paths": {"1": str(tmp_path), "2": str(tmp_path / "none")},
        "pg_path": str(tmp_path),
        "timers": list(timers),
        "certificates": [str(tmp_path / "none.crt")],
        "config": "/nowhere",
        "executable": str(program),
        "interval": 60,
        "state": str(tmp_path),
    }
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    return plain(collector.Look(settings).samples())


def answer(version: str = "2.55", name: str = "info") -> str:
    """Of a pgBackRest whose repository has every segment of the recorded archive."""
    recorded = RECORDED / version / f"{name}.json"
    names = [f'"00000001000000000000000{n}-{"0" * 40}":{{"time":179547{n}000}}' for n in range(1, 7)]
    return f"case \"$*\" in *repo-ls*) echo '{{{','.join(names)}}}';; *) cat {recorded};; esac"


def test_pgbackrest_that_is_missing_is_a_metric_and_not_a_hole(tmp_path: Path) -> None:
    found = look(tmp_path, "")
    assert found[("dbre_backup_collector_success", "alpha")] == 0
    assert found[("dbre_backup_ready_segments", "alpha")] == 1
    assert not any(name in ("dbre_backup_known", "dbre_backup_stanza_seen") for name, *_labels in found)


def test_pgbackrest_that_hangs_is_a_metric_and_not_a_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "PATIENCE", 0.2)
    found = look(tmp_path, "exec sleep 20")
    assert found[("dbre_backup_collector_success", "alpha")] == 0
    assert found[("dbre_backup_collector_duration_seconds", "alpha")] < 10


def test_pgbackrest_that_prints_no_json_is_a_metric_and_not_a_hole(tmp_path: Path) -> None:
    assert look(tmp_path, "echo hello")[("dbre_backup_collector_success", "alpha")] == 0


def test_a_segment_that_is_missing_between_others_is_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    key = ("dbre_backup_wal_gap_segments", "alpha", "1", "lost")
    assert look(tmp_path, answer())[key] == 0
    holed = answer().replace('"000000010000000000000004-', '"000000010000000000000009-')
    assert look(tmp_path, holed)[key] == 1
    blind = look(tmp_path, answer().replace("echo", "exit 55; echo"))
    assert key not in blind
    assert blind[("dbre_backup_check_known", "alpha", "1", "wal_gap")] == 0


def test_a_window_is_measured_from_the_first_look(tmp_path: Path) -> None:
    key = ("dbre_backup_first_seen_timestamp_seconds", "alpha")
    assert look(tmp_path, "")[key] == look(tmp_path, "")[key]


def test_since_when_the_lock_is_held_is_remembered_while_it_is(tmp_path: Path) -> None:
    key = ("dbre_backup_lock_since_timestamp_seconds", "alpha")
    recorded = (RECORDED / "2.45" / "info.json").read_text()
    (tmp_path / "held.json").write_text(recorded.replace('"held":false', '"held":true'))
    held = answer("2.45").replace(str(RECORDED / "2.45" / "info.json"), str(tmp_path / "held.json"))
    first = look(tmp_path, held)[key]
    assert look(tmp_path, held)[key] == first
    assert key not in look(tmp_path, answer("2.45"))
    assert look(tmp_path, held)[key] > first


@pytest.mark.parametrize(("said", "value"), [("active", 1), ("inactive", 0), ("", None)])
def test_a_timer_that_is_stopped_is_told_and_one_that_cannot_be_asked_for_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, value: Any
) -> None:
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\necho {said}\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = look(tmp_path, "", timers=["full"])
    assert found.get(("dbre_backup_timer_active", "alpha", "full")) == value


def test_every_metric_of_the_collector_can_be_exported(tmp_path: Path) -> None:
    found = {name for name, *_labels in look(tmp_path, answer())}
    elsewhere = {
        "dbre_backup_timer_active",
        "dbre_backup_lock_complete_bytes",
        "dbre_backup_certificate_expiry_timestamp_seconds",
        "dbre_backup_usual_size_bytes",
        "dbre_backup_timer_success",
        "dbre_backup_lock_since_timestamp_seconds",
    }
    assert found | elsewhere >= {name for name, metric in METRICS.items() if metric.source == COLLECTOR}
    assert found <= set(METRICS)


def test_500_backups_cost_next_to_nothing() -> None:
    many = copy.deepcopy(facts("2.55"))
    full, incr = many["backups"][0], many["backups"][-1]
    many["backups"] = []
    for number in range(500):
        kind = full if number % 25 == 0 else {**incr, "references": [f"{number // 25 * 25:06}"]}
        moment = iso_time(1795470576 + number * 3600)
        many["backups"].append({**kind, "label": f"{number:06}", "stop_time": moment, "duration": number % 7})
    began = time.process_time()
    for _stanza in range(20):
        found = plain(of_stanza(many, ["full", "incr"], [1]))
    assert time.process_time() - began < 2
    last = 1795470576 + 499 * 3600
    assert found[("dbre_backup_last_completion_timestamp_seconds", "alpha", "1", "incr")] == last
    assert found[("dbre_backup_last_completion_timestamp_seconds", "alpha", "1", "full")] == last - 24 * 3600
    assert found[("dbre_backup_usual_duration_seconds", "alpha", "1", "incr")] == 6
    assert found[("dbre_backup_chain_page_errors", "alpha", "1")] == 0
    assert len(found) < 30  # whatever the number of backups


def test_no_label_holds_a_backup_a_segment_or_an_lsn() -> None:
    allowed = {"stanza", "repo", "type", "tier", "severity", "objective", "check", "file", "state", "verdict"}
    assert {label for metric in METRICS.values() for label in metric.labels} == allowed
    assert [name for name, metric in METRICS.items() if metric.source == RULES] == ["dbre_backup_expected"]


def test_the_program_as_it_is_installed_leaves_what_prometheus_reads(tmp_path: Path) -> None:
    package = "ansible_collections/dbre/recovery/plugins/module_utils"
    home = tmp_path / "home" / package
    for path, text in program_files("_monitoring/collector.py", lambda path: (ROOT / path).read_text()).items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(text)
    settings = tmp_path / "main.json"
    look(tmp_path, answer())
    settings.write_text(json.dumps({**json.loads((tmp_path / "settings.json").read_text()), "stanza": "alpha"}))
    start = f"import sys; sys.path.insert(0, {str(tmp_path / 'home')!r})\n"
    start += f"from {package.replace('/', '.')}._monitoring.collector import main; main([{str(settings)!r}])"
    # Debian's Python, as on a host: python3-prometheus-client is there.
    subprocess.run(["/usr/bin/python3", "-I", "-B", "-c", start], check=True, timeout=60)
    path = tmp_path / "metrics" / "dbre_backup_alpha.prom"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o644
    assert 'dbre_backup_known{repo="1",stanza="alpha",type="full"} 1.0\n' in path.read_text()
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=path.read_text(), capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
