# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was compared and read back, as the report shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core import units
from ansible_collections.dbre.recovery.plugins.module_utils._tables.known import SHOWN_IN

# Of a fingerprint, in the order they are shown; all but the first two make up the definition.
PROPERTIES = [
    "rows",
    "checksum",
    "owner",
    "columns",
    "constraints",
    "referenced_by",
    "indexes",
    "triggers",
    "policies",
    "rules",
    "grants",
    "sequences",
    "statistics",
    "publications",
    "parents",
    "partition_bound",
    "tablespace",
    "persistence",
    "row_security",
    "force_row_security",
    "replica_identity",
    "options",
    "comment",
    "comments",
    "max",
]
DATA_PROPERTIES = ("rows", "checksum")

# What the side instance's settings must read back as, and what that means.
ISOLATION = {
    "archive_mode": ("off", "cannot write to the backup repository"),
    "archive_command": ("", "has no command to archive with"),
    "primary_conninfo": ("", "follows no other server"),
    "shared_preload_libraries": ("", "runs no background jobs"),
    "max_logical_replication_workers": ("0", "subscriptions cannot wake up"),
    "slots": ("0", "keeps no replication slot"),
    "subscription_workers": ("0", "no subscription runs"),
    "wal_receivers": ("0", "receives WAL from nobody"),
    "wal_to_archive": ("0", "no WAL waits to be archived"),
    "cron_jobs": ("0", "runs no scheduled job"),
    "same_resource": ("no", "is another database than production"),
}


def compare_fingerprints(recovery: Mapping[str, Any]) -> dict[str, Any]:
    """The two fingerprints side by side: ``{relations: [{name, properties, equal}], difference, equal}``.

    A property is ``{property, recovered, production, equal, known}``. ``equal`` is null where a side is missing.
    ``known``: it differs by what is left to do, as the comparison made on the server says, too.
    """
    sides = recovery.get("fingerprints") or {}
    recovered, production = dict(sides.get("recovered") or {}), dict(sides.get("production") or {})
    for relation in recovery.get("relations") or []:
        if relation.get("action") in ("merge", "undo") or "merged" in relation:
            continue  # what was merged or undone has rows of both; that itself compared them one by one
        name = units.relation_name(relation)
        for side, checksum in ((recovered, "checksum_side"), (production, "checksum_production")):
            seen = {"rows": relation.get("rows"), "checksum": relation.get(checksum)}
            side[name] = {**{key: value for key, value in seen.items() if value is not None}, **(side.get(name) or {})}
    difference = recovery.get("difference") or []
    # A sequence is named in its property: "sequence public.orders_id_seq".
    different = {
        (
            str(item.get("relation")),
            "sequences" if str(item.get("property")).startswith("sequence ") else item.get("property"),
        )
        for item in difference
    }
    left = [str(entry.get("type")) for entry in recovery.get("left_to_do") or [] if isinstance(entry, Mapping)]
    shown = {key for kind in left for key in SHOWN_IN.get(kind, ())}
    relations = []
    for name in sorted(recovered.keys() | production.keys()):
        one, other = recovered.get(name) or {}, production.get(name) or {}
        properties = []
        for key in PROPERTIES:
            if key not in one and key not in other:
                continue
            equal = None
            if key in one and key in other:
                # A sequence that has gone on is no difference, so there the comparison made on the server decides.
                equal = (key == "sequences" or one[key] == other[key]) and (name, key) not in different
            properties.append(
                {
                    "property": key,
                    "recovered": one.get(key),
                    "production": other.get(key),
                    "equal": equal,
                    "known": equal is False and key in shown and (name, key) not in different,
                }
            )
        definition = [item["equal"] for item in properties if item["property"] not in DATA_PROPERTIES]
        relations.append(
            {
                "name": name,
                "properties": properties,
                "definition_equal": all(definition) if definition and None not in definition else None,
                "equal": all(item["equal"] for item in properties) if properties else None,
            }
        )
    equal = None
    if relations:
        equal = not difference and not any(not item["properties"] or _unexplained(item) for item in relations)
    return {"relations": relations, "difference": difference, "equal": equal}


def _unexplained(relation: Mapping[str, Any]) -> list[Any]:
    """Properties that differ or are missing, but those that differ by what is left to do."""
    return [item for item in relation["properties"] if not item["equal"] and not item["known"]]


def count_differences(proof: Mapping[str, Any]) -> int:
    """Properties that differ or that one side lacks, and for no known reason, in :func:`compare_fingerprints`."""
    unequal = [item for relation in proof["relations"] for item in _unexplained(relation)]
    return max(len(unequal), len(proof["difference"]))


def check_isolation(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Settings read back from the side instance: ``[{setting, value, meaning, ok}]``; ``ok`` is null where all do."""
    checks = []
    for setting, value in (data.get("proof") or {}).items():
        expected, meaning = ISOLATION.get(setting, (None, ""))
        text = "" if value is None else str(value)
        checks.append(
            {
                "setting": setting,
                "value": value,
                "meaning": meaning,
                "ok": None if expected is None else text == expected,
            }
        )
    return sorted(checks, key=lambda check: check["ok"] is None)
