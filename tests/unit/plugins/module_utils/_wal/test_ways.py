"""The ways back, compared before anything is restored."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._wal.later import later_transactions
from ansible_collections.dbre.recovery.plugins.module_utils._wal.ways import Facts, recommended, ways_back, ways_lines
from histories import history


def change(what: str, name: str, oid: int, rows: int | None = None) -> dict[str, Any]:
    return {"what": what, "schema": "public", "name": name, "kind": "r", "oid": oid, "rows": rows, "detail": ""}


def facts(*damage: dict[str, Any], later: tuple[dict[str, Any], ...] = (), **known: Any) -> Facts:
    """What is known of a transaction 7, after which one more committed where ``later`` says what."""
    found = [{"xid": 7, "lsn": "0/7", "commit_time": "t", "changes": list(damage)}]
    found += [{"xid": 8, "lsn": "0/8", "commit_time": "t", "changes": list(later)}] if later else []
    told = later_transactions(history(*found), [7])
    unknown = {"database_bytes": None, "free_bytes": None, "restore_seconds": None, "past": {}}
    keys = {key: told[key] for key in ("damage", "count", "rows", "tables")}  # type: ignore[literal-required]
    return {**keys, **unknown, **known}  # type: ignore[typeddict-item]


DELETED = change("deleted", "lines", 101, 1000)
DROPPED = {**change("column dropped", "orders", 100), "detail": ": what"}


def test_rows_suffice_where_the_transaction_only_changed_rows() -> None:
    found = ways_back(facts(DELETED))
    assert [way["strategy"] for way in found] == ["rows", "tables", "database", "cluster_swap", "cluster_in_place"]
    assert recommended(found) == "rows"
    assert "no later transaction changed rows of the same tables" in found[0]["lost"]


def test_rows_are_not_enough_where_a_definition_changed_and_that_is_said() -> None:
    lines = ways_lines(facts(DELETED, DROPPED, later=(change("inserted", "orders", 100, 5),)))
    assert lines[0].startswith("-e dr_strategy=rows: NOT ENOUGH: ")
    assert "public.orders column dropped: what" in lines[0]
    assert lines[1].startswith("-e dr_strategy=tables: RECOMMENDED, the smallest that suffices.")
    assert "what was done to 5 rows of 1 of these tables later" in lines[1]
    assert "what 1 later transaction did (5 rows)" in lines[2]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({**change("schema dropped", "archive", 102), "kind": "n"}, "archive schema dropped"),
        ({**change("dropped", "numbers", 103), "kind": "S"}, "public.numbers dropped"),
        ({**change("dropped", "", 104), "name": None}, "OID 104 dropped"),
    ],
)
def test_tables_are_not_enough_where_the_transaction_did_what_they_do_not_bring_back(
    more: dict[str, Any], said: str
) -> None:
    found = ways_back(facts(DELETED, more))
    assert said in found[1]["lacks"]
    assert recommended(found) == "database"


def test_sequences_that_went_with_a_table_come_back_with_it_and_what_was_made_is_no_reason() -> None:
    owned, made = {**change("dropped", "orders_id_seq", 105), "kind": "S"}, change("created", "copied", 106)
    assert recommended(ways_back(facts(change("dropped", "orders", 100), owned, made))) == "tables"


def test_a_rewrite_and_a_truncate_are_more_than_rows_too() -> None:
    for what in ("rewritten by a change of its definition", "truncated", "dropped", "definition changed"):
        assert ways_back(facts(DELETED, change(what, "orders", 100)))[0]["lacks"]


def test_of_a_moment_without_a_transaction_nothing_can_be_undone_by_rows() -> None:
    known: Facts = {**facts(DELETED), "damage": None}
    assert "dr_target_xid" in ways_back(known)[0]["lacks"]
    assert "dr_tables" in ways_back(known)[1]["lacks"]
    assert recommended(ways_back(known)) == "database"


def test_without_room_for_a_second_one_only_the_way_over_it_is_left_and_cannot_be_taken_back() -> None:
    schema = {**change("schema dropped", "archive", 102), "kind": "n"}
    found = ways_back(facts(DROPPED, schema, database_bytes=2 * 2**30, free_bytes=2**30))
    assert recommended(found) == "cluster_in_place"
    assert "cannot be taken back" in found[4]["needs"]
    assert found[2]["lacks"] == "there may be too little room"
    assert "2.1 GB as it is; 1.1 GB are free" in found[2]["needs"]


def test_time_is_told_where_it_was_measured_and_grows_with_the_database() -> None:
    past = {"database": {"restore": 50.0, "seconds": 20.0, "bytes_per_second": 2**20}, "rows": {"seconds": 5.0}}
    rows, _tables, database, cluster, _in_place = ways_back(
        facts(DELETED, restore_seconds=30.0, past=past, database_bytes=100 * 2**20)
    )
    assert (rows["seconds"], database["seconds"], cluster["seconds"]) == (35.0, 130.0, None)
    assert ways_back(facts(DELETED))[0]["seconds"] is None
    assert "Takes time not known yet" in ways_lines(facts(DELETED))[0]


def test_tables_that_were_changed_later_as_well_are_counted() -> None:
    found = ways_back(facts(DELETED, later=(change("updated", "lines", 101, 1), change("inserted", "other", 102, 1))))
    assert "in 1 table stay as they are" in found[0]["lost"]
