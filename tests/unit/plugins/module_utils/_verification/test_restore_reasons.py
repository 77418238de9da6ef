# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError, UnfitHost
from ansible_collections.dbre.recovery.plugins.module_utils._verification.findings import CODES
from ansible_collections.dbre.recovery.plugins.module_utils._verification.reasons import restore_findings

ROOM = 1 << 40


@pytest.mark.parametrize(
    ("error", "free", "code", "verdict"),
    [
        (UnfitHost("too few", disk={"free": 3}), ROOM, "NO_ROOM", "could_not_verify"),
        (RecoveryError("PANIC: could not write: No space left on device"), ROOM, "NO_ROOM", "could_not_verify"),
        (RecoveryError("PostgreSQL ended without saying why"), 4096, "NO_ROOM", "could_not_verify"),
        (UnfitHost("no PostgreSQL 17 there"), ROOM, "HOST_UNFIT", "could_not_verify"),
        (UnfitHost("user postgres may not write in /proc"), 0, "HOST_UNFIT", "could_not_verify"),
        (RecoveryError('FATAL: role "nobody" does not exist'), ROOM, "LOGIN_FAILED", "could_not_verify"),
        # pgBackRest has codes of its own.
        (RecoveryError("unable to open", command="info", code=55), ROOM, "REPOSITORY_UNREADABLE", "could_not_verify"),
        (RecoveryError("unable to restore", command="restore", code=55), ROOM, "RESTORE_FAILED", "failed"),
        (RecoveryError("resource manager with ID 128 not registered"), ROOM, "HOST_UNFIT", "could_not_verify"),
        (RecoveryError("after 60 s replay stands", replay_lsn="0/1"), ROOM, "TIMED_OUT", "could_not_verify"),
        (RecoveryError("no", repositories=[{"key": 1}]), ROOM, "REPOSITORY_UNREADABLE", "could_not_verify"),
        (RecoveryError("no set", sets=[{"label": "F"}]), ROOM, "PITR_TARGET_BEFORE_BACKUP", "failed"),
        (RecoveryError("ended", target_not_reached=True, redo_done="0/1"), ROOM, "PITR_TARGET_UNREACHED", "failed"),
        (RecoveryError("ended", target_not_reached=False, redo_done=None), ROOM, "RESTORE_FAILED", "failed"),
        (RecoveryError("FATAL: directory \"/fast\" does not exist"), ROOM, "TABLESPACE_UNMAPPED", "could_not_verify"),
        (RecoveryError("bad", damaged_files={"/side/data/base/1/2": "3-5, 9"}), ROOM, "PAGE_CHECKSUM", "failed"),
    ],
)  # fmt: skip
def test_only_what_says_something_of_the_backup_fails_it(
    error: RecoveryError, free: int, code: str, verdict: str
) -> None:
    (found,) = restore_findings(error, free)
    assert (found["code"], CODES[code].leads_to) == (code, verdict)


def test_the_blocks_for_which_pgbackrest_gives_a_restore_up_are_named() -> None:
    damaged = {"/side/data/base/1/2": "3-5, 9", "/side/data/base/1/3": ""}
    found = restore_findings(RecoveryError("bad", damaged_files=damaged), ROOM)
    assert [one["subject"] for one in found] == ["/side/data/base/1/2:3-5, 9", "/side/data/base/1/3"]
