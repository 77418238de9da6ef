# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a repository holds of the present cluster: its newest backups, its oldest whole one, and damaged pages. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import SERVED_BY, current_databases


def epoch(text: str) -> float:
    """Seconds since 1970 of a time that stanza_facts tells."""
    return datetime.fromisoformat(text).timestamp()


class Holdings(NamedTuple):
    """Backups of the present cluster in one repository, oldest first."""

    backups: list[dict[str, Any]]

    def serving(self, kind: str) -> list[dict[str, Any]]:
        """Those that serve as a type: a full backup is also as good as an incremental one."""
        return [one for one in self.backups if one["type"] in SERVED_BY[kind]]

    @property
    def window_start(self) -> Optional[float]:
        """From when on a moment can be restored, in seconds since 1970; None where nothing leads to one."""
        # Of a backup of a stopped server (--no-online) no WAL is known, so that it leads nowhere.
        whole = [one for one in self.backups if not one["error"] and one["archive_stop"]]
        return epoch(whole[0]["stop_time"]) if whole else None

    @property
    def page_errors(self) -> Optional[bool]:
        """Whether the newest backup, or one that it builds on, has damaged pages; None where that is not known."""
        return chain_dirty(self.backups)


def chain_dirty(backups: Sequence[Mapping[str, Any]]) -> Optional[bool]:
    """Whether the newest backup (the last one), or one that it builds on, has page errors; None: that is not known."""
    if not backups:
        return None
    chain = {backups[-1]["label"], *backups[-1]["references"]}
    errors = {backup["label"]: backup["error"] for backup in backups if backup["label"] in chain}
    if True in errors.values():
        return True
    return None if None in errors.values() or set(errors) != chain else False


def holdings(facts: Mapping[str, Any], repo: int) -> Holdings:
    """What a repository holds, out of the facts of stanza_facts."""
    current = {(entry["repo"], entry["id"]) for entry in current_databases(facts)}
    ours = [one for one in facts["backups"] if one["repo"] == repo and (repo, one["database_id"]) in current]
    return Holdings(sorted(ours, key=lambda one: str(one["stop_time"])))
