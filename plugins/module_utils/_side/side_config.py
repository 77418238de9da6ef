# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of a side instance: caged, read up to a recovery target, tuned to be thrown away. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

MIB = 1024 * 1024

TARGET_SETTINGS = {
    "lsn": "recovery_target_lsn",
    "time": "recovery_target_time",
    "xid": "recovery_target_xid",
    "name": "recovery_target_name",
    "immediate": "recovery_target",
}


def isolation_settings(major: int, listen: str = "") -> dict[str, str]:
    """What keeps a side instance from touching anything outside.

    Given on the command line as well, where no file and no ALTER SYSTEM of production's can override it.
    """
    settings = {
        "archive_mode": "off",
        "archive_command": "",
        "archive_cleanup_command": "",
        "recovery_end_command": "",
        "primary_conninfo": "",
        "primary_slot_name": "",
        "listen_addresses": listen,
        "shared_preload_libraries": "",
        "session_preload_libraries": "",
        "local_preload_libraries": "",
        "max_logical_replication_workers": "0",
        "hot_standby": "on",
        "lc_messages": "C",
    }
    if major >= 15:
        settings["archive_library"] = ""
    if major >= 17:
        # Login triggers of production would otherwise run in every session here.
        settings["event_triggers"] = "off"
        settings["sync_replication_slots"] = "off"
    return settings


def target_settings(target: Mapping[str, Any], restore_command: str) -> dict[str, str]:
    """Recovery settings of a recovery target (contract: type, value, exclusive, timeline)."""
    kind = target["type"]
    return {
        "restore_command": restore_command,
        TARGET_SETTINGS[kind]: "immediate" if kind == "immediate" else str(target["value"]),
        "recovery_target_inclusive": "off" if target.get("exclusive") else "on",
        "recovery_target_timeline": str(target["timeline"]),
        "recovery_target_action": "pause",
    }


def shared_buffers_bytes(available: int) -> int:
    """A quarter of the memory that is free on the host, from 128 MiB to 8 GiB: production's size may not fit here."""
    return min(max(available // 4, 128 * MIB), 8192 * MIB)


def lock_settings(available: int, settings: Mapping[str, int]) -> dict[str, int]:
    """``max_locks_per_transaction`` with which pg_dump can lock every table of a large database, at least as it is.

    pg_dump holds a lock on each table and each lock takes about 400 bytes of shared memory, which is why a sixteenth of
    the memory that is free on the host may go there, for 400,000 locks at most.
    """
    locks = min(max(available // 16 // 400, 50_000), 400_000)
    sessions = settings["max_connections"] + settings["max_prepared_transactions"]
    name = "max_locks_per_transaction"
    return {name: max(settings[name], -(-locks // sessions))}


def max_wal_bytes(wal_bytes: int) -> int:
    """WAL the instance may keep before it writes a restart point: all of it, from 1 to 16 GiB."""
    return min(max(wal_bytes, 1024 * MIB), 16384 * MIB)


def tuning_settings(major: int, available_memory: int, wal_bytes: int) -> dict[str, str]:
    """Speed for an instance that is thrown away: nothing here survives a crash of the host, and nothing needs to."""
    settings = {
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "autovacuum": "off",
        "wal_level": "replica",
        "wal_init_zero": "off",
        "max_wal_size": f"{max_wal_bytes(wal_bytes) // MIB}MB",
        "checkpoint_timeout": "30min",
        "shared_buffers": f"{shared_buffers_bytes(available_memory) // MIB}MB",
        "huge_pages": "off",
        "maintenance_work_mem": "256MB",
        "jit": "off",
        # Slots are not restored, but origins of production's subscriptions are, and each needs a place.
        "max_replication_slots": "1000",
        "password_encryption": "scram-sha-256",
        # pg_read_all_data does not cover large objects.
        "lo_compat_privileges": "on",
        "logging_collector": "off",
        "log_destination": "stderr",
        "log_line_prefix": "%m [%p] ",
        "log_timezone": "UTC",
        "timezone": "UTC",
        "unix_socket_permissions": "0700",
    }
    if major >= 15:
        settings["log_startup_progress_interval"] = "10s"
    if major >= 18:
        settings["max_active_replication_origins"] = "1000"
    return settings


def quote_setting(value: str) -> str:
    """A value as postgresql.conf wants it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def render_settings(settings: Mapping[str, str]) -> str:
    """Text of a postgresql.conf."""
    return "".join(f"{name} = {quote_setting(value)}\n" for name, value in settings.items())


def _quoted(name: str) -> str:
    """A name as pg_hba.conf and pg_ident.conf want it; a line break would begin a rule of its own."""
    if re.search(r"[\r\n\0]", name):
        raise RecoveryError(
            f"{name!r} has a line break and cannot be written into pg_hba.conf. Nothing was changed. Give it another "
            "name first (ALTER ... RENAME TO ...)."
        )
    return '"' + name.replace('"', '""') + '"'


def render_hba(client: Optional[Mapping[str, Any]] = None) -> str:
    """Text of pg_hba.conf: the owner by the socket, and when asked one client by TLS and password."""
    lines = ["local all all peer map=side"]
    if client:
        names = " ".join(_quoted(client[key]) for key in ("database", "user"))
        lines += [f"hostssl {names} {network} scram-sha-256" for network in client["networks"]]
    return "\n".join(lines) + "\n"


def render_ident(system_user: str, superuser: str) -> str:
    """Text of pg_ident.conf: the operating system user may be the superuser, whatever production calls it."""
    return f"side {_quoted(system_user)} {_quoted(superuser)}\n"
