# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.config import (
    Judge,
    Sections,
    is_secret,
    keep_other_stanzas,
    merge,
    misplaced_options,
    misplaced_secrets,
    newly_broken,
    parse,
    refuse,
    render,
    without_old_secrets,
)

DATA = Path(__file__).parent / "data"

SECTIONS: Sections = {
    "main": {"pg1-path": "/var/lib/postgresql/15/main", "pg1-port": 5432},
    "global": {"repo1-path": "/var/lib/pgbackrest", "start-fast": True, "repo1-cipher-pass": "open sesame"},
    "global:archive-push": {"compress-level": 3},
}


class Installed:
    """Answers as pgBackRest does: the recorded list of commands, exit code 31 for an option a command does not have."""

    def __init__(self, version: str, options: dict[str, list[str]]) -> None:
        self.help = (DATA / version / "help.txt").read_text()
        self.options = options

    def __call__(self, argv: list[str]) -> tuple[int, str, str]:
        if argv[1:] == ["help"]:
            return 0, self.help, ""
        command, option = argv[2:4]
        if option in self.options.get(command, []):
            return 0, "FOR BETA TESTING ONLY. DO NOT USE IN PRODUCTION." if option == "repo-block" else "help", ""
        return 31, "", f"ERROR: [031]: option '{option}' is not valid for command '{command}'\n"


def judge() -> Judge:
    return Judge(
        Installed("2.45", {"backup": ["start-fast", "compress-type"], "server": ["tls-server-port"]}), "pgbackrest"
    )


def test_global_comes_first_and_options_are_sorted() -> None:
    text = render(SECTIONS)
    assert text.index("[global]") < text.index("[global:archive-push]") < text.index("[main]")
    assert "start-fast=y\n" in text
    assert text.index("repo1-cipher-pass=open sesame") < text.index("repo1-path=")


def test_what_is_written_is_read_back() -> None:
    sections: Sections = {"global": {"repo1-path": "/r", "exclude": ["a", "b"]}, "main": {"pg1-path": "/p"}}
    assert parse(render(sections)) == sections


def test_secrets_are_hidden_in_what_is_shown() -> None:
    assert "open sesame" not in render(SECTIONS, hide_secrets=True)
    assert "repo1-path=/var/lib/pgbackrest" in render(SECTIONS, hide_secrets=True)


@pytest.mark.parametrize("option", ["repo1-cipher-pass", "repo2-s3-key-secret", "repo-azure-key", "repo3-s3-token"])
def test_secret_options_are_known(option: str) -> None:
    assert is_secret(option)


@pytest.mark.parametrize("option", ["repo1-cipher-type", "repo1-s3-key-type", "repo1-path"])
def test_other_options_are_no_secrets(option: str) -> None:
    assert not is_secret(option)


def test_secrets_among_plain_options_are_named() -> None:
    assert list(misplaced_secrets(SECTIONS)) == ["[global] repo1-cipher-pass"]


def test_later_layers_win_and_null_leaves_an_option_out() -> None:
    merged = merge({"global": {"a": 1, "b": 1, "c": 1}}, {"global": {"b": 2, "c": None}}, {"main": None})
    assert merged == {"global": {"a": 1, "b": 2}, "main": {}}


def test_sections_of_other_stanzas_are_kept_and_own_ones_replaced() -> None:
    present = {
        "global": {"old": "1"},
        "main": {"old": "1"},
        "other": {"pg1-path": "/o"},
        "other:backup": {"delta": "y"},
    }
    kept = keep_other_stanzas({"global": {}, "main": {"pg1-path": "/m"}}, present)
    assert kept == {"global": {}, "main": {"pg1-path": "/m"}, "other": present["other"], "other:backup": {"delta": "y"}}


def test_hosts_that_were_let_in_for_other_stanzas_still_are() -> None:
    present = parse(
        "[global]\ntls-server-address=*\ntls-server-auth=db1=main\ntls-server-auth=db2=other,main\n[other]\npg1-host=db2\n"
    )
    wanted = {"global": {"tls-server-auth": ["db9=main"]}, "main": {"pg1-host": "db9"}}
    assert keep_other_stanzas(wanted, present)["global"] == {
        "tls-server-address": "*",
        "tls-server-auth": ["db9=main", "db2=other"],
    }
    alone: Sections = {"global": {"repo1-path": "/backups"}, "main": {"pg1-path": "/data"}}
    assert keep_other_stanzas(alone, present)["global"] == {
        "repo1-path": "/backups",
        "tls-server-address": "*",
        "tls-server-auth": ["db2=other"],
    }
    assert keep_other_stanzas(alone, parse("[global]\ntls-server-auth=db1=main\n"))["global"] == alone["global"]


def test_options_where_pgbackrest_would_ignore_them_are_named() -> None:
    wrong = misplaced_options({"global": {"pg1-path": "/p"}, "main": {"tls-server-port": 1, "pg1-path": "/p"}})
    assert len(wrong) == 2
    assert "'pg1-path' counts in a stanza's section only" in wrong[0]
    assert "'tls-server-port' counts in [global] only" in wrong[1]


@pytest.mark.parametrize("version", ["2.45", "2.55"])
def test_the_commands_are_read_from_help(version: str) -> None:
    commands = Judge(Installed(version, {}), "pgbackrest").commands
    assert {"backup", "archive-push", "restore", "server", "stanza-create"} <= set(commands)
    assert "help" not in commands


def test_an_option_no_command_has_is_refused_by_name() -> None:
    _kept, left_out, reasons = judge().sift(
        {"global": {"start-fast": True, "strat-fast": True}}, {"global": {"strat-fast": 1}}
    )
    assert reasons == ["this pgBackRest has no option 'strat-fast' for section [global]"]
    assert left_out == []


def test_an_option_of_a_rare_command_is_known() -> None:
    assert judge().unknown_options({"global": {"tls-server-port": 8432}}) == []


def test_an_option_must_fit_the_command_of_its_section() -> None:
    assert judge().unknown_options({"global:server": {"start-fast": True}}) == [("global:server", "start-fast")]


def test_a_default_this_version_does_not_have_is_left_out() -> None:
    sifted, left_out, reasons = judge().sift({"global": {"start-fast": True, "repo1-bundle": True}}, {"global": {}})
    assert sifted == {"global": {"start-fast": True}}
    assert left_out == ["[global] repo1-bundle"]
    assert reasons == []


def test_a_default_that_this_version_has_for_tests_only_is_left_out() -> None:
    installed = Judge(Installed("2.45", {"backup": ["start-fast", "repo-block"]}), "pgbackrest")
    wanted: Sections = {"global": {"start-fast": True, "repo-block": True}}
    assert installed.sift(wanted, {}) == ({"global": {"start-fast": True}}, ["[global] repo-block"], [])
    assert installed.sift(wanted, wanted) == (wanted, [], [])


def test_a_section_for_a_command_that_does_not_exist_is_named() -> None:
    assert judge().unknown_commands({"global:bakcup": {}, "main:backup": {}, "main": {}}) == ["global:bakcup"]


def test_the_refusal_says_that_the_old_file_stays() -> None:
    message = refuse("/etc/pgbackrest.conf", ["a\nb.", "c"]).msg
    assert "was not changed, the file there stays in force: a b; c." in message


def test_a_configuration_that_breaks_what_worked_is_named_and_one_that_never_worked_is_not() -> None:
    def facts(*codes: int) -> dict[str, Any]:
        repositories = [{"repo": n, "status": {"code": code, "message": f"m{n}"}} for n, code in enumerate(codes, 1)]
        return {"name": "main", "repositories": repositories}

    (reason,) = newly_broken(facts(0, 99, 2), facts(99, 99, 0))
    assert "repository 1 of stanza 'main' could be read before and could not with it: m1" in reason
    assert newly_broken(facts(), facts(99)) == []


def test_secrets_that_are_no_longer_in_force_are_hidden_in_older_copies() -> None:
    now = "[global]\nrepo1-cipher-pass=new\nrepo1-s3-key=kept\nrepo1-path=/b\n"
    old = "# hand-made\n[global]\nrepo1-cipher-pass = old\nrepo1-s3-key=kept\nrepo1-path=/a\nrepo1-s3-key-secret=x=y\n"
    hidden = without_old_secrets(old, now)
    assert hidden == (
        "# hand-made\n[global]\nrepo1-cipher-pass =(secret)\nrepo1-s3-key=kept\nrepo1-path=/a\n"
        "repo1-s3-key-secret=(secret)\n"
    )
    assert without_old_secrets(hidden, now) == hidden
