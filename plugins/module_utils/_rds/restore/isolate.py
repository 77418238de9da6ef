# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parameters that keep a restored copy from doing production's work a second time. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

# Subscriptions come along in the copy; without workers none connects to its publisher and moves its slot.
NO_SUBSCRIPTIONS = "max_logical_replication_workers"
# Libraries whose background workers act on their own: jobs, partition upkeep that drops tables, replication.
WORKING_BY_THEMSELVES = frozenset({"pg_cron", "pg_partman_bgw", "pgactive", "pglogical"})
# Does nothing but count, and is what RDS loads by default; RDS takes no empty list.
HARMLESS = "pg_stat_statements"


def isolated_parameters(current: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Parameters to change in a copy of a parameter group, so that what runs with it stays by itself.

    ``current`` are the parameters of the group as ``DescribeDBParameters`` or ``DescribeDBClusterParameters`` returns
    them. Raises RecoveryError where the group cannot be isolated.
    """
    known = {str(parameter.get("ParameterName")): parameter for parameter in current}
    workers = known.get(NO_SUBSCRIPTIONS)
    if workers is None or workers.get("IsModifiable") is False:
        raise RecoveryError(
            f"{NO_SUBSCRIPTIONS} cannot be set in this parameter group, so subscriptions in a copy would come to life "
            "and take from production's publishers. Nothing was changed. Give a group of PostgreSQL 10 or later; for "
            "Aurora the cluster parameter group (kind: cluster)."
        )
    changes = {NO_SUBSCRIPTIONS: "0"}
    loaded = libraries(str(known.get("shared_preload_libraries", {}).get("ParameterValue") or ""))
    kept = [library for library in loaded if library not in WORKING_BY_THEMSELVES]
    if kept != loaded:
        changes["shared_preload_libraries"] = ",".join(kept) or HARMLESS
    return changes


def libraries(text: str) -> list[str]:
    """Names in a value of ``shared_preload_libraries``."""
    return [name for name in (part.strip().strip('"') for part in text.split(",")) if name]
