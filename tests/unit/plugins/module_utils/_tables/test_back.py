"""What a recovery that is given up had put into its place already, out of its journal."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._tables.remove import back_already


def entry(name: str, action: str) -> dict[str, Any]:
    return {"schema": "public", "name": name, "action": action}


@pytest.mark.parametrize(
    ("journal", "back"),
    [
        ({}, []),
        ({"table": [entry("merged", "merge"), entry("lost", "place")]}, ["public.merged"]),
        (
            {"table": [entry("merged", "merge"), entry("lost", "place")], "published": [{}]},
            ["public.merged", "public.lost"],
        ),
        ({"table": [entry("copy", "beside")], "published": [{}]}, []),
        ({"undone": [{}]}, ["the rows of the transaction that was undone"]),
    ],
    ids=["nothing", "lost tables are still aside", "all in place", "a copy is in nobody's place", "an undo"],
)
def test_what_stays_is_said_and_nothing_that_goes(journal: dict[str, Any], back: list[str]) -> None:
    assert back_already(journal) == back
