# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring import audit
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.archive import Finished
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._policy.tiers import resolve
from ansible_collections.dbre.recovery.plugins.module_utils._verification.record import begin, end, history_path
from ansible_collections.dbre.recovery.plugins.modules.backup_audit_info import histories

RECORDED = Path(__file__).resolve().parents[1] / "_pgbackrest" / "data"
HOUR, DAY = 3600.0, 86400.0
NOW = 1795500000.0
POLICY = {**resolve("standard", {}, {}), "gaps": {"full": DAY, "incr": HOUR}}
POLICY["seconds"]["restore_test"] = 7 * DAY
TESTED = {"ended": NOW - DAY, "verdict": "verified", "rto_seconds": 60.0, "rpo_seconds": 1.0}


def backup(age: float, errors: Optional[bool] = False) -> dict[str, Any]:
    return {"label": "20261123-214825F", "ended": NOW - age, "usual_seconds": 60, "errors": errors}


def repository(**other: Any) -> dict[str, Any]:
    good = {
        "status": {"code": 0, "message": "ok"},
        "backups": {"full": backup(HOUR), "diff": backup(HOUR), "incr": backup(HOUR)},
        "reaches_back_to": NOW - 8 * DAY,
        "page_errors": False,
        "lag_seconds": 0.0,
    }
    return {**good, **other}


def found(*repositories: dict[str, Any], **other: Any) -> dict[str, Any]:
    numbered = {str(number): one for number, one in enumerate(repositories or (repository(),), start=1)}
    known = {"stanza": "main", "status": {"code": 0, "message": "ok"}, "system_identifier": 42}
    return {**known, "repositories": numbered, **other}


def missed(judged: list[audit.Judgement]) -> list[tuple[str, str, str]]:
    return [tuple(one) for one in judged if one.state != audit.MET]  # type: ignore[misc]


def judged(*repositories: dict[str, Any], tests: Any = (TESTED,), **other: Any) -> list[tuple[str, str, str]]:
    return missed(audit.judge(found(*repositories, **other), POLICY, tests, NOW))


def test_what_is_as_promised_is_met() -> None:
    everything = audit.judge(found(), POLICY, [TESTED], NOW)
    assert {one.objective for one in everything} == {"full", "incr", "window", "rpo", "rto", "restore_test"}
    assert audit.verdict(everything) == "met"
    assert audit.reasons(everything) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"backups": {"full": backup(3 * DAY), "diff": backup(HOUR), "incr": backup(HOUR)}},
            ("full", "not_met", "the last full backup in repository 1 is 3 d old, and one is due every 1 d"),
        ),
        (
            {"backups": {"full": None, "diff": None, "incr": None}},
            ("full", "not_met", "no full backup in repository 1"),
        ),
        ({"page_errors": True}, ("pages", "not_met", "what would be restored from repository 1 holds damaged pages")),
        (
            {"page_errors": None},
            ("pages", "unknown", "this pgBackRest does not tell whether pages in repository 1 are damaged"),
        ),
        (
            {"reaches_back_to": NOW - 2 * DAY},
            ("window", "not_met", "repository 1 reaches back 2 d, and 7 d are promised"),
        ),
        (
            {"reaches_back_to": None},
            ("window", "not_met", "nothing in repository 1 can be restored to a moment"),
        ),
        (
            {"lag_seconds": 5 * HOUR},
            ("rpo", "not_met", "finished WAL waits for its archive since 5 h, and 4 h are promised"),
        ),
        ({"lag_seconds": None}, ("rpo", "unknown", "RPO was not measured")),
        (
            {"status": {"code": 99, "message": "cannot be decrypted"}},
            ("backups", "not_met", "repository 1 cannot be used: cannot be decrypted"),
        ),
    ],
)
def test_what_a_repository_lacks_is_said(changed: dict[str, Any], expected: tuple[str, str, str]) -> None:
    said = judged(repository(**changed))
    assert expected in said
    assert audit.verdict(audit.Judgement(*one) for one in said) == expected[1]


def test_a_backup_is_late_only_after_its_grace_and_its_usual_duration() -> None:
    due = DAY + POLICY["seconds"]["grace"] + 60
    late = {"full": backup(due + 1), "diff": backup(HOUR), "incr": backup(HOUR)}
    assert judged(repository(backups={**late, "full": backup(due - 1)})) == []
    assert [one[0] for one in judged(repository(backups=late))] == ["full"]


def test_where_the_clock_is_behind_no_age_is_known() -> None:
    told = judged(
        repository(backups={"full": backup(-DAY), "diff": backup(-DAY), "incr": backup(-DAY)}),
        tests=[{**TESTED, "ended": NOW + DAY}],
    )
    assert {(objective, state) for objective, state, _why in told} == {
        ("full", "unknown"),
        ("incr", "unknown"),
        ("restore_test", "unknown"),
    }
    assert all("clock" in why for _objective, _state, why in told)


def test_each_repository_is_judged_but_one_that_has_the_wal_is_enough() -> None:
    behind = repository(lag_seconds=9 * HOUR, backups={"full": backup(3 * DAY), "diff": None, "incr": backup(HOUR)})
    assert [one[2] for one in judged(repository(), behind)] == [
        "the last full backup in repository 2 is 3 d old, and one is due every 1 d"
    ]


def test_a_stanza_that_is_not_there_is_one_reason() -> None:
    said = judged(status={"code": 1, "message": "missing stanza path"})
    assert said == [("backups", "not_met", "stanza main is not there: missing stanza path")]


@pytest.mark.parametrize(
    ("tests", "state", "why"),
    [
        (None, "unknown", "the history of restore tests cannot be understood"),
        ((), "not_met", "no restore was ever tested"),
        (({**TESTED, "verdict": "failed"},), "not_met", "the last restore test, 1 d ago, failed"),
        (
            ({**TESTED, "verdict": "could_not_verify"},),
            "unknown",
            "the last restore test, 1 d ago, could not tell whether the backups are good",
        ),
        (
            ({**TESTED, "ended": NOW - 9 * DAY},),
            "not_met",
            "the last restore test was 9 d ago, and one is due every 7 d",
        ),
    ],
)
def test_a_restore_test_counts_only_when_it_proved_the_backup_in_time(tests: Any, state: str, why: str) -> None:
    assert ("restore_test", state, why) in judged(tests=tests)


def test_a_failure_after_a_success_is_what_counts_and_measures_of_before_are_kept() -> None:
    said = judged(tests=[TESTED, {"ended": NOW - HOUR, "verdict": "failed", "rto_seconds": None, "rpo_seconds": None}])
    assert said == [("restore_test", "not_met", "the last restore test, 1 h ago, failed")]


def test_objectives_that_a_restore_test_missed() -> None:
    slow = {**TESTED, "rto_seconds": 5 * HOUR, "rpo_seconds": 6 * HOUR}
    assert [one[2] for one in judged(tests=[slow])] == [
        "the last restore test took 5 h, and 4 h are promised",
        "the last restore test lost 6 h, and 4 h are promised",
    ]


def test_tests_of_another_cluster_whose_stanza_has_the_same_name_do_not_count() -> None:
    ours, theirs = {**TESTED, "system_identifier": 42}, {**TESTED, "system_identifier": 43}
    nameless = {**TESTED, "ended": NOW}
    elsewhere = [{"main": [ours, theirs]}, {"main": [nameless]}]
    assert audit.tests_of("main", 42, {}, elsewhere, alone=False) == [ours]
    assert audit.tests_of("main", 42, {}, elsewhere, alone=True) == [ours, nameless]
    assert audit.tests_of("main", 42, {"main": [nameless]}, elsewhere, alone=False) == [ours, nameless]
    assert audit.tests_of("main", 42, {"main": None}, elsewhere, alone=False) is None


@pytest.mark.parametrize("version", ["2.45", "2.55"])
def test_what_pgbackrest_says_is_summed_up(version: str) -> None:
    facts = stanza_facts(json.loads((RECORDED / version / "info.json").read_text())[0])
    last = max(facts["backups"], key=lambda one: one["stop_time"])
    newest = facts["archives"][-1]["max"]
    after = f"{int(newest, 16) + 1:024X}"
    waiting = [Finished(newest, False, NOW - HOUR), Finished(after, True, NOW - 90)]
    summed = audit.summary(facts, waiting, NOW)
    assert len(summed["repositories"]) == 1
    repo = next(iter(summed["repositories"].values()))
    assert repo["lag_seconds"] == 90
    assert repo["backups"]["incr"]["label"] == last["label"]
    assert repo["backups"]["full"]["label"].endswith("F")
    assert audit.summary(facts, None, NOW)["repositories"]["1"]["lag_seconds"] is None
    assert json.loads(json.dumps(summed)) == summed


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("[global]\nrepo1-path=/r\n[main]\npg1-path=/d\n", "/d"),
        ("[main]\n pg1-path = /d e \npg1-port=5432\n[other]\npg1-path=/o\n", "/d e"),
        ("[main:archive-push]\nprocess-max=4\n[main]\npg1-path=/d\n", "/d"),
        ("[main]\npg1-path=/d\npg1-host=db1\n", None),
        ("[global]\npg1-path=/d\n", None),
        ("", None),
    ],
)
def test_the_cluster_of_this_host_is_the_one_that_the_configuration_names(text: str, path: Optional[str]) -> None:
    assert audit.local_cluster(text, "main") == path


WINDOW = {"kind": "automated", "earliest": "2026-11-20T00:00:00+00:00", "latest": "2026-11-29T09:55:00+00:00"}
SNAPSHOT = {"type": "automated", "status": "available", "created": "2026-11-29T04:00:00+00:00"}
RDS_NOW = 1795946400.0  # 2026-11-29T10:00:00Z


def test_rds_is_judged_by_its_own_backups() -> None:
    assert missed(audit.judge_rds([WINDOW], [SNAPSHOT], POLICY, RDS_NOW)) == []
    said = missed(audit.judge_rds([{**WINDOW, "earliest": WINDOW["latest"]}], [], POLICY, RDS_NOW))
    assert [one[2] for one in said] == [
        "its backups reach back 5 min, and 7 d are promised",
        "there is no automated snapshot",
    ]
    old = {**WINDOW, "latest": "2026-11-29T01:00:00+00:00"}
    assert missed(audit.judge_rds([old], [{**SNAPSHOT, "created": "2026-11-27T04:00:00+00:00"}], POLICY, RDS_NOW)) == [
        ("rpo", "not_met", "the latest moment that can be restored was 9 h, and 4 h are promised"),
        ("full", "not_met", "the last automated snapshot is 2 d 6 h old, and one is due every 1 d"),
    ]


@pytest.mark.parametrize("windows", [[], [{**WINDOW, "latest": None}], [{**WINDOW, "kind": "replicated"}]])
def test_rds_without_automated_backups_meets_nothing(windows: Any) -> None:
    assert [one[0] for one in missed(audit.judge_rds(windows, [SNAPSHOT], POLICY, RDS_NOW))] == ["backups"]


def test_histories_are_read_from_where_verify_backups_leaves_them(tmp_path: Path) -> None:
    path = history_path(str(tmp_path), "main")
    now = datetime.now(timezone.utc)
    for number, verdict in enumerate(("verified", "failed")):
        began = (now - timedelta(hours=5 - number)).isoformat()
        begin(path, "main", f"run-{number}", began)
        report = {"id": f"run-{number}", "ended": began, "verdict": verdict, "seconds": {}, "findings": []}
        report["system_identifier"] = str(7711487094474521737 + number)
        end(path, {**report, "rto": {"seconds": 61.5, "objective": None, "met": None}, "rpo": None})
    begin(path, "main", "killed", (now - timedelta(days=2)).isoformat())
    begin(path, "main", "running", now.isoformat())
    (tmp_path / "verification-odd.json").write_text("{}")
    (tmp_path / "verifications").mkdir()
    found = histories(str(tmp_path), now.timestamp())
    assert found["odd"] is None
    assert [one["verdict"] for one in found["main"] or []] == ["verified", "failed", "could_not_verify"]
    assert (found["main"] or [])[0]["rto_seconds"] == 61.5
    assert histories(str(tmp_path / "nowhere"), 0.0) == {}
    # Two clusters have a stanza of that name. What names neither of them counts on its own host only.
    for offset, mine in enumerate(("verified", "failed")):
        tests = audit.tests_of("main", 7711487094474521737 + offset, {}, [found], alone=False)
        assert [one["verdict"] for one in tests or []] == [mine]
