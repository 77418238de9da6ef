# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._exchange.recovery import (
    recovery_settings,
    require_before,
    require_fork,
    restore_command,
    with_recovery,
    without_recovery,
)

AUTO = "# ALTER SYSTEM\nwork_mem = '5MB'\nrecovery_target_time = '2026-01-01 00:00:00+00'\nrestore_command = 'old'\n"
SETTINGS = recovery_settings(restore_command(["pgbackrest", "--stanza=a%b"]), 3, "0/1710030")


def test_what_an_earlier_restore_left_does_not_meet_the_target_and_what_was_set_stays() -> None:
    text = with_recovery(AUTO, SETTINGS)
    assert "old" not in text
    assert "2026-01-01" not in text
    # PostgreSQL refuses a second target, even an empty one, behind the first.
    targets = [line for line in text.splitlines() if line.startswith("recovery_target") and "_lsn" in line]
    assert targets == ["recovery_target_lsn = '0/1710030'"]
    assert text.index("recovery_target_xid") < text.index("recovery_target_lsn")
    assert "--stanza=a%%b" in text
    assert without_recovery(text + "jit = 'off'\n", SETTINGS) == "# ALTER SYSTEM\nwork_mem = '5MB'\njit = 'off'\n"


def test_a_timeline_that_began_elsewhere_than_was_proved_is_loud() -> None:
    history = "1\t0/1000000\tno recovery target specified\n\n3\t0/1710030\tbefore LSN 0/1710030\n"
    assert require_fork(history, 4, 3, "0/1710030") == "0/1710030"
    with pytest.raises(RecoveryError, match="Take it back"):
        require_fork(history, 4, 3, "0/1710068")
    with pytest.raises(RecoveryError, match="no known place"):
        require_fork(history, 4, 2, "0/1710030")


def test_a_timeline_that_did_not_begin_right_before_the_target_is_loud() -> None:
    require_before("0/1710030", "0/1710030")
    require_before("0/1720000", "0/1720028")  # behind the header of a page
    for fork in ("0/1710038", "0/170FF00"):
        with pytest.raises(RecoveryError, match="not just before"):
            require_before(fork, "0/1710030")
