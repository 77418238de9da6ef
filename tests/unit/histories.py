"""Histories as the module returns them."""

from __future__ import annotations

from typing import Any

ROWS = ("inserted", "updated", "deleted")


def history(*transactions: dict[str, Any], told: int | None = None, **more: Any) -> dict[str, Any]:
    """What the module returns of these; only the first ``told`` of them one by one."""
    tables: dict[int, dict[str, Any]] = {}
    for one in transactions:
        for change in one["changes"]:
            if change["what"] in ROWS:
                named = {key: change[key] for key in ("schema", "name", "oid")}
                item = tables.setdefault(change["oid"], {**named, **dict.fromkeys(ROWS, 0), "transactions": 0})
                item[change["what"]] += change["rows"]
        for oid in {change["oid"] for change in one["changes"] if change["what"] in ROWS}:
            tables[oid]["transactions"] += 1
    by_name = sorted(tables.values(), key=lambda item: item["name"])
    return {"transactions": list(transactions[:told]), "count": len(transactions), "tables": by_name, **more}
