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
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.metrics import METRICS, Sample
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.samples import (
    control_facts,
    of_certificate,
    of_queue,
    of_server,
    of_stanza,
    promised,
)
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.continuity import (
    newest_backup,
    require_continuous,
)
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import stanza_facts
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

    def samples(self) -> Iterator[Sample]:
        began = time.time()
        labels = {"stanza": self.stanza}
        yield from promised(self.stanza, self.settings["policy"])
        yield Sample("dbre_backup_first_seen_timestamp_seconds", labels, self.first_seen(began))
        yield from self.timers()
        yield from self.certificates()
        yield from self.free_space()
        if self.settings.get("pg_path"):
            with suppress(OSError):
                yield from of_queue(self.stanza, self.ready())
        found: list[Sample] = []
        try:
            found = list(self.pgbackrest())
        except (RecoveryError, ValueError) as error:
            sys.stderr.write(f"{error}\n")
        yield from found
        yield Sample("dbre_backup_collector_success", labels, int(bool(found)))
        yield Sample("dbre_backup_collector_timestamp_seconds", labels, time.time())
        yield Sample("dbre_backup_collector_duration_seconds", labels, time.time() - began)

    def first_seen(self, now: float) -> float:
        """Since when this stanza is looked at: a window cannot be longer than that."""
        path = os.path.join(self.settings["state"], f"monitoring-{self.stanza}.json")
        with suppress(OSError, ValueError, KeyError, TypeError), open(path, encoding="utf-8") as file:
            return float(json.load(file)["first_seen"])
        write_atomically(path, json.dumps({"first_seen": now}) + "\n", mode=0o644)
        return now

    def timers(self) -> Iterator[Sample]:
        for kind in self.settings["timers"]:
            answer = run(["systemctl", "is-active", f"dbre-backup-{self.stanza}-{kind}.timer"])[1].strip()
            if answer:
                labels = {"stanza": self.stanza, "type": kind}
                yield Sample("dbre_backup_timer_active", labels, int(answer == "active"))

    def certificates(self) -> Iterator[Sample]:
        for path in self.settings["certificates"]:
            yield from of_certificate(self.stanza, path, run(["openssl", "x509", "-noout", "-enddate", "-in", path])[1])

    def free_space(self) -> Iterator[Sample]:
        for repo, path in self.settings["repository_paths"].items():
            with suppress(OSError):
                system = os.statvfs(path)
                labels = {"stanza": self.stanza, "repo": str(repo)}
                yield Sample("dbre_backup_repository_free_bytes", labels, system.f_bavail * system.f_frsize)

    def ready(self) -> list[float]:
        times = []
        for entry in os.scandir(os.path.join(self.settings["pg_path"], "pg_wal", "archive_status")):
            if entry.name.endswith(".ready"):
                with suppress(FileNotFoundError):  # archived meanwhile
                    times.append(entry.stat().st_mtime)
        return times

    def pgbackrest(self) -> Iterator[Sample]:
        settings = self.settings
        pgbackrest = PgBackRest(run, stanza=self.stanza, config=settings["config"], executable=settings["executable"])
        facts = stanza_facts(pgbackrest.info(patience=PATIENCE / 2))
        yield from of_stanza(facts, settings["policy"]["gaps"], settings["repositories"])
        if settings.get("pg_path"):
            yield from of_server(facts, self.control())
        for repo in settings["repositories"]:
            labels = {"stanza": self.stanza, "repo": str(repo)}
            missing = gap(pgbackrest, facts, repo)
            yield Sample("dbre_backup_check_known", {**labels, "check": "wal_gap"}, int(missing is not None))
            if missing is not None:
                yield Sample("dbre_backup_wal_gap_segments", labels, missing)

    def control(self) -> Optional[dict[str, int]]:
        with (
            suppress(OSError, ValueError),
            open(os.path.join(self.settings["pg_path"], "global", "pg_control"), "rb") as file,
        ):
            return control_facts(file.read(512))
        return None


def gap(pgbackrest: PgBackRest, facts: Mapping[str, Any], repo: int) -> Optional[int]:
    """How many WAL segments since the newest backup are missing in a repository; None: that is not known."""
    if newest_backup(facts, repo) is None:
        return None
    try:
        require_continuous(pgbackrest, facts, repo)
    except RecoveryError as error:
        missing = error.details.get("missing_wal")
        return len(missing) if missing else None
    return 0


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
