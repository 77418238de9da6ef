# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of module parameters that cannot be meant: refused in one line before anything is done."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core import contracts
from ansible_collections.dbre.recovery.plugins.module_utils._core.checks import NOTHING, check_number, check_one_line
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

YEAR = 366 * 86400
# Smallest and largest value of a number, and the variables it usually comes from.
BOUNDS: dict[str, tuple[float, float, str]] = {
    "login_port": (1, 65535, "postgresql_port"),
    "port": (0, 65535, ""),
    "repo": (1, 256, "dr_repository"),
    "timeout": (0, YEAR, ""),
    "wait_timeout": (0, YEAR, ""),
    "jobs": (0, 1024, ""),
    "parallel": (0, 1024, ""),
    "process_max": (0, 999, ""),
    "max_lag": (0, YEAR, "dr_max_lag"),
    "min_rows": (1, 2**63 - 1, "dr_min_rows"),
    "keep_days": (0, 36600, ""),
    "keep_count": (0, 2**31 - 1, ""),
    "backup_retention_period": (0, 35, ""),
    "timeline": (1, 2**32 - 1, ""),
    "database_oid": (1, 2**32 - 1, ""),
    "major_version": (0, 99, ""),
    "wal_segment_size": (0, 2**30, ""),
    "seconds_until_auto_pause": (300, 86400, ""),
    "min_capacity": (0, 1024, ""),
    "max_capacity": (0.5, 1024, ""),
}
# These go into files, command lines and messages, each on one line.
ONE_LINE = ("stanza", "config", "executable", "incident", "path", "bin_dir", "dump", "set", "address", "listen")


def check_arguments(module: Any) -> None:
    """End a module whose parameters cannot be meant."""
    try:
        check_values(module.params)
    except RecoveryError as error:
        module.fail_json(msg=error.msg, **error.details)


def check_values(params: Mapping[str, Any]) -> None:
    """Raise RecoveryError for the first parameter that cannot be meant."""
    for name, value in params.items():
        if value is None:
            continue
        if name in BOUNDS:
            _number(name, value)
        elif name in ONE_LINE and isinstance(value, str):
            check_one_line(name, value)
        elif name in CHECKS and isinstance(value, Mapping):
            CHECKS[name](value)
        elif name == "system_identifier" and value != "":
            _digits(name, value)
        elif name == "password":
            _plain_password(name, str(value))


def _number(name: str, value: Any) -> None:
    low, high, variable = BOUNDS[name]
    check_number(name, value, low, high, variable)


def _digits(name: str, value: Any) -> None:
    if not re.fullmatch(r"[0-9]{1,20}", str(value)) or not 0 < int(value) < 2**64:
        raise RecoveryError(
            f"{name} is {value!r}, but must be a positive whole number of 64 bits. {NOTHING} Write it as "
            "pg_controldata does."
        )


def _plain_password(name: str, value: str) -> None:
    # Ansible hides a secret in what it writes to the host's log as it is, and not as Python writes it within others.
    if not re.fullmatch(r"[A-Za-z0-9_.~=+/-]+", value):
        raise RecoveryError(
            f"{name} of the client has a character that could not be hidden everywhere. {NOTHING} Give one of letters, "
            "digits and _ . ~ = + / - that is used for nothing else."
        )


# A target that is no dictionary is a name, such as that of the member that is to become the writer.
CHECKS: dict[str, Callable[[Any], object]] = {
    "target": contracts.recovery_target,
    "instance": contracts.recovered_instance,
    "load_plan": contracts.load_plan,
    "compare_to": contracts.fingerprints,
    "client": check_values,
}
