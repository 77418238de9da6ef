# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One restore test from beginning to end: look at the repository, restore, check, remove, and keep what was found."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError, UnfitHost
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest, Run
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import ensure_state
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_restore import Asked, SideRestore
from ansible_collections.dbre.recovery.plugins.module_utils._verification import record
from ansible_collections.dbre.recovery.plugins.module_utils._verification.boundary import boundary
from ansible_collections.dbre.recovery.plugins.module_utils._verification.clean_up import clean_up, free_bytes
from ansible_collections.dbre.recovery.plugins.module_utils._verification.data import (
    asserted,
    check_assertions,
    compared,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.evidence import check_chain, check_key, link
from ansible_collections.dbre.recovery.plugins.module_utils._verification.examine import CHECKS, Examination
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import (
    Check,
    Finding,
    Omission,
    check_ignored,
    conclude,
    finding,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.integrity import Integrity, checksums
from ansible_collections.dbre.recovery.plugins.module_utils._verification.point import (
    KEPT,
    kept_snapshot,
    restore_point,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.reasons import restore_findings

Found = tuple[list[Finding], list[Omission], dict[str, Any]]


@dataclass(frozen=True)
class Request:
    """What is to be tested, and where. ``directory`` holds the history, ``path`` is where the backup is restored.

    ``policy`` is that of backup_policy_info. ``compare`` are fingerprints of production (take_fingerprints), and where
    they were taken is where the test restores to; with the point ``kept`` they are those that an earlier test kept.
    ``loss`` is what production had that the archive lacked, as postgresql_unarchived_info tells it. What was not
    asked of production has its reason beside it.
    """

    stanza: str
    directory: str
    path: str
    config: Optional[str] = None
    executable: str = "pgbackrest"
    repo: Optional[int] = None
    superuser: Optional[str] = None
    bin_dir: Optional[str] = None
    host: str = field(default_factory=socket.gethostname)
    tier: Optional[str] = None
    policy: Optional[Mapping[str, Any]] = None
    point: str = "latest"
    seed: str = ""
    ignore: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = 14400
    signing_key: Optional[str] = None
    compare: Optional[Mapping[str, Any]] = None
    compare_unknown: str = "no database was named for it (backup_verification_compare)"
    assertions: Sequence[Mapping[str, Any]] = ()
    loss: Optional[Mapping[str, Any]] = None
    loss_unknown: str = "production was not asked"


def now() -> str:
    """This moment, ISO 8601 in UTC."""
    return datetime.now(timezone.utc).isoformat()


class RestoreTest:
    """The test of one stanza. Nothing it does can fail without a verdict, but for its own history."""

    def __init__(self, request: Request, run: Run) -> None:
        self.request = request
        self.ignore = check_ignored(request.ignore)
        self.pgbackrest = PgBackRest(
            run, stanza=request.stanza, config=request.config, executable=request.executable, repo=request.repo
        )
        self.runner = run
        self.instance = SideInstance(request.path)
        self.history = record.history_path(request.directory, request.stanza)
        self.id = f"verify-{request.stanza}-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}"
        self.assertions = check_assertions(request.assertions)
        self.compare = request.compare
        self.checks: list[Check] = []
        self.moments: dict[str, str] = {}
        self.not_checked: list[Omission] = []
        self.facts: dict[str, Any] = {
            "stanza": request.stanza,
            "host": request.host,
            "tier": request.tier,
            "controls": list((request.policy or {}).get("controls") or []),
        }

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the stanza's tests: of two at a time, the later one ends at once and touches nothing."""
        request = self.request
        os.makedirs(request.directory, mode=0o755, exist_ok=True)
        with open(
            os.path.join(request.directory, f"verification-{request.stanza}.lock"), "a", encoding="utf-8"
        ) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RecoveryError(
                    f"another restore test of stanza '{request.stanza}' runs on {request.host}. Nothing was changed. "
                    f"Wait for its end, which {self.history} will tell."
                ) from None
            yield

    def run(self) -> dict[str, Any]:
        """Test, and return the report, which is in the directory then. Raises RecoveryError beside another test."""
        with self.alone():
            request = self.request
            earlier = record.read_history(self.history)["attempts"]
            attempt = record.begin(self.history, request.stanza, self.id, now())
            self.look()
            self.restore()
            found = [*check_chain(request.directory, earlier), *check_key(request.signing_key)]
            self.checks.append(conclude("evidence", found, self.ignore))
            self.facts.update(previous=link(earlier), signed_by=request.signing_key, earlier=record.past(earlier))
            report = self.report(attempt)
            if request.compare:
                record.keep_snapshot(request.directory, self.id, request.compare)
            record.write(request.directory, self.history, report, None if found else request.signing_key)
        return report

    def clean_after(self) -> list[str]:
        """After a test that may have been killed: remove what it left, and give it its verdict. What was done."""
        with self.alone():
            killed = record.close_killed(self.history, now())
            told = [f"{one} was killed" for one in killed]
            if self.instance.read_marker() is not None:
                proof = clean_up(self.instance.path)
                told += [f"{proof['path']} is removed", *proof["left"]]
        return told

    def dry_run(self) -> dict[str, Any]:
        """The repository alone; nothing is written."""
        self.look()
        self.not_checked.append({"what": "a restore", "why": "check mode restores nothing"})
        return self.report({"id": self.id, "began": now()})

    def report(self, attempt: Mapping[str, Any]) -> dict[str, Any]:
        request = self.request
        if self.compare is None:
            self.not_checked.append({"what": "data against production's", "why": request.compare_unknown})
        if request.loss is None:
            self.not_checked.append({"what": "what would be lost (RPO)", "why": request.loss_unknown})
        return record.report(
            self.checks,
            attempt=attempt,
            now=now(),
            moments=self.moments,
            policy=request.policy,
            facts=self.facts,
            ignore=self.ignore,
            not_checked=self.not_checked,
            loss=request.loss,
        )

    # Steps

    def look(self) -> None:
        """What the repository alone tells."""
        try:
            examination = Examination(
                self.pgbackrest, policy=self.request.policy, ignore=self.ignore, waiting=(), now=time.time()
            )
            self.checks += examination.run(CHECKS)
        except Exception as error:
            self.broke("repository", error)

    def restore(self) -> None:
        """Restore and look at what was restored; what was restored is removed whatever happened."""
        before: Optional[int] = None
        try:
            self.facts["earlier"] = clean_up(self.instance.path)  # what an attempt that was killed left
            before = free_bytes(self.instance.path)
            self._restore()
        except RecoveryError as error:
            found = restore_findings(error, free_bytes(self.instance.path), int(self.facts.get("repo", 1)))
            self.checks.append(conclude("restore", found, self.ignore))
        except Exception as error:
            self.broke("restore", error)
        finally:
            self.clean(before)

    def _restore(self) -> None:
        request = self.request
        facts = stanza_facts(self.pgbackrest.info())
        if request.point == KEPT:
            self.compare = kept_snapshot(request.directory, facts)
        point = str(self.compare["lsn"]) if self.compare else request.point
        target = restore_point(facts, point, request.seed or self.id)
        self.moments["begin"] = now()
        self.facts["target"] = target
        asked = Asked(
            path=self.instance.path,
            stanza=request.stanza,
            target=target,
            incident=f"verify-{request.stanza}",
            config=request.config,
            executable=request.executable,
            repo=request.repo,
            state_path=request.directory,
            superuser=request.superuser,
            bin_dir=request.bin_dir,
        )
        side = SideRestore(asked, self.runner)
        plan, _changed = side.restore()
        self.ended("restore")
        chosen = plan["set"]
        self.facts.update(
            set=chosen["label"],
            repo=chosen["repo"],
            bytes=chosen["size"],
            system_identifier=str(plan["system_identifier"]),
            wal=plan["wal"],
            versions=self.versions(plan["bin_dir"]),
            commands=self.commands(side, plan),
        )
        record.identify(self.history, self.id, self.facts["system_identifier"])
        paused = self.state("paused")
        self.ended("replay")
        self.facts["isolation"] = paused["instance"]["isolation"]
        self.facts["bytes_per_second"] = record.speeds(chosen["size"], plan.get("seconds"), paused["replay"])
        self.check("boundary", lambda: boundary(self.instance.path, self.facts["repo"]))
        self.state("promoted")
        self.ended("ready")
        self.check("integrity", lambda: Integrity(self.instance.path, self.facts["repo"]).run())
        if self.compare:
            self.check("data", self.data)
        if self.assertions:
            self.check("assertions", lambda: asserted(self.instance.path, self.assertions, self.facts["repo"]))
        self.state("stopped")
        self.check("checksums", lambda: checksums(self.instance.path, self.facts["repo"]))
        self.ended("checked")

    def data(self) -> Found:
        snapshot = dict(self.compare or {})
        if str(snapshot["system_identifier"]) != self.facts["system_identifier"]:
            text = f"it was taken of cluster {snapshot['system_identifier']}, not {self.facts['system_identifier']}"
            return [finding("DATA_NOT_COMPARABLE", self.facts["repo"], "data", text)], [], {}
        return compared(self.instance.path, snapshot, self.facts["repo"])

    def versions(self, bin_dir: str) -> dict[str, str]:
        """Exact versions of the programs that took part."""
        said = {
            "pgBackRest": self.runner([self.pgbackrest.executable, "version"])[1],
            "PostgreSQL": self.runner([os.path.join(bin_dir, "postgres"), "--version"])[1],
        }
        return {name: text.strip() or "unknown" for name, text in said.items()}

    def commands(self, side: SideRestore, plan: Mapping[str, Any]) -> list[str]:
        """What was run, for those who want to do the same by hand."""
        bin_dir = plan["bin_dir"]
        return [
            shlex.join([*side.side_command(plan), f"--set={plan['set']['label']}", "--type=none", "restore"]),
            f"restore_command = {side.restore_command(plan)}",
            shlex.join([os.path.join(bin_dir, "pg_amcheck"), "--heapallindexed"]),
            shlex.join([os.path.join(bin_dir, "pg_checksums"), "--check", "-D", self.instance.data]),
        ]

    def state(self, state: str) -> dict[str, Any]:
        return ensure_state(self.instance, state, timeout=float(self.request.timeout))

    def ended(self, phase: str) -> None:
        self.moments[phase] = now()

    def check(self, name: str, ask: Callable[[], Found]) -> None:
        """One check; an error of its own is no verdict on the backup."""
        try:
            findings, omitted, facts = ask()
        except UnfitHost:
            raise
        except Exception as error:
            self.broke(name, error)
            return
        self.checks.append(conclude(name, findings, self.ignore, omitted, facts))

    def broke(self, name: str, error: Exception) -> None:
        text = error.msg if isinstance(error, RecoveryError) else f"{type(error).__name__}: {error}"
        self.checks.append(conclude(name, [finding("CHECK_FAILED", 0, name, text)], self.ignore))

    def clean(self, before: Optional[int]) -> None:
        """Remove, and say what is left."""
        try:
            proof = clean_up(self.instance.path, before)
            found = [finding("CLEANUP_FAILED", 0, self.instance.path, text) for text in proof["left"]]
        except Exception as error:
            if isinstance(error, UnfitHost) and "target" not in self.facts:
                return  # nothing was ever to be restored there
            text = error.msg if isinstance(error, RecoveryError) else f"{type(error).__name__}: {error}"
            proof, found = {}, [finding("CLEANUP_FAILED", 0, self.instance.path, text)]
        self.facts["removed"] = proof
        self.checks.append(conclude("clean-up", found, self.ignore, (), proof))
