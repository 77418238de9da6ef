# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a data directory that somebody restored a side instance, caged and ready to replay to its target."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically
from ansible_collections.dbre.recovery.plugins.module_utils._side.controldata import (
    control_value,
    parse_controldata,
    recovery_settings,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_config import (
    lock_settings,
    render_ident,
    target_settings,
    tuning_settings,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import (
    SideInstance,
    available_memory,
    system_user,
)


def is_within(inner: str, outer: str) -> bool:
    """Whether a real path is another or lies below it."""
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def read_control(instance: SideInstance, bin_dir: str) -> dict[str, str]:
    """pg_controldata of the restored directory."""
    result = instance.call([os.path.join(bin_dir, "pg_controldata"), instance.data])
    if result.returncode != 0:
        raise RecoveryError(
            f"pg_controldata cannot read the restored {instance.data} on {instance.host}: "
            f"{(result.stderr or result.stdout).strip()}"
        )
    return parse_controldata(result.stdout)


def make_ready(
    instance: SideInstance,
    marker: dict[str, Any],
    plan: Mapping[str, Any],
    control: Mapping[str, str],
    restore_command: str,
) -> None:
    """Check what was restored, and write into ``marker`` and the directory with which settings it is started.

    ``plan`` tells ``set`` (``label``), ``system_identifier``, ``major_version``, ``wal`` (``bytes``) and ``left_out``.
    """
    check_restored(instance, plan, control)
    marker["log_begin"] = instance.log_size()
    memory, needed = available_memory(), recovery_settings(control)
    needed.update(lock_settings(memory, needed))
    marker["settings"] = {
        **tuning_settings(plan["major_version"], memory, plan["wal"]["bytes"]),
        **{name: str(value) for name, value in needed.items()},
        **target_settings(marker["target"], restore_command),
        **({"ignore_invalid_pages": "on"} if plan["left_out"] else {}),
    }
    finish_files(instance, marker)


def check_restored(instance: SideInstance, plan: Mapping[str, Any], control: Mapping[str, str]) -> None:
    """Refuse a restored directory that is another server's, or that reaches out of our path."""
    found = control_value(control, "Database system identifier")
    if found != plan["system_identifier"]:
        raise RecoveryError(
            f"set {plan['set']['label']} restored a server with system identifier {found}, but production's is "
            f"{plan['system_identifier']}. It was not started."
        )
    links = [os.path.join(instance.data, "pg_wal"), instance.data]
    tablespaces = os.path.join(instance.data, "pg_tblspc")
    links += [os.path.join(tablespaces, name) for name in os.listdir(tablespaces)]
    for link in links:
        if not is_within(os.path.realpath(link), instance.path):
            raise RecoveryError(
                f"{link} on {instance.host} leads to {os.path.realpath(link)}, outside of the side instance. "
                "It was not started, so nothing there was changed."
            )


def finish_files(instance: SideInstance, marker: Mapping[str, Any]) -> None:
    """Take production's settings, signals and slots out of the restored directory and write our own."""
    data = instance.data
    auto = os.path.join(data, "postgresql.auto.conf")
    if os.path.exists(auto):
        os.replace(auto, f"{auto}.production")
    write_atomically(auto, "")
    for name in ("standby.signal", "postmaster.pid", "postmaster.opts"):
        if os.path.exists(os.path.join(data, name)):
            os.unlink(os.path.join(data, name))
    slots = os.path.join(data, "pg_replslot")
    for name in os.listdir(slots) if os.path.isdir(slots) else ():
        shutil.rmtree(os.path.join(slots, name))
    write_atomically(instance.below("pg_ident.conf"), render_ident(system_user(), marker["superuser"]))
    instance.write_settings(marker)
    write_atomically(os.path.join(data, "recovery.signal"), "")
