# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Side instances of other incidents that lie beside one, whichever controller made them."""

from __future__ import annotations

import contextlib
import os
import shlex
from datetime import datetime
from typing import TypedDict

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import TAKEN, SideInstance, system_user


class Beside(TypedDict):
    """One of them: since when it is there (ISO 8601), and the command that removes it on this host, without Ansible."""

    incident: str
    path: str
    created: str
    remove: str


def others_beside(instance: SideInstance) -> list[Beside]:
    """Those in the same folder that this user made, the oldest first.

    A record of what made them is on the controller, and may have gone with it (a job runner's folder has).
    """
    folder = os.path.dirname(instance.path)
    found: list[Beside] = []
    names = []
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(folder))
    for name in names:
        # Not ours, not readable, half written, or of a version that did not keep this: nothing to tell of.
        with contextlib.suppress(RecoveryError, OSError, KeyError, TypeError, ValueError):
            other = SideInstance(os.path.join(folder, name))
            marker = other.read_marker() if other.path != instance.path else None
            if marker is None or marker["state"] == TAKEN:
                continue
            datetime.fromisoformat(marker["created"])
            pg_ctl = os.path.join(marker["bin_dir"], "pg_ctl")
            script = (
                f"{shlex.quote(pg_ctl)} -D {shlex.quote(other.data)} -m immediate stop; rm -r {shlex.quote(other.path)}"
            )
            found.append(
                {
                    "incident": str(marker["incident"]),
                    "path": other.path,
                    "created": marker["created"],
                    "remove": f"sudo -u {shlex.quote(system_user())} sh -c {shlex.quote(script)}",
                }
            )
    return sorted(found, key=lambda item: item["created"])
