# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.plugin_utils._confirmation import confirm_word, refusal, said_before
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.digest import plan_digest

DIGEST, OTHER = "plan-0123456789ab", "plan-ba9876543210"


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (True, "yes"),
        ("Yes", "yes"),
        (1, "yes"),
        (False, "no"),
        ("", "no"),
        (None, "no"),
        ("plan", "plan"),
        (f" {DIGEST} ", DIGEST),
        ("yess", None),
        ("plan-0123", None),
    ],
)
def test_what_is_said_is_understood_or_refused(given: Any, word: Optional[str]) -> None:
    assert confirm_word(given) == word


@pytest.mark.parametrize(
    ("word", "confirmed", "said"),
    [
        ("yes", False, True),
        ("no", False, None),
        ("no", True, True),
        ("plan", False, False),
        ("plan", True, False),
        (DIGEST, False, True),
        (OTHER, False, False),
        (OTHER, True, False),
    ],
)
def test_a_digest_confirms_its_plan_and_no_other(word: str, confirmed: bool, said: Optional[bool]) -> None:
    assert said_before(word, DIGEST, confirmed) is said


def test_who_does_not_confirm_is_told_how() -> None:
    text = refusal("there is no terminal to ask on", "one", "/i/one", DIGEST)
    assert text.startswith("Not confirmed: there is no terminal to ask on. Incident one stops here")
    assert f"-e dr_incident_id=one -e dr_confirm={DIGEST}" in text


PLAN = {
    "planned_at": "2026-11-29T00:00:00+00:00",
    "incident": {"kind": "drop_table", "xid": 7, "relations": [{"schema": "public", "name": "orders", "oid": 1}]},
    "target": {"type": "lsn", "value": "0/1", "exclusive": True, "timeline": 1, "reason": "just before"},
    "restore_plan": {"set": {"label": "F", "repo": 1}, "disk": {"free": 7}, "shown": [{"label": "a", "lines": ["b"]}]},
    "side_host": "backup1",
}
RECORD = {"id": "one", "scenario": "table-drop", "parameters": {"database": "shop", "load": "beside"}, "plan": PLAN}


def test_the_same_plan_has_the_same_digest_when_it_is_made_anew() -> None:
    anew = copy.deepcopy({**RECORD, "id": "two", "plan": None, "data": PLAN})
    anew["data"]["planned_at"] = "2026-11-29T01:00:00+00:00"
    anew["data"]["restore_plan"]["disk"]["free"] = 8
    assert confirm_word(plan_digest(RECORD)) == plan_digest(RECORD) == plan_digest(anew)


@pytest.mark.parametrize(
    "path",
    [
        ("parameters", "load"),
        ("plan", "target", "value"),
        ("plan", "restore_plan", "set", "label"),
        ("plan", "side_host"),
        ("plan", "incident", "xid"),
    ],
)
def test_what_a_plan_decides_makes_it_another(path: tuple[str, ...]) -> None:
    other: Any = copy.deepcopy(RECORD)
    at = other
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = "x"
    assert plan_digest(other) != plan_digest(RECORD)
