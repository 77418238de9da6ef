# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory of a drill: the copy of production and nothing else, so that no recovery can find production in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# How a host is reached, and nothing that is known of it.
_CONNECTION = re.compile(
    r"ansible_(host|port|user|password|connection|timeout|pipelining|python_interpreter|remote_tmp|private_key_file"
    r"|common_remote_group|(become|ssh|sftp|scp|paramiko|local|sudo|su|shell|podman|docker)(_.*)?)"
)
# What the promises are, and whom to be on the host.
_OF_PRODUCTION = ("backup_tier", "backup_tiers", "backup_policy")
_OF_HOST = ("dbre_become", "postgresql_user")


def copy_inventory(
    copy: Mapping[str, Any],
    drill: Mapping[str, Any],
    host: Mapping[str, Any],
    production: Mapping[str, Any],
    told: Mapping[str, Any],
) -> dict[str, Any]:
    """Inventory with the copy as its primary, and its standby where it has one.

    ``host`` are the variables of the host that both are on. ``drill`` says of what it is a copy (``of``), for the
    report. ``told`` counts where the host has no variable. Variables that are not needed are not looked at: they may
    refer to what is not there.
    """
    reached = {name: host[name] for name in host if _CONNECTION.fullmatch(str(name))}
    kept = {name: production[name] for name in _OF_PRODUCTION if name in production}
    kept.update({name: host[name] for name in _OF_HOST if name in host})
    described = {
        "postgresql_version": copy["major_version"],
        "postgresql_port": copy["port"],
        "postgresql_socket_dir": copy["socket"],
        "postgresql_superuser": copy["superuser"],
        "postgresql_bin_dir": copy["bin_dir"],
        "postgresql_data_dir": copy["data_directory"],
        "pgbackrest_stanza": copy["stanza"],
        "pgbackrest_config_path": copy["config"],
        "pgbackrest_executable": copy["executable"],
        "postgresql_corruption_evidence_path": copy["evidence_path"],
        "dr_side_path": copy["side_path"],
        "dbre_drill": dict(drill),
    }
    name, everybody = f"copy-of-{drill['of']}", {**told, **reached, **kept, **described}
    groups = {"primary": {"hosts": {name: everybody}}}
    if copy.get("standby"):
        everybody.update(_of_server(copy), postgresql_failover_path=copy["failover_path"])
        groups["standby"] = {"hosts": {f"standby-of-{name}": {**everybody, **_of_server(copy["standby"])}}}
    return {"all": {"children": groups}}


def _of_server(server: Mapping[str, Any]) -> dict[str, Any]:
    """What one of the two servers has for itself."""
    return {
        "postgresql_port": server["port"],
        "postgresql_socket_dir": server["socket"],
        "postgresql_data_dir": server["data_directory"],
        "postgresql_service": server["service"],
    }
