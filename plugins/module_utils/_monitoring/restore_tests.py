# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What restore tests have found, as samples of metrics. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.metrics import Sample
from ansible_collections.dbre.recovery.plugins.module_utils._policy.tiers import DAY

VERDICTS = ("verified", "failed", "could_not_verify")
LONGEST = DAY  # an attempt that has not ended after it was killed


class Attempt(NamedTuple):
    """One restore test; what it did not measure is None, and so is the verdict of one that has not ended."""

    began: float
    ended: Optional[float]
    verdict: Optional[str]
    rto: Optional[float]
    rpo: Optional[float]
    system_identifier: Optional[int]


def parse(text: str) -> list[Attempt]:
    """The attempts of a history (docs/metrics.md), oldest first. Raises ValueError for what is none."""
    try:
        attempts = [
            Attempt(
                datetime.fromisoformat(attempt["began"]).timestamp(),
                datetime.fromisoformat(attempt["ended"]).timestamp() if attempt["ended"] else None,
                VERDICTS[VERDICTS.index(attempt["verdict"])] if attempt["ended"] else None,
                _measured(attempt, "rto"),
                _measured(attempt, "rpo"),
                int(attempt["system_identifier"]) if attempt.get("system_identifier") else None,
            )
            for attempt in json.loads(text)["attempts"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a history of restore tests: {error}") from error
    if not attempts:
        raise ValueError("a history without an attempt")
    return attempts


def _measured(attempt: Mapping[str, Any], name: str) -> Optional[float]:
    return float(attempt[name]["seconds"]) if attempt.get(name) else None


def of_restore_tests(stanza: str, text: str, now: float, identifier: Optional[int] = None) -> Iterator[Sample]:
    """``text``: the history that restore tests leave, as docs/metrics.md says, its newest attempt last.

    Attempts on another cluster than ``identifier``, whose stanza has the same name, are not of this one.
    """
    labels = {"stanza": stanza}
    try:
        attempts = parse(text)
    except ValueError:
        yield Sample("dbre_restore_test_known", labels, 0)
        return
    attempts = [
        one
        for one in attempts
        if None
        in (
            identifier,
            one.system_identifier,
        )
        or one.system_identifier == identifier
    ]
    yield Sample("dbre_restore_test_known", labels, 1)
    if not attempts:
        return
    yield Sample("dbre_restore_test_last_attempt_timestamp_seconds", labels, attempts[-1].began)
    proved = [attempt.ended for attempt in attempts if attempt.ended and attempt.verdict == "verified"]
    if proved:
        yield Sample("dbre_restore_test_last_success_timestamp_seconds", labels, proved[-1])
    verdicts = [attempt.verdict for attempt in attempts if attempt.verdict]
    if attempts[-1].ended is None and now - attempts[-1].began > LONGEST:
        verdicts.append("could_not_verify")
    if verdicts:
        for verdict in VERDICTS:
            yield Sample("dbre_restore_test_verdict", {**labels, "verdict": verdict}, int(verdict == verdicts[-1]))
    for name, values in (("rto", [one.rto for one in attempts]), ("rpo", [one.rpo for one in attempts])):
        measured = [value for value in values if value is not None]
        if measured:
            yield Sample(f"dbre_restore_test_{name}_seconds", labels, measured[-1])
