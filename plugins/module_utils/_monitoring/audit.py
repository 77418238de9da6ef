# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the backups of a host are worth, against what its tier promises. Pure functions.

An objective is met, not met or unknown. What could not be looked at is unknown, and unknown is never met.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted, duration
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.archive import Finished, newest_archived
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.restore_tests import LONGEST, Attempt
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.samples import MISSING
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.holdings import holdings
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import (
    SERVED_BY,
    current_databases,
    other_cluster,
)

MET, NOT_MET, UNKNOWN = "met", "not_met", "unknown"
WORST = (NOT_MET, UNKNOWN, MET)
DAY = 86400.0
CLOCKS = 300  # seconds that the clocks of two hosts may differ
_OF_CLUSTER = re.compile(r"\s*(pg1-(?:path|host))\s*=\s*(.*?)\s*")


class Judgement(NamedTuple):
    """One objective of one host; ``why`` is empty where it is met."""

    objective: str
    state: str
    why: str = ""


def _seconds(text: Optional[str]) -> Optional[float]:
    return datetime.fromisoformat(text).timestamp() if text else None


def summary(
    facts: Mapping[str, Any],
    finished: Optional[Sequence[Finished]],
    now: float,
    production: Optional[str] = None,
) -> dict[str, Any]:
    """What ``pgbackrest info`` says (facts of stanza_facts), as much of it as an audit needs.

    ``{stanza, status: {code, message}, system_identifier, repositories: {repo: {status, backups: {type: {label, ended,
    seconds, errors}}, reaches_back_to, page_errors, lag_seconds, other_cluster}}}``, with times in seconds since the
    epoch. What is not known is None. ``finished``: what was in pg_wal of the running primary before ``facts``, and
    ``production`` its system identifier; None where there is none.
    """
    current = current_databases(facts)
    newest = newest_archived(facts)
    repositories: dict[str, Any] = {}
    for entry in facts["repositories"]:
        repo = entry["repo"]
        held, other = holdings(facts, repo), other_cluster(facts, repo, production)
        repositories[str(repo)] = {
            "status": entry["status"],
            "backups": {kind: _newest(held.serving(kind)) for kind in SERVED_BY},
            "reaches_back_to": held.window_start,
            "page_errors": held.page_errors,
            "lag_seconds": None if other else _lag(finished, newest.get(repo, ""), now),
            "other_cluster": other,
        }
    identifiers = {entry["system_identifier"] for entry in current}
    return {
        "stanza": facts["name"],
        "status": facts["status"],
        "system_identifier": identifiers.pop() if len(identifiers) == 1 else None,
        "repositories": repositories,
    }


def local_cluster(configuration: str, stanza: str) -> Optional[str]:
    """Data directory that a text of pgBackRest's configuration names for a stanza; None unless it is on this host."""
    section, found = "", {}
    for line in configuration.splitlines():
        if matched := re.fullmatch(r"\s*\[([^]]+)\]\s*", line):
            section = matched[1]
        elif section.partition(":")[0] == stanza and (matched := _OF_CLUSTER.fullmatch(line)):
            found[matched[1]] = matched[2]
    return None if "pg1-host" in found else found.get("pg1-path")


def _newest(backups: Sequence[Mapping[str, Any]]) -> Optional[dict[str, Any]]:
    if not backups:
        return None
    last = backups[-1]
    usual = max(backup["duration"] or 0 for backup in backups)
    ended = _seconds(last["stop_time"])
    return {"label": last["label"], "ended": ended, "usual_seconds": usual, "errors": last["error"]}


def _lag(finished: Optional[Sequence[Finished]], newest: str, now: float) -> Optional[float]:
    if finished is None:
        return None
    return max((now - segment.since for segment in finished if segment.name > newest), default=0.0)


def judge(
    found: Mapping[str, Any],
    policy: Mapping[str, Any],
    tests: Optional[Sequence[Mapping[str, Any]]],
    now: float,
) -> list[Judgement]:
    """The objectives of a host with pgBackRest. ``found`` is a summary, ``tests`` the restore tests of its stanza.

    ``tests`` is None where their history could not be understood, and empty where there was none.
    """
    if found["status"]["code"] in MISSING or not found["repositories"]:
        message = found["status"]["message"] or "nothing is known of it"
        return [Judgement("backups", NOT_MET, f"stanza {found['stanza']} is not there: {message}")]
    judged: list[Judgement] = []
    for repo, repository in found["repositories"].items():
        judged += _of_repository(repo, repository, policy, now)
    # One repository that has the WAL is enough.
    lags = [repository["lag_seconds"] for repository in found["repositories"].values()]
    known = [lag for lag in lags if lag is not None]
    judged.append(_at_most("rpo", min(known) if known else None, policy, "finished WAL waits for its archive since"))
    return [*judged, *of_restore_tests(tests, policy, now)]


def _of_repository(
    repo: str, repository: Mapping[str, Any], policy: Mapping[str, Any], now: float
) -> Iterable[Judgement]:
    where = f"repository {repo}"
    status = repository["status"]
    if status["code"] not in (0, 2):
        yield Judgement("backups", NOT_MET, f"{where} cannot be used: {status['message'] or status['code']}")
        return
    if repository.get("other_cluster"):
        yield Judgement("backups", NOT_MET, repository["other_cluster"])
    for kind, gap in policy["gaps"].items():
        last = repository["backups"][kind]
        if last is None:
            yield Judgement(kind, NOT_MET, f"no {kind} backup in {where}")
            continue
        age = now - last["ended"]
        if age < -CLOCKS:
            why = f"the last {kind} backup in {where} ended {duration(-age)} after the host's now: its clock is wrong"
            yield Judgement(kind, UNKNOWN, why)
            continue
        late = age - gap - policy["seconds"]["grace"] - last["usual_seconds"]
        why = f"the last {kind} backup in {where} is {duration(age)} old, and one is due every {duration(gap)}"
        yield Judgement(kind, NOT_MET, why) if late > 0 else Judgement(kind, MET)
    if repository["page_errors"]:
        yield Judgement("pages", NOT_MET, f"what would be restored from {where} holds damaged pages")
    elif repository["page_errors"] is None and any(repository["backups"].values()):
        yield Judgement("pages", UNKNOWN, f"this pgBackRest does not tell whether pages in {where} are damaged")
    if repository["reaches_back_to"] is None:
        yield Judgement("window", NOT_MET, f"nothing in {where} can be restored to a moment")
        return
    reach = now - repository["reaches_back_to"]
    window = policy["seconds"]["window"]
    why = f"{where} reaches back {duration(reach)}, and {duration(window)} are promised"
    yield Judgement("window", NOT_MET, why) if reach < window else Judgement("window", MET)


def _at_most(objective: str, value: Optional[float], policy: Mapping[str, Any], what: str) -> Judgement:
    promised = policy["seconds"][objective]
    if value is None:
        return Judgement(objective, UNKNOWN, f"{objective.upper()} was not measured")
    if value > promised:
        why = f"{what} {duration(value)}, and {duration(promised)} are promised"
        return Judgement(objective, NOT_MET, why)
    return Judgement(objective, MET)


def of_restore_tests(
    tests: Optional[Sequence[Mapping[str, Any]]], policy: Mapping[str, Any], now: float
) -> list[Judgement]:
    """Whether restores were tested as often as promised, what the last test found, and how long it took."""
    if tests is None:
        return [Judgement("restore_test", UNKNOWN, "the history of restore tests cannot be understood")]
    if not tests:
        return [Judgement("restore_test", NOT_MET, "no restore was ever tested")]
    last = tests[-1]
    age, due = now - last["ended"], policy["seconds"].get("restore_test")
    judged = []
    if due is not None and age > due + policy["seconds"]["grace"]:
        why = f"the last restore test was {duration(age)} ago, and one is due every {duration(due)}"
        judged.append(Judgement("restore_test", NOT_MET, why))
    elif age < -CLOCKS:
        why = f"the last restore test ended {duration(-age)} after the host's now: one of two clocks is wrong"
        judged.append(Judgement("restore_test", UNKNOWN, why))
    elif last["verdict"] == "verified":
        judged.append(Judgement("restore_test", MET))
    elif last["verdict"] == "failed":
        judged.append(Judgement("restore_test", NOT_MET, f"the last restore test, {duration(age)} ago, failed"))
    else:
        why = f"the last restore test, {duration(age)} ago, could not tell whether the backups are good"
        judged.append(Judgement("restore_test", UNKNOWN, why))
    judged.append(_at_most("rto", measured(tests, "rto_seconds"), policy, "the last restore test took"))
    lost = measured(tests, "rpo_seconds")
    if lost is not None:
        judged.append(_at_most("rpo", lost, policy, "the last restore test lost"))
    return judged


def ended_tests(attempts: Iterable[Attempt], now: float) -> list[dict[str, Any]]:
    """Restore tests as {ended, verdict, rto_seconds, rpo_seconds, system_identifier}, in their order.

    One that has not ended within LONGEST was killed, and says nothing of the backups; one that still runs is left out.
    """
    found = []
    for attempt in attempts:
        if attempt.ended is None and now - attempt.began <= LONGEST:
            continue
        ended, verdict = attempt.ended or attempt.began, attempt.verdict or "could_not_verify"
        run = {"ended": ended, "verdict": verdict, "rto_seconds": attempt.rto, "rpo_seconds": attempt.rpo}
        found.append({**run, "system_identifier": attempt.system_identifier})
    return found


def measured(tests: Optional[Sequence[Mapping[str, Any]]], name: str) -> Optional[float]:
    """The newest value that restore tests have of it."""
    values = [test[name] for test in tests or () if test.get(name) is not None]
    return float(values[-1]) if values else None


def tests_of(
    stanza: str,
    identifier: Optional[int],
    own: Mapping[str, Any],
    others: Iterable[Mapping[str, Any]],
    alone: bool,
) -> Optional[list[Mapping[str, Any]]]:
    """The restore tests of one cluster, oldest first, out of histories by stanza: its own host's, and those of others.

    A history is a list of runs, or None where it cannot be understood. Elsewhere another cluster's stanza may have the
    same name: a run counts when it names the cluster, or when the stanza is ``alone`` with its name.
    """
    kept: list[Mapping[str, Any]] = []
    for history, ours in [(own.get(stanza, []), True), *((other.get(stanza, []), alone) for other in others)]:
        if history is None:
            if ours:
                return None
            continue
        for run in history:
            named = run.get("system_identifier")
            if ours if named is None or identifier is None else int(named) == identifier:
                kept.append(run)
    return sorted(kept, key=lambda run: float(run["ended"]))


def judge_rds(
    windows: Sequence[Mapping[str, Any]], snapshots: Sequence[Mapping[str, Any]], policy: Mapping[str, Any], now: float
) -> list[Judgement]:
    """The objectives of a database of RDS: of its automated backups in its own region (rds_recovery_window_info)."""
    automated = [window for window in windows if window["kind"] == "automated"]
    if not automated or not automated[0]["latest"]:
        return [Judgement("backups", NOT_MET, "there are no automated backups that a restore could begin from")]
    window = automated[0]
    lag = now - (_seconds(window["latest"]) or 0.0)
    judged = [_at_most("rpo", lag, policy, "the latest moment that can be restored was")]
    reach = now - (_seconds(window["earliest"]) or now)
    promised = policy["seconds"]["window"]
    why = f"its backups reach back {duration(reach)}, and {duration(promised)} are promised"
    judged.append(Judgement("window", NOT_MET, why) if reach < promised else Judgement("window", MET))
    newest = newest_snapshot(snapshots)
    # AWS takes one a day, in the backup window.
    if newest is None:
        judged.append(Judgement("full", NOT_MET, "there is no automated snapshot"))
    elif now - newest > DAY + policy["seconds"]["grace"]:
        why = f"the last automated snapshot is {duration(now - newest)} old, and one is due every {duration(DAY)}"
        judged.append(Judgement("full", NOT_MET, why))
    else:
        judged.append(Judgement("full", MET))
    return judged


def newest_snapshot(snapshots: Sequence[Mapping[str, Any]]) -> Optional[float]:
    """When the newest automated snapshot that can be restored was made, in seconds since the epoch."""
    made = [
        _seconds(snapshot["created"])
        for snapshot in snapshots
        if snapshot["type"] == "automated" and snapshot["status"] == "available"
    ]
    return max(filter(None, made), default=None)


def verdict(judged: Iterable[Judgement]) -> str:
    """The worst of all; unknown where nothing was judged."""
    states = {judgement.state for judgement in judged}
    return next((state for state in WORST if state in states), UNKNOWN)


def reasons(judged: Iterable[Judgement]) -> list[str]:
    """Why it is not met, the worst first, without repetition."""
    ordered = sorted(judged, key=lambda judgement: WORST.index(judgement.state))
    return list(dict.fromkeys(judgement.why for judgement in ordered if judgement.why))


def totals(verdicts: Iterable[str]) -> str:
    """One line for people: ``3 hosts: 1 met, 1 not met, 1 unknown``."""
    found = list(verdicts)
    parts = ", ".join(f"{found.count(state)} {state.replace('_', ' ')}" for state in (MET, NOT_MET, UNKNOWN))
    return f"{counted(len(found), 'host')}: {parts}"
