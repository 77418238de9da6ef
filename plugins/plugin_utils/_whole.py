# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs of which only a part would be carried out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

ALONE = "plan"


def part_only(tags: Sequence[str], skipped: Sequence[str], start_at: Optional[str]) -> str:
    """Why a playbook whose phases build on each other is not run in this part; empty when it is whole or the plan."""
    again = "A run that ended early is gone on with by the same command and -e dr_incident_id=ID."
    if start_at:
        return (
            f"--start-at-task {start_at!r} would leave out what all later steps stand on: the words that were given, "
            f"the incident's record and lock, and the plan. {again}"
        )
    other = [f"--tags {tag}" for tag in tags if tag not in ("all", "always", ALONE)]
    other += [f"--skip-tags {tag}" for tag in skipped]
    if not other:
        return ""
    return (
        f"{' '.join(other)} would carry out a phase without those that it builds on, or without those that undo it. "
        f"Only --tags {ALONE} is safe alone: it stops after the plan. {again}"
    )
