"""What the callback runbook prints of a run, in a terminal and without one; and the demo, which people see first."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import ROOT
from runs import run

ESCAPING = "orders\x1b[2J"
INCIDENT: dict[str, Any] = {"id": "one", "dir": "{{ playbook_dir }}/incidents", "scenario": "failover"}


def record(state: str, **more: Any) -> dict[str, Any]:
    return {"dbre.recovery.incident": {**INCIDENT, "state": state, **more}, "register": "incident_result"}


# Nothing of ours, on two hosts; and an incident.
PLAYS = [
    {
        "name": "Look around",
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {"name": "Do it", "command": "true", "loop": ["once"]},
            {"name": "Say it", "debug": {"msg": ESCAPING}, "run_once": True},
            {
                "when": "inventory_hostname == 'db2'",
                "block": [{"name": "Break", "fail": {"msg": "password=hunter2 is wrong"}}],
                "rescue": [{"name": "Mend", "command": "true"}],
            },
        ],
    },
    {
        "name": "Fail over",
        "hosts": "db1",
        "gather_facts": False,
        "tasks": [
            record("open"),
            record("phase", phase="locate"),
            {"name": "Wait a moment", "command": "true"},
            record("phase", phase="recover"),
            record("done", data={"switch": {"proved": True, "now": "b"}}),
        ],
    },
]


def lines(output: str) -> list[str]:
    """What a terminal shows in the end, without times and what Ansible warns of."""
    shown = re.sub(r"[^\n]*\r\x1b\[K", "", output.replace("\r\n", "\n")).splitlines()
    kept = [line for line in shown if not re.search("WARNING|Verified after", line)]
    return [re.sub(r"^\d\d:\d\d:\d\d  ", "", line) for line in kept]


def play(folder: Path, terminal: bool) -> str:
    folder.mkdir()
    inventory, playbook = folder / "inventory.json", folder / "play.yml"
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory.write_text(json.dumps({"all": {"hosts": {"db1": local, "db2": local}}}))
    playbook.write_text(json.dumps(PLAYS))
    environment = {
        **os.environ,
        "ANSIBLE_HOME": str(folder),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_STDOUT_CALLBACK": "dbre.recovery.runbook",
        "COLUMNS": "120",
        "TERM": "xterm",
    }
    master, slave = pty.openpty() if terminal else os.pipe()
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), str(playbook)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave) as process:
        os.close(slave)
        output = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # so a terminal ends that nobody writes to any more
                break
            if not part:
                break
            output += part
    os.close(master)
    assert process.returncode == 0, output.decode()
    return output.decode()


def test_a_run_is_a_runbook_in_a_terminal_and_without_one(tmp_path: Path) -> None:
    terminal, plain = play(tmp_path / "terminal", True), play(tmp_path / "plain", False)
    shown = lines(terminal)
    assert shown == [line.replace("/plain/", "/terminal/") for line in lines(plain)]
    assert shown[:9] == [
        "play      Look around",
        "changed   Do it (db1, db2)",
        "says      db1: orders\\x1b[2J",
        "FAILED    Break (db2)",
        "          password=******** is wrong",
        "changed   Mend (db2)",
        "play      Fail over",
        "locate",
        "recover",
    ]
    assert shown[9] == "Incident one: Recovered and proved."
    assert shown[-1].startswith("Report: ")
    assert "Wait a moment\r\x1b[K" in terminal
    assert "\x1b" not in plain


def test_the_demo_brings_its_table_back_and_proves_it() -> None:
    folder = f"/var/tmp/dbre-embedded-demo.{os.getpid()}"
    settings = {"DBRE_DEMO_DIR": folder, "ANSIBLE_CONFIG": f"{ROOT}/examples/ansible.cfg", "ANSIBLE_NOCOLOR": "1"}
    try:
        demo = run(["ansible-playbook", "dbre.recovery.demo"], {**settings, "ANSIBLE_HOME": f"{folder}.ansible"})
        said = lines(demo.output)
        assert demo.rc == 0, demo.output
        phases = ["plan", "confirm", "contain", "locate", "restore", "prove", "recover", "verify", "protect", "report"]
        assert [line for line in said if line in phases] == phases
        assert [line for line in said if "Recovered and proved." in line] != []
        assert [line for line in said if "orders the application had committed" in line] != []
        assert [line for line in said if "WRONG" in line or "FAILED" in line] == []
        assert subprocess.run(["pgrep", "-f", folder], check=False).returncode == 1, "nothing of it runs any more"
        (report,) = Path(folder).glob("incidents/*/report.json")
        told = [item["command"] or "" for item in json.loads(report.read_text())["left_to_do"]]
        assert [command for command in told if f"ansible -i {folder}/inventory.json production" in command] != []
        assert "/etc/ansible/hosts" not in " ".join(told)
    finally:
        subprocess.run(["/usr/bin/python3", "-B", f"{ROOT}/examples/embedded/demo.py", "clean", folder], check=True)
        shutil.rmtree(f"{folder}.ansible", ignore_errors=True)
