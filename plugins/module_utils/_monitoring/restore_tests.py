# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What restore tests have found, as samples of metrics. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.metrics import Sample

VERDICTS = ("verified", "failed", "could_not_verify")


class Run(NamedTuple):
    """One restore test; what it did not measure is None."""

    ended: float
    verdict: str
    rto: Optional[float]
    rpo: Optional[float]


def parse(text: str) -> list[Run]:
    """The runs of a history, oldest first. Raises ValueError for what is none."""
    try:
        runs = [
            Run(
                float(run["ended"]),
                VERDICTS[VERDICTS.index(run["verdict"])],
                *(None if run.get(name) is None else float(run[name]) for name in ("rto_seconds", "rpo_seconds")),
            )
            for run in json.loads(text)["runs"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a history of restore tests: {error}") from error
    if not runs:
        raise ValueError("a history without a run")
    return runs


def of_restore_tests(stanza: str, text: str) -> Iterator[Sample]:
    """``text``: the history that restore tests leave, as docs/metrics.md says, its newest run last."""
    labels = {"stanza": stanza}
    try:
        runs = parse(text)
    except ValueError:
        yield Sample("dbre_restore_test_known", labels, 0)
        return
    yield Sample("dbre_restore_test_known", labels, 1)
    yield Sample("dbre_restore_test_last_attempt_timestamp_seconds", labels, runs[-1].ended)
    proved = [run.ended for run in runs if run.verdict == "verified"]
    if proved:
        yield Sample("dbre_restore_test_last_success_timestamp_seconds", labels, proved[-1])
    for verdict in VERDICTS:
        yield Sample("dbre_restore_test_verdict", {**labels, "verdict": verdict}, int(verdict == runs[-1].verdict))
    for name, values in (("rto", [run.rto for run in runs]), ("rpo", [run.rpo for run in runs])):
        measured = [value for value in values if value is not None]
        if measured:
            yield Sample(f"dbre_restore_test_{name}_seconds", labels, measured[-1])
