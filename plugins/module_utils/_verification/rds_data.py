# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fingerprints of a restored database on RDS against production's, and against those that tests before have kept.

RDS tells no position in WAL, only seconds: what moved while production was read is told, and never called equal.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.times import parse_time
from ansible_collections.dbre.recovery.plugins.module_utils._rds.restore.window import Window
from ansible_collections.dbre.recovery.plugins.module_utils._verification.data import differences
from ansible_collections.dbre.recovery.plugins.module_utils._verification.evidence import report_path
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import Finding, Omission, finding

Print = Mapping[str, Any]
Prints = dict[str, dict[str, Any]]
"""``{database: {relation: {rows, checksum, definition}}}``"""

# How far the rows of a table that is written to may be from what production had before and after: as far as these two
# are apart, and this.
SLACK = 0.05
SLACK_ROWS = 10

Found = tuple[list[Finding], list[Omission], dict[str, Any]]


def against_production(copy: Prints, before: Prints, after: Prints) -> Found:
    """The copy of a moment against production shortly before and shortly after it.

    What production had both times must be in the copy; what was written to meanwhile cannot be called equal.
    """
    findings: list[Finding] = []
    omitted: list[Omission] = []
    facts: dict[str, Any] = {"databases": {}}
    for database, first in before.items():
        second, here = after.get(database, {}), copy.get(database)
        if here is None:
            findings.append(_not_read(database))
            continue
        steady = {name: first[name] for name in first if first[name] == second.get(name)}
        moved = sorted({*first, *second} - {*steady})
        # What is only in the copy was dropped between the two readings, or is nowhere in production.
        compared = {name: here[name] for name in here if name not in moved}
        found, left = differences(compared, steady, database, 0)
        findings += found
        omitted += left
        for name in moved:
            findings += _moved_too_far(database, name, first.get(name), here.get(name), second.get(name))
            counts = [str(side.get(name, {}).get("rows", "no")) for side in (first, here, second)]
            why = (
                f"it was written to while production was read: {counts[0]} rows before, {counts[1]} in the copy, "
                f"{counts[2]} after; RDS gives no position in WAL at which both could be read"
            )
            omitted.append({"what": f"rows of {name} in {database} against production's", "why": why})
        equal = [name for name in steady if "rows" in steady[name] and here.get(name) == steady[name]]
        facts["databases"][database] = {"equal": len(equal), "moved": len(moved)}
    return findings, omitted, facts


def _moved_too_far(
    database: str, name: str, first: Optional[Print], here: Optional[Print], second: Optional[Print]
) -> list[Finding]:
    """What a table that was written to can not be, all the same: away, or of a wholly other size."""
    if first is None or second is None:
        return []
    subject = f"{database}: {name}"
    if here is None:
        return [finding("DATA_DIFFERS", 0, subject, f"{name} in {database} is only in production")]
    if not all("rows" in side for side in (first, here, second)):
        return []
    low, high = sorted((int(first["rows"]), int(second["rows"])))
    slack = high - low + max(SLACK_ROWS, round(high * SLACK))
    if low - slack <= int(here["rows"]) <= high + slack:
        return []
    text = f"{name} in {database} has {here['rows']} rows, production had {low} to {high} around that moment"
    return [finding("DATA_NOT_COMPARABLE", 0, subject, text)]


def _not_read(database: str) -> Finding:
    text = f"database {database} was not read in the copy, or is not there"
    return finding("DATA_NOT_COMPARABLE", 0, database, text)


def equal_to_kept(copy: Prints, kept: Mapping[str, Any]) -> Found:
    """The copy against what another test found at the very same moment, where nothing can have moved."""
    findings: list[Finding] = []
    omitted: list[Omission] = []
    for database, there in kept["prints"].items():
        if database not in copy:
            findings.append(_not_read(database))
            continue
        found, left = differences(copy.get(database, {}), there, database, 0)
        findings += [
            {**one, "message": one["message"].replace("production", f"the test {kept['id']}")} for one in found
        ]
        omitted += left
    return findings, omitted, {"kept": kept["id"], "time": kept["time"]}


def moved_since(copy: Prints, last: Mapping[str, Any]) -> Found:
    """What has changed since the test before: told, and no verdict, for applications write."""
    findings: list[Finding] = []
    facts: dict[str, Any] = {"test": last["id"], "time": last["time"], "databases": {}}
    for database in sorted({*copy} & {*last["prints"]}):
        here, there = copy[database], last["prints"][database]
        same = [name for name in here if here[name] == there.get(name)]
        changed = [name for name in here if name in there and name not in same]
        gone, new = sorted({*there} - {*here}), sorted({*here} - {*there})
        facts["databases"][database] = {"same": len(same), "changed": len(changed), "gone": gone, "new": new}
        if changed or gone or new:
            parts = [f"{len(same)} tables are the same", f"{len(changed)} have other rows or another definition"]
            parts += [f"gone: {', '.join(gone)}"] if gone else []
            parts += [f"new: {', '.join(new)}"] if new else []
            text = f"{database}, against {last['time']} ({last['id']}): {'; '.join(parts)}"
            findings.append(finding("DATA_MOVED", 0, database, text))
    return findings, [], facts


def _kept(directory: str, earlier: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """What tests before have kept, oldest first."""
    for one in earlier:
        path = os.path.join(os.path.dirname(report_path(directory, str(one["id"]))), "snapshot.json")
        with suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
            found = json.load(file)
            if isinstance(found, dict) and {"id", "time", "resource_id", "prints"} <= set(found):
                yield found


def newest_kept(directory: str, earlier: Sequence[Mapping[str, Any]], resource_id: str) -> Optional[dict[str, Any]]:
    """What the last test of this database kept."""
    found = [one for one in _kept(directory, earlier) if one["resource_id"] == resource_id and one["prints"]]
    return found[-1] if found else None


def kept_prints(directory: str, earlier: Sequence[Mapping[str, Any]], window: Window) -> dict[str, Any]:
    """The oldest that a test has kept of a moment that can still be restored; RecoveryError where there is none."""
    for one in _kept(directory, earlier):
        if one["resource_id"] == window.resource_id and one["prints"] and window.holds(parse_time(one["time"], "time")):
            return one
    raise RecoveryError(
        "no earlier test has kept fingerprints of a moment that can still be restored. Test another point first.",
        code="DATA_NOT_COMPARABLE",
    )
