# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The metrics of woblerr/pgbackrest_exporter under the names of ours, so that one set of alerts serves both.

Read from its version 0.23.0. It has nothing of gaps and lag of WAL, of servers, timers, certificates and restore tests:
alerts about those stay silent. It has no repository in the ages of backups, and every kind of backup counts for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.samples import reach

# Of the last backups and of all; and what their own labels are called.
_TYPE = '"type", "$1", "backup_type", "(.+)"'
_REPO = '"repo", "$1", "repo_key", "(.+)"'
ANY = '"repo", "any", "", ""'


def _typed(expression: str) -> str:
    """By type of backup, which a repository of its own is made up for."""
    return f"label_replace(label_replace({expression}, {_TYPE}), {ANY})"


def _by_type(name: str, how: str = "max") -> str:
    return _typed(f"{how} by (instance, stanza, backup_type) ({name})")


RECORDS: dict[str, str] = {
    "dbre_backup_stanza_seen": "(pgbackrest_stanza_status != bool 1) * (pgbackrest_stanza_status != bool 3)",
    # Its stanza is one of several words for all of them.
    "dbre_backup_collector_success": (
        "max by (stanza) (dbre_backup_expected) * on() group_left(instance)"
        " min by (instance) (pgbackrest_exporter_status)"
    ),
    "dbre_backup_repository_status": (
        f"label_replace(max by (instance, stanza, repo_key) (pgbackrest_repo_status), {_REPO})"
    ),
    "dbre_backup_repository_bytes": (
        f"label_replace(sum by (instance, stanza, repo_key) (pgbackrest_backup_repo_delta_bytes), {_REPO})"
    ),
    "dbre_backup_lock_held": "max by (instance, stanza) (pgbackrest_stanza_backup_lock_status)",
    "dbre_backup_lock_complete_bytes": (
        "max by (instance, stanza) (pgbackrest_stanza_backup_complete_bytes)"
        " and on(instance, stanza) pgbackrest_stanza_backup_lock_status == 1"
    ),
    "dbre_backup_last_completion_timestamp_seconds": (
        "time() - " + _by_type("pgbackrest_backup_since_last_completion_seconds", "min")
    ),
    "dbre_backup_last_duration_seconds": _by_type("pgbackrest_backup_last_duration_seconds"),
    "dbre_backup_usual_duration_seconds": _by_type("pgbackrest_backup_duration_seconds"),
    "dbre_backup_last_size_bytes": _by_type("pgbackrest_backup_last_size_bytes"),
    "dbre_backup_usual_size_bytes": _typed(
        "quantile by (instance, stanza, backup_type) (0.5, pgbackrest_backup_size_bytes)"
    ),
    "dbre_backup_known": (
        "label_replace(label_replace((dbre_backup_expected unless on(stanza) pgbackrest_backup_info) * 0,"
        f' "type", "full", "", ""), {ANY})'
    ),
    # Of its last full, differential and incremental backup, which are the chain or part of it.
    "dbre_backup_chain_page_errors": (
        f"label_replace(max by (instance, stanza) (pgbackrest_backup_last_error_status), {ANY})"
    ),
}


def records(stanza: str, policy: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Recording rules of what a policy promises, where no collector of ours exports it."""
    found: list[tuple[str, dict[str, str], float]] = [
        ("dbre_backup_schedule_grace_seconds", {}, policy["seconds"]["grace"]),
        *(
            ("dbre_backup_objective_seconds", {"objective": name}, policy["seconds"][name])
            for name in ("rpo", "rto", "window")
        ),
        *(("dbre_backup_schedule_interval_seconds", {"type": kind}, gap) for kind, gap in policy["gaps"].items()),
    ]
    if "full" in policy["gaps"]:
        found.append(("dbre_backup_retention_reach_seconds", {}, reach(policy)))
    # On the instance that reports the stanza, as alerts compare them.
    where = f'max by (instance, stanza) (pgbackrest_stanza_status{{stanza="{stanza}"}})'
    return [
        {"record": name, "expr": f"0 * {where} + {value:g}", "labels": {"stanza": stanza, **labels}}
        for name, labels, value in found
    ]


def mapping() -> list[dict[str, Any]]:
    """Recording rules that give its metrics our names."""
    return [{"record": name, "expr": expression} for name, expression in RECORDS.items()]
