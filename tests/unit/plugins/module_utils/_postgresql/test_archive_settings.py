# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done so that a server archives, from what servers said of themselves."""

from __future__ import annotations

from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.archive_settings import Archiving, judge

PUSH = "pgbackrest --stanza=main archive-push %p"
# A new cluster of PostgreSQL 15.
NEW = {
    "wal_level": "replica",
    "archive_mode": "off",
    "archive_command": "(disabled)",
    "archive_timeout": "0",
    "max_wal_senders": "10",
}
IN_FORCE = {**NEW, "archive_mode": "on", "archive_command": PUSH, "archive_timeout": "60"}


def judged(settings: dict[str, str], *files: dict[str, str]) -> Archiving:
    return judge({"settings": settings, "files": files}, PUSH, 60, 10)


def line(name: str, setting: str, file: str = "/etc/postgresql/15/main/postgresql.conf") -> Any:
    return {"name": name, "setting": setting, "file": file}


def test_a_new_cluster_needs_a_restart_and_hides_its_command_until_then() -> None:
    state = judged(NEW)
    assert state["restart_for"] == ["archive_mode"]
    assert state["not_in_force"] == ["archive_timeout"]
    assert state["wanted"] == {**IN_FORCE, "archive_mode": "on"}


def test_a_server_that_archives_as_it_should_needs_nothing() -> None:
    state = judged(IN_FORCE)
    assert (state["restart_for"], state["not_in_force"], state["lines"]) == ([], [], [])


def test_what_a_server_has_more_than_is_needed_stays() -> None:
    more = {**IN_FORCE, "wal_level": "logical", "archive_mode": "always", "max_wal_senders": "20"}
    state = judged(more)
    assert state["wanted"] == more
    assert state["restart_for"] == []
    assert judged({**IN_FORCE, "max_wal_senders": "3"})["wanted"]["max_wal_senders"] == "10"


def test_a_command_of_somebody_else_is_foreign_and_ours_or_none_is_not() -> None:
    auto = "/var/lib/postgresql/15/main/postgresql.auto.conf"
    state = judged(
        {**IN_FORCE, "archive_command": "cp %p /backup/%f"},
        line("archive_command", "cp %p /backup/%f", auto),
        line("archive_command", PUSH),
        line("archive_library", ""),
        line("archive_timeout", "300", auto),
        line("archive_timeout", "200", auto),
    )
    assert state["foreign"] == [f"archive_command = 'cp %p /backup/%f' ({auto})"]
    assert len(state["lines"]) == 5
    assert state["alter_system"] == ["archive_command", "archive_timeout"]
    assert state["not_in_force"] == ["archive_command"]
