"""What fits on which disk, from sizes of the recovered instance and what is free in production."""

from __future__ import annotations

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._tables.room import (
    needed_by_device,
    needs_of_large_objects,
    refuse_too_little,
)

MAIN = {"path": "/data", "device": 1, "free": 1000, "total": 5000}
FAST = {"path": "/fast", "device": 2, "free": 100, "total": 5000}


def test_needs_are_added_up_by_file_system_and_lost_tablespaces_go_to_the_default_one() -> None:
    needs = [
        {"tablespace": "", "least": 100, "most": 300},
        {"tablespace": "fast", "least": 50, "most": 200},
        {"tablespace": "gone", "least": 7, "most": 9},
    ]
    found = needed_by_device(needs, {"pg_default": MAIN, "fast": FAST}, "pg_default")
    assert found == [{**MAIN, "least": 107, "most": 309}, {**FAST, "least": 50, "most": 200}]
    refuse_too_little(found)
    assert needed_by_device(needs, {}, "pg_default") == []


def test_what_cannot_fit_is_refused_with_what_is_missing() -> None:
    with pytest.raises(
        RecoveryError, match="at least 130 bytes, and 100 bytes are free .* /fast.*Make 30 bytes of room"
    ):
        refuse_too_little([{**MAIN, "least": 1000, "most": 9000}, {**FAST, "least": 130, "most": 400}])


def test_large_objects_need_room_in_the_database_and_for_a_while_as_wal() -> None:
    needs = needs_of_large_objects({"large_objects": {"count": 2, "bytes": 900, "stored": 500}})
    wal = {"path": "/wal", "device": 3, "free": 100, "total": 5000}
    found = needed_by_device(needs, {"pg_default": MAIN, "pg_wal": wal}, "pg_default")
    assert found == [{**MAIN, "least": 500, "most": 550}, {**wal, "least": 0, "most": 550}]
    assert needs_of_large_objects({}) == needs_of_large_objects({"large_objects": {"stored": None}})
