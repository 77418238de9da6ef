# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What hosts have answered, as the rows of an audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Optional, TypedDict

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.audit import (
    NOT_MET,
    UNKNOWN,
    WORST,
    Judgement,
    judge,
    judge_rds,
    measured,
    newest_snapshot,
    of_restore_tests,
    reasons,
    tests_of,
    verdict,
)
from ansible_collections.dbre.recovery.plugins.module_utils._policy.tiers import resolve

KINDS = ("full", "diff", "incr")


class Answer(TypedDict):
    """What one host has said: results of tasks by name, and its variables of policy."""

    host: str
    tier: str
    tiers: Mapping[str, Any]
    overrides: Mapping[str, Any]
    policy: Mapping[str, Any]
    found: Mapping[str, Any]
    rds: Mapping[str, Any]
    rds_tests: Mapping[str, Any]


def rows(answers: Sequence[Answer], others: Sequence[Mapping[str, Any]], now: float) -> list[dict[str, Any]]:
    """One row a host, those that miss an objective first. ``others``: what hosts that only test restores have said."""
    names = Counter(str(_of(answer["found"], "found").get("stanza")) for answer in answers)
    found = [_row(answer, answers, others, names, now) for answer in answers]
    return sorted(found, key=lambda row: (WORST.index(row["verdict"]), row["host"]))


def _of(result: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = result.get(key)
    return value if isinstance(value, Mapping) else {}


def _row(
    answer: Answer,
    answers: Sequence[Answer],
    others: Sequence[Mapping[str, Any]],
    names: Mapping[str, int],
    now: float,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "host": answer["host"],
        "tier": answer["tier"],
        "name": None,
        "lag": None,
        "reaches_back": None,
    }
    row.update(dict.fromkeys(KINDS), restore_test=None, rto=None, rpo=None, objectives={})
    judged: list[Judgement] = []
    try:
        policy = _of(answer["policy"], "policy") or _promised(answer)
        if said := unanswered(answer["policy"]):
            judged.append(Judgement("policy", NOT_MET if answer["policy"].get("reasons") else UNKNOWN, said))
    except RecoveryError as error:
        return {**row, "verdict": NOT_MET, "judged": [], "why": [error.msg]}
    row["objectives"] = {name: policy["seconds"][name] for name in ("rpo", "rto", "window")}
    if answer["rds"]:
        judged += _of_rds(row, answer, policy, now)
    else:
        history = [_of(other, "restore_tests") for other in others]
        history += [_of(other["found"], "restore_tests") for other in answers if other["host"] != answer["host"]]
        judged += _of_server(row, answer, policy, history, names)
    return {**row, "verdict": verdict(judged), "judged": [one._asdict() for one in judged], "why": reasons(judged)}


def _promised(answer: Answer) -> dict[str, Any]:
    """What the tier promises where the host did not say how often its timers elapse."""
    policy = resolve(answer["tier"], answer["tiers"], answer["overrides"])
    return {**policy, "gaps": {}}


def unanswered(result: Mapping[str, Any]) -> Optional[str]:
    """Why a task's result is none."""
    if result.get("unreachable"):
        return f"the host could not be reached: {' '.join(str(result.get('msg', '')).split())}"
    if result.get("failed"):
        return " ".join(str(result.get("msg", "it failed and did not say why")).split())
    return None


def _of_server(
    row: dict[str, Any],
    answer: Answer,
    policy: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    names: Mapping[str, int],
) -> list[Judgement]:
    result = answer["found"]
    found = _of(result, "found")
    if not found:
        asked = answer["policy"].get("unreachable")
        return [] if asked else [Judgement("backups", UNKNOWN, unanswered(result) or "the host was not asked")]
    now = float(result["now"])
    stanza = str(found["stanza"])
    own = _of(result, "restore_tests")
    tests = tests_of(stanza, found["system_identifier"], own, history, alone=names[stanza] == 1)
    repositories = list(found["repositories"].values())
    for kind in KINDS:
        ended = [repository["backups"][kind]["ended"] for repository in repositories if repository["backups"][kind]]
        # The worst repository is the one to look at.
        row[kind] = now - min(ended) if ended and len(ended) == len(repositories) else None
    lags = [repository["lag_seconds"] for repository in repositories if repository["lag_seconds"] is not None]
    reach = [repository["reaches_back_to"] for repository in repositories if repository["reaches_back_to"]]
    row.update(name=stanza, lag=min(lags, default=None), reaches_back=now - max(reach) if reach else None)
    _tested(row, tests, now)
    return judge(found, policy, tests, now)


def _tested(row: dict[str, Any], tests: Optional[Sequence[Mapping[str, Any]]], now: float) -> None:
    if tests:
        row["restore_test"] = {"ago": now - float(tests[-1]["ended"]), "verdict": tests[-1]["verdict"]}
    row.update(rto=measured(tests, "rto_seconds"), rpo=measured(tests, "rpo_seconds"))


def _of_rds(row: dict[str, Any], answer: Answer, policy: Mapping[str, Any], now: float) -> list[Judgement]:
    result = answer["rds"]
    if said := unanswered(result):
        return [Judgement("backups", UNKNOWN, said)]
    judged = judge_rds(result["windows"], result["snapshots"], policy, now)
    made = newest_snapshot(result["snapshots"])
    row.update(name=result.get("resource_id"), full=now - made if made else None)
    if said := unanswered(answer["rds_tests"]):
        return [*judged, Judgement("restore_test", UNKNOWN, said)]
    settings = result.get("settings") or {}
    identifier = str(
        settings.get("DBClusterIdentifier")
        if settings.get("DbClusterResourceId")
        else settings.get("DBInstanceIdentifier")
    )
    tests = _of(answer["rds_tests"], "restore_tests").get(identifier, [])
    _tested(row, tests, now)
    return [*judged, *of_restore_tests(tests, policy, now)]
