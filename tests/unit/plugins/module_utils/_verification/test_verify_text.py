# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What three versions of pgBackRest printed of a repository, harmed in ten ways; each exited 0 every time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import conclude
from ansible_collections.dbre.recovery.plugins.module_utils._verification.repository import judged
from ansible_collections.dbre.recovery.plugins.module_utils._verification.verify_text import parse_verify

DATA = Path(__file__).resolve().parent / "data"
VERSIONS = ("2.45", "2.55", "2.60")
RECORDED = {version: json.loads((DATA / f"verify-{version}.json").read_text()) for version in VERSIONS}


def facts(stdout: str, without: str = "") -> dict[str, Any]:
    """What info said of the backups that verify found: an incremental one builds on the full one."""
    labels = [label for label in re.findall(r"backup: (\S+), status", stdout) if label != without]
    backups = [
        {
            "label": label,
            "repo": 1,
            "database_id": 1,
            "stop_time": str(number),
            "references": [label.split("_")[0]] if "_" in label else [],
            "archive_start": "000000010000000000000007",
        }
        for number, label in enumerate(labels)
    ]
    ids = re.findall(r"archiveId: (\d\S+),", stdout)
    archives = [{"repo": 1, "id": name, "min": "000000010000000000000006"} for name in ids]
    return {"name": "main", "databases": [{"repo": 1, "id": 1}], "backups": backups, "archives": archives}


def verdict(version: str, state: str, **changed: Any) -> tuple[str, list[str]]:
    record = {**RECORDED[version][state], **changed}
    said = facts(record["stdout"])
    found, _omitted = judged(parse_verify(record["stdout"], "main", record["log"]), said, said, 1)
    return conclude("repository", found, {})["verdict"], [item["code"] for item in found]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("ok", ("verified", [])),
        ("nothing", ("failed", ["BACKUP_MISSING"])),
        ("flipped_file", ("failed", ["FILE_CORRUPT"])),
        ("bundle", ("failed", ["FILE_CORRUPT"])),
        ("missing_file", ("failed", ["FILE_MISSING"])),
        ("flipped_wal", ("failed", ["WAL_CORRUPT"])),
        ("missing_wal", ("verified", [])),  # that is for the continuity to find
        ("missing_manifest", ("failed", ["MANIFEST_MISSING"])),
        ("missing_info", ("failed", ["REPOSITORY_INFO_UNUSABLE"])),
        ("no_archive", ("failed", ["WAL_LOST"])),
        ("unreadable", ("could_not_verify", ["REPOSITORY_UNREADABLE"])),
    ],
)
def test_what_was_recorded_is_understood(version: str, state: str, expected: tuple[str, list[str]]) -> None:
    assert RECORDED[version][state]["exit_code"] == 0
    assert verdict(version, state) == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_without_the_log_the_numbers_still_tell(version: str) -> None:
    assert verdict(version, "flipped_file", log="") == ("failed", ["FILE_CORRUPT", "FILE_CORRUPT"])
    assert verdict(version, "missing_file", log="") == ("failed", ["FILE_MISSING", "FILE_MISSING"])
    assert verdict(version, "flipped_wal", log="") == ("failed", ["WAL_CORRUPT"])


def test_a_bad_file_names_the_backups_that_need_it() -> None:
    record = RECORDED["2.60"]["flipped_file"]
    said = facts(record["stdout"])
    ((found,), _omitted) = judged(parse_verify(record["stdout"], "main", record["log"]), said, said, 1)
    assert found["message"].endswith(", ".join(one["label"] for one in said["backups"]))


OK = RECORDED["2.60"]["ok"]["stdout"]


@pytest.mark.parametrize(
    "stdout",
    [
        "",
        "status: ok\n",
        OK.replace("stanza: main", "stanza: other"),
        OK.replace("status: ok", "status: fine", 1),
        OK.replace("total valid WAL: 11", "total valid WAL: 10"),
        OK.replace("checksum invalid: 0", "checksum invalid: 0, repaired: 0", 1),
        OK.replace("status: valid", "status: partly valid", 1),
        OK + "  tablespace: none found\n",
        "stanza: main\nstatus: ok\n",
        OK.replace("status: ok", "status: error", 1),
        json.dumps([{"stanza": "main", "status": "ok"}]),
    ],
)
def test_what_is_not_understood_is_never_green(stdout: str) -> None:
    assert verdict("2.60", "ok", stdout=stdout) == ("could_not_verify", ["VERIFY_NOT_UNDERSTOOD"])


def test_a_listed_backup_of_which_verify_says_nothing_is_no_green() -> None:
    said = facts(OK)
    less = re.sub(r"  backup: \S+_\S+, .*\n.*\n", "", OK)
    found, _omitted = judged(parse_verify(less, "main"), said, said, 1)
    assert [item["code"] for item in found] == ["BACKUP_NOT_VERIFIED"]


@pytest.mark.parametrize("state", ["flipped_file", "missing_file", "flipped_wal"])
def test_what_expired_meanwhile_is_no_finding(state: str) -> None:
    record = RECORDED["2.45"][state]
    before, after = facts(record["stdout"]), facts(record["stdout"])
    after["backups"] = []
    after["archives"][0]["min"] = "0000000100000000000000FF"
    found, _omitted = judged(parse_verify(record["stdout"], "main", record["log"]), before, after, 1)
    assert found == []


def test_a_segment_that_went_while_verify_ran_is_for_the_continuity_to_judge() -> None:
    """verify warns of it, and does not call it an error (verifyLogInvalidResult)."""
    stdout = OK.replace("total valid WAL: 11\n    missing: 0", "total valid WAL: 10\n    missing: 1")
    assert stdout != OK
    assert verdict("2.60", "ok", stdout=stdout) == ("verified", [])
    name = f"18-1/0000000100000000/000000010000000000000005-{'a' * 40}.gz"
    log = f"P01   WARN: file missing '{name}'\n"
    assert verdict("2.60", "ok", stdout=stdout, log=log) == ("verified", [])
