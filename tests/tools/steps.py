"""Steps of a run: what each logs, counts and takes, and what is said of all of them at the end."""

from __future__ import annotations

import os
import subprocess
import threading
import time
import xml.etree.ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".work"
LOGS = WORK / "logs"


class StepFailed(Exception):
    """A command without which nothing that follows makes sense has failed."""


def _end(wrong: xml.etree.ElementTree.Element, lines: int = 12) -> str:
    """Which tasks of a playbook failed, and what the test said last, where pytest says what was wrong and where."""
    said = (wrong.text or wrong.get("message") or "").strip().splitlines()
    fatal = [number for number, line in enumerate(said) if "fatal: [" in line][:3]
    tasks = [line for number in fatal for line in said[number : number + 3]]
    return "\n".join([*(f"    {line[:900]}" for line in tasks), *(f"    {line[:300]}" for line in said[-lines:])])


class Tally:
    """What has passed and what has failed, and how long it took, over all steps."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0
        self.failed_steps: list[str] = []
        self.steps: list[tuple[float, str]] = []  # seconds, name
        self.tests: list[tuple[float, str]] = []
        self.failures: list[str] = []
        self._lock = threading.Lock()

    def add(self, passed: int, failed: int) -> None:
        with self._lock:
            self.passed += passed
            self.failed += failed

    def add_command(self, ok: bool) -> bool:
        self.add(int(ok), int(not ok))
        return ok

    def add_junit(self, ran: bool, *files: Path) -> bool:
        """Count the test cases of JUnit files; ``ran`` is whether their command succeeded.

        A skipped pytest test proves nothing and counts as failed. So does a command that failed, or wrote no test.
        """
        passed = failed = 0
        for file in filter(Path.exists, files):
            for case in xml.etree.ElementTree.parse(file).getroot().iter("testcase"):
                name = f"{file.stem}: {case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
                wrong = [*case.iter("failure"), *case.iter("error")]
                if wrong:
                    failed += 1
                    self.failures.append(f"{name}\n{_end(wrong[0])}")
                elif case.find("skipped") is None:
                    passed += 1
                elif case.get("classname") != "sanity":  # ansible-test "skips" what does not apply to any file
                    failed += 1
                    self.failures.append(f"{name}\nskipped, which proves nothing")
                self.tests.append((float(case.get("time") or 0), name))
        if not failed and not (ran and passed):
            failed = 1
        self.add(passed, failed)
        return not failed

    def durations(self, slowest: int = 10) -> str:
        """Seconds of each step and of the slowest tests, the longest first."""
        lines = ["", "seconds of each step"]
        lines += [f"{seconds:8.1f}  {name}" for seconds, name in sorted(self.steps, reverse=True)]
        lines += ["", f"the {slowest} slowest tests"]
        lines += [f"{seconds:8.1f}  {name}" for seconds, name in sorted(self.tests, reverse=True)[:slowest]]
        return "\n".join([*lines, ""])


TALLY = Tally()


class Log:
    """The log file of one step."""

    def __init__(self, name: str) -> None:
        LOGS.mkdir(parents=True, exist_ok=True)
        self.path = LOGS / f"{name}.log"
        self.ok = True
        self.path.write_text("")

    def run(self, *command: object, env: Optional[dict[str, str]] = None, cwd: Path = ROOT) -> bool:
        """Run one command, its output into the log; True when it succeeded."""
        words = [str(word) for word in command]
        with self.path.open("a") as log:
            log.write(f"$ {' '.join(words)}\n")
            log.flush()
            done = subprocess.run(
                words,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )
            log.write(f"-> {done.returncode}\n")
        return done.returncode == 0

    def must(self, *command: object, env: Optional[dict[str, str]] = None, cwd: Path = ROOT) -> None:
        if not self.run(*command, env=env, cwd=cwd):
            raise StepFailed(" ".join(str(word) for word in command))

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.path.read_text(errors="replace").splitlines()[-lines:])


@contextmanager
def step(name: str) -> Iterator[Log]:
    """One step: a log, a line with its duration, and the end of the log when it failed (not ``log.ok``, or raised)."""
    log, start = Log(name.replace(" ", "-")), time.monotonic()
    try:
        yield log
    except BaseException:
        log.ok = False
        raise
    finally:
        seconds = time.monotonic() - start
        TALLY.steps.append((seconds, name))
        if not log.ok:
            TALLY.failed_steps.append(name)
        said = f"{name:<24} {'ok' if log.ok else 'FAILED':<6} {seconds:6.1f} s"
        print(said if log.ok else f"{said}  ({log.path})\n{log.tail()}", flush=True)
