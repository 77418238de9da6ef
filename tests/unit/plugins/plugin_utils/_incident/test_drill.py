# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drill is a success only when everything was looked at and is right."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.copy_inventory import copy_inventory
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.drill import Drilled, doubts, judge

SAME = {"before": ["00000001"], "after": ["00000001"], "unchanged": True}
CHANGED = {"before": ["00000001"], "after": ["00000001", "00000002"], "unchanged": False}
GOOD = Drilled(
    copy={"isolation": [{"setting": "archive_command", "value": "pgbackrest …", "ok": True}]},
    damage={"kind": "drop", "tables": ["public.orders"], "rows": 3050},
    run={"rc": 0},
    comparison={"equal": True, "different": [], "written": 50, "lost": 0, "lost_since": None},
    removed={"left": [], "repository": SAME},
)


def judged(folder: Path, drilled: Drilled, **recovered: Any) -> dict[str, Any]:
    report = {"id": "d", "verdict": "proved", "missing": [], "unproved": [], "drill": {"of": "db1"}, **recovered}
    (folder / "report.json").write_text(json.dumps(report))
    with pytest.MonkeyPatch.context() as patch:
        # How the page looks is shown by tests/page.
        patch.setattr(f"{judge.__module__}.render_html", lambda _report: "")
        return judge(folder, drilled)


def test_a_drill_in_which_all_is_right_is_proved(tmp_path: Path) -> None:
    report = judged(tmp_path, GOOD)
    assert (report["verdict"], report["headline"]) == ("proved", "Recovered and proved")
    assert report["drill"]["untouched"] is True
    assert json.loads((tmp_path / "report.json").read_text()) == report


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"comparison": {**GOOD.comparison, "equal": False, "lost": 3}}, "3 of 50 commits are lost"),
        (
            {"comparison": {**GOOD.comparison, "equal": False, "different": ["public.orders: checksum"]}},
            "public.orders",
        ),
        ({"comparison": {}}, "was not compared"),
        ({"run": {}}, "no recovery was run"),
        ({"run": {"rc": 2}}, "the recovery ended with 2"),
        ({"copy": {"isolation": []}}, "was not read back"),
        ({"copy": {"isolation": [{"setting": "archive_mode", "ok": None}]}}, "was not isolated: archive_mode"),
        ({"removed": {}}, "was not removed"),
        ({"removed": {"left": ["/side is still there"], "repository": SAME}}, "/side is still there"),
        (
            {"removed": {"left": [], "repository": {"before": ["00000001"], "after": "unreachable"}}},
            "could not be compared",
        ),
        ({"failed": "the disk is full"}, "the disk is full"),
    ],
)
def test_whatever_is_wrong_or_was_not_seen_keeps_a_drill_from_being_proved(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    report = judged(tmp_path, dataclasses.replace(GOOD, **changed))
    assert report["verdict"] == "in_part"
    assert said in report["headline"]


def test_a_copy_that_archived_into_productions_repository_is_told_in_the_headline(tmp_path: Path) -> None:
    left = ["the archive's timelines were ['00000001'] and are ['00000001', '00000002']"]
    drilled = dataclasses.replace(GOOD, removed={"left": left, "repository": CHANGED}, run={"rc": 2})
    for recovered in ("proved", "not_recovered"):
        report = judged(tmp_path, drilled, verdict=recovered)
        assert left[0] in report["headline"]
        assert report["verdict"] != "proved"
        assert report["drill"]["untouched"] is False


def test_a_drill_that_never_came_to_a_recovery_has_a_verdict_too(tmp_path: Path) -> None:
    report = judge(tmp_path / "d", Drilled(failed="no backup."))
    assert (report["verdict"], report["headline"]) == ("not_recovered", "Not recovered: no backup")
    assert "no recovery was run" in doubts(Drilled())


def test_a_recovery_in_a_drill_finds_the_copy_and_no_other_host() -> None:
    copy = dict.fromkeys(
        ("major_version", "port", "socket", "superuser", "bin_dir", "data_directory", "stanza", "config", "executable")
    )
    copy.update(evidence_path="/c/evidence", side_path="/c/side", socket="/c/run")
    host = {"ansible_host": "10.0.0.9", "ansible_user": "ops", "ansible_facts": {"a": 1}, "pgbackrest_stanza": "main"}
    production = {"backup_tier": "gold", "postgresql_socket_dir": "/run/postgresql", "dr_side_path": "/var/side"}
    made = copy_inventory(copy, {"of": "db1"}, host, production, {"ansible_host": "recovery1"})
    hosts = made["all"]["children"]["primary"]["hosts"]
    assert list(hosts) == ["copy-of-db1"]
    described = hosts["copy-of-db1"]
    assert described["ansible_host"] == "10.0.0.9"
    assert described["backup_tier"] == "gold"
    assert described["postgresql_socket_dir"] == "/c/run"
    assert described["dr_side_path"] == "/c/side"
    assert "ansible_facts" not in described


def test_a_failover_in_a_drill_finds_the_copy_and_its_standby_and_nobody_who_could_be_led_elsewhere() -> None:
    names = ("major_version", "superuser", "bin_dir", "stanza", "config", "executable", "evidence_path", "side_path")
    server = {"port": 1, "socket": "/c/run", "data_directory": "/c/data", "service": "one"}
    standby = {"port": 2, "socket": "/c/standby/run", "data_directory": "/c/standby/data", "service": "two"}
    copy = {**dict.fromkeys(names), **server, "failover_path": "/c/failover", "standby": standby}
    production = {
        "postgresql_failover_dns": {"server": "10.0.0.53"},
        "dr_repoint_command": "lead",
        "backup_tier": "gold",
    }
    made = copy_inventory(copy, {"of": "db1"}, {"ansible_user": "ops"}, production, {"ansible_host": "recovery1"})
    groups = {name: group["hosts"] for name, group in made["all"]["children"].items()}
    assert {name: list(hosts) for name, hosts in groups.items()} == {
        "primary": ["copy-of-db1"],
        "standby": ["standby-of-copy-of-db1"],
    }
    first, second = groups["primary"]["copy-of-db1"], groups["standby"]["standby-of-copy-of-db1"]
    assert (first["postgresql_service"], second["postgresql_service"]) == ("one", "two")
    assert (first["postgresql_data_dir"], second["postgresql_data_dir"]) == ("/c/data", "/c/standby/data")
    assert (first["ansible_user"], second["ansible_user"]) == ("ops", "ops")
    assert first["postgresql_failover_path"] == second["postgresql_failover_path"] == "/c/failover"
    assert "postgresql_failover_dns" not in json.dumps(made)
    assert "dr_repoint_command" not in json.dumps(made)


def test_an_old_primary_that_may_come_back_keeps_a_drill_from_being_proved(tmp_path: Path) -> None:
    damage = {"kind": "crash", "tables": [], "rows": 0, "written": 51}
    wrong = ["the old primary is off, and may be started again"]
    comparison = {**GOOD.comparison, "equal": False, "different": wrong, "old_primary": wrong[0][16:]}
    report = judged(tmp_path, dataclasses.replace(GOOD, damage=damage, comparison=comparison))
    assert report["verdict"] == "in_part"
    assert wrong[0] in report["headline"]
    said = {line["what"]: line["found"] for line in report["drill"]["lines"]}
    assert said["Damage"] == "the primary was killed while 51 rows were committed to it"
