# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where pg_waldump is told to end."""

from __future__ import annotations

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._wal.source import before_page_header

SEGMENT = 16 * 1024 * 1024


@pytest.mark.parametrize(
    ("lsn", "end"),
    [
        (0x1A000028, 0x1A000000),  # behind the long header of a segment's first page
        (0x1A002018, 0x1A002000),  # behind the short header of another page
        (0x1A000000, 0x1A000000),
        (0x1A002028, 0x1A002028),  # behind more than the header: the page is used
        (0x1938DE10, 0x1938DE10),
    ],
)
def test_pg_waldump_is_never_sent_behind_a_page_header_alone(lsn: int, end: int) -> None:
    assert before_page_header(lsn, SEGMENT) == end
