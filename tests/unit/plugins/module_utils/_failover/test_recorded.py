# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of a dead primary's replication, out of what was written down."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._failover.recorded import newest, recorded

MINE = "7711488204033580105"


def told(names: str, **more: str) -> str:
    return json.dumps({"system_identifier": MINE, "synchronous_standby_names": names, **more})


def backup(at: str, text: str) -> dict[str, Any]:
    return {"label": "20261123-180000F", "stop_time": at, "annotations": {"replication": text}}


def test_what_was_written_down_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "primary-5432.json"
    path.write_text(told("ANY 1 (b, c)", synchronous_commit="remote_apply"))
    os.utime(path, (1795000000, 1795000000))  # 2026-11-18
    plain = {"label": "x", "stop_time": "2026-11-30T00:00:00+00:00", "annotations": {}}
    found = recorded(str(path), [backup("2026-11-23T18:00:00+00:00", told("b")), plain], MINE)
    last = newest(found)
    assert last is not None
    assert (last["where"], last["synchronous_standby_names"]) == ("backup 20261123-180000F", "b")
    last = newest(recorded(str(path), [backup("2026-11-01T18:00:00+00:00", told("b"))], MINE))
    assert last is not None
    assert (last["where"], last["synchronous_commit"]) == (str(path), "remote_apply")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"synchronous_standby_names": 1}', told("b").replace("77", "88")])
def test_what_is_of_others_or_cannot_be_read_is_nothing(text: str) -> None:
    assert recorded("/nowhere", [backup("2026-11-23T18:00:00+00:00", text)], MINE) == []
    assert newest([]) is None
