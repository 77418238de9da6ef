"""The scenarios on test hosts, each run by molecule."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Optional

from environment import NEWEST, OLDEST, temporary, tool_env
from jobs import Job
from steps import ROOT, TALLY, WORK, Log, StepFailed, step

SCENARIOS = ROOT / "extensions" / "molecule"
PODMAN = SCENARIOS / "default" / "podman"
# By name, and in test-matrix: with them make test would take over an hour. Unit tests and suites on real servers prove
# the parts of what these prove on hosts.
ON_DEMAND = frozenset({"failover", "monitoring"})
# The scenario that proves the oldest ansible-core on real hosts.
OLDEST_SCENARIO = os.environ.get("OLDEST_SCENARIO", "table_drop")


def molecule(
    log: Log,
    verb: str,
    scenario: str,
    *options: str,
    environments: Sequence[Path] = (NEWEST,),
    env: Optional[Mapping[str, str]] = None,
) -> list[Path]:
    """Run molecule for one scenario, with a directory of its own for what it remembers; the JUnit files found there."""
    memory = WORK / "molecule" / log.path.stem
    shutil.rmtree(memory, ignore_errors=True)
    places = {"MOLECULE_EPHEMERAL_DIRECTORY": str(memory), "MOLECULE_PROJECT_DIRECTORY": str(ROOT)}
    command = (NEWEST / "bin" / "molecule", verb, "--scenario-name", scenario, *options)
    log.ok = log.run(*command, env={**tool_env(*environments), **places, **(env or {})})
    return sorted((memory / "junit").glob("**/*.xml"))


def hosts() -> None:
    """Start the test hosts that do not run; their images are built when they are missing."""
    with step("hosts") as log:
        molecule(log, "test", "default", "--destroy=never")
        if not log.ok:
            raise StepFailed("the test hosts did not start")


def scenario(
    name: str,
    whole: bool = False,
    label: str = "molecule",
    env: Optional[Mapping[str, str]] = None,
    **given: Any,
) -> None:
    """One scenario on hosts that run; the tests of pytest suites that it ran and whose reports it fetched count too."""
    options = ("--", f"--inventory={whole_matrix(name)}") if whole and whole_matrix(name).exists() else ()
    with step(f"{label} {name}") as log:
        env = {**temporary(), "DBRE_WHOLE": "1" if whole else "", **(env or {})}
        reports = molecule(log, "test", name, "--destroy=never", "--no-shared-state", *options, env=env, **given)
        TALLY.add_command(log.ok)
        if reports:
            TALLY.add_junit(True, *reports)


def whole_matrix(name: str) -> Path:
    """The inventory that is laid over a scenario's own for its whole matrix; not every scenario has one."""
    return SCENARIOS / name / "whole.yml"


def used_hosts(name: str, whole: bool) -> set[str]:
    """The test hosts that a scenario names in its inventory."""
    known = re.findall(r"^  (\w+): \{ *suite:", (SCENARIOS / "hosts.yml").read_text(), re.MULTILINE)
    inventories = [SCENARIOS / name / "molecule.yml", *([whole_matrix(name)] if whole else [])]
    keys = re.findall(r"^ +(\w+):", "\n".join(path.read_text() for path in inventories if path.exists()), re.MULTILINE)
    return set(known) & set(keys)


def scenario_jobs(names: Sequence[str] = (), whole: bool = False) -> list[Job]:
    """The scenarios of these names, or all but those on demand. Two that use one host never run at the same time."""
    known = {path.parent.name for path in SCENARIOS.glob("*/molecule.yml")} - {"default"}
    if unknown := set(names) - known:
        raise StepFailed(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    chosen = names or sorted(known if whole else known - ON_DEMAND)
    uses = {name: used_hosts(name, whole) for name in chosen}
    return [
        Job(f"molecule {name}", partial(scenario, name, whole), used, after={"hosts"} if used else ())
        for name, used in uses.items()
    ]


def oldest_job() -> Job:
    """The smoke scenario again with the oldest ansible-core; of its tests the one that goes the whole way."""
    env = {"DBRE_E2E": "every_row_committed"}
    run = partial(scenario, OLDEST_SCENARIO, False, "oldest core", environments=(OLDEST, NEWEST), env=env)
    return Job(f"oldest core {OLDEST_SCENARIO}", run, used_hosts(OLDEST_SCENARIO, False), after={"hosts"})


def remove_hosts() -> None:
    with step("teardown") as log:
        molecule(log, "destroy", "default")
        if not log.ok:
            raise StepFailed("the test hosts could not be removed")
