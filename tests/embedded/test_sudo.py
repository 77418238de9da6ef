"""The lines of sudoers that the README gives, for a login that may become the PostgreSQL user and nobody else."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PLAYBOOK, ROOT, Shop
from runs import Run

README = (ROOT / "README.md").read_text()
(RECOVER, PROVISION) = re.findall(r"^jane ALL=.*$", README, re.MULTILINE)


class Jane:
    """A login of this machine, which goes with the test."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self.name = f"dbre-{secrets.token_hex(4)}"
        self.password = secrets.token_hex(8)
        self.home = Path("/home") / self.name
        self._sudoers = Path("/etc/sudoers.d") / self.name
        # The project and its Python may lie in a folder that is closed to others.
        reads = "+dac_read_search"
        groups = [f"--reuid={self.name}", f"--regid={self.name}", "--init-groups"]
        self._become = ["setpriv", *groups, f"--inh-caps={reads}", f"--ambient-caps={reads}"]

    def come(self) -> None:
        subprocess.run(["useradd", "--create-home", "--shell", "/bin/bash", self.name], check=True)
        subprocess.run(["chpasswd"], input=f"{self.name}:{self.password}", text=True, check=True)
        shutil.copy(self._shop.inventory_file, self.home)

    def go(self) -> None:
        self._sudoers.unlink(missing_ok=True)
        subprocess.run(["userdel", "--remove", self.name], capture_output=True, check=True)

    def may(self, line: str) -> None:
        """Put a line of the README in force, after the check that the README names."""
        self._sudoers.write_text(re.sub("^jane", self.name, line) + "\n")
        self._sudoers.chmod(0o440)
        subprocess.run(["visudo", "-cf", str(self._sudoers)], capture_output=True, check=True)

    def play(self, playbook: Path, *words: str, typed: str = "", **variables: Any) -> Run:
        """Run a playbook as this login, which types a password where it is asked for one."""
        command = ["ansible-playbook", "-i", str(self.home / "inventory.json"), str(playbook), *words]
        environment = {
            **self._shop.environment,
            "ANSIBLE_HOME": str(self.home / "ansible"),
            "ANSIBLE_REMOTE_TMP": str(self.home / "tmp"),
            "HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        kept = ("ANSIBLE_COLLECTIONS_PATH", "PYTHONPATH")
        environment |= {name: os.environ[name] for name in kept if name in os.environ}
        set_all = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
        given = shlex.join([*command, "-e", json.dumps({"dr_report_dir": str(self.home / "incidents"), **variables})])
        done = subprocess.run(
            [*self._become, "sh", "-c", f"cd {self.home} && env {set_all} {given}"],
            input=typed + "\n",
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # without a terminal, so that it is asked here
            check=False,
        )
        return Run(done.returncode, done.stdout)


@pytest.fixture
def jane(shop: Shop) -> Iterator[Jane]:
    login = Jane(shop)
    login.come()
    try:
        yield login
    finally:
        login.go()


def test_a_login_whose_sudo_is_limited_to_the_postgresql_user_recovers_and_backs_up(shop: Shop, jane: Jane) -> None:
    given = {"dr_database": "shop", "dr_tables": "public.orders", "dr_confirm": True}
    refused = jane.play(PLAYBOOK, dr_incident_id="no-sudo", **given)
    assert refused.rc != 0
    assert shop.count("public.orders") == 3000
    jane.may(RECOVER)
    backup = jane.play(ROOT / "playbooks" / "backup-now.yml")
    assert backup.rc == 0, backup.output
    (found,) = json.loads(shop.pgbackrest("info", "--output=json"))
    noted = json.loads(found["backup"][-1]["annotation"]["replication"])
    assert noted["synchronous_standby_names"] == ""
    shop.query("shop", "DROP TABLE public.orders CASCADE")
    jane.may(RECOVER.replace("NOPASSWD: ", ""))
    wrong = jane.play(PLAYBOOK, "--check", "-K", typed="not the password", dr_incident_id="sudo", **given)
    assert wrong.rc != 0
    asked = jane.play(PLAYBOOK, "--check", "-K", typed=jane.password, dr_incident_id="sudo", **given)
    assert asked.rc == 0, asked.output
    assert jane.password not in asked.output
    jane.may(RECOVER)
    recovered = jane.play(PLAYBOOK, dr_incident_id="sudo", **given)
    assert recovered.rc == 0, recovered.output
    assert shop.count("public.orders") == 3000


def test_what_writes_to_a_repository_refuses_root(shop: Shop) -> None:
    target = {"type": "lsn", "value": "0/3000028", "timeline": 1, "exclusive": True}
    given: dict[str, dict[str, Any]] = {
        "backup": {},
        "check": {},
        "stanza": {},
        "standby": {"path": "/nowhere", "system_identifier": "7300000000000000000", "major_version": shop.major},
        "restore": {"path": "/nowhere", "target": target, "incident": "root"},
    }
    tasks = [
        {f"dbre.recovery.pgbackrest_{name}": {"stanza": "main", **args}, "ignore_errors": True}
        for name, args in given.items()
    ]
    play = shop.folder / "root.yml"
    play.write_text(json.dumps([{"hosts": "primary", "gather_facts": False, "tasks": tasks}]))
    said = shop.obey(f"ansible-playbook -i {shop.inventory_file} {play}").output
    refused = re.findall(r'"msg": "pgBackRest (\S+) must not run as root', said)
    assert refused == ["backup", "check", "stanza-create", "restore", "restore"], said
