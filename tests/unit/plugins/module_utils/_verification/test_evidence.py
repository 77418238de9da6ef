# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports as an auditor takes them: chained, signed with the real ssh-keygen, and verified by its own command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._verification import evidence, record
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import conclude

NOW = "2026-11-29T10:10:00+00:00"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def report_of(place: Path, attempt: str, key: Path | None = None) -> Path:
    """One test that found nothing; its report."""
    history = record.history_path(str(place), "main")
    earlier = record.read_history(history)["attempts"]
    found = record.report(
        [conclude("integrity", [], {})],
        attempt=record.begin(history, "main", attempt, NOW),
        now=NOW,
        moments={},
        policy=None,
        facts={"stanza": "main", "previous": evidence.link(earlier)},
        ignore={},
    )
    record.write(str(place), history, found, str(key) if key else None)
    return Path(evidence.report_path(str(place), attempt))


def verified(report: Path, key: Path) -> bool:
    allowed = key.with_name("allowed")
    allowed.write_text(f'auditor namespaces="{evidence.NAMESPACE}" {key.with_suffix(".pub").read_text()}')
    argv = ["ssh-keygen", "-Y", "verify", "-f", allowed, "-I", "auditor", "-n", evidence.NAMESPACE]
    with report.open("rb") as file:
        done = subprocess.run([*argv, "-s", f"{report}.sig"], stdin=file, capture_output=True, check=False)
    return done.returncode == 0


def attempts(place: Path) -> list[dict[str, Any]]:
    return list(record.read_history(record.history_path(str(place), "main"))["attempts"])


def test_each_report_names_the_one_before_by_its_hash(tmp_path: Path) -> None:
    first, second = report_of(tmp_path, "one"), report_of(tmp_path, "two")
    assert json.loads(first.read_text())["previous"] is None
    sha = subprocess.run(["sha256sum", first], capture_output=True, text=True, check=True).stdout.split()[0]
    assert json.loads(second.read_text())["previous"] == {"id": "one", "sha256": f"sha256:{sha}"}
    assert evidence.check_chain(str(tmp_path), attempts(tmp_path)) == []
    first.write_text(first.read_text().replace("verified", "Verified"))
    (found,) = evidence.check_chain(str(tmp_path), attempts(tmp_path))
    assert (found["code"], found["subject"]) == ("EVIDENCE_CHANGED", "one")
    first.unlink()  # old ones may go
    assert evidence.check_chain(str(tmp_path), attempts(tmp_path)) == []


def test_a_report_is_signed_so_that_ssh_keygen_verifies_it_and_a_changed_one_not(tmp_path: Path, key: Path) -> None:
    report = report_of(tmp_path, "one", key)
    assert verified(report, key)
    report.write_text(report.read_text().replace("verified", "failed"))
    assert not verified(report, key)


def test_a_key_that_cannot_sign_is_found_before_anything_is_tested(tmp_path: Path, key: Path) -> None:
    assert evidence.check_key(str(key)) == evidence.check_key(None) == []
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", locked], check=True)
    for path in (locked, tmp_path / "none"):
        (found,) = evidence.check_key(str(path))
        assert found["code"] == "SIGNATURE_FAILED"
        assert "backup_verification_signing_key" in found["message"]
    with pytest.raises(RecoveryError, match="could not be signed"):
        report_of(tmp_path, "two", tmp_path / "none")
