# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plan of a restore from a dump says to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.contracts import Shown
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import moment, size
from ansible_collections.dbre.recovery.plugins.module_utils._side.shown import side_instance_shown


def dump_shown(plan: Mapping[str, Any]) -> list[Shown]:
    """The dump and the side instance of a plan of ``postgresql_dump_side_instance``."""
    dump = plan["dump"]
    begun = f"{dump['path']} ({dump['format']}, {size(dump['size'])}), begun {moment(dump['created'])}"
    return [{"label": "Dump", "lines": [begun, plan["precision"]]}, side_instance_shown(plan)]
