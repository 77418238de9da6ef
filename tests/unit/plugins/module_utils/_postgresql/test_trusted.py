# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files and directories that others could have written are not believed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError, printable
from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.trusted import (
    require_own_place,
)
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance

STRANGER = 4242
Give = Callable[[Path], None]


@pytest.fixture
def give_away(monkeypatch: pytest.MonkeyPatch) -> Give:
    """Let a file belong to somebody else: as root by giving it away, otherwise by being somebody else ourselves."""

    def give(path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, STRANGER, STRANGER)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: STRANGER)

    return give


@pytest.fixture
def side(tmp_path: Path) -> SideInstance:
    path = tmp_path / "side"
    path.mkdir(mode=0o700)
    instance = SideInstance(str(path))
    instance.write_marker({"bin_dir": "/usr/bin"})
    return instance


def test_our_own_marker_is_read(side: SideInstance) -> None:
    assert side.marker()["bin_dir"] == "/usr/bin"


def test_a_marker_of_somebody_else_is_not_believed(side: SideInstance, give_away: Give) -> None:
    give_away(Path(side.below("marker.json")))
    with pytest.raises(RecoveryError, match=r"belongs to 4242|belongs to "):
        side.read_marker()


def test_a_marker_that_others_may_write_is_not_believed(side: SideInstance) -> None:
    os.chmod(side.below("marker.json"), 0o666)
    with pytest.raises(RecoveryError, match="can be written by others"):
        side.read_marker()


def test_a_marker_that_is_a_link_or_a_pipe_is_not_followed(side: SideInstance, tmp_path: Path) -> None:
    marker = Path(side.below("marker.json"))
    marker.rename(tmp_path / "elsewhere.json")
    marker.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(RecoveryError, match="cannot be read"):
        side.read_marker()
    marker.unlink()
    os.mkfifo(marker)
    with pytest.raises(RecoveryError, match="no regular file"):
        side.read_marker()


def test_a_side_path_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    require_own_place(str(place / "side"), "dr_side_path")
    place.chmod(0o777)
    with pytest.raises(RecoveryError, match=r"to which all may write \(mode 0777\).*dr_side_path"):
        require_own_place(str(place / "side"), "dr_side_path")
    with pytest.raises(RecoveryError, match="can be written by others"):
        require_own_place(str(place), "dr_side_path")
    # In /tmp and its like somebody else could make it first.
    place.chmod(0o1777)
    with pytest.raises(RecoveryError, match="to which all may write"):
        require_own_place(str(place / "side"), "dr_side_path")
    (place / "side").mkdir(mode=0o700)
    require_own_place(str(place / "side"), "dr_side_path")


def test_a_side_path_of_somebody_else_is_refused(tmp_path: Path, give_away: Give) -> None:
    place = tmp_path / "side"
    place.mkdir(mode=0o700)
    give_away(place)
    with pytest.raises(RecoveryError, match="belongs to"):
        require_own_place(str(place), "dr_side_path")
    with pytest.raises(RecoveryError, match="belongs to"):
        require_own_place(str(place / "deeper"), "dr_side_path")


def test_a_progress_file_that_cannot_be_replaced_ends_nothing(tmp_path: Path) -> None:
    # As root every file can be removed, but none can take the place of a directory.
    progress = Progress(str(tmp_path / "x.progress"))
    (tmp_path / "x.progress").mkdir()
    progress.say("swap", 1, 2, "steps")
    progress.end()
    assert [path.name for path in tmp_path.iterdir()] == ["x.progress"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain text,\twith tab\nand line", "plain text,\twith tab\nand line"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("\x9b31mred", "\\x9b31mred"),
        ("bell\x07 back\x08\r", "bell\\x07 back\\x08\\r"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("Größe Таблица 表", "Größe Таблица 表"),
    ],
)
def test_what_a_terminal_would_act_on_is_shown_instead(given: str, shown: str) -> None:
    assert printable(given) == shown
    assert RecoveryError(f"table {given} is gone").msg == f"table {shown} is gone"
