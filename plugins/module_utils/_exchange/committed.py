# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was committed after the target in every database of a cluster, which a cluster as it was there lacks. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted
from ansible_collections.dbre.recovery.plugins.module_utils._wal.later import ROWS, name_of, shown_lines, unread_lines

NOT_TOLD = "not told: what later transactions did to roles, functions, types, grants and large objects"


def committed_after(
    results: Sequence[Mapping[str, Any]],
    before: Optional[Mapping[str, Any]] = None,
    xid: Optional[int] = None,
    kept_as: str = "",
) -> dict[str, Any]:
    """All that was committed from the target on, but for transaction ``xid``, which is the damage itself.

    ``results`` are histories (M(postgresql_change_history_info)), one of each database; ``before`` is what this
    returned for earlier WAL. ``until`` is up to where all of them were read, for the next time.
    """
    mine = None if xid is None else xid & 0xFFFFFFFF
    earlier = dict(before or {})
    found = {(one["database"], one["lsn"]): one for one in earlier.get("transactions") or []}
    for result in results:
        for one in result.get("transactions") or []:
            if one["xid"] != mine:
                kept = {key: one[key] for key in ("database", "xid", "lsn", "commit_time")}
                found[one["database"], one["lsn"]] = {**kept, "changes": [_change(change) for change in one["changes"]]}
    transactions = sorted(found.values(), key=lambda one: (parse_lsn(one["lsn"]), one["database"]))
    tables = _tables(transactions)
    # What one look could not tell stays untold, whatever the next one reads.
    unread = {
        f"{result['item']}: {line}" if result.get("item") else line
        for result in results
        for line in unread_lines(result)
    }
    unread |= set(earlier.get("unread") or [])
    ends = [result["scanned"]["to_lsn"] for result in results if result.get("scanned")]
    return {
        "count": len(transactions),
        "rows": sum(item[what] for item in tables for what in ROWS),
        "transactions": transactions,
        "tables": tables,
        "unread": sorted(unread),
        "lines": [*_lines(transactions, tables), *sorted(unread), NOT_TOLD],
        "until": min(ends, key=parse_lsn) if ends else earlier.get("until"),
        "kept_as": kept_as,
    }


def _change(change: Mapping[str, Any]) -> dict[str, Any]:
    return {"what": change["what"], "name": name_of(change), "oid": change["oid"], "rows": change["rows"]}


def _tables(transactions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    totals: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    names: dict[tuple[str, int], str] = {}
    for one in transactions:
        for change in one["changes"]:
            if change["what"] in ROWS:
                key = (one["database"], change["oid"])
                totals[key][change["what"]] += change["rows"] or 0
                names[key] = change["name"]
    return [
        {"database": key[0], "table": names[key], **{what: count[what] for what in ROWS}}
        for key, count in sorted(totals.items(), key=lambda item: (item[0][0], names[item[0]]))
    ]


def _lines(transactions: Sequence[Mapping[str, Any]], tables: Sequence[Mapping[str, Any]]) -> list[str]:
    if not transactions:
        return ["no other transaction changed anything in any database after the target"]
    where = counted(len({one["database"] for one in transactions}), "database")
    others = [
        f"{one['database']}: transaction {one['xid']}: {change['name']} {change['what']}"
        for one in transactions
        for change in one["changes"]
        if change["what"] not in ROWS
    ]
    lines = [f"{counted(len(transactions), 'transaction')} changed something in {where} after the target"]
    return lines + shown_lines({f"{item['database']}: {item['table']}": item for item in tables}, others)
