# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Understand what pg_controldata prints (PostgreSQL: src/bin/pg_controldata/pg_controldata.c)."""

from __future__ import annotations

from collections.abc import Mapping

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

# Settings that a server in hot standby needs at least as high as the primary had them: pg_controldata's words for them.
RECOVERY_SETTINGS = {
    "max_connections": "max_connections setting",
    "max_worker_processes": "max_worker_processes setting",
    "max_wal_senders": "max_wal_senders setting",
    "max_prepared_transactions": "max_prepared_xacts setting",
    "max_locks_per_transaction": "max_locks_per_xact setting",
}


def parse_controldata(text: str) -> dict[str, str]:
    """{label: value} of pg_controldata's lines, printed with LC_ALL=C."""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {label.strip(): value.strip() for label, value in pairs}


def control_value(control: Mapping[str, str], label: str) -> str:
    """Value of a label; RecoveryError names it when pg_controldata did not print it."""
    try:
        return control[label]
    except KeyError:
        raise RecoveryError(f"pg_controldata did not print {label!r}; it printed: {', '.join(control)}") from None


def recovery_settings(control: Mapping[str, str]) -> dict[str, int]:
    """The five settings that a hot standby must have at least as high as the primary, from pg_controldata."""
    return {name: int(control_value(control, label)) for name, label in RECOVERY_SETTINGS.items()}
