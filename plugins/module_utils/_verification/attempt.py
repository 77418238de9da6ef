# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What restore tests have in common, whatever is restored: one at a time, a history, checks, a report that is kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError, UnfitHost
from ansible_collections.dbre.recovery.plugins.module_utils._verification import record
from ansible_collections.dbre.recovery.plugins.module_utils._verification.evidence import check_chain, check_key, link
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import (
    CODES,
    Check,
    Finding,
    Omission,
    check_ignored,
    conclude,
    finding,
)

Found = tuple[list[Finding], list[Omission], dict[str, Any]]


def now() -> str:
    """This moment, ISO 8601 in UTC."""
    return datetime.now(timezone.utc).isoformat()


def said(error: Exception) -> str:
    """An error in one line of a report."""
    return error.msg if isinstance(error, RecoveryError) else f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class Subject:
    """What is tested: ``name`` is that of the history, ``what`` what people call it."""

    name: str
    what: str
    directory: str
    host: str
    tier: Optional[str] = None
    policy: Optional[Mapping[str, Any]] = None
    ignore: Optional[Mapping[str, Any]] = None
    signing_key: Optional[str] = None


class Attempt(ABC):
    """One restore test. Nothing it does can fail without a verdict, but for its own history."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.ignore = check_ignored(subject.ignore or {})
        self.history = record.history_path(subject.directory, subject.name)
        self.id = f"verify-{subject.name}-{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}"
        self.checks: list[Check] = []
        self.moments: dict[str, str] = {}
        self.not_checked: list[Omission] = []
        self.killed: list[str] = []
        # What is kept beside the report for a later test to compare with.
        self.snapshot: Optional[Mapping[str, Any]] = None
        self.loss: Optional[Mapping[str, Any]] = None
        self.facts: dict[str, Any] = {
            "stanza": subject.name,
            "host": subject.host,
            "tier": subject.tier,
            "controls": list((subject.policy or {}).get("controls") or []),
        }

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the tests of this name: of two at a time, the later one ends at once and touches nothing."""
        directory, name = self.subject.directory, self.subject.name
        os.makedirs(directory, mode=0o755, exist_ok=True)
        with open(os.path.join(directory, f"verification-{name}.lock"), "a", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self.taken(f"which {self.history} will tell") from None
            yield

    def taken(self, told: str) -> RecoveryError:
        """What a test is told that is not alone; ``told`` says where the end of the other one will be seen."""
        return RecoveryError(
            f"another restore test of {self.subject.what} runs on {self.subject.host}. Nothing was changed. Wait for "
            f"its end, {told}."
        )

    def run(self) -> dict[str, Any]:
        """Test, and return the report, which is in the directory then. Raises RecoveryError beside another test."""
        with self.alone():
            directory, key = self.subject.directory, self.subject.signing_key
            earlier: Sequence[Mapping[str, Any]] = record.read_history(self.history)["attempts"]
            attempt = record.begin(self.history, self.subject.name, self.id, now())
            self.killed = attempt["killed_before"]
            self.test(earlier)
            found = [*check_chain(directory, earlier), *check_key(key)]
            self.checks.append(conclude("evidence", found, self.ignore))
            self.facts.update(previous=link(earlier), signed_by=key, earlier=record.past(earlier))
            report = self.report(attempt)
            if self.snapshot:
                record.keep_snapshot(directory, self.id, self.snapshot)
            record.write(directory, self.history, report, None if found else key)
        return report

    @abstractmethod
    def test(self, earlier: Sequence[Mapping[str, Any]]) -> None:
        """Restore, check, remove; whatever goes wrong is a finding. ``earlier`` are the attempts before."""

    def report(self, attempt: Mapping[str, Any]) -> dict[str, Any]:
        """What report.json holds."""
        return record.report(
            self.checks,
            attempt=attempt,
            now=now(),
            moments=self.moments,
            policy=self.subject.policy,
            facts=self.facts,
            ignore=self.ignore,
            not_checked=self.not_checked,
            loss=self.loss,
        )

    def ended(self, phase: str) -> None:
        """Note when a phase ended."""
        self.moments[phase] = now()

    def omit(self, what: str, why: str) -> None:
        """Note what is not checked, and why."""
        self.not_checked.append({"what": what, "why": why})

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
        """A check that ended with an error of its own, or of one that has a code."""
        code = str(error.details.get("code")) if isinstance(error, RecoveryError) else ""
        found = finding(code if code in CODES else "CHECK_FAILED", 0, name, said(error))
        self.checks.append(conclude(name, [found], self.ignore))
