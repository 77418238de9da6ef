# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import (
    Timelines,
    format_lsn,
    parse_history,
    parse_lsn,
    parse_segment_name,
    segment_name,
)

MB16 = 16 << 20
HISTORY = "1\t0/3000148\tno recovery target specified\n\n2\t0/5000028\tbefore 2026-11-23 22:00:00+00\n"


@pytest.mark.parametrize(("text", "number"), [("0/3008940", 0x3008940), ("1A/FF", (0x1A << 32) | 0xFF)])
def test_positions(text: str, number: int) -> None:
    assert parse_lsn(text) == number
    assert format_lsn(number) == text


@pytest.mark.parametrize("text", ["", "12", "0/", "0/123456789", "G/1"])
def test_what_is_no_position(text: str) -> None:
    with pytest.raises(RecoveryError, match="no WAL position"):
        parse_lsn(text)


@pytest.mark.parametrize("size", [1 << 20, MB16, 1 << 30])
def test_segment_names_count_on_over_four_gigabytes(size: int) -> None:
    last = (1 << 32) // size - 1
    assert segment_name(3, last + 1, size) == "000000030000000100000000"
    assert parse_segment_name(segment_name(3, last, size), size) == (3, last)


def test_a_history_file() -> None:
    timelines = parse_history(HISTORY, 3)
    at = [timelines.at(parse_lsn(lsn)) for lsn in ("0/3000147", "0/3000148", "0/5000027", "0/5000028")]
    assert at == [1, 2, 2, 3]
    # The segment in which a timeline ends is read from the next one, which begins with a copy of it.
    assert [timelines.of_segment(number, MB16) for number in (2, 3, 4, 5)] == [1, 2, 2, 3]


@pytest.mark.parametrize("text", ["1\n", "one\t0/1\n", "2\t0/5000028\tx\n1\t0/3000148\tx\n"])
def test_a_damaged_history_file(text: str) -> None:
    with pytest.raises(RecoveryError):
        parse_history(text, 3)


def test_a_server_on_its_first_timeline() -> None:
    assert Timelines(1).at(0) == 1
