# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One restore test from beginning to end: look at the repository, restore, check, remove, and keep what was found."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError, UnfitHost
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest, Run
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import ensure_state
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_restore import Asked, SideRestore
from ansible_collections.dbre.recovery.plugins.module_utils._verification import record
from ansible_collections.dbre.recovery.plugins.module_utils._verification.attempt import (
    Attempt,
    Found,
    Subject,
    now,
    said,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.boundary import boundary
from ansible_collections.dbre.recovery.plugins.module_utils._verification.clean_up import clean_up, free_bytes, held
from ansible_collections.dbre.recovery.plugins.module_utils._verification.data import (
    asserted,
    check_assertions,
    compared,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.examine import CHECKS, Examination
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import Finding, conclude, finding
from ansible_collections.dbre.recovery.plugins.module_utils._verification.integrity import Integrity, checksums
from ansible_collections.dbre.recovery.plugins.module_utils._verification.point import (
    KEPT,
    check_point,
    kept_snapshot,
    restore_point,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.reasons import restore_findings


@dataclass(frozen=True)
class Request:
    """What is to be tested, and where. ``directory`` holds the history, ``path`` is where the backup is restored.

    ``policy`` is that of backup_policy_info. ``compare`` are fingerprints of production (take_fingerprints), and where
    they were taken is where the test restores to; with the point ``kept`` they are those that an earlier test kept.
    ``compare_failed`` says why there are none although they were asked for, which leaves the backup unverified.
    ``system_identifier`` and ``timeline`` are production's. ``loss`` is what production had that the archive lacked, as
    postgresql_unarchived_info tells it. What was not asked of production has its reason beside it.
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
    compare_failed: Optional[str] = None
    compare_unknown: str = "no database was named for it (backup_verification_compare)"
    assertions: Sequence[Mapping[str, Any]] = ()
    system_identifier: Optional[str] = None
    timeline: Optional[int] = None
    loss: Optional[Mapping[str, Any]] = None
    loss_unknown: str = "production was not asked"


class RestoreTest(Attempt):
    """The test of one stanza. Nothing it does can fail without a verdict, but for its own history."""

    def __init__(self, request: Request, run: Run) -> None:
        super().__init__(
            Subject(
                name=request.stanza,
                what=f"stanza '{request.stanza}'",
                directory=request.directory,
                host=request.host,
                tier=request.tier,
                policy=request.policy,
                ignore=request.ignore,
                signing_key=request.signing_key,
            )
        )
        self.request = request
        self.pgbackrest = PgBackRest(
            run, stanza=request.stanza, config=request.config, executable=request.executable, repo=request.repo
        )
        self.runner = run
        self.instance = SideInstance(request.path)
        self.assertions = check_assertions(request.assertions)
        check_point(request.point)
        self.compare = self.snapshot = request.compare
        self.loss = request.loss

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the place of the restore, too: a test whose history lies elsewhere would take away what is there."""
        with super().alone(), held(f"{self.instance.path}.lock") as free:
            if not free:
                raise self.taken(f"when {self.instance.path} is gone; its history is not in {self.request.directory}")
            yield

    def test(self, earlier: Sequence[Mapping[str, Any]]) -> None:
        """Look at the repository, restore, check, remove."""
        if shutil.which(self.request.executable) is None:
            text = f"there is no program {self.request.executable!r} on {self.subject.host} (pgbackrest_executable)"
            self.checks.append(conclude("repository", [finding("HOST_UNFIT", 0, "pgBackRest", text)], self.ignore))
            return
        self.look()
        self.restore()

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
        self.omit("a restore", "check mode restores nothing")
        return self.report({"id": self.id, "began": now()})

    def report(self, attempt: Mapping[str, Any]) -> dict[str, Any]:
        """What report.json holds."""
        if self.compare is None and not self.request.compare_failed:
            self.omit("data against production's", self.request.compare_unknown)
        if self.loss is None:
            self.omit("what would be lost (RPO)", self.request.loss_unknown)
        return super().report(attempt)

    # Steps

    def look(self) -> None:
        """What the repository alone tells."""
        try:
            examination = Examination(
                self.pgbackrest,
                policy=self.request.policy,
                ignore=self.ignore,
                waiting=(),
                now=time.time(),
                system_identifier=self.request.system_identifier,
                timeline=self.request.timeline,
                process_max=os.cpu_count(),  # as in the restore that follows
            )
            self.checks += examination.run(CHECKS)
        except RecoveryError as error:
            found = [finding("REPOSITORY_UNREADABLE", 0, "pgbackrest info", error.msg)]
            self.checks.append(conclude("repository", found, self.ignore))
        except Exception as error:
            self.broke("repository", error)
        if self.request.compare_failed:
            self.check("data", self.not_taken)

    def restore(self) -> None:
        """Restore and look at what was restored; what was restored is removed whatever happened."""
        before: Optional[int] = None
        try:
            self.facts["earlier"] = clean_up(self.instance.path)  # what an attempt that was killed left
            before = free_bytes(self.instance.path)
            self._restore()
        except RecoveryError as error:
            repo = int(self.facts.get("repo", 1))
            found = self.expired() or restore_findings(error, free_bytes(self.instance.path), repo)
            self.checks.append(conclude("restore", found, self.ignore))
        except Exception as error:
            self.broke("restore", error)
        finally:
            self.clean(before)

    def expired(self) -> list[Finding]:
        """A finding where the set that was being restored is no longer in the repository, and its WAL may be gone."""
        with contextlib.suppress(RecoveryError):
            chosen = ((self.instance.read_marker() or {}).get("plan") or {}).get("set")
            kept = stanza_facts(self.pgbackrest.info())["backups"]
            if (
                chosen
                and kept
                and (chosen["repo"], chosen["label"]) not in {(one["repo"], one["label"]) for one in kept}
            ):
                text = f"set {chosen['label']} is no longer in repository {chosen['repo']}: run again"
                return [finding("SET_EXPIRED", int(chosen["repo"]), chosen["label"], text)]
        return []

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
        for other in {one["repo"] for one in facts["repositories"]} - {chosen["repo"]}:
            why = f"set {chosen['label']}, the newest that leads to the target, is in repository {chosen['repo']}"
            self.omit(f"a restore from repository {other}", why)
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

    def not_taken(self) -> Found:
        text = f"what production has could not be read to compare with: {self.request.compare_failed}"
        return [finding("DATA_NOT_COMPARABLE", 0, "data", text)], [], {}

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

    def clean(self, before: Optional[int]) -> None:
        """Remove, and say what is left."""
        try:
            proof = clean_up(self.instance.path, before)
            found = [finding("CLEANUP_FAILED", 0, self.instance.path, text) for text in proof["left"]]
        except Exception as error:
            if isinstance(error, UnfitHost) and "target" not in self.facts:
                return  # nothing was ever to be restored there
            proof, found = {}, [finding("CLEANUP_FAILED", 0, self.instance.path, said(error))]
        self.facts["removed"] = proof
        self.checks.append(conclude("clean-up", found, self.ignore, (), proof))
