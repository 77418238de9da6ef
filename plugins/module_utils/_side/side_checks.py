# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be true of a side instance at its target where only some databases were restored. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._side.recovery_log import InvalidPages, database_of

FIRST_USER_OID = 16384  # PostgreSQL: FirstNormalObjectId in src/include/access/transam.h
SHOWN = 5


def is_restored(oid: int, plan: Mapping[str, Any]) -> bool:
    """Whether a plan restores a database; 0 is what all share. One that the set lacks was made by WAL since.

    Where databases were left out, nobody asks for one that is younger than the set, whose template may be one of them.
    """
    if not plan.get("left_out") or oid < FIRST_USER_OID:
        return True
    return oid in {item["oid"] for item in plan["set_databases"]} - {item["oid"] for item in plan["left_out"]}


def count_ignored(pages: InvalidPages, names: Mapping[int, str]) -> dict[str, int]:
    """How many invalid pages replay passed over, by database."""
    return {names.get(oid, f"OID {oid}"): count for oid, count in sorted(pages.ignored.items())}


def check_pages(pages: InvalidPages, names: Mapping[int, str], plan: Mapping[str, Any]) -> None:
    """Refuse an instance in which replay passed over a page of what was restored."""
    if not pages.needed:
        return
    shown = ", ".join(
        f"block {block} of {relation} ({names.get(database_of(relation), 'shared by all databases')})"
        for relation, block in pages.needed[:SHOWN]
    )
    more = f" and {len(pages.needed) - SHOWN} more" if len(pages.needed) > SHOWN else ""
    raise RecoveryError(
        f"WAL changes pages that set {plan['set']['label']}, restored to {plan['path']} on {plan['host']}, does not "
        f"have: {shown}{more}. They belong to what was restored, so the backup is damaged, and nothing may be taken "
        "from it. The side instance was stopped; production was not touched. Remove it (postgresql_side_instance with "
        "state=absent and this path), then restore from another backup set: set (dr_set).",
        invalid_pages=[{"relation": relation, "block": block} for relation, block in pages.needed],
    )


def find_database(
    asked: Optional[str], oid: Optional[int], there: Sequence[tuple[int, str]]
) -> Optional[tuple[int, str]]:
    """(OID, name) at the target of the database that production calls ``asked`` now: the one of that OID, else name."""
    of_oid = [item for item in there if oid is not None and item[0] == oid]
    return next(iter(of_oid + [item for item in there if item[1] == asked]), None)
