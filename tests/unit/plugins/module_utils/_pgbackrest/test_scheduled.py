# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.timers import program_files
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.scheduled import (
    Scheduled,
    main,
    render_metrics,
)

ROOT = Path(__file__).resolve().parents[5]
FAILED = {"failed": 1, "message": "no", "ended": 2000.5, "seconds": 3.25, "last_success": None}
WHOLE = {"failed": 0, "message": None, "ended": 1000.0, "seconds": 60.0, "last_success": 1000.0}


def test_metrics_are_by_stanza_type_and_repository() -> None:
    text = render_metrics("main", {"incr": {"2": FAILED, "1": WHOLE}})
    assert 'pgbackrest_backup_error{stanza="main",type="incr",repo="1"} 0\n' in text
    assert 'pgbackrest_backup_error{stanza="main",type="incr",repo="2"} 1\n' in text
    assert 'pgbackrest_backup_last_run_duration_seconds{stanza="main",type="incr",repo="2"} 3.250\n' in text
    assert text.count("pgbackrest_backup_timestamp_last_success{") == 1
    assert text.count("# TYPE pgbackrest_backup_error gauge") == 1


def test_label_values_are_escaped() -> None:
    assert 'stanza="a\\"b"' in render_metrics('a"b', {"full": {"1": WHOLE}})


def options(tmp_path: Path, *more: str) -> list[str]:
    program = tmp_path / "pgbackrest"
    program.write_text("#!/bin/sh\necho 'ERROR: [055]: unable to open missing file' >&2\nexit 55\n")
    program.chmod(0o755)
    given = ["--stanza=main", "--config=/nowhere", f"--executable={program}", "--type=full", "--repo=1"]
    return [*given, f"--state={tmp_path}", *more]


def test_a_backup_that_fails_is_seen_in_exit_status_and_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options(tmp_path)) == 1
    assert "unable to open missing file" in capsys.readouterr().err
    assert json.loads((tmp_path / "backup-main.json").read_text())["full"]["1"]["failed"] == 1
    assert (
        'pgbackrest_backup_error{stanza="main",type="full",repo="1"} 1'
        in (tmp_path / "metrics" / "pgbackrest_main.prom").read_text()
    )


@pytest.mark.parametrize("found", ["page_errors", "missing_wal"])
def test_a_backup_that_is_made_and_is_not_whole_is_no_failed_run_and_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found: str
) -> None:
    def blemished(_self: Scheduled, repo: int) -> None:
        raise RecoveryError(f"repository {repo} is not whole", **{found: ["something"]})

    monkeypatch.setattr(Scheduled, "backup", blemished)
    assert main(options(tmp_path)) == 3
    assert "repository 1 is not whole" in capsys.readouterr().err
    said = (tmp_path / "metrics" / "pgbackrest_main.prom").read_text()
    assert 'pgbackrest_backup_error{stanza="main",type="full",repo="1"} 0' in said
    assert "pgbackrest_backup_timestamp_last_success{" not in said
    monkeypatch.undo()
    # Of two repositories, one of which got no backup, the run failed.
    assert main(options(tmp_path, "--repo=2")) == 1


def test_two_backups_of_a_stanza_never_run_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "backup-main.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert main(options(tmp_path, "--wait=0")) == 1
    assert "another backup of stanza 'main' still runs" in capsys.readouterr().err
    assert not (tmp_path / "backup-main.json").exists()


def test_what_the_role_installs_on_a_host_is_all_that_the_program_needs(tmp_path: Path) -> None:
    package = Path("ansible_collections/dbre/recovery/plugins/module_utils")
    for name, text in program_files(
        "_pgbackrest/scheduled.py", lambda path: (ROOT / "plugins" / "module_utils" / path).read_text()
    ).items():
        (tmp_path / package / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / package / name).write_text(text)
    name = f"{str(package).replace('/', '.')}._pgbackrest.scheduled"
    begin = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from {name} import main; main(['--help'])"
    # Neither this environment's packages nor the collection it runs from: only Python and the copies.
    done = subprocess.run([sys.executable, "-I", "-S", "-c", begin], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--stanza" in done.stdout
