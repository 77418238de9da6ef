"""What an application and an operator see of dr-primary-failure, on real hosts: a primary, two standbys, a repository.

The hosts come from an Ansible inventory named by DBRE_INVENTORY, the groups from that of the scenario, DBRE_GROUPS.
One failover is told in one test after the other, in this order: each costs the hosts a primary.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from hosts import Host, hosts_of  # found by the line above
from runs import Run, run, run_killed_in

HERE = pathlib.Path(__file__).parent
PORT, MAJOR, CLUSTER = 6930, 17, "failover"
DATA = f"/var/lib/postgresql/{MAJOR}/{CLUSTER}"
FOLDER = "/var/tmp/failover-clients"
PLAYBOOK = os.environ.get("DBRE_PLAYBOOK", "dbre.recovery.dr_primary_failure")


class Lab:
    """The hosts by their names, and the playbook run against them."""

    def __init__(self, folder: pathlib.Path) -> None:
        hosts = hosts_of(os.environ["DBRE_INVENTORY"])
        self.old, self.new, self.other, self.clients = (hosts[f"deb13{letter}"] for letter in "dfge")
        self.reports = folder / "incidents"

    @staticmethod
    def sql(host: Host, statements: str) -> str:
        return host.run(f"psql -X -q -A -t -v ON_ERROR_STOP=1 -p {PORT} -f -", stdin=statements).strip()

    def command(self, *extra: str, **variables: Any) -> list[str]:
        given = {"dr_report_dir": str(self.reports), "dr_confirm": True, "dr_salvage_timeout": 60, **variables}
        inventories = [f"--inventory={os.environ[name]}" for name in ("DBRE_INVENTORY", "DBRE_GROUPS")]
        return ["ansible-playbook", *inventories, PLAYBOOK, "-e", json.dumps(given), *extra]

    def fail_over(self, *extra: str, **variables: Any) -> Run:
        return run(self.command(*extra, **variables))

    def killed_in(self, phase: str, seconds: float, **variables: Any) -> None:
        events = self.reports / str(variables["dr_incident_id"]) / "events.jsonl"
        run_killed_in(self.command(**variables), events, phase, seconds)

    def report(self, incident: str) -> dict[str, Any]:
        return dict(json.loads((self.reports / incident / "report.json").read_text()))

    def evidence(self, incident: str, subject: str) -> dict[str, Any]:
        return dict(json.loads((self.reports / incident / "evidence" / f"{subject}.json").read_text()))

    def start_clients(self) -> None:
        addresses = ",".join(str(host.variables["ansible_host"]) for host in (self.old, self.new, self.other))
        conninfo = (
            f"host={addresses} port={PORT} dbname=postgres user=app target_session_attrs=read-write"
            " connect_timeout=2 tcp_user_timeout=2000"
        )
        self.clients.run(f"rm -rf {FOLDER} && mkdir {FOLDER} && cat > {FOLDER}/clients.py", stdin=CLIENTS)
        self.clients.run(
            f"nohup python3 {FOLDER}/clients.py '{conninfo}' {FOLDER} 4 1 > {FOLDER}/out 2>&1 < /dev/null &"
        )

    def stop_clients(self) -> None:
        self.clients.run(f"touch {FOLDER}/stop; pkill -f {FOLDER}/[c]lients.py; true")

    def told(self) -> dict[int, float]:
        """Numbers whose commit a client was told of, and when."""
        lines = self.clients.run(f"cat {FOLDER}/client*.log 2>/dev/null || true").splitlines()
        return {int(number): float(when) for number, when in (line.split() for line in lines if " " in line)}

    def there(self, host: Host) -> set[int]:
        return set(map(int, self.sql(host, "SELECT n FROM told").split()))

    def wait_until_told(self, more: int) -> None:
        goal = len(self.told()) + more
        deadline = time.monotonic() + 30
        while len(self.told()) < goal:
            assert time.monotonic() < deadline, self.clients.run(f"cat {FOLDER}/out")
            time.sleep(0.2)


CLIENTS = (HERE.parent / "e2e" / "acknowledged.py").read_text()
# From here on nothing leaves the primary; it goes on for a second, and is gone.
DIE = f"""
pid=$(head -1 {DATA}/postmaster.pid)
kill -STOP $(pgrep -P $pid -f 'walsender|archiver')
date +%s.%N
sleep 1
kill -KILL $pid $(pgrep -P $pid)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("failover"))
    yield made
    made.stop_clients()


def test_beside_a_primary_that_lives_nothing_is_promoted(lab: Lab) -> None:
    said = lab.fail_over("--check", dr_incident_id="living")
    assert said.rc != 0
    assert "runs, answers, and takes writes on timeline 1: nothing is promoted beside it" in said.output
    assert not (lab.reports / "living").exists()


def test_every_acknowledged_commit_is_there_after_the_power_failed_and_runs_were_killed(lab: Lab) -> None:
    lab.start_clients()
    lab.wait_until_told(100)
    alone = float(lab.old.run(DIE))
    only_there = [number for number, when in lab.told().items() if when > alone]
    assert len(only_there) > 20
    assert not set(only_there) & lab.there(lab.new)

    planned = lab.fail_over("--check", dr_incident_id="dead")
    assert planned.rc == 0, planned.output
    assert "of WAL that deb13f lacks are taken from deb13d before it is promoted" in planned.output
    assert "lost: nothing that was committed" in planned.output
    for phase, seconds in (("contain", 0.5), ("locate", 1.5), ("recover", 0.5), ("repoint", 1)):
        lab.killed_in(phase, seconds, dr_incident_id="dead")
    done = lab.fail_over(dr_incident_id="dead")

    assert done.rc == 0, done.output
    lab.wait_until_told(20)
    lab.stop_clients()
    assert set(lab.told()) - lab.there(lab.new) == set()
    located = lab.evidence("dead", "located")
    assert (located["candidate"], located["salvaged"]["taken"]) == ("deb13f", {"deb13d": 1})
    report = lab.report("dead")
    assert (report["verdict"], report["rpo"]["transactions"]) == ("proved", 0)
    assert lab.sql(lab.new, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1"
    assert "masked" in lab.old.run(f"systemctl is-enabled postgresql@{MAJOR}-{CLUSTER}", check=False)


def test_done_once_it_is_not_done_again(lab: Lab) -> None:
    again = lab.fail_over(dr_incident_id="dead")
    assert (again.rc, again.changed) == (0, 0), again.output
    other = lab.fail_over("--check", dr_incident_id="once-more")
    assert other.rc != 0
    assert "deb13f (timeline 2) is the primary already; there is nothing to promote." in other.output
