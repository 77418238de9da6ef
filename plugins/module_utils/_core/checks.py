# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one value must be, whatever it is part of."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

NOTHING = "Nothing was changed."


def check_number(what: str, value: Any, low: float, high: float, variable: str = "") -> None:
    """Raise RecoveryError unless ``value`` is a number from ``low`` to ``high``. ``variable`` is where users set it."""
    if isinstance(value, bool) or not low <= _as_number(value) <= high:
        advice = f"Correct it ({variable})." if variable else "Correct it."
        raise RecoveryError(f"{what} is {value!r}, but must be a number from {low} to {high}. {NOTHING} {advice}")


def _as_number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def check_one_line(what: str, value: str) -> None:
    """Raise RecoveryError for a text that would not stay in its line of a file, a command or a message."""
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise RecoveryError(f"{what} is {value!r}, which is not on one line. {NOTHING} Correct it.")
