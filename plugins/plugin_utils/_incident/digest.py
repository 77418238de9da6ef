# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_TARGET = ("type", "value", "exclusive", "timeline")
_INCIDENT = ("kind", "database", "xid", "lsn", "commit_time")


def plan_digest(record: Mapping[str, Any]) -> str:
    """A name for what a plan decides, the same each time that the same is planned, whatever the incident is called.

    What the run was asked for, the damage, the target, the backup set, and where and how it is done. What only is so at
    the moment (ages, free space, who is connected) is left out, so that a plan which is made anew, without the record
    of the first, can be known again. Where no damage was looked for, the words that were given are all there is to
    decide.
    """
    plan = record.get("plan") or record.get("data") or {}
    incident, target = plan.get("incident") or {}, plan.get("target") or {}
    # Where all pages had been looked at, which is later each time; the pages are what is decided.
    target = {} if incident.get("kind") == "pages" else target
    restore = plan.get("restore_plan") or {}
    damaged = [
        [item.get(key) for key in ("schema", "name", "damage", "blocks")] for item in incident.get("relations") or []
    ]
    decided = {
        "scenario": record.get("scenario"),
        "parameters": record.get("parameters") or {},
        "incident": {**{key: incident.get(key) for key in _INCIDENT}, "relations": damaged} if incident else {},
        "target": {key: target.get(key) for key in _TARGET} if incident else {},
        "set": (restore.get("set") or {}).get("label") if isinstance(restore.get("set"), Mapping) else None,
        "side_host": plan.get("side_host"),
        "source": (plan.get("source") or {}).get("resource_id"),
        "method": plan.get("method"),
    }
    text = json.dumps(decided, sort_keys=True, ensure_ascii=False, default=str)
    return f"plan-{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:12]}"
