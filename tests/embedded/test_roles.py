"""Roles given what cannot be meant: each refuses it by name before it does anything, as its argument specs promise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# Of each type, what it cannot be.
WRONG = {"int": "many", "float": "much", "bool": "perhaps", "dict": "all of them", "list": {"a": "dictionary"}}
# What would end a line of a file or a word of a command, in roles that write such files.
BROKEN = "a\nb c"
WRITERS = {
    "postgresql_archiving": ["stanza", "config_path", "executable"],
    "backup_schedule": ["stanza", "config_path", "executable", "user", "on_failure"],
    "pgbackrest": ["stanza", "config_path", "executable", "user"],
    "postgresql_logical_backup": ["path", "unit", "python", "user", "on_failure"],
    "postgresql_standby": ["address", "primary_address", "cluster", "slot_name", "stanza", "executable", "data_dir"],
}


def entries() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each entry point of each role, with its options."""
    for path in sorted((ROOT / "roles").glob("*/meta/argument_specs.yml")):
        for entry, spec in yaml.safe_load(path.read_text())["argument_specs"].items():
            yield path.parents[1].name, entry, spec.get("options") or {}


def wrong_value(option: dict[str, Any]) -> Any:
    """A value that the option cannot have; None where it can have any."""
    return "neither" if option.get("choices") and option["type"] == "str" else WRONG.get(option["type"])


class Roles:
    """Roles on hosts that are all this machine, each with a role and variables of its own, in check mode."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hosts: dict[str, dict[str, Any]] = {}

    def add(self, host: str, role: str, entry: str, variables: dict[str, Any]) -> None:
        self._hosts[host] = {"role": f"dbre.recovery.{role}", "entry": entry, **variables}

    def server_message(self) -> dict[str, dict[str, Any]]:
        """By host, how its first failed task failed."""
        files = [self._folder / name for name in ("inventory.json", "play.yml")]
        inventory = {"all": {"hosts": self._hosts, "vars": {"ansible_connection": "local", "dbre_become": False}}}
        files[0].write_text(json.dumps(inventory))
        role = {"name": "{{ role }}", "tasks_from": "{{ entry }}"}
        play = {"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.include_role": role}]}
        files[1].write_text(json.dumps([play]))
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                *("--check", "--forks", "4", "-i"),
                *map(str, files),
            ],
            env={
                **os.environ,
                "ANSIBLE_HOME": str(self._folder),
                "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
                "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stdout + done.stderr
        found: dict[str, dict[str, Any]] = {}
        for task in json.loads(done.stdout[done.stdout.index("{") :])["plays"][0]["tasks"]:
            for host, result in task["hosts"].items():
                if result.get("failed"):
                    found.setdefault(host, {"task": task["task"]["name"], **result})
        return found


@pytest.fixture
def roles(tmp_path: Path) -> Roles:
    return Roles(tmp_path)


def test_every_option_of_every_role_is_refused_by_name_when_it_cannot_be_meant(roles: Roles) -> None:
    expected, required = {}, {}
    # Defaults are made of other variables of the role.
    others: dict[str, dict[str, Any]] = {}
    for role, _entry, options in entries():
        others.setdefault(role, {"dr_incident_id": "x"}).update(dict.fromkeys(options, "x"))
    for role, entry, options in entries():
        host = f"{role}.{entry}"
        wrong = {name: value for name, option in options.items() if (value := wrong_value(option)) is not None}
        if wrong:
            expected[host] = wrong
            roles.add(host, role, entry, {**others[role], **wrong})
        needed = [name for name, option in options.items() if option.get("required")]
        if needed:
            required[f"{host}.without"] = needed
            roles.add(f"{host}.without", role, entry, {})
    said = roles.server_message()
    missed = {
        host: [name for name in wrong if name not in json.dumps(said.get(host, {}).get("argument_errors", []))]
        for host, wrong in expected.items()
    }
    assert {host: names for host, names in missed.items() if names} == {}
    assert [host for host, names in required.items() if not any(name in json.dumps(said[host]) for name in names)] == []
    assert len(expected) > 40
    assert len(required) > 10


def test_what_would_end_a_line_of_a_file_is_refused_by_name(roles: Roles) -> None:
    for role, names in WRITERS.items():
        entry = "preflight" if role == "postgresql_archiving" else "main"
        roles.add(role, role, entry, {f"{role}_primary": role, **{f"{role}_{name}": BROKEN for name in names}})
    said = roles.server_message()
    for role, names in WRITERS.items():
        messages = " ".join(item.get("msg", "") for item in said[role]["results"])
        missed = [name for name in names if f'{role}_{name} is "a\\nb c"' not in messages]
        assert missed == []
        assert "Nothing was changed" in " ".join(messages.split())
