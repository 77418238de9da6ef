# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes reports evidence: each names the one before by its hash, and is signed with a key of the user's."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import Finding, finding

NAMESPACE = "dbre-restore-test"  # of ssh-keygen -Y, so that a signature of ours is none of anything else


def digest(data: bytes) -> str:
    """``sha256:`` and the hash in hexadecimal digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def report_path(directory: str, attempt: str) -> str:
    return os.path.join(directory, "verifications", attempt, "report.json")


def newest(attempts: Sequence[Mapping[str, Any]]) -> Optional[Mapping[str, Any]]:
    """The newest attempt that left a report."""
    return next((one for one in reversed(attempts) if one.get("sha256")), None)


def link(attempts: Sequence[Mapping[str, Any]]) -> Optional[dict[str, str]]:
    """What a report says of the one before: its id and its hash; None for the first."""
    before = newest(attempts)
    return {"id": str(before["id"]), "sha256": str(before["sha256"])} if before else None


def check_chain(directory: str, attempts: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Whether the reports that are still there are those that were written."""
    found = []
    for one in attempts:
        if not one.get("sha256"):
            continue
        path = report_path(directory, str(one["id"]))
        # Somebody may well remove old ones; what is there must be what was written.
        with suppress(FileNotFoundError), open(path, "rb") as file:
            if digest(file.read()) != one["sha256"]:
                text = f"{path} is not what was written when the test ended"
                found.append(finding("EVIDENCE_CHANGED", 0, str(one["id"]), text))
    return found


def sign(path: str, key: str) -> str:
    """Sign a file with an SSH key; the signature's path. Raises RecoveryError with ssh-keygen's own word.

    It is verified by ``ssh-keygen -Y verify -f ALLOWED_SIGNERS -I NAME -n dbre-restore-test -s FILE.sig < FILE``.
    """
    with suppress(FileNotFoundError):
        os.unlink(f"{path}.sig")
    try:
        # A module's run_command would ask for a passphrase where there is a terminal.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            ["ssh-keygen", "-Y", "sign", "-q", "-n", NAMESPACE, "-f", key, path],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "SSH_ASKPASS_REQUIRE": "never"},
            check=False,
            timeout=60,
        )
        said = done.stderr.strip() or f"exit code {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        said, done = str(error), None
    if done is None or done.returncode != 0 or not os.path.exists(f"{path}.sig"):
        raise RecoveryError(
            f"{path} could not be signed with {key}: {said}. The key must be readable by this user and have no "
            "passphrase, or be in an agent. Correct signing_key (backup_verification_signing_key)."
        )
    return f"{path}.sig"


def check_key(key: Optional[str]) -> list[Finding]:
    """Whether a key can sign, before anything is tested: evidence that nobody signed is none."""
    if not key:
        return []
    with tempfile.TemporaryDirectory(prefix="dbre-sign-") as place:
        path = os.path.join(place, "probe")
        with open(path, "w", encoding="utf-8") as file:
            file.write("probe")
        try:
            sign(path, key)
        except RecoveryError as error:
            return [finding("SIGNATURE_FAILED", 0, key, error.msg.replace(path, "a file"))]
    return []
