# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import duration, moment, rows_that, size, thing


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.42, "0.4 s"),
        (59.6, "1 min"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
        (273600, "3 d 4 h"),
        (None, "unknown"),
    ],
)
def test_durations_read_as_people_say_them(seconds: Any, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999 bytes"), (4.1e9, "4.1 GB"), (123456, "123 kB"), ("x", "unknown")]
)
def test_sizes_read_as_people_say_them(count: Any, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("2026-11-23T21:30:07.12+00:00", "2026-11-23 21:30:07+00:00"),
        (1700000000, "2023-11-14 22:13:20+00:00"),
        ("soon", "soon"),
    ],
)
def test_times_read_as_people_say_them(given: Any, text: str) -> None:
    assert moment(given) == text


def test_a_thing_is_called_as_people_call_it() -> None:
    assert thing("table", "public.orders") == "table public.orders"
    assert thing("acl", "public TABLE orders dba") == "privileges on table public.orders"
    assert thing("acl", "- SCHEMA Sales of the year dba") == "privileges on schema Sales of the year"
    assert thing("acl", "table public.orders") == "privileges on table public.orders"
    assert (rows_that(None), rows_that(1), rows_that(2000)) == ("some rows", "1 row", "2,000 rows")
