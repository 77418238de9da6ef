# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.moment import (
    Candidate,
    State,
    Subject,
    Wanted,
    choose,
    exact,
    lost_at_most,
    target_before,
)

ORDERS = Subject("public", "orders")
ITEMS = Subject("public", "items")
WANTED = Wanted("shop", (ORDERS,))
GONE = {ORDERS: State(False)}
THERE = {ORDERS: State(True)}


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-25T{text}").replace(tzinfo=timezone.utc)


def logged(kind: str, text: str, sure: str = "high", **more: Any) -> Candidate:
    subject = more.pop("subject", ORDERS)
    given = {"resolution": 1.0, "pid": 7, "user": "app", "statement": f"{kind} of it", **more}
    return Candidate(kind, {subject: sure}, at(text), "log", **given)


def known(kind: str, text: str, sure: str = "high", rows: Optional[int] = None) -> Candidate:
    return Candidate(
        kind, {ORDERS: sure}, at(text), "commit_timestamp", commit=at(text), outcome="committed", xid=740, rows=rows
    )


def chosen(states: Any, *candidates: Candidate) -> Candidate:
    found, unknown = choose(WANTED, sorted(candidates, key=lambda one: one.not_before), states)
    assert found is not None
    assert unknown == []
    return found


# What a restore to a second holds


@pytest.mark.parametrize(
    ("commit", "target"),
    [
        ("12:14:03.292584", "12:14:03"),
        ("12:14:03.000001", "12:14:03"),
        ("12:14:03.000000", "12:14:02"),  # what commits at the target itself is replayed
        ("12:14:03.999999", "12:14:03"),
    ],
)
def test_the_target_is_the_last_second_before_the_commit(commit: str, target: str) -> None:
    one = known("truncate", commit)
    assert one.target() == at(target)
    assert one.precision() == (at(commit) - at(target)).total_seconds() <= 1


def test_the_second_in_which_a_statement_was_logged_is_before_its_commit() -> None:
    one = logged("drop_table", "12:14:03")
    assert (one.target(), one.precision()) == (at("12:14:03"), 1.0)


def test_a_log_with_milliseconds_is_no_nearer_than_a_restore_can_go() -> None:
    one = logged("drop_table", "12:14:03.731", resolution=0.001)
    assert (one.target(), one.precision()) == (at("12:14:03"), 0.732)


def test_a_long_statement_is_as_imprecise_as_it_was_long() -> None:
    one = logged("delete", "12:14:03.400", not_after=at("12:24:05"))
    assert (one.target(), one.precision()) == (at("12:14:03"), 602.0)
    assert lost_at_most(one).endswith("those of at most 602 s.")


def test_what_is_not_known_of_the_commit_is_said() -> None:
    assert "if it waited for its lock" in lost_at_most(logged("drop_table", "12:14:03"))
    assert "if its transaction stayed open" in lost_at_most(logged("delete", "12:14:03"))
    assert "committed at 2026-11-25T12:14:03.25" in lost_at_most(known("truncate", "12:14:03.25"))
    dated = logged("drop_table", "12:14:03", not_before=at("12:14:09"), commit_logged=True)
    assert dated.target() == at("12:14:09")
    assert "if it waited" not in lost_at_most(dated)


def test_the_target_is_in_utc_to_the_second_with_its_reason() -> None:
    target = target_before(logged("drop_table", "12:14:03", statement="drop  table\n orders"), WANTED)
    assert target == {
        "type": "time",
        "value": "2026-11-25T12:14:03+00:00",
        "exclusive": False,
        "timeline": None,
        "xid": None,
        "commit_time": None,
        "reason": (
            "the last whole second before drop_table of public.orders, seen at 2026-11-25T12:14:03+00:00 (session 7 "
            "user app): drop table orders"
        ),
    }


# Which of several


def test_the_last_drop_that_succeeded_took_what_is_gone() -> None:
    first, last = logged("drop_table", "12:00:00"), logged("drop_table", "13:00:00")
    assert chosen(GONE, first, last) is last


def test_a_drop_if_exists_may_have_found_nothing() -> None:
    first, last = logged("drop_table", "12:00:00"), logged("drop_table", "13:00:00", if_exists=True)
    with pytest.raises(RecoveryError, match="2 statements can have done it") as caught:
        choose(WANTED, [first, last], GONE)
    assert "-> -e dr_target_time=2026-11-25T12:00:00+00:00" in caught.value.msg
    assert "-> -e dr_target_time=2026-11-25T13:00:00+00:00" in caught.value.msg
    assert len(caught.value.details["candidates"]) == 2
    assert chosen(GONE, last) is last


def test_what_failed_or_was_rolled_back_is_not_chosen() -> None:
    real = logged("drop_table", "12:00:00")
    undone = [logged("drop_table", "13:00:00", outcome=outcome) for outcome in ("failed", "rolled_back")]
    assert chosen(GONE, real, *undone) is real


def test_what_leaves_a_relation_there_did_not_make_it_missing() -> None:
    real = logged("drop_table", "12:00:00", if_exists=True)
    assert chosen(GONE, real, logged("delete", "13:00:00")) is real


def test_a_statement_for_all_rows_goes_before_one_with_a_where() -> None:
    whole, limited = logged("delete", "12:00:00"), logged("delete", "13:00:00", whole=False)
    assert chosen(THERE, whole, limited) is whole
    assert chosen(THERE, limited) is limited


def test_several_everyday_statements_are_listed_and_none_is_chosen() -> None:
    several = [logged("delete", f"12:00:{second:02}", whole=False) for second in range(30)]
    with pytest.raises(RecoveryError, match="30 statements") as caught:
        choose(WANTED, several, THERE)
    assert caught.value.msg.count("dr_target_time=") == 20
    assert "(10 older ones are in candidates)" in caught.value.msg


def test_what_only_may_have_taken_it_along_is_never_chosen() -> None:
    assert choose(WANTED, [logged("drop_table", "12:00:00", "low")], GONE) == (None, [ORDERS])
    assert choose(WANTED, [logged("hidden", "12:00:00", "low", whole=False)], GONE) == (None, [ORDERS])


def test_of_several_relations_the_earliest_loss_counts() -> None:
    wanted = Wanted("shop", (ORDERS, ITEMS))
    first, second = logged("drop_table", "12:00:00", subject=ITEMS), logged("drop_table", "12:00:09")
    states = {ORDERS: State(False), ITEMS: State(False)}
    assert choose(wanted, [first, second], states) == (first, [])
    assert choose(wanted, [second], states) == (second, [ITEMS])


def test_a_relation_that_was_made_anew_was_lost_before() -> None:
    anew = {ORDERS: State(True, at("12:30:00"))}
    drop, later = logged("drop_table", "12:00:00", if_exists=True), logged("drop_table", "12:40:00", "low")
    assert chosen(anew, drop, later) is drop
    assert chosen(anew, logged("truncate", "12:00:00"), logged("truncate", "12:50:00")).started == at("12:50:00")


def test_a_drop_of_what_is_there_and_was_not_made_anew_was_rolled_back() -> None:
    drop, truncate = logged("drop_table", "12:00:00"), logged("truncate", "11:00:00")
    assert choose(WANTED, [drop], THERE) == (None, [ORDERS])
    assert chosen(THERE, drop, truncate) is truncate
    assert choose(WANTED, [drop], {ORDERS: State(True, created=at("11:00:00"))}) == (None, [ORDERS])


def test_a_create_in_the_log_lets_a_drop_before_it_be_the_loss() -> None:
    drop = logged("drop_table", "12:00:00", if_exists=True)
    assert chosen({ORDERS: State(True, made=at("12:00:00"))}, drop) is drop
    # CREATE IF NOT EXISTS may have made nothing, so what was done before it counts as well.
    truncate = logged("truncate", "11:00:00")
    assert chosen({ORDERS: State(True, made=at("11:30:00"))}, truncate) is truncate


def test_what_is_gone_was_not_taken_by_a_drop_after_which_it_was_made_anew() -> None:
    """Else a nightly rebuild would be taken for the drop at noon that no log shows, and a day's rows would be lost."""
    nightly = logged("drop_table", "02:00:00", remade={ORDERS})
    assert choose(WANTED, [nightly], GONE) == (None, [ORDERS])
    seen = logged("drop_table", "12:00:00")
    assert chosen(GONE, nightly, seen) is seen
    anew = {ORDERS: State(True, made=at("02:00:01"))}
    assert chosen(anew, nightly) is nightly, "what is there lost its rows then"


def test_a_renamed_relation_needs_no_restore() -> None:
    renamed = logged("rename", "12:00:00", notes=["the relation was renamed or moved to old"])
    with pytest.raises(RecoveryError, match="was not dropped: the relation was renamed or moved to old"):
        choose(WANTED, [renamed], GONE)
    assert choose(WANTED, [renamed], THERE) == (None, [ORDERS])


def test_an_open_transaction_is_ended_instead_of_restoring() -> None:
    still = logged("delete", "12:00:00", outcome="open")
    with pytest.raises(RecoveryError, match=r"has not committed.*pg_terminate_backend\(7\)"):
        choose(WANTED, [still, logged("delete", "11:00:00")], THERE)


def test_without_the_database_the_log_alone_decides_what_is_clear() -> None:
    one = logged("drop_table", "12:00:00")
    assert chosen({}, one) is one
    with pytest.raises(RecoveryError, match="not clear"):
        choose(WANTED, [one, logged("truncate", "13:00:00")], {})


# Commit times


def test_a_statement_gets_the_commit_time_that_the_database_knows() -> None:
    (one,) = exact([logged("truncate", "12:00:00")], [known("truncate", "12:00:02.5")])
    assert (one.commit, one.pid, one.xid, one.outcome) == (at("12:00:02.5"), 7, 740, "committed")


def test_a_commit_long_after_a_statement_is_another_ones() -> None:
    found = exact([logged("truncate", "12:00:00")], [known("truncate", "12:30:00")])
    assert [one.commit for one in found] == [None, at("12:30:00")]


def test_a_commit_belongs_to_the_last_statement_before_it_that_it_fits() -> None:
    first, second, other = logged("update", "12:00:00"), logged("update", "12:00:20"), logged("delete", "12:00:21")
    exact([first, second, other], [known("written", "12:00:22", "low", 3000)])
    assert (first.commit, second.commit, other.commit) == (None, at("12:00:22"), None)
    assert second.rows == 3000
    failed = logged("update", "12:00:21", outcome="failed")
    exact([failed], [known("update", "12:00:22")])
    assert failed.commit is None


def test_a_commit_after_the_statement_had_ended_is_another_ones() -> None:
    one = logged("truncate", "12:00:00", not_after=at("12:00:01"))
    exact([one], [known("truncate", "12:00:02")])
    assert one.commit is None


def test_rows_that_somebody_loaded_are_not_an_update() -> None:
    assert choose(WANTED, [known("written", "12:00:00", "low", 3000)], THERE) == (None, [ORDERS])


def test_schemas_and_databases_are_asked_for_by_name() -> None:
    wanted = Wanted.of("shop", [], ["Sales", "Sales"])
    assert [one.label("shop") for one in wanted.subjects] == ['schema "Sales"']
    assert [one.label("My Shop") for one in Wanted.of("My Shop", [], []).subjects] == ['database "My Shop"']
    assert Wanted.of("shop", [{"schema": "s", "name": "t"}], ["s"]).names() == ["shop", "t", "s"]


def test_a_second_of_slack_is_not_added_to_what_is_exact() -> None:
    one = known("truncate", "12:00:00.1")
    assert one.commit is not None
    assert one.commit - one.target() < timedelta(seconds=1)
