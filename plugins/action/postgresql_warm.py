# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.dbre.recovery.plugins.plugin_utils._progress import ProgressAction


class ActionModule(ProgressAction):
    """Shows the progress that the module writes to the file it is given."""

    def progress_file(self) -> str | None:
        path = self._task.args.get("progress_file")
        return str(path) if path else None
