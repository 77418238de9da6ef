# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings with which a cluster comes to a position in WAL, alone, and then onto a timeline of its own. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn, parse_history, parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_config import TARGET_SETTINGS, render_settings

_SETTING = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(?:=|\s)")
# Bytes between the end of a record and the beginning of the next: the header of a page, and padding.
_HEADERS = 48
# What an earlier restore may have left in postgresql.auto.conf, where it would win, or meet ours and stop the server.
_LEFTOVERS = frozenset(
    [
        "archive_cleanup_command",
        "recovery_end_command",
        "recovery_min_apply_delay",
        "recovery_target_action",
        "recovery_target_inclusive",
        "recovery_target_timeline",
        "restore_command",
        *TARGET_SETTINGS.values(),
    ]
)


def restore_command(argv: Sequence[str]) -> str:
    """restore_command out of the beginning of a pgBackRest command."""
    return shlex.join([*argv, "--no-archive-async"]).replace("%", "%%") + ' archive-get %f "%p"'


def recovery_settings(command: str, timeline: int, lsn: Optional[str]) -> dict[str, str]:
    """Replay ``timeline`` up to just before ``lsn``, or to its end, and then open on a new timeline.

    Nobody is let in before that, so that nothing is read that may not stay, and a setting lower than it was is no
    obstacle (hot_standby).
    """
    # The one that is meant comes last: PostgreSQL refuses another one behind it, even an empty one.
    none = {name: "" for name in TARGET_SETTINGS.values() if name != "recovery_target_lsn"}
    return {
        "restore_command": command,
        **none,
        "recovery_target_lsn": lsn or "",
        "recovery_target_inclusive": "off",
        "recovery_target_timeline": str(timeline),
        "recovery_target_action": "promote",
        "recovery_end_command": "",
        "archive_cleanup_command": "",
        "recovery_min_apply_delay": "0",
        "hot_standby": "off",
    }


def with_recovery(auto: str, settings: Mapping[str, str]) -> str:
    """A postgresql.auto.conf with these settings, and without what an earlier restore left in it."""
    kept = [line for line in auto.splitlines(keepends=True) if _name(line) not in _LEFTOVERS]
    text = "".join(kept)
    return text + ("" if not text or text.endswith("\n") else "\n") + render_settings(settings)


def without_recovery(auto: str, settings: Mapping[str, str]) -> str:
    """The same without them again; what ALTER SYSTEM has set meanwhile stays."""
    ours = set(render_settings(settings).splitlines())
    return "".join(line for line in auto.splitlines(keepends=True) if line.rstrip("\n") not in ours)


def _name(line: str) -> str:
    match = _SETTING.match(line)
    return match.group(1).lower() if match else ""


def require_fork(history: str, timeline: int, parent: int, lsn: Optional[str]) -> str:
    """Where the timeline left ``parent``; RecoveryError where that is not ``lsn``, with which it was proved."""
    ends = dict(parse_history(history, timeline).ends)
    fork = format_lsn(ends[parent]) if parent in ends else None
    if fork is None or (lsn is not None and parse_lsn(fork) != parse_lsn(lsn)):
        raise RecoveryError(
            f"the cluster is on timeline {timeline}, which left timeline {parent} at {fork or 'no known place'}, and "
            f"not at {lsn}, up to where it was proved. It runs; what it replaced is kept. Take it back before anybody "
            "relies on it."
        )
    return fork


def require_before(fork: str, target: str) -> None:
    """RecoveryError where a timeline does not begin right before ``target``: no record fits in between."""
    if not 0 <= parse_lsn(target) - parse_lsn(fork) <= _HEADERS:
        raise RecoveryError(
            f"the new timeline began at {fork}, and not just before {target}. The server runs. What it was is in the "
            "archive on the timeline before: see the report before anybody relies on it."
        )
