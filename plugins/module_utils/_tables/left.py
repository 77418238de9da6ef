# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a recovery leaves to do."""

from __future__ import annotations

from typing import Any


def left(
    kind: str,
    name: str,
    reason: str,
    command: str | None = None,
    *,
    lost: bool = False,
    rows: int | None = None,
    needs_side_instance: bool = False,
) -> dict[str, Any]:
    """One entry of ``left_to_do``: what is left, why, and the command that does it when there is one.

    ``lost``: it was there before the incident and production lacks it now, so the recovery is one in part. ``rows``:
    how many rows are not back, null where it is no matter of rows. ``needs_side_instance``: what is left to do reads
    the side instance, which therefore stays.
    """
    return {
        "type": kind,
        "object": name,
        "reason": reason,
        "command": command,
        "lost": lost,
        "rows": rows,
        "needs_side_instance": needs_side_instance,
    }
