# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.ages import parse_age
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.info import (
    archived_at,
    current_databases,
    effective_type,
    iso_time,
    last_archive,
    manifest_facts,
    recent_backup,
    recovery_window,
    repository_message,
    segment_directory,
    stanza_facts,
)

DATA = Path(__file__).parent / "data"
VERSIONS = ["2.45", "2.55"]


def recorded(version: str, name: str) -> dict[str, Any]:
    return stanza_facts(json.loads((DATA / version / f"{name}.json").read_text())[0])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_backup_carries_times_with_offset_sizes_and_lsns(version: str) -> None:
    full, diff = recorded(version, "info")["backups"]
    assert full["type"] == "full"
    assert full["start_time"].endswith("+00:00")
    assert full["size"] == full["delta"] > full["repo_size"] == full["repo_delta"] > 0
    assert full["start_lsn"] == "0/2000028"
    assert full["archive_start"] == full["archive_stop"] == "000000010000000000000002"
    assert full["error"] is False
    assert diff["prior"] == full["label"]
    assert diff["references"] == [full["label"]]
    assert diff["annotations"] == {"why": "before release"}
    assert diff["delta"] < diff["size"]


def test_a_duration_is_in_seconds() -> None:
    full = recorded("2.45", "info")["backups"][0]
    assert (full["start_time"], full["stop_time"]) == ("2026-11-23T21:48:25+00:00", "2026-11-23T21:48:28+00:00")
    assert full["duration"] == 3


@pytest.mark.parametrize("version", VERSIONS)
def test_a_stanza_that_was_never_made_is_described_not_refused(version: str) -> None:
    facts = recorded(version, "info-missing")
    assert facts["status"] == {"code": 1, "message": "missing stanza path"}
    assert facts["backups"] == facts["databases"] == facts["archives"] == []
    assert recovery_window(facts, None) is None


def test_fields_an_old_version_does_not_write_are_none() -> None:
    # What 2.33 leaves out of the JSON: error, LSNs, annotations and the lock.
    raw = json.loads((DATA / "2.45" / "info.json").read_text())[0]
    for backup in raw["backup"]:
        for field in ("error", "lsn", "annotation"):
            backup.pop(field, None)
    del raw["status"]["lock"]
    facts = stanza_facts(raw)
    assert facts["backups"][0]["error"] is None
    assert facts["backups"][0]["start_lsn"] is None
    assert facts["backups"][1]["annotations"] == {}
    assert facts["lock"]["backup"] is None
    window = recovery_window(facts, None)
    assert window is not None
    assert window["oldest_backup"] == facts["backups"][0]["label"]


def test_a_backup_of_a_stopped_server_opens_no_window() -> None:
    facts = recorded("2.45", "info")
    facts["backups"][0].update(archive_start=None, archive_stop=None)
    window = recovery_window(facts, None)
    assert window is not None
    assert window["oldest_backup"] == facts["backups"][1]["label"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_window_goes_from_the_oldest_whole_backup_to_the_last_archived_segment(version: str) -> None:
    facts = recorded(version, "info")
    window = recovery_window(facts, 1795470600)
    assert window == {
        "oldest_time": facts["backups"][0]["stop_time"],
        "oldest_lsn": facts["backups"][0]["stop_lsn"],
        "oldest_backup": facts["backups"][0]["label"],
        "newest_time": "2026-11-23T21:50:00+00:00",
        "newest_segment": "000000010000000000000004",
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_a_damaged_backup_opens_no_window_and_is_not_recent(version: str) -> None:
    facts = recorded(version, "info-page-error")
    facts["backups"] = [backup for backup in facts["backups"] if backup["error"]]
    assert len(facts["backups"]) == 1
    assert recovery_window(facts, None) is None
    assert recent_backup(facts, "incr", 10**9, 1795470600) is None


def test_backups_of_the_cluster_before_an_upgrade_do_not_count() -> None:
    facts = recorded("2.45", "info")
    facts["databases"].append({"id": 2, "repo": 1, "system_identifier": 1, "version": "17"})
    assert current_databases(facts) == [facts["databases"][1]]
    assert recent_backup(facts, "incr", 10**9, 1795470600) is None
    assert recovery_window(facts, None) is None
    assert last_archive(facts) is None
    assert effective_type(facts, "incr") == "full"


@pytest.mark.parametrize(
    ("wanted", "age", "found"),
    [
        ("full", 3600, "20261123-214825F"),
        ("diff", 3600, "20261123-214825F_20261123-214829D"),
        ("incr", 3600, "20261123-214825F_20261123-214829D"),
        ("full", 1, None),
    ],
)
def test_a_backup_of_at_least_the_type_within_the_age_is_recent(wanted: str, age: int, found: str | None) -> None:
    recent = recent_backup(recorded("2.45", "info"), wanted, age, 1795470511)
    assert (recent["label"] if recent else None) == found


def test_a_backup_on_another_repository_is_not_recent() -> None:
    assert recent_backup(recorded("2.45", "info"), "incr", 3600, 1795470511, repo=2) is None


def test_without_a_full_backup_the_first_is_full() -> None:
    assert effective_type(recorded("2.45", "info-missing"), "diff") == "full"
    assert effective_type(recorded("2.45", "info"), "diff") == "diff"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifest_names_every_damaged_page(version: str) -> None:
    facts = manifest_facts((DATA / version / "backup-page-error.manifest").read_text())
    assert facts["page_errors"] == [{"file": "base/16384/16385", "pages": [3, 4, 5, 9]}]
    assert {"name": "shop", "oid": 16384} in facts["databases"]
    assert facts["tablespaces"] == []


def test_the_manifest_names_tablespaces() -> None:
    facts = manifest_facts((DATA / "2.45" / "backup-tablespace.manifest").read_text())
    assert facts["tablespaces"] == [{"oid": 16395, "name": "Fast Disk", "location": "/srv/fast"}]


def test_the_time_of_a_segment_comes_from_its_file_not_from_the_backup_history_file() -> None:
    listing = json.loads((DATA / "2.45" / "repo-ls.json").read_text())
    assert archived_at(listing, "000000010000000000000008") == 1795471250
    assert archived_at(listing, "0000000100000000000000FF") is None


def test_the_directory_of_a_segment_is_its_timeline_and_log() -> None:
    archive = {"id": "15-1", "max": "0000000200000003000000A1"}
    assert segment_directory("main", archive) == "archive/main/15-1/0000000200000003"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), (90, 90), ("15m", 900), ("24h", 86400), ("7d", 604800), ("2W", 1209600)]
)
def test_ages_are_read_with_their_unit(text: str | int, seconds: int) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-3h", "1.5d", "24 hours"])
def test_other_ages_are_refused(text: str) -> None:
    with pytest.raises(RecoveryError, match="is not an age"):
        parse_age(text)


def test_times_are_utc_with_offset() -> None:
    assert iso_time(0) == "1970-01-01T00:00:00+00:00"
    assert iso_time(None) is None


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (None, None),
        ("ok", "ok"),
        (
            "[FormatError] no load:\nFormatError: key/value found outside of section at line 1: \x0b\x14",
            "[FormatError] no load: it cannot be decrypted; is its passphrase (repoN-cipher-pass) right?",
        ),
        ("[HostConnectError] no\nroute \x07", "[HostConnectError] no route"),
    ],
)
def test_what_pgbackrest_says_of_a_repository_is_readable(message: str | None, shown: str | None) -> None:
    assert repository_message(message) == shown
