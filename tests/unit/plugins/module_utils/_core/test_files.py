# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.files import write_atomically


def test_a_file_is_private_unless_told_otherwise(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "secret", "x")
        write_atomically(tmp_path / "metrics", "y", mode=0o644)
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("secret", "metrics")] == [0o600, 0o644]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "file").symlink_to("theirs")
    write_atomically(str(tmp_path / "file"), "ours")
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert (tmp_path / "file").read_text() == "ours"


def test_what_cannot_be_put_in_its_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "file", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
