# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.backup import (
    annotation_arguments,
    archiving_advice,
    option_arguments,
    page_error,
    prove_archiving,
    require_stanza,
    stanza_action,
    take_backup,
)
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import manifest_facts, stanza_facts
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import PgBackRest

DATA = Path(__file__).parent / "data"
SYSTEM = 7711487094474521737


def recorded(name: str, version: str = "2.45") -> dict[str, Any]:
    return stanza_facts(json.loads((DATA / version / f"{name}.json").read_text())[0])


class Replay:
    """A runner that answers each pgBackRest command with what a real one printed."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.commands: list[str] = []

    def __call__(self, argv: list[str]) -> tuple[int, str, str]:
        words = [word for word in argv[1:] if not word.startswith("-")]
        self.commands.append(words[0])
        return 0, self.answers.get(words[0].replace("-", "_"), ""), ""


def test_a_missing_stanza_is_made() -> None:
    assert stanza_action(recorded("info-missing"), SYSTEM, 15, upgrade=False) == "create"


def test_a_stanza_of_this_cluster_needs_nothing() -> None:
    assert stanza_action(recorded("info"), SYSTEM, 15, upgrade=False) == "none"


@pytest.mark.parametrize(("identifier", "major"), [(SYSTEM + 1, 15), (SYSTEM, 17)])
def test_a_stanza_of_another_cluster_is_refused_unless_it_was_upgraded(identifier: int, major: int) -> None:
    with pytest.raises(RecoveryError, match="belongs to another cluster.*upgrade: true"):
        stanza_action(recorded("info"), identifier, major, upgrade=False)
    assert stanza_action(recorded("info"), identifier, major, upgrade=True) == "upgrade"


def test_a_repository_that_cannot_be_read_is_refused() -> None:
    facts = recorded("info")
    facts["repositories"][0]["status"] = {"code": 99, "message": "[HostConnectError] unable to connect"}
    with pytest.raises(RecoveryError, match="cannot be judged.*unable to connect"):
        stanza_action(facts, SYSTEM, 15, upgrade=False)


def test_a_backup_of_a_missing_stanza_is_refused() -> None:
    require_stanza(recorded("info"))
    with pytest.raises(RecoveryError, match="does not exist.*missing stanza path"):
        require_stanza(recorded("info-missing"))


def test_options_become_arguments() -> None:
    options = {"start-fast": True, "delta": False, "exclude": ["a/", "b/"], "process-max": 4}
    assert option_arguments(options) == [
        "--start-fast",
        "--no-delta",
        "--exclude=a/",
        "--exclude=b/",
        "--process-max=4",
    ]


@pytest.mark.parametrize("name", ["--start-fast", "start fast", "type", "stanza", "expire-auto"])
def test_options_that_are_none_or_not_the_users_are_refused(name: str) -> None:
    with pytest.raises(RecoveryError, match=name):
        option_arguments({name: "x"})


def test_annotations_need_a_version_that_has_them() -> None:
    assert annotation_arguments({"why": "before release"}, (2, 45)) == ["--annotation=why=before release"]
    assert annotation_arguments({}, (2, 33)) == []
    assert annotation_arguments({}, (2, 33), {"who": "x"}) == []
    assert annotation_arguments({"a": "b"}, (2, 41), {"who": "x"}) == ["--annotation=who=x", "--annotation=a=b"]
    with pytest.raises(RecoveryError, match="2.33 .* has no annotations"):
        annotation_arguments({"why": "x"}, (2, 33))


def test_a_whole_backup_lets_older_ones_expire() -> None:
    replay = Replay(info=(DATA / "2.45" / "info.json").read_text(), repo_ls="{}", help="default: y\n")
    taken = take_backup(PgBackRest(replay, stanza="alpha"), {"backups": []}, "full", [])
    assert taken["type"] == "diff"  # the newest of the recording
    assert taken["page_errors"] == []
    assert replay.commands[-1] == "expire"


@pytest.mark.parametrize(("configured", "asked"), [("current: n\n", True), ("", False)])
def test_expiry_that_is_switched_off_stays_off(configured: str, asked: bool) -> None:
    replay = Replay(info=(DATA / "2.45" / "info.json").read_text(), repo_ls="{}", help=f"{configured}default: y\n")
    take_backup(PgBackRest(replay, stanza="alpha"), {"backups": []}, "full", [], expire=asked)
    assert "expire" not in replay.commands


@pytest.mark.parametrize("version", ["2.45", "2.55"])
def test_a_damaged_backup_fails_with_its_pages_and_expires_nothing(version: str) -> None:
    replay = Replay(
        info=(DATA / version / "info-page-error.json").read_text(),
        repo_ls="{}",
        repo_get=(DATA / version / "backup-page-error.manifest").read_text(),
        help="default: y\n",
    )
    with pytest.raises(RecoveryError, match="base/16384/16385 pages 3, 4, 5, 9") as caught:
        take_backup(PgBackRest(replay, stanza="alpha"), {"backups": []}, "full", [])
    assert caught.value.details["page_errors"] == [{"file": "base/16384/16385", "pages": [3, 4, 5, 9]}]
    assert caught.value.details["backup"]["error"] is True
    assert "expire" not in replay.commands


def test_the_page_error_says_what_is_still_safe() -> None:
    facts = {**recorded("info-page-error"), "window": None}
    damaged = {**facts["backups"][-1], **manifest_facts((DATA / "2.45" / "backup-page-error.manifest").read_text())}
    whole = [backup["label"] for backup in facts["backups"] if not backup["error"]]
    assert page_error("alpha", damaged, facts).details["whole_backups"] == whole
    facts["backups"] = [facts["backups"][-1]]
    assert "there is no backup without errors" in page_error("alpha", damaged, facts).msg


def test_a_segment_that_reached_the_repository_proves_archiving() -> None:
    replay = Replay(info=(DATA / "2.45" / "info.json").read_text())
    proof = prove_archiving(PgBackRest(replay, stanza="alpha"), {"segment": "000000010000000000000004"}, 5)
    assert proof["segment"] == proof["archive_max"] == "000000010000000000000004"
    assert replay.commands == ["check", "info"]


def test_a_repository_that_ends_before_the_servers_segment_proves_nothing() -> None:
    replay = Replay(info=(DATA / "2.45" / "info.json").read_text())
    archiver = {"segment": "000000010000000000000009", "archive_command": "cp %p /elsewhere"}
    with pytest.raises(RecoveryError, match="archives somewhere else.*cp %p /elsewhere"):
        prove_archiving(PgBackRest(replay, stanza="alpha"), archiver, None)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"archive_mode": "off"}, "postgresql_archiving_restart=true"),
        ({"archive_command": ""}, "archive_command is empty"),
        (
            {"last_failed_wal": "000000010000000000000007", "failed_count": 3},
            "failed to archive 000000010000000000000007",
        ),
        ({}, "no failed archiving"),
        ({"archive_command": "", "archive_library": "basic_archive"}, "its archive_library is 'basic_archive'"),
    ],
)
def test_a_failed_check_says_what_to_look_at(changes: dict[str, Any], says: str) -> None:
    # As the server answers ARCHIVER_QUERY.
    archiver: dict[str, Any] = {
        "archived_count": 10,
        "last_archived_wal": "000000010000000000000006",
        "failed_count": 0,
        "last_failed_wal": None,
        "last_failed_time": None,
        "archive_mode": "on",
        "archive_command": "pgbackrest --stanza=main archive-push %p",
        "log_file": None,
    }
    assert says in archiving_advice({**archiver, **changes})
