# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether backups completed, when they should, without damaged pages, and at their usual size. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median, quantiles
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.holdings import epoch, holdings
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import REACHED
from ansible_collections.dbre.recovery.plugins.module_utils._verification.continuity import CLOCKS
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import Finding, Omission, finding

NO_STANZA = (1, 3)  # status codes of a repository; see _pgbackrest.info
NEEDED = 3  # backups before it, without which nothing is usual
# How far a size may be from the median of those before it, and from the last, before it is unusual: at least a quarter,
# five times the spread, and more than any step between two backups so far.
QUARTER, SPREADS, STEP = 0.25, 5.0, 0.3
QUARTILES = 1.349  # standard deviations between the quartiles, where values are normal


def unreachable(facts: Mapping[str, Any], repo: int) -> list[Finding]:
    """What ``pgbackrest info`` says of the repository itself."""
    status = next((one["status"] for one in facts["repositories"] if one["repo"] == repo), facts["status"])
    code, message = status["code"], status["message"]
    if code in NO_STANZA:
        return [finding("STANZA_MISSING", repo, facts["name"], f"pgBackRest says: {message}")]
    # Where its status is mixed the stanza as a whole has a code that no repository has.
    if code not in REACHED:
        return [finding("REPOSITORY_UNREADABLE", repo, facts["name"], f"pgBackRest says: {message}")]
    return []


def completed(
    facts: Mapping[str, Any], repo: int, policy: Optional[Mapping[str, Any]], now: float
) -> tuple[list[Finding], list[Omission]]:
    """The last backup of each type that the policy has, its age against its own schedule, and damaged pages.

    ``policy`` is that of backup_policy_info, with ``gaps``; ``now`` is in seconds since 1970.
    """
    found = unreachable(facts, repo)
    if found:
        return found, []
    omitted: list[Omission] = []
    held = holdings(facts, repo)
    if policy is None:
        omitted.append({"what": f"age of the backups in repository {repo}", "why": "no backup policy was given"})
    gaps: Mapping[str, float] = policy["gaps"] if policy else {"full": float("inf")}
    grace = float(policy["seconds"]["grace"]) if policy else 0.0
    for kind, gap in gaps.items():
        serving = [one for one in held.serving(kind) if one["stop_time"]]
        if not serving:
            found.append(
                finding("BACKUP_MISSING", repo, kind, f"no backup that serves as {kind} is in repository {repo}")
            )
            continue
        last = serving[-1]
        age = now - epoch(last["stop_time"])
        if age < -CLOCKS:
            text = f"backup {last['label']} ended at {last['stop_time']}, {-age:.0f} s after this host's now"
            found.append(finding("BACKUP_IN_FUTURE", repo, last["label"], text))
        elif age > gap + grace:
            text = (
                f"the newest backup that serves as {kind}, {last['label']}, ended {hours(age)} ago, and one is due "
                f"every {hours(gap)} with a grace of {hours(grace)}"
            )
            found.append(finding("BACKUP_STALE", repo, last["label"], text))
    return [*found, *damaged_pages(held.backups, repo)], omitted


def damaged_pages(backups: Sequence[Mapping[str, Any]], repo: int) -> list[Finding]:
    """Backups with damaged pages in the chain that would be restored now, and older ones that hold some.

    An older one says nothing of what is restored now, and stays until its retention is over.
    """
    found = []
    chain = {backups[-1]["label"], *backups[-1]["references"]} if backups else set()
    for one in backups:
        label = one["label"]
        if one["error"]:
            text = f"backup {label} holds pages whose checksum is wrong: pgbackrest info --set={label} names the files"
            code = "BACKUP_PAGE_ERRORS" if label in chain else "BACKUP_PAGE_ERRORS_BEFORE"
            found.append(finding(code, repo, label, text))
        elif one["error"] is None and label in chain:
            text = f"backup {label} of pgBackRest {one['pgbackrest_version']} does not say"
            found.append(finding("BACKUP_PAGE_ERRORS_UNKNOWN", repo, label, text))
    return found


class Usual(NamedTuple):
    """What is usual after the sizes before: the median, its spread (a standard deviation), and the bounds."""

    median: float
    spread: float
    low: float
    high: float


def usual(earlier: Sequence[float]) -> Optional[Usual]:
    """What a size may be after those ``earlier`` (oldest first), or None where they are too few to tell.

    Growth is no anomaly: a size is too high only when it is both far above the median and a larger step than any
    before. It is too low when it is either, so that neither a long history nor steady growth hides a loss.
    """
    if len(earlier) < NEEDED or min(earlier) <= 0:
        return None
    middle = median(earlier)
    lower, _middle, upper = quantiles(earlier, n=4, method="inclusive")
    spread = (upper - lower) / QUARTILES
    off = max(QUARTER * middle, SPREADS * spread)
    steps = [later / before for before, later in zip(earlier, earlier[1:])]
    low = max(middle - off, earlier[-1] * min(1 - STEP, min(steps) * 0.9))
    high = max(middle + off, earlier[-1] * max(1 + STEP, max(steps) * 1.1))
    return Usual(middle, spread, low, high)


def sized(facts: Mapping[str, Any], repo: int, kinds: Iterable[str]) -> tuple[list[Finding], list[Omission]]:
    """The size of the cluster in the newest backup of each type, against those of its own type before it."""
    found: list[Finding] = []
    omitted: list[Omission] = []
    backups = holdings(facts, repo).backups
    for kind in kinds:
        sizes = [one["size"] for one in backups if one["type"] == kind and one["size"] is not None]
        known = usual(sizes[:-1])
        if known is None:
            why = f"{max(len(sizes) - 1, 0)} backups before the newest are kept, and {NEEDED} are needed"
            omitted.append({"what": f"size of {kind} backups in repository {repo}", "why": why})
            continue
        label = [one["label"] for one in backups if one["type"] == kind and one["size"] is not None][-1]
        text = (
            f"the cluster has {sizes[-1]} bytes in backup {label}; in the {len(sizes) - 1} {kind} backups before it "
            f"the median is {known.median:.0f} and the spread {known.spread:.0f}, the last {sizes[-2]}"
        )
        if sizes[-1] < known.low:
            found.append(finding("SIZE_DROPPED", repo, label, f"{text}; expected were at least {known.low:.0f}"))
        elif sizes[-1] > known.high:
            found.append(finding("SIZE_JUMPED", repo, label, f"{text}; expected were at most {known.high:.0f}"))
    return found, omitted


def hours(seconds: float) -> str:
    """A duration for people."""
    if seconds < 3600:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h" if seconds < 172800 else f"{seconds / 86400:.3g} d"
