# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A transaction's number is taken as the user means it, in 32 bits or 64, and never for another's."""

from __future__ import annotations

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._wal.explicit import transaction

EPOCH = 1 << 32


@pytest.mark.parametrize(
    ("value", "next_xid", "xid"),
    [
        ("734", 800, 734),
        ("734", 3 * EPOCH + 800, 734),
        (str(3 * EPOCH + 734), 3 * EPOCH + 800, 734),
        # Before the 32 bits started anew.
        (str(2 * EPOCH + 4_000_000_000), 3 * EPOCH + 800, 4_000_000_000),
        ("4000000000", 3 * EPOCH + 800, 4_000_000_000),
    ],
)
def test_a_transaction_of_the_server(value: str, next_xid: int, xid: int) -> None:
    assert transaction(value, next_xid) == xid


@pytest.mark.parametrize(
    ("value", "next_xid"),
    [
        ("801", 800),
        (str(EPOCH + 734), 800),
        (str(2 * EPOCH + 734), 3 * EPOCH + 800),
        (str(3 * EPOCH + 900), 3 * EPOCH + 800),
        (str(1 << 70), 3 * EPOCH + 800),
    ],
)
def test_a_number_of_no_transaction_is_not_cut_to_that_of_another(value: str, next_xid: int) -> None:
    with pytest.raises(RecoveryError, match=f"transaction {value} is not one of the last"):
        transaction(value, next_xid)
