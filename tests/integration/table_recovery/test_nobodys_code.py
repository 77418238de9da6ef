# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Code that the owner of a table put there stays his own, whatever we do with the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.fingerprint import take_fingerprint

TABLES = [
    "checked",
    "written",
    "typed",
    "colored",
    "computed",
    "indexed",
    "parted",
    "keyed",
    "triggered",
    "secured",
    "child",
]


@pytest.fixture
def mallory(world: Any) -> Iterator[Any]:
    """A schema of a role that owns nothing else, and its copy; afterwards the role is what it was."""
    world.begin("mallory")
    yield world
    assert_stayed_its_own(world)


def assert_stayed_its_own(world: Any) -> None:
    """No rights for the role, nothing written outside its schema, and its code run as nobody but itself."""
    for server in (world.production, world.side):
        assert not server.sql(
            "mallory", "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = 'dbre_mallory'"
        )
        assert server.sql("mallory", "SELECT coins FROM treasure") == 100
        assert not (server.data / "stolen").exists()
        who = server.sql(
            "mallory", "SELECT array_agg(DISTINCT who || ': ' || place) FROM m.seen WHERE who <> 'dbre_mallory'"
        )
        assert who is None


def as_mallory(world: Any, *statements: str) -> list[str]:
    """What the role itself sees and does, in a session of its own."""
    command = [
        "-qXAt",
        "-v",
        "ON_ERROR_STOP=1",
        "-U",
        "dbre_mallory",
        "-cSET dbre.quiet = on",
        *(f"-c{text}" for text in statements),
    ]
    return str(world.production.program("psql", *command, database="mallory")).split()


def counts(world: Any) -> dict[str, int]:
    return {name: int(as_mallory(world, f"SELECT count(*) FROM m.{name}")[0]) for name in TABLES}


def test_a_fingerprint_is_taken_as_the_owner(mallory: Any) -> None:
    params = {**mallory.params, "login_db": "mallory"}
    if "login_user" in params:
        # Which hides rows from all but superusers.
        as_mallory(mallory, "ALTER TABLE m.secured NO FORCE ROW LEVEL SECURITY")
    connection = connect(params)
    try:
        found = take_fingerprint(connection, [], ["m"], max_of="v")
    finally:
        connection.close()
    assert {name: found[f"m.{name}"]["rows"] for name in TABLES} == dict.fromkeys(TABLES, 3)
    assert found["m.colored"]["max"] == "blue"
