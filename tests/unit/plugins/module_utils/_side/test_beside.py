"""Side instances of other incidents are found by what they left on the host."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._side import side_instance
from ansible_collections.dbre.recovery.plugins.module_utils._side.beside import others_beside
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import TAKEN, SideInstance


def make(path: Path, **marker: Any) -> SideInstance:
    path.mkdir(mode=0o700, parents=True)
    instance = SideInstance(str(path))
    known = {"incident": path.name, "state": "restored", "created": "2026-11-01T00:00:00+00:00", "bin_dir": "/no/bin"}
    instance.write_marker({**known, **marker})
    return instance


def test_only_what_is_ours_and_beside_is_told_and_the_command_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_instance, "require_own_place", lambda *_words: None)  # pytest's folder has its own ways
    folder = tmp_path / "side"
    mine = make(folder / "mine")
    make(folder / "younger", created="2026-11-02T00:00:00+00:00")
    make(folder / "older")
    make(folder / "serves", state=TAKEN)
    make(folder / "of_another_version", created=None)
    (folder / "foreign").mkdir()
    (folder / "foreign" / "marker.json").write_text('{"made_by": "somebody"}')
    (folder / "a file").write_text("")
    found = others_beside(mine)
    assert [item["incident"] for item in found] == ["older", "younger"]
    words = shlex.split(found[0]["remove"])
    assert words[:2] == ["sudo", "-u"]
    subprocess.run(words[3:], check=True)  # as the user who is meant
    assert sorted(os.listdir(folder)) == ["a file", "foreign", "mine", "of_another_version", "serves", "younger"]
    assert others_beside(SideInstance("/nowhere/at-all")) == []
