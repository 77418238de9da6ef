# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The jobs of scheduled dumps: each with all that the module and the program of the timers want to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError


class Common(TypedDict):
    """What a job gets that does not say otherwise; numbers may be texts, and empty ones are not set."""

    format: str
    schedule: str
    randomized_delay: str
    keep_days: Any
    keep_count: Any
    path: str
    login_unix_socket: str
    login_port: Any
    login_user: str
    bin_dir: str


def complete_jobs(jobs: Mapping[str, Any], common: Common) -> dict[str, dict[str, Any]]:
    """Jobs by name, each completed; one that is None is left out.

    A job dumps the database of its own name, unless it says another or is one of globals. Raises RecoveryError where
    what is common is no number and should be one.
    """
    defaults = {
        **common,
        "database": None,
        "globals": False,
        "jobs": 1,
        "compress": None,
        "schema_only": False,
        "tables": [],
        "exclude_tables": [],
        "keep_days": _number("keep_days", common["keep_days"], float),
        "keep_count": _number("keep_count", common["keep_count"], int),
        "login_port": _number("login_port", common["login_port"], int),
        "bin_dir": common["bin_dir"] or None,
    }
    return {
        name: {**defaults, "name": name, "database": None if job.get("globals") else name, **job}
        for name, job in jobs.items()
        if job is not None
    }


def _number(name: str, value: Any, kind: type) -> Any:
    if value is None or value == "":
        return None
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise RecoveryError(
            f"{name} of the logical backups is {value!r}, which is no number. Nothing was changed."
        ) from error
