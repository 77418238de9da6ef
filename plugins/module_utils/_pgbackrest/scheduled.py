# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program behind a backup timer: takes one backup, fails when it is not whole, and leaves metrics.

The role backup_schedule installs it, with what it imports, on hosts where no Ansible is. Needs only Python.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Optional, TextIO

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.backup import (
    annotation_arguments,
    require_stanza,
    take_backup,
)
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.continuity import require_continuous
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import effective_type, stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.primary_note import primary_note
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest

LOCK_HELD = 50  # pgBackRest's LockAcquireError
FAILED, NOT_WHOLE = 1, 3  # exit status: no backup was made; one was, over damaged pages or after a gap in WAL
POLL = 5.0  # seconds

# Metric names that dashboards and alerts for pgBackRest already use, where there is one.
METRICS = {
    "pgbackrest_backup_error": (
        "1: the last scheduled run made no backup. Damaged pages in a backup and missing WAL are metrics of their own."
    ),
    "pgbackrest_backup_last_run_timestamp_seconds": "When the last scheduled backup ended.",
    "pgbackrest_backup_last_run_duration_seconds": "How long the last scheduled backup took.",
    "pgbackrest_backup_timestamp_last_success": "When the last scheduled backup that is whole ended.",
}


def run(argv: list[str]) -> tuple[int, str, str]:
    # This runs where there is no module.
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def say(text: str, stream: Optional[TextIO] = None) -> None:
    """One line for the journal."""
    stream = stream or sys.stdout
    stream.write(f"{text}\n")
    stream.flush()


def escape(value: Any) -> str:
    """A label value as Prometheus' text format wants it."""
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def render_metrics(stanza: str, runs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Text for the textfile collector of Prometheus' node exporter; ``runs`` by type of backup and repository."""
    fields = dict(zip(METRICS, ("failed", "ended", "seconds", "last_success")))
    lines = []
    for name, text in METRICS.items():
        samples = []
        for kind, repositories in sorted(runs.items()):
            for repo, last in sorted(repositories.items()):
                value = last.get(fields[name])
                if value is not None:
                    labels = f'stanza="{escape(stanza)}",type="{escape(kind)}",repo="{escape(repo)}"'
                    samples.append(f"{name}{{{labels}}} {float(value):.3f}".replace(".000", ""))
        if samples:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", *samples]
    return "\n".join(lines) + "\n"


class Scheduled:
    """One run of a timer for one stanza."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.deadline = time.monotonic() + options.wait
        self.state = os.path.join(options.state, f"backup-{options.stanza}.json")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the stanza's lock: a backup that comes due while another runs is taken after it."""
        path = os.path.join(self.options.state, f"backup-{self.options.stanza}.lock")
        with open(path, "a", encoding="utf-8") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > self.deadline:
                        raise RecoveryError(
                            f"another backup of stanza '{self.options.stanza}' still runs on {socket.gethostname()} "
                            f"after {self.options.wait} s. No backup was taken. See: systemctl status 'dbre-backup-*'"
                        ) from None
                time.sleep(min(POLL, 1.0))
            yield

    def backup(self, repo: int) -> None:
        """Take the backup in one repository, and see that no WAL is missing there since the one before.

        Waits for a backup that somebody started by hand.
        """
        options = self.options
        pgbackrest = PgBackRest(
            run, stanza=options.stanza, config=options.config, executable=options.executable, repo=repo
        )
        while True:
            facts = stanza_facts(pgbackrest.info())
            require_stanza(facts)
            try:
                noted = annotation_arguments({}, pgbackrest.version(), self.primary_note())
                taken = take_backup(pgbackrest, facts, effective_type(facts, options.type, repo), noted)
            except RecoveryError as error:
                if error.details.get("rc") != LOCK_HELD or time.monotonic() > self.deadline:
                    raise
                time.sleep(POLL)
                continue
            for warning in pgbackrest.warnings:
                say(f"repository {repo}: {warning}")
            say(f"backup {taken['label']} of stanza '{options.stanza}' is in repository {repo}")
            # Since the backup before: WAL that was dropped meanwhile would be missed only when it is needed.
            require_continuous(pgbackrest, facts, repo)
            return

    def primary_note(self) -> dict[str, str]:
        """What the backup notes of its primary; a backup is taken without that, too."""
        try:
            with open(self.options.config, encoding="utf-8") as file:
                return primary_note(file.read(), self.options.stanza)
        except (OSError, ValueError, RecoveryError) as error:
            say(f"which standbys commits wait for is not noted with the backup: {error}", sys.stderr)
            return {}

    def run(self) -> int:
        """Take the backup in each repository; the exit status of the program."""
        status = 0
        with self.alone():
            for repo in self.options.repo:
                began = time.time()
                message: Optional[str] = None
                made = True
                try:
                    self.backup(repo)
                except RecoveryError as error:
                    message = error.msg
                    made = bool({"page_errors", "missing_wal"} & set(error.details))
                    status = NOT_WHOLE if made and status != FAILED else FAILED
                    say(message, sys.stderr)
                self.note(repo, began, message, made)
        return status

    def note(self, repo: int, began: float, message: Optional[str], made: bool) -> None:
        """Remember how it went, and write the metrics of the stanza anew."""
        try:
            with open(self.state, encoding="utf-8") as file:
                runs = json.load(file)
        except (FileNotFoundError, ValueError):
            runs = {}
        repositories = runs.setdefault(self.options.type, {})
        ended = time.time()
        repositories[str(repo)] = {
            "failed": int(not made),
            "message": message,
            "ended": ended,
            "seconds": ended - began,
            "last_success": repositories.get(str(repo), {}).get("last_success") if message else ended,
        }
        write_atomically(self.state, json.dumps(runs, indent=1) + "\n", mode=0o644)
        directory = os.path.join(self.options.state, "metrics")
        os.makedirs(directory, exist_ok=True)
        path = os.path.join(directory, f"pgbackrest_{self.options.stanza}.prom")
        write_atomically(path, render_metrics(self.options.stanza, runs), mode=0o644)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Take one backup with pgBackRest, as a timer asks for it.")
    parser.add_argument("--stanza", required=True)
    parser.add_argument("--config", required=True, help="pgBackRest's configuration file")
    parser.add_argument("--executable", default="pgbackrest")
    parser.add_argument("--type", choices=["full", "diff", "incr"], required=True)
    parser.add_argument("--repo", type=int, action="append", required=True, help="a repository's key; may be repeated")
    parser.add_argument("--state", required=True, help="directory for the lock, the last results and the metrics")
    parser.add_argument("--wait", type=int, default=21600, help="seconds to wait for another backup of the stanza")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    try:
        return Scheduled(parse(arguments)).run()
    except RecoveryError as error:
        say(error.msg, sys.stderr)
        return 1
