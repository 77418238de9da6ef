# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was committed after the target in every database of a cluster, which a cluster as it was there lacks. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import counted
from ansible_collections.dbre.recovery.plugins.module_utils._wal.later import (
    ROWS,
    list_lines,
    listed_in,
    name_of,
    rows_but,
    shown_lines,
    table_name,
    unread_lines,
)
from ansible_collections.dbre.recovery.plugins.module_utils._wal.other_changes import words_of

MOST = 2000  # changes that are told one by one, of all databases together
NOT_TOLD = (
    "not told: which roles, settings, functions, types, grants and large objects later transactions changed, and how "
    "far sequences went, whose numbers are given again"
)


def committed_after(
    results: Sequence[Mapping[str, Any]],
    before: Optional[Mapping[str, Any]] = None,
    xid: Optional[int] = None,
    kept_as: str = "",
    databases: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """All that was committed from the target on, but for transaction ``xid``, which is the damage itself.

    ``results`` are histories (M(postgresql_change_history_info)), one of each database under its name in ``item``;
    one that was ``gone`` by then has none. ``before`` is what this returned for earlier WAL. ``until`` is up to where
    each database was read: where its next history is to begin. ``databases`` are all that the server has (``name``,
    ``open``, ``prepared``); of one that lets nobody in nothing is read. One that was made or dropped counts as a
    transaction. ``count`` and ``tables`` are of all, ``transactions`` those that are told one by one.
    """
    results = [result for result in results if not result.get("gone")]
    mine = None if xid is None else xid & 0xFFFFFFFF
    earlier = dict(before or {})
    found = list(earlier.get("transactions") or [])
    count, files = earlier.get("count") or 0, list(earlier.get("listed_in") or [])
    totals: dict[tuple[str, str], Counter[str]] = {}
    for item in earlier.get("tables") or []:
        totals[item["database"], item["table"]] = Counter({what: item[what] for what in ROWS})
    beside = {name: Counter(words) for name, words in (earlier.get("others") or {}).items()}
    shared = dict(earlier.get("shared") or {})
    for result in results:
        for other in result.get("other_changes") or []:
            if other["xid"] != mine:
                beside.setdefault(result["item"], Counter()).update(other["what"])
                count += not other["told"] and bool(other["what"])
    count += _add_shared(shared, results, mine)
    for result in results:
        every = list(result.get("transactions") or [])
        damage = [change for one in every if one["xid"] == mine for change in one["changes"]]
        others = [one for one in every if one["xid"] != mine]
        count += result["count"] - (len(every) - len(others))
        files += [path for path in listed_in(result) if path not in files]
        for item in rows_but(result, damage):
            total = totals.setdefault((result["item"], table_name(item)), Counter())
            total.update({what: item[what] for what in ROWS})
        for one in others:
            kept = {key: one[key] for key in ("database", "xid", "lsn", "commit_time")}
            found.append({**kept, "changes": [_change(change) for change in one["changes"]]})
    changed = {item["oid"]: dict(item) for item in earlier.get("databases") or []}
    already = len(changed)
    passing: set[int] = set()
    for result in results:
        for item in result.get("databases") or []:
            if item["what"] == "dropped" and changed.get(item["oid"], {}).get("what") == "created":
                del changed[item["oid"]]  # what came after the target is gone again
                passing.add(item["oid"])
            elif item["oid"] not in passing:
                changed[item["oid"]] = dict(item)
    count += len(changed) - already
    transactions = _bounded(found)
    tables = [
        {"database": database, "table": table, **{what: total[what] for what in ROWS}}
        for (database, table), total in sorted(totals.items())
    ]
    # What one look could not tell stays untold, whatever the next one reads.
    unread = {f"{result['item']}: {line}" for result in results for line in unread_lines(result)}
    unread |= set(earlier.get("unread") or [])
    unread |= {
        f"{one['name']}: not read: it lets nobody in (ALLOW_CONNECTIONS)" for one in databases if not one["open"]
    }
    unread |= {
        f"{one['name']}: {gid} is prepared and not decided; if that was after the target, it is lost"
        for one in databases
        for gid in one["prepared"]
    }
    unlogged = sorted(
        {f"{result['item']}: {name}" for result in results for name in result.get("unlogged") or []}
        | set(earlier.get("unlogged") or [])
    )
    whole = {str(item["name"] or oid): _whole(item) for oid, item in sorted(changed.items())}
    return {
        "count": count,
        "rows": sum(item[what] for item in tables for what in ROWS),
        "transactions": transactions,
        "tables": tables,
        "databases": [item for _oid, item in sorted(changed.items())],
        "unread": sorted(unread),
        "listed_in": files,
        "others": {name: dict(words) for name, words in sorted(beside.items()) if words},
        "shared": shared,
        "unlogged": unlogged,
        "lines": [
            *_lines(count, transactions, tables, whole, [name for name, words in beside.items() if words]),
            *(f"{name}: {line}" for name, words in sorted(beside.items()) for line in words_of(words)),
            *words_of(Counter(word for words in shared.values() for word in words)),
            *(f"{one} is unlogged, and comes back empty" for one in unlogged),
            *list_lines(files),
            *sorted(unread),
            NOT_TOLD,
        ],
        "until": {**(earlier.get("until") or {}), **{one["item"]: one["scanned"]["to_lsn"] for one in results}},
        "kept_as": kept_as,
    }


def _add_shared(shared: dict[str, list[str]], results: Sequence[Mapping[str, Any]], mine: Optional[int]) -> int:
    """Add what was changed of the whole server, by position; the number of transactions that did nothing else.

    The history of each database has them.
    """
    found = [
        one for result in results for one in result.get("other_changes") or [] if one["xid"] != mine and one["shared"]
    ]
    counted_elsewhere = {one["lsn"] for one in found if one["told"] or one["what"]} | shared.keys()
    shared.update({one["lsn"]: one["shared"] for one in found})
    return len(shared.keys() - counted_elsewhere)


def _change(change: Mapping[str, Any]) -> dict[str, Any]:
    return {"what": change["what"], "name": name_of(change), "oid": change["oid"], "rows": change["rows"]}


def _bounded(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that did more than change rows first, with at most MOST changes together, in the order of their commits."""
    chosen, left = [], MOST
    for one in sorted(found, key=lambda one: all(change["what"] in ROWS for change in one["changes"])):
        if len(one["changes"]) > left:
            break
        left -= len(one["changes"])
        chosen.append(one)
    return sorted(chosen, key=lambda one: (parse_lsn(one["lsn"]), one["database"]))


def _whole(item: Mapping[str, Any]) -> str:
    if item["what"] == "created":
        return f"{item['name']}: the database was created after the target"
    which = f"the database with OID {item['oid']}"
    return f"{which} was dropped after the target, and what was committed to it in between is not told"


def _lines(
    count: int,
    transactions: Sequence[Mapping[str, Any]],
    tables: Sequence[Mapping[str, Any]],
    whole: Mapping[str, str],
    beside: Sequence[str],
) -> list[str]:
    if not count:
        return ["no other transaction changed anything in any database after the target"]
    databases = {one["database"] for one in transactions} | {item["database"] for item in tables} | {*whole, *beside}
    others = [
        f"{one['database']}: transaction {one['xid']}: {change['name']} {change['what']}"
        for one in transactions
        for change in one["changes"]
        if change["what"] not in ROWS
    ]
    where = counted(len(databases), "database") if databases else "what all databases share"
    lines = [f"{counted(count, 'transaction')} changed something in {where} after the target"]
    return [
        *lines,
        *whole.values(),
        *shown_lines({f"{item['database']}: {item['table']}": item for item in tables}, others),
    ]
