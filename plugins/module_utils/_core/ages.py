# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One grammar for ages and periods."""

from __future__ import annotations

import re

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

_AGE_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_age(text: str | int) -> int:
    """Return seconds from `90`, `90s`, `15m`, `24h`, `7d` or `2w`."""
    found = re.fullmatch(r"\s*(\d+)\s*([smhdw]?)\s*", str(text).lower())
    if not found:
        raise RecoveryError(
            f"{text!r} is not an age. Write seconds, or a number with s, m, h, d or w: '24h', '7d', '3600'."
        )
    return int(found.group(1)) * _AGE_UNITS[found.group(2)]
