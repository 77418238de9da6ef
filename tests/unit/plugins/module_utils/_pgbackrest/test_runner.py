# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import (
    PgBackRest,
    parse_error,
    parse_version,
    parse_warnings,
    refuse_root,
)

DATA = Path(__file__).parent / "data"


class Recorded:
    """A runner that answers with recorded output and keeps what it was asked."""

    def __init__(self, rc: int, stdout: str, stderr: str = "") -> None:
        self.answer = (rc, stdout, stderr)
        self.asked: list[list[str]] = []

    def __call__(self, argv: list[str]) -> tuple[int, str, str]:
        self.asked.append(argv)
        return self.answer


@pytest.mark.parametrize(("text", "version"), [("pgBackRest 2.45", (2, 45)), ("pgBackRest 2.55.1\n", (2, 55))])
def test_the_version_is_read(text: str, version: tuple[int, int]) -> None:
    assert parse_version(text) == version


def test_another_program_is_refused() -> None:
    with pytest.raises(RecoveryError, match="Is it pgBackRest"):
        parse_version("bash: pgbackrest")


def test_an_error_keeps_its_code_and_hints() -> None:
    code, text = parse_error((DATA / "2.45" / "error-no-stanza.txt").read_text())
    assert code == 37
    assert text == "ERROR: [037]: backup command requires option: pg1-path\nHINT: does this stanza exist?"


def test_warnings_before_an_error_are_no_part_of_it() -> None:
    recorded = (DATA / "2.55" / "error-no-server.txt").read_text()
    code, text = parse_error(recorded)
    assert code == 27
    assert text.startswith("ERROR: [027]: no database found\nHINT:")
    assert "unable to check pg1" in parse_warnings(recorded)[0]


def test_what_is_no_error_of_pgbackrest_is_kept_whole() -> None:
    assert parse_error("Killed") == (None, "Killed")


def test_a_page_error_is_a_warning_of_a_backup_that_ends_well() -> None:
    run = Recorded(0, "", (DATA / "2.45" / "warning-page-error.txt").read_text())
    pgbackrest = PgBackRest(run, stanza="main")
    pgbackrest.run("backup")
    assert "pages 3-5, 9" in pgbackrest.warnings[0]


def test_a_failure_names_command_stanza_and_pgbackrests_own_text() -> None:
    run = Recorded(37, "", (DATA / "2.45" / "error-no-stanza.txt").read_text())
    with pytest.raises(RecoveryError) as caught:
        PgBackRest(run, stanza="nosuch").run("backup")
    assert "backup of stanza 'nosuch' failed" in caught.value.msg
    assert "requires option: pg1-path" in caught.value.msg
    assert caught.value.details["code"] == 37


def test_the_repository_is_named_only_to_commands_that_take_one() -> None:
    run = Recorded(0, "")
    pgbackrest = PgBackRest(run, stanza="main", config="/etc/x.conf", repo=2)
    pgbackrest.run("backup")
    pgbackrest.run("check")
    assert "--repo=2" in run.asked[0]
    assert not [option for option in run.asked[1] if option.startswith("--repo")]
    assert all("--config=/etc/x.conf" in argv and "--stanza=main" in argv for argv in run.asked)


def test_info_returns_the_stanzas_own_object() -> None:
    run = Recorded(0, (DATA / "2.45" / "info.json").read_text())
    assert PgBackRest(run, stanza="alpha").info()["name"] == "alpha"
    with pytest.raises(RecoveryError, match="says nothing of stanza 'beta'"):
        PgBackRest(run, stanza="beta").info()


def stanza_with(*codes: int) -> str:
    repositories = [{"key": key, "status": {"code": code, "message": "m"}} for key, code in enumerate(codes, 1)]
    return json.dumps([{"name": "main", "repo": repositories}])


def test_with_one_repository_lost_the_other_alone_is_used() -> None:
    run = Recorded(0, stanza_with(99, 0))
    pgbackrest = PgBackRest(run, stanza="main")
    _info, lost = pgbackrest.settle(15)
    assert [repo["key"] for repo in lost] == [1]
    assert "--io-timeout=15" in run.asked[0]
    pgbackrest.info()
    assert "--repo=2" in run.asked[1]


@pytest.mark.parametrize("codes", [(0, 2), (99, 99), (99,)])
def test_all_repositories_are_used_while_all_or_none_can_be_reached(codes: tuple[int, ...]) -> None:
    pgbackrest = PgBackRest(Recorded(0, stanza_with(*codes)), stanza="main")
    pgbackrest.settle(15)
    assert pgbackrest.repo is None


def test_output_that_is_no_json_is_an_error() -> None:
    with pytest.raises(RecoveryError, match="did not print JSON"):
        PgBackRest(Recorded(0, "stanza: main"), stanza="main").info()


def test_root_may_not_write() -> None:
    refuse_root("backup", euid=104)
    with pytest.raises(RecoveryError, match="must not run as root"):
        refuse_root("backup", euid=0)
