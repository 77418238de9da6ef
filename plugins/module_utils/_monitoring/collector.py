# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program behind the metrics' timer: looks once at one stanza, and leaves metrics for the textfile collector.

The role backup_monitoring installs it, with what it imports, on hosts where no Ansible is. Needs prometheus_client.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.archive import (
    Finished,
    finished_segments,
    of_archives,
    of_gaps,
    of_lag,
    of_queue,
)
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.metrics import METRICS, Sample
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.restore_tests import of_restore_tests
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.samples import (
    IN_PRODUCTION,
    control_facts,
    of_certificate,
    of_server,
    of_stanza,
    promised,
    timer_success,
)
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.continuity import (
    Continuity,
    look_for_gaps,
)
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import current_databases, stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest

PATIENCE = 40  # seconds for one command; the timer's service is ended after a few of them


def run(argv: list[str]) -> tuple[int, str, str]:
    """A command's exit status and output; 127 where it is missing, 124 where it hangs."""
    try:
        # This runs where there is no module.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"no answer within {PATIENCE} s"
    except OSError as error:
        return 127, "", str(error)
    return done.returncode, done.stdout, done.stderr


class Look:
    """One look at a stanza; ``settings`` is the file that the role writes."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.stanza = str(settings["stanza"])
        self.began = time.time()
        self.finished: list[Finished] = []
        self.identifier: Optional[int] = None

    def samples(self) -> Iterator[Sample]:
        labels = {"stanza": self.stanza}
        yield from promised(self.stanza, self.settings["policy"])
        yield from self.timers()
        yield from self.certificates()
        yield from self.free_space()
        if self.settings.get("pg_path"):
            with suppress(OSError):
                self.finished = finished_segments(str(self.settings["pg_path"]))
                yield from of_queue(self.stanza, self.finished)
        found: list[Sample] = []
        try:
            found = list(self.pgbackrest())
        except (RecoveryError, ValueError) as error:
            sys.stderr.write(f"{error}\n")
        yield from self.restore_tests()
        yield from found
        yield from self.remembered(found)
        yield Sample("dbre_backup_collector_interval_seconds", labels, self.settings["interval"])
        yield Sample("dbre_backup_collector_success", labels, int(bool(found)))
        yield Sample("dbre_backup_collector_timestamp_seconds", labels, time.time())
        yield Sample("dbre_backup_collector_duration_seconds", labels, time.time() - self.began)

    def remembered(self, found: Iterable[Sample]) -> Iterator[Sample]:
        """Since when this stanza is looked at (a window cannot be longer), and since when its lock is held."""
        path = os.path.join(self.settings["state"], f"monitoring-{self.stanza}.json")
        before: dict[str, Any] = {}
        with suppress(OSError, ValueError, TypeError), open(path, encoding="utf-8") as file:
            before = dict(json.load(file))
        held = any(sample.name == "dbre_backup_lock_held" and sample.value for sample in found)
        first_seen = float(before.get("first_seen") or self.began)
        lock_since = float(before.get("lock_since") or self.began) if held else None
        after = {"first_seen": first_seen, "lock_since": lock_since}
        if after != before:
            write_atomically(path, json.dumps(after) + "\n", mode=0o644)
        labels = {"stanza": self.stanza}
        yield Sample("dbre_backup_first_seen_timestamp_seconds", labels, first_seen)
        if lock_since:
            yield Sample("dbre_backup_lock_since_timestamp_seconds", labels, lock_since)

    def timers(self) -> Iterator[Sample]:
        for kind in self.settings["timers"]:
            unit = f"dbre-backup-{self.stanza}-{kind}"
            labels = {"stanza": self.stanza, "type": kind}
            answer = run(["systemctl", "is-active", f"{unit}.timer"])[1].strip()
            if answer:
                yield Sample("dbre_backup_timer_active", labels, int(answer == "active"))
            names = "--property=ExecMainExitTimestampMonotonic,ExecMainStatus,Result"
            success = timer_success(run(["systemctl", "show", names, f"{unit}.service"])[1])
            if success is not None:
                yield Sample("dbre_backup_timer_success", labels, int(success))

    def certificates(self) -> Iterator[Sample]:
        for path in self.settings["certificates"]:
            yield from of_certificate(self.stanza, path, run(["openssl", "x509", "-noout", "-enddate", "-in", path])[1])

    def free_space(self) -> Iterator[Sample]:
        for repo, path in self.settings["repository_paths"].items():
            with suppress(OSError):
                system = os.statvfs(path)
                labels = {"stanza": self.stanza, "repo": str(repo)}
                yield Sample("dbre_backup_repository_free_bytes", labels, system.f_bavail * system.f_frsize)
                yield Sample("dbre_backup_repository_capacity_bytes", labels, system.f_blocks * system.f_frsize)

    def restore_tests(self) -> Iterator[Sample]:
        path = os.path.join(self.settings["state"], f"verification-{self.stanza}.json")
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except FileNotFoundError:
            return
        except OSError:
            text = ""
        yield from of_restore_tests(self.stanza, text, self.began, self.identifier)

    def pgbackrest(self) -> Iterator[Sample]:
        settings = self.settings
        pgbackrest = PgBackRest(run, stanza=self.stanza, config=settings["config"], executable=settings["executable"])
        facts = stanza_facts(pgbackrest.info(patience=PATIENCE / 2))
        identifiers = {entry["system_identifier"] for entry in current_databases(facts)}
        self.identifier = identifiers.pop() if len(identifiers) == 1 else None
        yield from of_stanza(facts, settings["policy"]["gaps"], settings["repositories"])
        yield from of_archives(facts)
        control = self.control() if settings.get("pg_path") else None
        if settings.get("pg_path"):
            yield from of_server(facts, control)
        primary = control is not None and control["state"] == IN_PRODUCTION
        for repo in settings["repositories"]:
            continuity: Optional[Continuity] = None
            with suppress(RecoveryError):
                continuity = look_for_gaps(pgbackrest, facts, repo)
            yield from of_gaps(facts, repo, continuity, self.finished if primary else None)
            if primary:
                yield from of_lag(facts, repo, self.finished, self.began)

    def control(self) -> Optional[dict[str, int]]:
        with (
            suppress(OSError, ValueError),
            open(os.path.join(self.settings["pg_path"], "global", "pg_control"), "rb") as file,
        ):
            return control_facts(file.read(512))
        return None


def write(path: str, samples: Iterable[Sample]) -> None:
    """Write the samples for the textfile collector, atomically."""
    # Of the host, and not there where the role's module runs.
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry = CollectorRegistry()
    gauges: dict[str, Any] = {}
    for name, labels, value in samples:
        metric = METRICS[name]
        if name not in gauges:
            gauges[name] = Gauge(name, metric.text, metric.labels, registry=registry)
        gauges[name].labels(**labels).set(value)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_to_textfile(path, registry)
    os.chmod(path, 0o644)  # node exporter is another user


def main(arguments: Sequence[str]) -> int:
    with open(arguments[0], encoding="utf-8") as file:
        settings = json.load(file)
    path = os.path.join(settings["state"], "metrics", f"dbre_backup_{settings['stanza']}.prom")
    write(path, Look(settings).samples())
    return 0
