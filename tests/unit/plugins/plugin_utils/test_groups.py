# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Optional

import pytest
from ansible_collections.dbre.recovery.plugins.plugin_utils._groups import fault, nobody_left

GROUPS = {"all": ["db1", "db2", "backup1"], "ungrouped": [], "primary": ["db1"], "standby": ["db2"], "empty": []}


@pytest.mark.parametrize("pattern", ["primary", "db1", "primary:standby", "primary,!db2", "prim*", "all", "&primary"])
def test_a_pattern_that_means_hosts_is_taken(pattern: str) -> None:
    assert fault("dr_primary", pattern, GROUPS) == ""


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("primry", "Similar: primary"),
        ("primary:stanby", "Similar: standby"),
        ("empty", "no host is in that group"),
        ("x", "Its groups: empty, primary, standby"),
    ],
)
def test_a_pattern_without_hosts_is_refused_by_name(pattern: str, words: str) -> None:
    text = fault("dr_primary", pattern, GROUPS)
    assert f"dr_primary is '{pattern}'" in text
    assert words in text


@pytest.mark.parametrize(
    ("pattern", "limit", "nobody"),
    [
        ("primary", None, False),
        ("primary", "db1", False),
        ("primary", "backup1", True),
        ("primary", "primary", False),
        ("primary", "db*", False),
        ("primary", "back*", True),
        ("primary", "!db1", True),
        ("primary", "all:&standby", True),
        ("primary", "~(db|x)1", False),
        ("web*", None, True),
        ("primary:!db1", None, True),
    ],
)
def test_a_pattern_or_a_limit_that_leaves_nobody_is_seen(pattern: str, limit: Optional[str], nobody: bool) -> None:
    assert nobody_left([pattern], GROUPS, limit) == nobody
