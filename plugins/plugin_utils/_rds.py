# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import uuid

from ansible_collections.dbre.recovery.plugins.plugin_utils._progress import ProgressAction


class RdsAction(ProgressAction):
    """Shows how far AWS is. The module gets a progress file of its own unless the task names one."""

    def progress_file(self) -> str | None:
        path = self._task.args.get("progress_file")
        if not path:
            # Not below remote_tmp, which need not exist yet; nobody can guess the name.
            path = f"/tmp/.dbre-recovery-{uuid.uuid4().hex}.json"
            self._task.args = {**self._task.args, "progress_file": path}
        return str(path)
