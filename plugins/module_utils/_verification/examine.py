# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask pgBackRest, and have what it says judged: whether a repository holds what a restore would need."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.holdings import holdings
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import other_cluster, stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest, parse_error
from ansible_collections.dbre.recovery.plugins.module_utils._verification.backups import (
    completed,
    sized,
    unreachable,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.continuity import (
    Continuity,
    Stored,
    continuity,
    ends_before,
    newest_timeline,
    stored,
    strange_timeline,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import (
    Check,
    Finding,
    Omission,
    conclude,
    finding,
    verdict_of,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.repository import judged
from ansible_collections.dbre.recovery.plugins.module_utils._verification.verify_text import parse_verify

CHECKS = ("completes", "size", "continuity", "repository")
KINDS = ("full", "diff", "incr")
SHOWN = 50  # names of segments in one result
LOOKS = 3


class Examination:
    """The checks of a stanza that need its repository only."""

    def __init__(
        self,
        pgbackrest: PgBackRest,
        *,
        policy: Optional[Mapping[str, Any]],
        ignore: Mapping[str, str],
        waiting: Collection[str],
        now: float,
        system_identifier: Optional[str] = None,
        timeline: Optional[int] = None,
        process_max: Optional[int] = None,
    ) -> None:
        """``now`` is in seconds since 1970; for ``waiting`` see continuity.

        ``system_identifier`` and ``timeline`` are production's. ``process_max``: of pgBackRest, else as configured.
        """
        self._pgbackrest = pgbackrest
        self._policy = policy
        self._ignore = ignore
        self._waiting = waiting
        self._now = now
        self._system_identifier = system_identifier
        self._timeline = timeline
        self._process_max = process_max

    def run(self, checks: Collection[str]) -> list[Check]:
        """The answers, in the order of CHECKS. Raises RecoveryError where pgBackRest says nothing."""
        facts = stanza_facts(self._pgbackrest.info())
        asked = {
            "completes": self._completes,
            "size": self._size,
            "continuity": self._continuity,
            "repository": self._repository,
        }
        # Of one that cannot be read, or is empty, pgBackRest tells nothing but that it is configured.
        repos = [one["repo"] for one in facts["repositories"]]
        answers = []
        for name in CHECKS:
            if name not in checks:
                continue
            findings: list[Finding] = []
            omitted: list[Omission] = []
            told: dict[str, Any] = {}
            for repo in repos:
                found = unreachable(facts, repo)
                if not found:
                    try:
                        found, left, told[str(repo)] = asked[name](facts, repo)
                        omitted += left
                    except RecoveryError as error:  # what the others have told stays
                        found = [finding("REPOSITORY_UNREADABLE", repo, name, error.msg)]
                findings += found
            answers.append(conclude(name, findings, self._ignore, omitted, {"repositories": told}))
        return answers

    def _completes(self, facts: Mapping[str, Any], repo: int) -> tuple[list[Finding], list[Omission], Any]:
        found, omitted = completed(facts, repo, self._policy, self._now)
        other = other_cluster(facts, repo, self._system_identifier)
        found += [finding("CLUSTER_DIFFERS", repo, facts["name"], other)] if other else []
        backups = holdings(facts, repo).backups
        last = {
            kind: {name: one[name] for name in ("label", "stop_time", "duration", "size", "repo_delta")}
            for kind in KINDS
            for one in backups
            if one["type"] == kind
        }
        return found, omitted, {"backups": len(backups), "last": last}

    def _size(self, facts: Mapping[str, Any], repo: int) -> tuple[list[Finding], list[Omission], Any]:
        backups = holdings(facts, repo).backups
        kinds = [kind for kind in KINDS if any(one["type"] == kind for one in backups)]
        found, omitted = sized(facts, repo, kinds)
        sizes = {kind: [one["size"] for one in backups if one["type"] == kind] for kind in kinds}
        return found, omitted, {"sizes": sizes}

    def _repository(self, facts: Mapping[str, Any], repo: int) -> tuple[list[Finding], list[Omission], Any]:
        rc, stdout, stderr = self._pgbackrest.verify(repo, self._process_max)
        read = parse_verify(stdout, self._pgbackrest.stanza, stderr)
        if rc != 0 and read.strange:
            text = f"exit code {rc}: {parse_error(stderr, stdout)[1]}"
            return [finding("VERIFY_UNAVAILABLE", repo, "pgbackrest verify", text)], [], {}
        found, omitted = judged(read, facts, stanza_facts(self._pgbackrest.info()), repo)
        told = {
            "status": read.status,
            "exit_code": rc,
            "wal_checked": sum(one.checked for one in read.archives),
            "files_checked": sum(one.checked for one in read.backups),
        }
        return found, omitted, told

    def _continuity(self, facts: Mapping[str, Any], repo: int) -> tuple[list[Finding], list[Omission], Any]:
        """Once more where expire removed something while we looked."""
        for _look in range(LOOKS):
            results = self._archives(facts, repo)
            after = stanza_facts(self._pgbackrest.info())
            if [one["label"] for one in facts["backups"]] == [one["label"] for one in after["backups"]]:
                break
            facts = after
        else:
            text = "backups came and went while it was looked at; run again"
            return [finding("REPOSITORY_UNREADABLE", repo, "archive", text)], [], {}
        findings = [one for result in results.values() for one in result.findings]
        return findings, [], {name: summary(result) for name, result in results.items()}

    def _archives(self, facts: Mapping[str, Any], repo: int) -> dict[str, Continuity]:
        """Each archive that backups of a repository need, by its id, such as ``15-1``."""
        results = {}
        path = f"archive/{self._pgbackrest.stanza}"
        for entry in facts["databases"]:
            if entry["repo"] != repo:
                continue
            name = f"{entry['version']}-{entry['id']}"
            backups = [one for one in facts["backups"] if (one["repo"], one["database_id"]) == (repo, entry["id"])]
            if not backups:
                continue
            try:
                have = stored(self._pgbackrest.repo_ls(f"{path}/{name}", recurse=True, repo=repo))
                timeline = newest_timeline(have)
                texts = {}
                if timeline in have.histories:
                    texts[timeline] = self._pgbackrest.repo_get(f"{path}/{name}/{timeline:08X}.history", repo=repo)
            except RecoveryError as error:
                results[name] = Continuity(findings=[finding("REPOSITORY_UNREADABLE", repo, name, error.msg)])
                continue
            thinned = bool(self._policy) and (self._policy or {})["retention"].get("archive") is not None
            results[name] = continuity(
                backups, have, texts, repo, now=self._now, waiting=self._waiting, thinned=thinned
            )
            results[name].findings += self._behind(facts, entry, have)
            if str(entry["system_identifier"]) == self._system_identifier:
                results[name].findings += strange_timeline(have, self._timeline, repo)
        return results

    def _behind(self, facts: Mapping[str, Any], entry: Mapping[str, Any], have: Stored) -> list[Finding]:
        """What an archive lacks at its end that another repository has of the same cluster."""
        newest = max(have.times, default="")
        found = []
        for other in facts["archives"]:
            same = {
                (one["repo"], one["id"])
                for one in facts["databases"]
                if one["system_identifier"] == entry["system_identifier"] and one["repo"] != entry["repo"]
            }
            if (other["repo"], other["database_id"]) in same and str(other["max"] or "") > newest:
                path = f"archive/{self._pgbackrest.stanza}/{other['id']}"
                there = stored(self._pgbackrest.repo_ls(path, recurse=True, repo=other["repo"]))
                found += ends_before(have, there, entry["repo"], other["repo"], self._now)
        return found[:1]


def summary(result: Continuity) -> dict[str, Any]:
    """A continuity as data, with as many names as people read."""
    return {
        "first": result.first or None,
        "last": result.last or None,
        "timelines": result.timelines,
        "found": result.found,
        "expired": result.expired,
        **{
            state: {"segments": len(names), "names": names[:SHOWN]}
            for state, names in (
                ("to_come", result.to_come),
                ("uploading", result.uploading),
                ("lost", result.lost),
            )
        },
    }


def combined(answers: Collection[Check], checks: Collection[str]) -> dict[str, Any]:
    """The whole result of some checks; those that were left out are among what was not checked."""
    left_out: list[Omission] = [{"what": name, "why": "it was not asked for"} for name in CHECKS if name not in checks]
    return {
        "verdict": verdict_of(one["verdict"] for one in answers),
        "checks": list(answers),
        "findings": [item for one in answers for item in one["findings"]],
        "not_checked": [item for one in answers for item in one["not_checked"]] + left_out,
    }
