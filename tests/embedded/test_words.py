"""Playbooks as they are started: a word that means nothing ends them by name, before any host is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
# Hosts that nobody could reach: what gets further than its input fails otherwise.
HOSTS = {
    "primary": {"hosts": {"db1": {"ansible_host": "192.0.2.1"}}},
    "repository": {"hosts": {"backup1": {"ansible_host": "192.0.2.2"}}},
    "standby": {"hosts": {"db2": {"ansible_host": "192.0.2.3"}}},
    "rds": {"hosts": {"shop": {"ansible_connection": "local"}}},
}


SHOP = {"dr_database": "shop"}


def start(tmp_path: Path, name: str, *words: str, **variables: Any) -> tuple[int, str]:
    inventory = tmp_path / "inventory.json"
    inventory.write_text(json.dumps({"all": {"children": HOSTS}}))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), *words]
    given = {"dr_report_dir": str(tmp_path / "incidents"), **variables}
    done = subprocess.run(
        [*command, str(PLAYBOOKS / f"{name}.yml"), "-e", json.dumps(given)],
        env={**os.environ, "ANSIBLE_HOME": str(tmp_path), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_TIMEOUT": "1"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).replace("\\n", " ").split())


WRONG = [
    ("dr-table-drop", "dr_primary"),
    ("dr-corruption", "dr_primary"),
    ("dr-primary-failure", "dr_primary"),
    ("what-happened", "dr_primary"),
    ("find-corruption", "dr_primary"),
    ("provision-primary", "provision_primary"),
    ("provision-primary", "provision_repository"),
    ("provision-primary", "provision_monitoring"),
    ("provision-standby", "provision_standby"),
    ("provision-standby", "provision_primary"),
    ("audit-policy", "audit_primary"),
    ("audit-policy", "audit_recovery"),
    ("backup-now", "provision_primary"),
    ("backup-now", "provision_repository"),
    ("logical-backup", "logical_backup_primary"),
    ("verify-backups", "verify_hosts"),
    ("verify-backups", "verify_rds"),
    ("snapshot-before-change", "provision_primary"),
    ("snapshot-before-change", "dr_rds"),
    ("dr-abandon", "dr_primary"),
    ("dr-abandon", "dr_rds"),
    ("dr-release", "dr_primary"),
    ("dr-release", "dr_rds"),
    ("dr-drill", "dr_primary"),
    ("dr-rds-table-drop", "dr_rds"),
    ("dr-rds-failover", "dr_rds"),
    ("dr-rds-corruption", "dr_rds"),
    ("rds-backup", "dr_rds"),
]


def test_every_playbook_is_looked_at() -> None:
    names = {path.stem for path in PLAYBOOKS.glob("*.yml") if not path.is_symlink()}
    assert names == {name for name, _variable in WRONG} | {"demo"}


@pytest.mark.parametrize(("name", "variable"), WRONG)
def test_a_group_that_is_not_there_is_refused_by_name(tmp_path: Path, name: str, variable: str) -> None:
    code, said = start(tmp_path, name, **{variable: "prmary"})
    assert code != 0
    assert f"{variable} is 'prmary', and the inventory has no such group or host. Similar: primary." in said
    assert "Nothing was touched." in said
    assert not (tmp_path / "incidents").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("-l", "backup*"), "--limit backup* leaves no host of primary."),
        (("--tags", "recover"), "--tags recover would carry out a phase without those that it builds on"),
        (("--start-at-task", "Recover"), "--start-at-task 'Recover' would leave out what all later steps stand on"),
    ],
)
def test_a_run_of_nothing_or_of_a_part_is_refused(tmp_path: Path, words: tuple[str, ...], named: str) -> None:
    code, said = start(tmp_path, "dr-table-drop", *words, **SHOP)
    assert code != 0
    assert named in said
    assert "Nothing was touched." in said


@pytest.mark.parametrize(
    "variable", ["dr_recovery_group", "dr_repository_group", "dr_standby_group", "dr_pgbouncer_group"]
)
def test_a_group_for_the_side_instance_that_is_not_there_is_refused(tmp_path: Path, variable: str) -> None:
    code, said = start(tmp_path, "dr-table-drop", dr_database="shop", **{variable: "standbyy"})
    assert code != 0
    assert f"{variable} is 'standbyy'" in said
    assert "Similar: standby" in said


@pytest.mark.parametrize(
    ("source", "variable", "value"),
    [
        ("pgbackrest", "dr_dump", "/backups/shop.dump"),
        ("dump", "dr_target_lsn", "0/1"),
    ],
)
def test_a_word_that_the_source_does_not_use_is_refused(tmp_path: Path, source: str, variable: str, value: Any) -> None:
    code, said = start(tmp_path, "dr-table-drop", dr_database="shop", dr_source=source, **{variable: value})
    assert code != 0
    assert f"With dr_source={source}, nothing uses {variable}." in said


@pytest.mark.parametrize(
    ("name", "given", "named"),
    [
        ("dr-table-drop", {**SHOP, "dr_tabels": "orders"}, "dr_tabels is not known; did you mean dr_tables?"),
        ("dr-rds-table-drop", {**SHOP, "dr_dump": "/d"}, "dr_dump is for dr-table-drop, not for dr-rds-table-drop."),
        ("dr-table-drop", {**SHOP, "dr_source": "logical"}, "dr_source=logical needs dr_dump"),
        ("dr-table-drop", {**SHOP, "dr_load": "besides"}, "besides"),
        ("dr-table-drop", {**SHOP, "dr_primary": "all"}, "dr-table-drop recovers one server at a time"),
        ("dr-primary-failure", {"dr_primary": "all"}, "dr-primary-failure replaces one primary at a time"),
        ("dr-primary-failure", {"dr_fencd": True}, "dr_fencd is not known; did you mean dr_fenced?"),
        ("dr-rds-table-drop", {**SHOP, "dr_rds": "all"}, "This playbook works on one database at a time"),
        ("dr-rds-table-drop", {**SHOP, "dr_bisect_precision": 5}, "dr_bisect_precision is for dr_bisect=yes"),
        ("dr-rds-table-drop", {**SHOP, "dr_bisect": True}, "dr_bisect needs dr_tables, dr_since"),
        ("dr-rds-failover", {"dr_replica": "a", "dr_target": "b"}, "Either a replica takes over"),
        ("verify-backups", {"backup_verification_pont": "random"}, "Similar: backup_verification_point"),
        ("provision-primary", {"postgresql_archiving_restrat": True}, "Similar: postgresql_archiving_restart"),
        ("demo", {}, "The demo has a production of its own and runs without an inventory"),
    ],
)
def test_words_that_mean_nothing_together_are_refused(
    tmp_path: Path, name: str, given: dict[str, Any], named: str
) -> None:
    code, said = start(tmp_path, name, **given)
    assert code != 0
    assert named in said
    assert "Nothing was touched." in said


@pytest.mark.parametrize(("proved", "status"), [(True, 0), (False, 2)])
def test_an_incident_that_has_ended_says_so_and_ends_as_it_did(tmp_path: Path, proved: bool, status: int) -> None:
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {"incident_scenario": "failover", "dr_incident_id": "one", "switch": {"proved": proved, "now": "b"}},
        "tasks": [
            {"ansible.builtin.include_role": {"name": "dbre.recovery.incident", "tasks_from": "open"}},
            {
                "ansible.builtin.include_role": {"name": "dbre.recovery.incident", "tasks_from": "close"},
                "vars": {"incident_data": {"switch": "{{ switch }}"}},
            },
        ],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    first, second = (start(tmp_path, str(tmp_path / "play")) for _run in range(2))
    assert first[0] == second[0] == status, second[1]
    # A verdict that is no success is what the run ends with, and stands there only.
    assert f"Incident one has ended already{': Recovered' if proved else '.'}" in second[1]
    assert ("running this again with the same dr_incident_id changes nothing" in second[1]) != proved
