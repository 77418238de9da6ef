# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parameters that keep a restored copy from doing production's work a second time. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

# Suffix of the group's name: NAME_OF_THE_COPY-isolated.
ISOLATED = "isolated"
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


def isolation(group: str, isolated: bool, *, takes_over: bool, cluster: bool, engine: str) -> dict[str, Any]:
    """Options in which a restored database is unlike its source (``settings``), and what people are told (``notes``).

    An isolated one has the parameter group ``group``; one that ``takes_over`` becomes like its source later.
    """
    if not isolated:
        return {"settings": {}, "notes": _serving(takes_over, cluster)}
    quiet = "no subscription and no scheduled job of the source comes to life there"
    settings: dict[str, Any] = {"db_cluster_parameter_group_name" if cluster else "db_parameter_group_name": group}
    if takes_over:
        # AWS changes and renames no instance as long as it makes its first backup, which takes hours where it is large.
        settings.update({} if cluster else {"backup_retention_period": 0})
        return {
            "settings": settings,
            "notes": [f"{quiet}, until just before it takes over", *_serving(takes_over, cluster)],
        }
    # A side instance is alone, has no backups of its own (a cluster cannot be without), and may be deleted.
    settings.update(deletion_protection=False, associated_roles=[], backup_retention_period=1 if cluster else 0)
    if not cluster:
        settings["multi_az"] = False
    elif engine.startswith("aurora"):
        # A Multi-AZ cluster has its three instances by itself.
        settings["members"] = [{}]
    return {"settings": settings, "notes": [quiet, "deleted when what was lost is back and was compared"]}


def _serving(takes_over: bool, cluster: bool) -> list[str]:
    """What is to be known of a database that is to serve."""
    later = ", backups from when it has taken over" if takes_over and not cluster else ""
    return [
        f"restored with all settings of the source{later}",
        "read once as a whole before it serves, since a restored volume is slow until then",
    ]
