# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was written down of the primary while it lived: which standbys its commits waited for.

A primary whose disk cannot be read does not tell any more. Provisioning a standby leaves it in a file there, and
backups have it in an annotation.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._failover.state import Recorded
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.primary_note import ANNOTATION

KEYS = ("synchronous_standby_names", "synchronous_commit", "synchronized_standby_slots")


def recorded(path: Optional[str], backups: Sequence[Mapping[str, Any]], system_identifier: str) -> list[Recorded]:
    """What is known of the primary out of the file ``path`` and annotations of ``backups`` (info.py: backup_facts).

    What is of another cluster, or cannot be read, is left out: others may have written there.
    """
    texts = [(f"backup {each['label']}", each["stop_time"], each["annotations"].get(ANNOTATION)) for each in backups]
    if path and os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            when = datetime.datetime.fromtimestamp(os.stat(path).st_mtime, datetime.timezone.utc)
            texts.append((path, when.isoformat(), file.read()))
    found = [_entry(where, str(at), text, system_identifier) for where, at, text in texts if text and at]
    return [entry for entry in found if entry is not None]


def _entry(where: str, at: str, text: str, system_identifier: str) -> Optional[Recorded]:
    try:
        told = json.loads(text)
    except ValueError:
        return None
    if not isinstance(told, dict) or told.get("system_identifier", system_identifier) != system_identifier:
        return None
    values = {key: str(told.get(key) or "") for key in KEYS}
    if not isinstance(told.get("synchronous_standby_names"), str):
        return None
    return {
        "where": where,
        "at": at,
        "synchronous_standby_names": values["synchronous_standby_names"],
        "synchronous_commit": values["synchronous_commit"] or "on",
        "synchronized_standby_slots": values["synchronized_standby_slots"],
    }


def newest(entries: Sequence[Recorded]) -> Optional[Recorded]:
    """The one that was written last; None without any."""
    return max(entries, key=lambda entry: datetime.datetime.fromisoformat(entry["at"]), default=None)
