# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What remains of a verification: its record, the history of all attempts, and JUnit. Pure but for the files.

The last attempt is kept before anything is tried, so that one that was killed, or never ends, is seen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Optional
from xml.etree import ElementTree

from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._verification.evidence import digest, report_path, sign
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import (
    CODES,
    FAILED,
    UNKNOWN,
    VERIFIED,
    Check,
    Omission,
    conclude,
    finding,
    verdict_of,
)

SCHEMA = 1
KEPT = 100  # attempts in the history
PAST = 9  # attempts that a report is compared with
PHASES = ("restore", "replay", "ready", "checked")


def history_path(state: str, stanza: str) -> str:
    return os.path.join(state, f"verification-{stanza}.json")


def past(attempts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of the newest tests before, what a report compares itself with."""
    ended = [one for one in attempts if one.get("ended")]
    return [{name: one.get(name) for name in ("id", "ended", "verdict", "rto", "rpo")} for one in ended[-PAST:]]


def read_history(path: str) -> dict[str, Any]:
    """{schema, stanza, attempts: [...]}, oldest first; empty where there is none, or what is there is no history."""
    with suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
        found = json.load(file)
        if isinstance(found, dict) and found.get("schema") == SCHEMA and isinstance(found.get("attempts"), list):
            return found
    return {"schema": SCHEMA, "attempts": []}


def begin(path: str, stanza: str, attempt: str, now: str) -> dict[str, Any]:
    """Write down that an attempt began, whatever becomes of it.

    The caller holds the stanza's tests, so that another that has not ended was killed.
    """
    killed = close_killed(path, now)
    history = read_history(path)
    entry: dict[str, Any] = {"id": attempt, "began": now, "ended": None, "verdict": None, "seconds": {}, "codes": []}
    history = {"schema": SCHEMA, "stanza": stanza, "attempts": [*history["attempts"], entry][-KEPT:]}
    _keep(path, history)
    return {**entry, "killed_before": killed}


def close_killed(path: str, now: str) -> list[str]:
    """Give attempts that have not ended, and never will, their verdict; their ids."""
    history = read_history(path)
    dead = [one for one in history["attempts"] if one["ended"] is None]
    for one in dead:
        one.update(ended=now, verdict=UNKNOWN, codes=["KILLED"])
    if dead:
        _keep(path, history)
    return [str(one["id"]) for one in dead]


def identify(path: str, attempt: str, system_identifier: str) -> None:
    """Write down which cluster it is, as soon as that is known: another may have a stanza of the same name."""
    history = read_history(path)
    for one in history["attempts"]:
        if one["id"] == attempt:
            one["system_identifier"] = system_identifier
    _keep(path, history)


def _keep(path: str, history: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(history, indent=1) + "\n", mode=0o644)


def seconds_of(moments: Mapping[str, str], began: str = "") -> dict[str, float]:
    """How long each phase took, from the ISO-8601 moments at which it ended; ``began`` is when the first did."""
    found = {}
    before = moments.get("begin", began)
    for phase in PHASES:
        if phase in moments and before:
            span = datetime.fromisoformat(moments[phase]) - datetime.fromisoformat(before)
            found[phase] = round(span.total_seconds(), 1)
            before = moments[phase]
    return found


def speeds(restored: int, seconds: Optional[float], replay: Optional[Mapping[str, Any]]) -> dict[str, Optional[int]]:
    """Bytes a second of the restore and of the replay; None where too little was done to tell."""
    pairs = {"restore": (restored, seconds), "replay": ((replay or {}).get("bytes"), (replay or {}).get("seconds"))}
    return {name: round(much / spent) if much and spent else None for name, (much, spent) in pairs.items()}


def objective(seconds: Mapping[str, float], rto: Optional[float]) -> Optional[dict[str, Any]]:
    """Whether the server was ready within the policy's RTO; None where nothing was restored."""
    if "ready" not in seconds:
        return None
    # AWS replays while it restores, and tells nothing of it.
    took = round(sum(seconds.get(phase, 0.0) for phase in ("restore", "replay", "ready")), 1)
    return {"seconds": took, "objective": rto, "met": None if rto is None else took <= rto}


def lost(loss: Optional[Mapping[str, Any]], rpo: Optional[float]) -> Optional[dict[str, Any]]:
    """What would have been lost, in seconds and transactions, against the policy's RPO; None where nobody looked."""
    if loss is None:
        return None
    seconds = round(float(loss["seconds"]), 1)
    return {
        "seconds": seconds,
        "transactions": int(loss["transactions"]),
        "objective": rpo,
        "met": None if rpo is None else seconds <= rpo,
    }


def report(
    checks: Iterable[Check],
    *,
    attempt: Mapping[str, Any],
    now: str,
    moments: Mapping[str, str],
    policy: Optional[Mapping[str, Any]],
    facts: Mapping[str, Any],
    ignore: Mapping[str, str],
    not_checked: Iterable[Omission] = (),
    loss: Optional[Mapping[str, Any]] = None,
) -> dict[str, Any]:
    """The record of a verification. ``facts`` are what else is known: stanza, hosts, versions, target, set."""
    answers = list(checks)
    seconds = seconds_of(moments)
    reached = objective(seconds, float(policy["seconds"]["rto"]) if policy else None)
    gone = lost(loss, float(policy["seconds"]["rpo"]) if policy else None)
    if reached and reached["met"] is False:
        text = f"the restored server was ready after {reached['seconds']} s; promised are {reached['objective']:.0f} s"
        answers.append(conclude("rto", [finding("RTO_EXCEEDED", 0, "rto", text)], ignore))
    if gone and gone["met"] is False:
        text = (
            f"production had {gone['transactions']} transactions that the archive lacked, the oldest "
            f"{gone['seconds']} s old; promised are {gone['objective']:.0f} s"
        )
        answers.append(conclude("rpo", [finding("RPO_EXCEEDED", 0, "rpo", text)], ignore))
    return {
        "schema": SCHEMA,
        **facts,
        "id": attempt["id"],
        "began": attempt["began"],
        "ended": now,
        "verdict": verdict_of(one["verdict"] for one in answers) if answers else UNKNOWN,
        "seconds": seconds,
        "rto": reached,
        "rpo": gone,
        "findings": [{**item, "check": one["check"]} for one in answers for item in one["findings"]],
        "not_checked": [item for one in answers for item in one["not_checked"]] + list(not_checked),
        "checks": answers,
    }


def end(path: str, record: Mapping[str, Any], sha256: Optional[str] = None) -> None:
    """Complete the attempt in the history; ``sha256`` is that of its report."""
    history = read_history(path)
    codes = sorted({item["code"] for item in record["findings"] if item["ignored"] is None})
    for entry in history["attempts"]:
        if entry["id"] == record["id"]:
            entry.update(
                ended=record["ended"],
                verdict=record["verdict"],
                seconds=record["seconds"],
                rto=record["rto"],
                codes=[code for code in codes if CODES[code].leads_to != "notice"],
                rpo=record["rpo"],
                **{name: record.get(name) for name in ("set", "repo", "bytes", "bytes_per_second")},
            )
            entry["sha256"] = sha256
            if record.get("system_identifier"):
                entry["system_identifier"] = record["system_identifier"]
    _keep(path, history)


def write(directory: str, path: str, record: Mapping[str, Any], key: Optional[str] = None) -> None:
    """Keep a report below ``directory``, signed where a key is given, and complete its attempt in the history."""
    place = report_path(directory, record["id"])
    os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
    text = json.dumps(record, indent=1) + "\n"
    write_atomically(place, text, mode=0o644)
    write_atomically(os.path.join(os.path.dirname(place), "junit.xml"), junit(record), mode=0o644)
    end(path, record, digest(text.encode()))
    if key:
        sign(place, key)


def keep_snapshot(directory: str, attempt: str, snapshot: Mapping[str, Any]) -> None:
    """Keep what was taken of production, so that a later test can restore to that moment and compare with it."""
    place = os.path.join(os.path.dirname(report_path(directory, attempt)), "snapshot.json")
    os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
    write_atomically(place, json.dumps(snapshot) + "\n", mode=0o600)


def junit(record: Mapping[str, Any]) -> str:
    """The record for programs that read JUnit: what failed is a failure, what could not be told an error."""
    checks = record["checks"]
    verdicts = [one["verdict"] for one in checks]
    counts = {"failures": str(verdicts.count(FAILED)), "errors": str(verdicts.count(UNKNOWN))}
    suite = ElementTree.Element("testsuite", {"name": f"verify-backups {record['stanza']}", **counts})
    suite.set("tests", str(len(checks)))
    for one in checks:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"verify-backups.{record['stanza']}", name=one["check"]
        )
        counted = [item for item in one["findings"] if item["ignored"] is None]
        if one["verdict"] == VERIFIED:
            continue
        tag = "failure" if one["verdict"] == FAILED else "error"
        told = ElementTree.SubElement(case, tag, message=", ".join(sorted({item["code"] for item in counted})))
        told.text = "\n".join(f"{item['code']} {item['subject']}: {item['message']}" for item in counted)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def shown(record: Mapping[str, Any]) -> str:
    """The verdict for a terminal."""
    words = {VERIFIED: "VERIFIED", FAILED: "FAILED", UNKNOWN: "COULD NOT VERIFY"}
    lines = [f"{words[record['verdict']]}: {record.get('kind') or 'stanza'} '{record['stanza']}'"]
    if record.get("cost") and record.get("target"):
        lines.append(f"restored to {record['target']['value']}, {record['target']['reason']}")
        lines.append(f"occupied on AWS: {record['cost']['text']}")
    if record["rto"]:
        promised = record["rto"]["objective"]
        lines.append(
            f"ready after {record['rto']['seconds']} s"
            + (f", promised {promised:.0f} s" if promised is not None else "")
        )
    if record["rpo"]:
        promised = record["rpo"]["objective"]
        lines.append(
            f"{record['rpo']['transactions']} transactions would have been lost, of {record['rpo']['seconds']} s"
            + (f", promised {promised:.0f} s" if promised is not None else "")
        )
    lines += [f"{one['check']}: {words[one['verdict']].lower()}" for one in record["checks"]]
    for item in record["findings"]:
        ignored = f" (ignored: {item['ignored']})" if item["ignored"] else ""
        lines.append(f"{item['code']}: {item['message']}{ignored}")
    if record["not_checked"]:
        lines.append("What was not checked, and why:")
        lines += [f"- {item['what']}: {item['why']}" for item in record["not_checked"]]
    return "\n".join(lines)
