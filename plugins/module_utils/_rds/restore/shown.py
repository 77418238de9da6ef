# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plan of a restore on RDS says to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import Shown
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import moment, size


def rds_shown(rds: Mapping[str, Any]) -> list[Shown]:
    """What is restored from what to where, in which window, at whose cost, and how it differs from its source."""
    lines = [f"{rds['target_identifier']} in {rds['region']}, made from {rds['made_from']}"]
    window = rds.get("window") or {}
    if window.get("earliest") and window.get("latest"):
        lines.append(f"the window is {moment(window['earliest'])} to {moment(window['latest'])}")
    what = [str(rds[key]) for key in ("engine", "engine_version", "class") if rds.get(key)]
    if rds.get("storage_bytes"):
        what.append(size(rds["storage_bytes"]))
    lines.append(", ".join(what) + "; AWS charges for it as long as it is there")
    lines += [f"NOT AS THE SOURCE: {item.get('name')}: {item.get('reason')}" for item in rds.get("not_inherited") or []]
    return [{"label": "RDS", "lines": [*lines, *map(str, rds.get("notes") or [])]}]
