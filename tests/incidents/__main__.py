# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs incidents on test hosts: ``python -m incidents --inventory FILE --hosts deb12,deb13 [--times 3] [word ...]``.

Prints a line for each run, then a table, then "N passed, N failed".
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import difflib
import os
import re
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from hosts import Host, hosts_of

from .circumstances import CHANGED_WORLD, CIRCUMSTANCES
from .damages import DAMAGES
from .incident import IN_PART, RECOVERED, REFUSED, Call, Incident
from .production import Production

INCIDENTS = [*DAMAGES, *CIRCUMSTANCES, *CHANGED_WORLD]
PLAYBOOK = os.environ.get("DBRE_PLAYBOOK", "dbre.recovery.dr_table_drop")


@dataclass
class Outcome:
    """How one run went: what was ``said`` by the playbook, and what is ``wrong`` with that, empty when it is right."""

    incident: str
    version: int
    said: str
    seconds: float
    wrong: str


def first_difference(before: list[str], after: list[str]) -> str:
    lines = [line for line in difflib.unified_diff(before, after, "before", "now", n=0, lineterm="") if line[0] in "+-"]
    return " / ".join(lines[2:8])


class Wrong(Exception):
    """What is not as it must be."""


class Trial:
    """One incident on one production."""

    def __init__(self, production: Production, incident: Incident) -> None:
        self.production, self.incident = production, incident
        self.said = "did not get as far"
        self.seconds = 0.0

    def run(self) -> None:
        production, incident = self.production, self.incident
        production.begin()
        if incident.settings:
            production.restart(incident.settings)
        production.sql(f"CREATE DATABASE {incident.database} {incident.create}")
        production.sql(incident.prepare, incident.database)
        production.backup()
        production.life.start(*([incident.database] if incident.inside else []))
        production.sql(incident.grow, incident.database)
        production.life.wait_for(3)
        # The database may have got another name since the backup.
        named = str(incident.calls[-1].options.get("dr_database", incident.database))
        rows, definitions = production.contents(named), production.definitions(named)
        printed = dict(re.findall(r"^(\w+)=(\S+)$", production.sql(incident.damage, named), re.MULTILINE))
        production.sql(incident.world, named if production.exists(named) else "postgres")
        if incident.crowd:
            production.gather_crowd(named)
        for call in incident.calls:
            self._call(call, named, printed)
        if incident.crowd:
            production.disperse_crowd()
        if incident.calls[-1].outcome != REFUSED:
            self._compare(named, rows, definitions)
        if production.left_behind() and incident.calls[-1].outcome == RECOVERED:
            raise Wrong(f"left behind: {production.left_behind()}")
        production.life.wait_for(1)

    def _call(self, call: Call, database: str, printed: dict[str, str]) -> None:
        options = {"dr_database": database, "dr_incident_id": "one", **call.options}
        options = {k: v.format(**printed) if isinstance(v, str) else v for k, v in options.items()}
        start = time.monotonic()
        run = self.production.recover(PLAYBOOK, options)
        self.seconds += time.monotonic() - start
        report = self.production.report(options["dr_incident_id"])
        (self.production.here / f"{options['dr_incident_id']}.log").write_text(run.output)
        verdict = str(report.get("verdict", ""))
        # What was recovered in part ends as a failure, too.
        self.said = RECOVERED if not run.rc else IN_PART if verdict == "in_part" else REFUSED
        message = re.sub(r"\s+", " ", str(report.get("message") or run.output[-1500:]))[:700]
        everything = f"{run.output}\n{report}"
        if self.said != call.outcome:
            raise Wrong(
                f"it must be {call.outcome}; verdict {verdict}; {message if run.rc else report.get('left_to_do')}"
            )
        for words in call.says:
            if not re.search(words, everything):
                raise Wrong(f"it does not say {words}; {message}")

    def _compare(self, database: str, rows: dict[str, str], definitions: list[str]) -> None:
        found = self.production.contents(database)
        lost = [
            f"{table} had {what}, has {found.get(table, 'gone')}"
            for table, what in rows.items()
            if table not in self.incident.but and found.get(table) != what
        ]
        if lost:
            raise Wrong(f"rows: {'; '.join(lost)}")
        now = self.production.definitions(database)
        if self.incident.definitions and sorted(now) != sorted(definitions):
            raise Wrong(f"definitions: {first_difference(definitions, now)}")
        for query, answer in self.incident.holds.items():
            said = self.production.sql(query, database)
            if said != answer:
                raise Wrong(f"{query}: {said}, not {answer}")


class Report:
    """Prints lines as they come, and the table at the end."""

    def __init__(self, lines: Optional[Path]) -> None:
        self.outcomes: list[Outcome] = []
        self._lines = lines
        if lines:
            lines.write_text("")
        self._lock = threading.Lock()

    def add(self, outcome: Outcome) -> None:
        with self._lock:
            self.outcomes.append(outcome)
            right = f"WRONG: {outcome.wrong}" if outcome.wrong else "right"
            self._say(f"{outcome.version:3}  {outcome.seconds:5.1f} s  {outcome.incident}: {outcome.said}: {right}")

    def _say(self, line: str) -> None:
        print(line, flush=True)
        if self._lines:
            with self._lines.open("a") as file:
                file.write(f"{line}\n")

    def show(self) -> bool:
        """The table: incidents by versions, each with how many of its runs were right; whether all were."""
        versions = sorted({outcome.version for outcome in self.outcomes})
        names = list(dict.fromkeys(outcome.incident for outcome in self.outcomes))
        width = max(map(len, names), default=0)
        self._say(f"\n{'incident':<{width}}  {'  '.join(f'{version:>7}' for version in versions)}")
        for name in names:
            cells = []
            for version in versions:
                runs = [outcome for outcome in self.outcomes if (outcome.incident, outcome.version) == (name, version)]
                cells.append(f"{sum(not run.wrong for run in runs)} of {len(runs)}")
            self._say(f"{name:<{width}}  {'  '.join(f'{cell:>7}' for cell in cells)}")
        failed = sum(bool(outcome.wrong) for outcome in self.outcomes)
        self._say(f"{len(self.outcomes) - failed} passed, {failed} failed")
        return bool(self.outcomes) and not failed

    def write_junit(self, path: Path) -> None:
        suite = xml.etree.ElementTree.Element("testsuite", name="incidents")
        for outcome in self.outcomes:
            case = xml.etree.ElementTree.SubElement(
                suite,
                "testcase",
                classname=f"incidents on {outcome.version}",
                name=outcome.incident,
                time=f"{outcome.seconds:.1f}",
            )
            if outcome.wrong:
                xml.etree.ElementTree.SubElement(case, "failure", message=outcome.wrong)
        path.parent.mkdir(parents=True, exist_ok=True)
        xml.etree.ElementTree.ElementTree(suite).write(path)


def run_on(host: Host, incidents: list[Incident], times: int, logs: Path, report: Report) -> None:
    production = Production(host, logs)
    try:
        production.make()
        for turn in range(1, times + 1):
            for incident in incidents:
                if incident.least_version > production.major:
                    continue
                production.here = logs / f"{production.major}-{turn}-{re.sub('[^a-z]+', '-', incident.name)}"
                production.here.mkdir(parents=True)
                trial = Trial(production, incident)
                wrong = ""
                try:
                    trial.run()
                except (AssertionError, Wrong) as error:
                    wrong = str(error)
                except Exception as error:  # whatever it is, the incidents that follow are still tried
                    wrong = repr(error)
                report.add(Outcome(incident.name, production.major, trial.said, trial.seconds, wrong))
    finally:
        production.remove()


def main() -> int:
    parser = argparse.ArgumentParser(prog="incidents", description=__doc__)
    parser.add_argument("--inventory", required=True)
    parser.add_argument(
        "--hosts", required=True, help="hosts of the inventory, separated by commas; all at the same time"
    )
    parser.add_argument("--times", type=int, default=1)
    selection = parser.add_mutually_exclusive_group()
    selection.add_argument("--short", action="store_true", help="only the short selection")
    selection.add_argument("--whole", action="store_false", dest="short", help="all, the default")
    parser.add_argument("--lines", type=Path, help="file that gets all that is printed, too")
    parser.add_argument("--junit", type=Path)
    parser.add_argument("--logs", type=Path, help="folder for what the playbooks print")
    parser.add_argument("word", nargs="*", help="only incidents whose names hold one of these")
    arguments = parser.parse_args()
    chosen = [
        incident
        for incident in INCIDENTS
        if (incident.short or not arguments.short)
        and (not arguments.word or any(word in incident.name for word in arguments.word))
    ]
    hosts = hosts_of(arguments.inventory)
    report = Report(arguments.lines)
    with contextlib.ExitStack() as stack:
        logs = arguments.logs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="incidents-")))
        names = arguments.hosts.split(",")
        with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
            lanes = [
                pool.submit(run_on, hosts[name], chosen, arguments.times, logs.resolve(), report) for name in names
            ]
    if arguments.junit:
        report.write_junit(arguments.junit)
    right = report.show()
    for lane in lanes:
        lane.result()  # raises what ended it
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
