# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server archives its WAL with, beside what it should: which settings to change, and who else sets them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

NEED_RESTART = ("wal_level", "archive_mode", "max_wal_senders")
SAY_WHERE_TO = ("archive_command", "archive_library")


class FileLine(TypedDict):
    """An applied line of a configuration file (view pg_file_settings)."""

    name: str
    setting: str
    file: str


class Answer(TypedDict):
    """What the server said: settings in force by name, and the lines of files but our own that set any of them."""

    settings: Mapping[str, str]
    files: Sequence[FileLine]


class Archiving(TypedDict):
    """``wanted`` settings, those ``not_in_force`` although a reload would do, and those that need a restart.

    ``lines`` of other files that set them, and of these the ``foreign`` ones, which archive somewhere else, are texts;
    ``alter_system`` are names that ALTER SYSTEM set, which would win over a file.
    """

    wanted: dict[str, str]
    not_in_force: list[str]
    restart_for: list[str]
    lines: list[str]
    foreign: list[str]
    alter_system: list[str]


def judge(answer: Answer, command: str, timeout: int, max_wal_senders: int) -> Archiving:
    """What is to be done so that the server archives by ``command``, at the latest after ``timeout`` seconds.

    What a server has that is more than needed stays: logical decoding, archive_mode=always, more WAL senders.
    """
    settings = answer["settings"]
    wanted = {
        "wal_level": "logical" if settings["wal_level"] == "logical" else "replica",
        "archive_mode": "always" if settings["archive_mode"] == "always" else "on",
        "archive_command": command,
        "archive_timeout": str(timeout),
        "max_wal_senders": str(max(max_wal_senders, int(settings["max_wal_senders"]))),
    }
    # The server hides its archive_command until archive_mode is on.
    hidden = ["archive_command"] if settings["archive_mode"] == "off" else []
    differing = [name for name, value in wanted.items() if settings[name] != value]
    lines = [(line, f"{line['name']} = '{line['setting']}' ({line['file']})") for line in answer["files"]]
    by_alter_system = [line["name"] for line, _text in lines if line["file"].endswith("/postgresql.auto.conf")]
    return {
        "wanted": wanted,
        "not_in_force": [name for name in differing if name not in (*NEED_RESTART, *hidden)],
        "restart_for": [name for name in differing if name in NEED_RESTART],
        "lines": [text for _line, text in lines],
        "foreign": [
            text for line, text in lines if line["name"] in SAY_WHERE_TO and line["setting"] not in ("", command)
        ],
        "alter_system": list(dict.fromkeys(by_alter_system)),
    }
