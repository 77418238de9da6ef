# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tables can get back the rows of their damaged pages, and what is to be done about all else. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.spans import blocks_text
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import (
    display_name,
    parse_relation_list,
    quote_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._verification.damages import MEANS, shown

NOTHING = "Nothing was touched."
# What the server itself refuses to read, and takes for empty when it is told to.
REFUSED = {"checksum", "header"}


def page_plan(located: Mapping[str, Any], database: str, asked: str | Sequence[str] | None = None) -> dict[str, Any]:
    """What :mod:`postgresql_corruption_info` located, as a plan; RecoveryError where no table can be helped so.

    ``relations`` with ``oid``, ``schema``, ``name``, ``blocks``, ``path`` and ``lsn``, their ``names`` (SQL), the
    ``incident`` as a plan of recovery has it, the
    ``backup`` (``label`` and ``repo``) to restore, None where any will do, and ``lines`` for people, with what else is
    damaged.
    """
    wanted = {(item["schema"], item["name"]) for item in parse_relation_list(asked or [])}
    here = [one for one in located["damages"] if one["database"] == database]
    ours = [one for one in here if one["means"] == "rows" and (not wanted or _table(one) in wanted)]
    if not ours:
        _nothing_to_do(located, database, wanted)
    for one in ours:
        _require_refused(one, located["facts"]["lsn"])
    relations = [
        {
            **{key: one["place"][key] for key in ("oid", "schema", "name")},
            "blocks": sorted(one["blocks"]),
            "path": one["path"],
            "lsn": located["facts"]["lsn"],
        }
        for one in ours
    ]
    others = [one for one in located["damages"] if one not in ours]
    return {
        "relations": relations,
        "incident": {
            "kind": "pages",
            "database": database,
            "relations": [
                {"kind": "r", "asked": True, **{key: item[key] for key in ("oid", "schema", "name", "blocks")}}
                for item in relations
            ],
        },
        "names": [quote_name(item["schema"], item["name"]) for item in relations],
        "backup": _clean(ours),
        "lines": [_line(item) for item in relations] + [_other(one) for one in others],
    }


def _table(one: Mapping[str, Any]) -> tuple[str, str]:
    return one["place"]["schema"], one["place"]["name"]


def _nothing_to_do(located: Mapping[str, Any], database: str, wanted: set[tuple[str, str]]) -> NoReturn:
    what = ", ".join(sorted(display_name(*one) for one in wanted)) or f"database {display_name(None, database)}"
    found = f"What was found: {'; '.join(located['text'])}." if located["damages"] else "No damage was found at all."
    raise RecoveryError(
        f"no page of a table is damaged in {what}. {found} {NOTHING} docs/corruption.md has the means for each kind of "
        "damage.",
        text=located["text"],
    )


def _require_refused(one: Mapping[str, Any], lsn: str) -> None:
    """Refuse a damage that the server does not know by the page, and name the way back that there is."""
    why = None
    if one["place"]["kind"] == "toast":
        why = "the damaged pages are of its TOAST: which rows have values there only reading them tells"
    elif not set(one["faults"]) <= REFUSED:
        why = f"not its pages as such are damaged, or not only ({', '.join(one['messages'])})"
    elif one["more"]:
        why = f"more than {len(one['blocks'])} of its pages are damaged"
    if why:
        table = one["place"]["table"]
        raise RecoveryError(
            f"{table}: {why}. {NOTHING} Bring the table back as a whole, as it was just now, by the same command with "
            f"-e dr_strategy=tables -e dr_target_lsn={lsn} -e dr_tables={table}; or name the other damaged tables "
            "(dr_tables).",
            table=table,
        )


def _clean(ours: Sequence[Mapping[str, Any]]) -> Optional[dict[str, Any]]:
    """The oldest of the newest backups without the damage; None where no newer one has it."""
    known = [one["backups"] for one in ours if one["backups"]]
    lacking = [one for one in known if not one["clean"]]
    if lacking:
        having = ", ".join(lacking[0]["damaged"] + lacking[0]["unknown"])
        raise RecoveryError(
            f"no backup is known to be without the damage of {', '.join(one['place']['table'] for one in ours)}: all "
            f"that are kept have it, or that is not known ({having}). "
            f"{NOTHING} A standby may have the pages as they should be."
        )
    bounded = [one["clean"] for one in known if one["damaged"] or one["unknown"]]
    oldest = min(bounded, key=lambda one: str(one["stop_time"]), default=None)
    return oldest and {key: oldest[key] for key in ("label", "repo")}


def _line(item: Mapping[str, Any]) -> str:
    blocks = item["blocks"]
    return (
        f"{display_name(item['schema'], item['name'])}: the rows of {counted(len(blocks), 'damaged page')} (block "
        f"{blocks_text(blocks)}) are taken from the side instance, where these pages are sound"
    )


def _other(one: Mapping[str, Any]) -> str:
    return f"STAYS DAMAGED: {shown(one)}; to it: {MEANS[one['means']]} (docs/corruption.md)"
