# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the search in WAL needs of an archive. Each backup tool has one of its own, which modules choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Optional, Protocol

from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import Timelines


class Backup(NamedTuple):
    """A backup from which WAL leads to the server's present."""

    label: str
    first_segment: str
    """Name of the first WAL file that a restore of it replays."""
    stop_time: int
    """When it was complete, in microseconds since 1970 (UTC)."""
    stop_lsn: Optional[str]
    """Where replay must have come before it is consistent, if the tool tells."""


class Archive(Protocol):
    """Files of WAL by their names, and the backups that they go on from."""

    name: str
    """What messages call it, e.g. ``stanza 'main'``."""
    chosen: bool
    """Whether it is one copy among several, named by the user, so that trouble with the others does not count."""
    show_command: str
    """What shows all that is in it."""
    check_command: str
    """What tests that the server's WAL gets into it."""

    def get(self, name: str, path: str) -> bool:
        """Fetch a file to ``path``; False when the archive does not have it, RecoveryError when nobody can tell."""

    def get_all(self, files: Mapping[str, str]) -> list[str]:
        """Fetch {name: path}, several at a time; the names that the archive does not have."""

    def push(self, path: str) -> None:
        """Archive a file of pg_wal again, into every copy."""

    def push_command(self, path: str) -> str:
        """The command that does what :meth:`push` does, for people."""

    def settle(self) -> dict[str, Any]:
        """Leave out copies that cannot be reached: ``{repo, lost: [{repo, message}]}``, the one used and those."""

    def oldest_backup(self, system_identifier: str, segment_size: int, timelines: Timelines) -> Backup:
        """Oldest backup, made while it ran, of the server whose present is at the end of ``timelines``.

        Raises RecoveryError, with the tool's own word, where there is none.
        """

    def newest_backup(self, system_identifier: str, segment_size: int, timelines: Timelines) -> Backup:
        """The newest of them, in the same way."""
