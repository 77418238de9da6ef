# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks as an operator runs them: to their end, or killed in the middle."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import signal
import subprocess
import tempfile
import termios
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

# What one inventory for everything has beside what a playbook takes: words that only others know, words without a
# value, and a site's own, which need not have a value for each host.
WORDS_OF_OTHERS: dict[str, dict[str, Any]] = {
    "primary": {
        "dr_bisect": True,
        "dr_overrides": {"deletion_protection": True},
        "dr_to_region": "eu-west-1",
        "dr_wal_path": "",
    },
    "rds": {"dr_side_path": "/var/lib/postgresql/side", "dr_set": "latest", "dr_min_rows": 5, "dr_to_region": ""},
}
WORDS_OF_A_SITE = {"dr_site": "{{ name_of_a_variable_that_is_not_set_here }}", "dr_phone": "+49 30 901820"}
LONGEST = 600  # seconds until a run that does not end is given up


def with_everything(inventory: dict[str, Any]) -> dict[str, Any]:
    """An inventory, and in it what other playbooks are given."""
    groups = inventory["all"]["children"]
    others = WORDS_OF_OTHERS["rds" if "rds" in groups else "primary"]
    return {"all": {"vars": {**others, **WORDS_OF_A_SITE}, "children": groups}}


@dataclasses.dataclass
class Run:
    """What one ansible-playbook said."""

    rc: int
    output: str

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks that ran; including a role and reading its argument spec are none."""
        ran = re.findall(r"^TASK \[(.*)\] \**\n((?:.*\n)*?)(?:\n|\Z)", self.output, re.MULTILINE)
        return [
            name
            for name, said in ran
            if re.search(r"^(ok|changed): ", said, re.MULTILINE) and "Validating arguments" not in name
        ]

    @property
    def changed(self) -> int:
        """Tasks that changed something, over all hosts."""
        return sum(map(int, re.findall(r"changed=(\d+)", self.output)))


def run(command: list[str], environment: Mapping[str, str] | None = None) -> Run:
    """Run a command to its end; ``environment`` goes over that of this process."""
    done = subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=LONGEST,
        check=False,
    )
    return Run(done.returncode, done.stdout)


def everything(child: subprocess.Popen[str]) -> None:
    """Kill -9 of all that belongs to a run."""
    os.killpg(child.pid, signal.SIGKILL)


def _terminal(stack: contextlib.ExitStack) -> int:
    """A terminal that hangs up when ``stack`` is closed; the end that a program is given."""
    master, slave = os.openpty()
    stack.callback(os.close, master)
    stack.callback(os.close, slave)
    return slave


def _as_in_a_terminal(control: bool) -> None:
    """In the program to be: signals do what they do to one that a person starts, whoever started us."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if control:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def run_killed_in(
    command: list[str],
    events: Path,
    phase: str,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    kill: Callable[[subprocess.Popen[str]], None] | None = everything,
) -> str:
    """Run a playbook, and ``kill`` it ``seconds`` after its incident record (``events``) tells of ``phase``.

    Without ``kill`` it has a terminal, which is closed then. Returns what it had said.
    """
    before = len(events.read_text().splitlines()) if events.exists() else 0
    with tempfile.TemporaryFile("w+") as output, contextlib.ExitStack() as terminal:
        child = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL if kill else _terminal(terminal),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(_as_in_a_terminal, control=kill is None),
            text=True,
        )
        try:
            end = time.monotonic() + 300
            began = None
            while began is None or time.monotonic() < began + seconds:
                lines = events.read_text().splitlines()[before:] if events.exists() else []
                if began is None and any(f'"{phase}"' in line for line in lines):
                    began = time.monotonic()
                if child.poll() is not None or time.monotonic() > end:
                    output.seek(0)
                    raise AssertionError(f"it was not killed in phase {phase}, but said:\n{output.read()}")
                time.sleep(0.02)
            if kill:
                kill(child)
            else:
                terminal.close()
            child.wait(60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                everything(child)
            child.wait()
        output.seek(0)
        return output.read()
