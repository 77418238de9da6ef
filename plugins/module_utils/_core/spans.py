# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers of blocks."""

from __future__ import annotations

from collections.abc import Iterable


def spans(blocks: Iterable[int]) -> list[tuple[int, int]]:
    """Numbers of blocks as ranges, each with its last one."""
    found: list[tuple[int, int]] = []
    for number in sorted(blocks):
        if found and number == found[-1][1] + 1:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    return found


def blocks_text(blocks: Iterable[int], more: int = 0) -> str:
    """Numbers of blocks for people, with ranges: ``3, 7-9``."""
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans(blocks))
    return f"{text} and {more} more" if more else text
