# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What pgBackRest, the server's directory and systemd say, as samples of metrics. Pure functions."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.metrics import Sample
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.holdings import epoch, holdings
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import current_databases
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.scheduled import NOT_WHOLE
from ansible_collections.dbre.recovery.plugins.module_utils._policy.tiers import DAY

MISSING = (1, 3)  # status codes of a stanza that is not there
IN_PRODUCTION = 6  # DBState of a primary that runs


def control_facts(data: bytes) -> dict[str, int]:
    """System identifier, state and timeline from the first 52 bytes of ``global/pg_control``.

    The format is that of ControlFileData since PostgreSQL 11 (src/include/catalog/pg_control.h). Raises ValueError for
    what is no such file.
    """
    if len(data) < 52 or not 1100 <= struct.unpack_from("=I", data, 8)[0] < 3000:
        raise ValueError("not a pg_control of PostgreSQL 11 or later, in this machine's byte order")
    return {
        "system_identifier": struct.unpack_from("=Q", data)[0],
        "state": struct.unpack_from("=I", data, 16)[0],
        "timeline": struct.unpack_from("=I", data, 48)[0],
    }


def reach(policy: Mapping[str, Any]) -> float:
    """Seconds that the oldest full backup is old at most, when expire does its work."""
    retention, gap = policy["retention"], float(policy["gaps"]["full"])
    number = int(retention["full"])
    # By time, pgBackRest keeps one full backup that is older.
    return number * DAY + gap if retention.get("full-type") == "time" else number * gap


def promised(stanza: str, policy: Mapping[str, Any]) -> Iterator[Sample]:
    """What the policy says."""
    for objective in ("rpo", "rto", "window"):
        labels = {"stanza": stanza, "objective": objective}
        yield Sample("dbre_backup_objective_seconds", labels, policy["seconds"][objective])
    for kind, gap in policy["gaps"].items():
        yield Sample("dbre_backup_schedule_interval_seconds", {"stanza": stanza, "type": kind}, gap)
    yield Sample("dbre_backup_schedule_grace_seconds", {"stanza": stanza}, policy["seconds"]["grace"])
    yield Sample("dbre_backup_retention_reach_seconds", {"stanza": stanza}, reach(policy))
    if policy["seconds"].get("restore_test"):
        yield Sample("dbre_restore_test_interval_seconds", {"stanza": stanza}, policy["seconds"]["restore_test"])


def of_stanza(facts: Mapping[str, Any], kinds: Iterable[str], expected: Iterable[int]) -> Iterator[Sample]:
    """What ``info`` says (facts of stanza_facts), for types that are scheduled and repositories that are expected."""
    stanza = {"stanza": str(facts["name"])}
    yield Sample("dbre_backup_stanza_seen", stanza, int(facts["status"]["code"] not in MISSING))
    lock = facts["lock"]
    yield Sample("dbre_backup_lock_held", stanza, int(bool(lock["backup"])))
    if lock["backup"] and lock["size_complete"] is not None:
        yield Sample("dbre_backup_lock_complete_bytes", stanza, lock["size_complete"])
    status = {entry["repo"]: entry["status"]["code"] for entry in facts["repositories"]}
    kinds = list(kinds)
    for repo in sorted({*expected, *status}):
        labels = {**stanza, "repo": str(repo)}
        yield Sample("dbre_backup_repository_status", labels, status.get(repo, 99))
        held = holdings(facts, repo)
        taken = sum(backup["repo_delta"] or 0 for backup in facts["backups"] if backup["repo"] == repo)
        yield Sample("dbre_backup_repository_bytes", labels, taken)
        for kind in kinds:
            yield from _runs({**labels, "type": kind}, held.serving(kind))
        dirty = held.page_errors
        yield Sample("dbre_backup_check_known", {**labels, "check": "chain"}, int(dirty is not None))
        if dirty is not None:
            yield Sample("dbre_backup_chain_page_errors", labels, int(dirty))
        fulls = held.serving("full")
        if fulls:
            yield Sample("dbre_backup_oldest_full_timestamp_seconds", labels, epoch(fulls[0]["stop_time"]))
        if held.window_start is not None:
            yield Sample("dbre_backup_window_start_timestamp_seconds", labels, held.window_start)
        if held.backups and held.backups[-1]["archive_start"]:
            yield Sample("dbre_backup_last_timeline", labels, int(held.backups[-1]["archive_start"][:8], 16))


def _runs(labels: Mapping[str, str], backups: Sequence[Mapping[str, Any]]) -> Iterator[Sample]:
    """Of backups that serve as one type, oldest first."""
    yield Sample("dbre_backup_known", labels, int(bool(backups)))
    if not backups:
        return
    last = backups[-1]
    yield Sample("dbre_backup_last_completion_timestamp_seconds", labels, epoch(last["stop_time"]))
    yield Sample("dbre_backup_last_duration_seconds", labels, last["duration"])
    yield Sample("dbre_backup_usual_duration_seconds", labels, max(backup["duration"] for backup in backups))
    if last["size"] is not None:
        yield Sample("dbre_backup_last_size_bytes", labels, last["size"])
    sizes = [backup["size"] for backup in backups[:-1] if backup["size"] is not None]
    if sizes:
        yield Sample("dbre_backup_usual_size_bytes", labels, median(sizes))


def of_server(facts: Mapping[str, Any], control: Optional[Mapping[str, int]]) -> Iterator[Sample]:
    """Whether the server of this host is the stanza's; ``control`` is None where it could not be read."""
    stanza = {"stanza": str(facts["name"])}
    if control:
        yield Sample("dbre_backup_timeline", stanza, control["timeline"])
    for entry in current_databases(facts):
        labels = {**stanza, "repo": str(entry["repo"])}
        yield Sample("dbre_backup_check_known", {**labels, "check": "identifier"}, int(control is not None))
        if control:
            match = control["system_identifier"] == entry["system_identifier"]
            yield Sample("dbre_backup_system_identifier_match", labels, int(match))


def of_certificate(stanza: str, file: str, text: str) -> Iterator[Sample]:
    """``text``: what ``openssl x509 -noout -enddate`` printed, such as ``notAfter=Nov 29 06:00:00 2027 GMT``."""
    labels = {"stanza": stanza, "file": file}
    try:
        ends = datetime.strptime(text.strip() + "+0000", "notAfter=%b %d %H:%M:%S %Y GMT%z").timestamp()
    except ValueError:
        yield Sample("dbre_backup_certificate_known", labels, 0)
        return
    yield Sample("dbre_backup_certificate_known", labels, 1)
    yield Sample("dbre_backup_certificate_expiry_timestamp_seconds", labels, ends)


def timer_success(text: str) -> Optional[bool]:
    """Whether a backup service's last run made a backup; None: it has not run since the host was started.

    ``text``: what ``systemctl show`` printed of ExecMainExitTimestampMonotonic, ExecMainStatus and Result.
    """
    said = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if said.get("ExecMainExitTimestampMonotonic", "0") == "0":
        return None
    return said.get("Result") == "success" or (
        said.get("Result") == "exit-code" and said.get("ExecMainStatus") == str(NOT_WHOLE)
    )
