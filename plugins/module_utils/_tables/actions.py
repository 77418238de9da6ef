# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done with what there is."""

from __future__ import annotations

# What is done with a whole database that is there, or with tables.
SWAP = "swap"


def action_of(state: str, kind: str, load: str) -> str:
    """What is done with one relation: ``place`` a missing one, otherwise as ``load`` says; ``none`` without rows."""
    if state == "missing":
        return "place"
    return load if kind in ("r", "p") else "none"
