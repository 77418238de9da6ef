# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How those who hold a lock are found and named."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import conflicting, shown_session


# The table of 13.3.1 in PostgreSQL's documentation.
@pytest.mark.parametrize(
    ("mode", "others"),
    [
        ("ACCESS SHARE", "AccessExclusive"),
        ("ROW EXCLUSIVE", "Share ShareRowExclusive Exclusive AccessExclusive"),
        ("SHARE", "RowExclusive ShareUpdateExclusive ShareRowExclusive Exclusive AccessExclusive"),
        (
            "SHARE UPDATE EXCLUSIVE",
            "ShareUpdateExclusive Share ShareRowExclusive Exclusive AccessExclusive",
        ),
        (
            "ACCESS EXCLUSIVE",
            "AccessShare RowShare RowExclusive ShareUpdateExclusive Share ShareRowExclusive Exclusive AccessExclusive",
        ),
    ],
)
def test_who_is_in_the_way_of_a_lock(mode: str, others: str):
    assert conflicting(mode) == [f"{other}Lock" for other in others.split()]


def test_whoever_holds_a_lock_is_named():
    held: dict[str, Any] = {"mode": "RowExclusiveLock", "since": "2026-11-28 12:00:03", "gid": None}
    session = {**held, "pid": 7, "role": "shop", "application_name": "cart", "state": "idle in transaction"}
    assert shown_session(session) == (
        "session 7 (role shop, application cart, idle in transaction since 2026-11-28 12:00:03 UTC, RowExclusiveLock)"
    )
    # What a role without pg_monitor sees of others.
    hidden = {**session, "application_name": "", "state": None, "since": None}
    assert shown_session(hidden) == "session 7 (role shop, in a transaction, RowExclusiveLock)"
    prepared = {**held, "pid": None, "role": None, "application_name": None, "state": None, "gid": "it's"}
    assert shown_session(prepared) == (
        "the prepared transaction 'it''s', RowExclusiveLock since 2026-11-28 12:00:03 UTC"
    )
