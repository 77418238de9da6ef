# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
from typing import Any

from ansible.plugins.action.normal import ActionModule as NormalAction
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.contained import is_dead


class ActionModule(NormalAction):
    """Runs the module of the task, and says whose runs on this controller have ended."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        here = socket.gethostname()
        for one in result.get("containments") or []:
            one["dead"] = [run["incident"] for run in one["held_by"] if run["incident"] and is_dead(run, here)]
        return result
