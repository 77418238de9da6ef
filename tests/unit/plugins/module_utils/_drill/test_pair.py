# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy and its standby lead nowhere but to each other, and their units are nobody else's."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._drill import service
from ansible_collections.dbre.recovery.plugins.module_utils._drill.pair import (
    Pair,
    conninfo_to,
    serve_text,
    unit_name,
)
from ansible_collections.dbre.recovery.plugins.module_utils._drill.service import Services, unit_text

MARKER: dict[str, Any] = {
    "port": 40123,
    "superuser": "postgres",
    "executable": "pgbackrest",
    "bin_dir": "/usr/lib/postgresql/17/bin",
    "major_version": 17,
}


def settings_of(text: str) -> dict[str, str]:
    """What a server that is started by this script has on its command line."""
    words = shlex.split(text)
    return dict(words[number + 1].split("=", 1) for number, word in enumerate(words) if word == "-c")


def test_both_archive_into_the_copys_own_repository_by_their_command_line(tmp_path: Path) -> None:
    pair = Pair(str(tmp_path / "drill-main"))
    for instance in (pair.first, pair.second):
        settings = settings_of(serve_text(instance, MARKER))
        assert f"--config={pair.first.own_config} " in settings["archive_command"]
        assert settings["listen_addresses"] == ""
        assert settings["config_file"] == f"{instance.path}/postgresql.conf"
    assert f"--pg1-path={pair.second.data}" in settings["archive_command"]
    assert f"--config={pair.first.own_config} " in settings["restore_command"]


def test_no_variable_of_the_caller_leads_pgbackrest_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGBACKREST_REPO1_PATH", "/production")
    text = serve_text(Pair(str(tmp_path / "drill-main")).second, MARKER)
    assert "exec env -i " in text
    assert "/production" not in text


def test_a_failover_can_cut_the_standby_off_and_it_streams_from_the_copy_alone(tmp_path: Path) -> None:
    pair = Pair(str(tmp_path / "drill-main"))
    assert "primary_conninfo" not in settings_of(serve_text(pair.second, MARKER))
    assert settings_of(serve_text(pair.first, MARKER))["primary_conninfo"] == ""
    conninfo = conninfo_to(pair.first, {**MARKER, "superuser": "it's me"})
    assert conninfo.startswith(f"host={pair.first.run_dir} port=40123 user='it\\'s me' ")


def test_a_unit_is_named_for_the_stanza_and_runs_what_lies_at_the_path() -> None:
    assert unit_name("main", "primary") == "dbre-drill-main-primary.service"
    text = unit_text("/side/drill-main", "/side/drill-main/standby", "postgres")
    assert "\nExecStart=/bin/sh /side/drill-main/standby/serve\n" in text
    assert "\nUser=postgres\n" in text


@pytest.mark.parametrize("stanza", ["", "a b", "a/b", "main\nExecStart=+/bin/true", "%n"])
def test_a_stanza_that_says_something_to_systemd_is_refused(stanza: str) -> None:
    with pytest.raises(RecoveryError, match="Nothing was touched"):
        unit_name(stanza, "primary")


@pytest.mark.parametrize("path", ["side", "/side\nUser=root", "/side dir", "/%h"])
def test_so_is_such_a_path(path: str) -> None:
    with pytest.raises(RecoveryError, match="Nothing was touched"):
        Services(path, "main", "drill-1")


def test_units_of_another_drill_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "UNITS", str(tmp_path))
    unit = tmp_path / "dbre-drill-main-primary.service"
    unit.write_text(unit_text("/elsewhere/drill-main", "/elsewhere/drill-main", "postgres"))
    with pytest.raises(RecoveryError, match="of another drill"):
        Services(str(tmp_path / "drill-main"), "main", "drill-1").remove(check_mode=False)
    assert unit.exists()


def test_so_are_those_whose_copy_another_drill_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "UNITS", str(tmp_path))
    copy = tmp_path / "drill-main"
    copy.mkdir()
    (copy / "marker.json").write_text(json.dumps({"incident": "drill-2"}))
    unit = tmp_path / "dbre-drill-main-primary.service"
    unit.write_text(unit_text(str(copy), str(copy), "postgres"))
    with pytest.raises(RecoveryError, match="dr-abandon with -e dr_incident_id=drill-2"):
        Services(str(copy), "main", "drill-1").remove(check_mode=False)
    assert unit.exists()
