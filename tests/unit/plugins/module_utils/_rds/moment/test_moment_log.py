# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.server_log import LinePrefix, LogReader
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.log_search import LogSearch, audit_record
from ansible_collections.dbre.recovery.plugins.module_utils._rds.moment.moment import Candidate, Wanted

DATA = Path(__file__).parent / "data" / "log"
CUSTOM_PREFIX = "%m [%p] %q%u@%d/%a xid=%x %e "
RELATIONS = [
    {"schema": "public", "name": "orders"},
    {"schema": "public", "name": "items"},
    {"schema": "public", "name": "events"},
    {"schema": "Sales", "name": "Order Lines"},
]
WANTED = Wanted.of("shop", RELATIONS, [])


def found_in(name: str, wanted: Wanted = WANTED) -> list[Candidate]:
    reader = LogReader(CUSTOM_PREFIX)
    lines = (DATA / f"{name}.txt").read_text().splitlines()
    found = LogSearch(wanted, "shop-1").search(reader.entries(lines))
    assert reader.unread == 0
    return found


def shown(candidates: list[Candidate]) -> list[tuple[str, dict[Any, str], str]]:
    """Kind, subjects that are surely meant, and outcome of each."""
    return [
        (one.kind, {subject.name: sure for subject, sure in one.subjects.items() if sure != "low"}, one.outcome)
        for one in candidates
    ]


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-25T{text}").replace(tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("drop", [("drop_table", {"orders": "high"}, "unknown")]),
        ("drop-schema", [("drop_schema", {"Order Lines": "high"}, "unknown")]),
        ("drop-multiline", [("drop_table", {"orders": "high", "items": "medium"}, "unknown")]),
        ("drop-quoted", [("drop_table", {"Order Lines": "high"}, "unknown")]),
        (
            "drop-failed",
            [("drop_table", {"orders": "medium"}, "failed"), ("drop_table", {"orders": "medium"}, "unknown")],
        ),
        (
            "drop-rolled-back",
            [
                ("drop_table", {"orders": "medium"}, "rolled_back"),
                ("drop_table", {"orders": "medium"}, "rolled_back"),  # to a savepoint
                ("drop_table", {"events": "medium"}, "committed"),
            ],
        ),
        ("drop-aborted", [("drop_table", {"orders": "medium"}, "rolled_back")]),  # its COMMIT did nothing
        ("commit-failed", [("delete", {"orders": "medium"}, "rolled_back")]),
        ("drop-all", [("drop_table", {"orders": "medium"}, "committed")]),
        ("two-in-one", [("drop_table", {"orders": "medium"}, "failed")]),
        (
            "prepared",
            [("drop_table", {"events": "medium"}, "committed"), ("drop_table", {"items": "medium"}, "rolled_back")],
        ),
        ("disconnect", [("drop_table", {"orders": "medium"}, "rolled_back")]),
        ("terminated", [("drop_table", {"orders": "medium"}, "rolled_back")]),
        (
            "truncate-mod",
            [
                ("delete", {"orders": "medium"}, "unknown"),
                ("truncate", {"orders": "medium", "items": "medium"}, "unknown"),
                ("update", {"events": "medium"}, "unknown"),
                ("delete", {"events": "medium"}, "unknown"),
            ],
        ),
        ("extended", [("delete", {"events": "high"}, "unknown"), ("delete", {"events": "medium"}, "unknown")]),
        ("psycopg2", [("delete", {"events": "medium"}, "unknown"), ("drop_column", {"orders": "medium"}, "unknown")]),
        ("rename", [("rename", {"orders": "medium"}, "unknown"), ("rename", {"events": "medium"}, "unknown")]),
        ("function", []),  # what a function does is not in the log
        ("drop-database", []),  # another database
        ("lock-wait", [("drop_table", {"events": "medium"}, "unknown")]),
        ("lock-wait-none", [("drop_table", {"events": "medium"}, "unknown")]),
    ],
)
def test_what_a_log_tells_of_each_incident(name: str, expected: list[Any]) -> None:
    assert shown(found_in(name)) == expected


def test_a_dropped_database_is_found_in_the_log_of_another() -> None:
    (one,) = found_in("drop-database", Wanted.of("old_shop", [], []))
    assert (one.kind, one.database, one.user) == ("drop_database", "postgres", "dbadmin")


def test_a_relation_is_gone_with_its_database() -> None:
    (one,) = found_in("drop-database", Wanted.of("old_shop", RELATIONS[:1], []))
    assert shown([one]) == [("drop_database", {"orders": "high"}, "unknown")]


def test_who_did_it_and_with_what_words_is_told() -> None:
    (one,) = found_in("psycopg2")[1:]
    assert (one.user, one.database, one.instance) == ("dbadmin", "shop", "shop-1")
    assert f":[{one.pid}]:" in (DATA / "psycopg2.txt").read_text()
    assert one.statement == "alter table orders\n  add column z int,\n  drop column total cascade"
    assert one.notes == ["column total"]


def test_the_commit_that_was_logged_is_nearer_than_the_statement() -> None:
    (one,) = found_in("drop-all")
    assert (one.not_before - one.started).total_seconds() == 2
    assert one.target() == one.not_before
    assert one.precision() == 1
    assert one.bounded()


def test_a_drop_that_waited_for_its_lock_lost_nothing_while_it_waited() -> None:
    for name in ("lock-wait", "lock-wait-none"):
        (one,) = found_in(name)
        assert (one.target() - one.started).total_seconds() >= 2


def test_a_statement_that_is_logged_at_its_end_began_before() -> None:
    limited, whole = found_in("duration")
    (line,) = [line for line in (DATA / "duration.txt").read_text().splitlines() if "pg_sleep(1.3)" in line]
    logged, took = at(line[11:19]), float(line.partition("duration: ")[2].split()[0]) / 1000
    assert limited.started == logged - timedelta(seconds=took)
    assert limited.target() <= limited.started
    assert limited.not_after == logged + timedelta(seconds=1)
    assert (limited.whole, whole.whole) == (False, True)


def test_a_duration_of_its_own_says_when_it_had_ended() -> None:
    (one,) = found_in("duration-alone")
    assert one.not_after is not None
    assert one.precision() == 1
    assert one.bounded()


def test_in_the_extended_protocol_a_duration_does_not_mean_that_it_had_committed() -> None:
    text = [
        "2026-11-25 12:00:00 UTC:[local]:app@shop:[7]:LOG:  execute <unnamed>: delete from public.orders",
        "2026-11-25 12:00:00 UTC:[local]:app@shop:[7]:LOG:  duration: 0.7 ms",
        "2026-11-25 12:00:05 UTC:[local]:app@shop:[7]:LOG:  duration: 9.7 ms  execute <unnamed>: delete from orders",
        "2026-11-25 12:00:05 UTC:[local]:app@shop:[7]:LOG:  duration: 9.7 ms  parse <unnamed>: delete from events",
        "2026-11-25 12:00:05 UTC:[local]:app@shop:[7]:LOG:  execute fetch from c/p: delete from items returning *",
    ]
    found = LogSearch(WANTED, "i").search(LogReader().entries(text))
    assert [(one.kind, one.not_after) for one in found] == [("delete", None), ("delete", None)]


def test_milliseconds_and_another_prefix_are_read() -> None:
    (one,) = found_in("prefix-custom")
    assert one.started.microsecond % 1000 == 0
    assert one.started.microsecond > 0
    assert one.resolution == 0.001
    assert one.target() == one.started.replace(microsecond=0)
    assert one.precision() < 1


def test_a_later_error_of_the_session_leaves_it_uncertain_and_says_so() -> None:
    (one,) = found_in("later-error")
    assert one.outcome == "unknown"
    assert "if both were in one transaction, this was undone" in one.notes[0]


def test_what_stands_in_a_do_block_is_only_a_hint() -> None:
    (one,) = found_in("do-block-all")
    assert (one.kind, set(one.subjects.values()), one.notes) == ("hidden", {"low"}, ["inside a DO block"])


def test_what_was_made_anew_is_noticed() -> None:
    text = [
        "2026-11-25 12:00:00 UTC:[local]:app@shop:[7]:LOG:  statement: drop table orders; create table orders (id int)",
        "2026-11-25 12:00:01 UTC:[local]:app@other:[8]:LOG:  statement: create table items (id int)",
        "2026-11-25 12:00:02 UTC:[local]:app@shop:[7]:LOG:  statement: create table s.events (id int)",
    ]
    search = LogSearch(WANTED, "i")
    search.search(LogReader().entries(text))
    assert search.made == {WANTED.subjects[0]: at("12:00:00")}


@pytest.mark.parametrize(
    ("lines", "remade"),
    [
        (["7 drop table orders", "7 create table orders (id int)"], True),
        (["7 drop table orders; create table orders (id int)"], True),
        (["7 drop table orders", "8 alter table orders_of_today rename to orders"], True),
        (["7 create table orders (id int)", "7 drop table orders"], False),
        (["7 drop table orders", "8 create table orders (id int)", "8 ERROR"], False),
        (["7 drop table orders", "8 begin", "8 create table orders (id int)", "8 rollback"], False),
        (["7 drop table orders", "8 begin", "8 create table orders (id int)", "8 FATAL"], False),
        (["7 drop table orders", "8 begin", "8 create table orders (id int)", "8 commit"], True),
        (["7 begin", "7 drop table orders", "8 create table if not exists orders (id int)", "7 commit"], False),
    ],
)
def test_a_drop_after_which_it_was_made_anew_is_known_not_to_be_the_last(lines: list[str], remade: bool) -> None:
    text = []
    for line in lines:
        pid, _space, said = line.partition(" ")
        begin = f"2026-11-25 02:00:00 UTC:[local]:app@shop:[{pid}]:"
        if said == "ERROR":
            text += [f"{begin}ERROR:  no permission", f"{begin}STATEMENT:  {lines[-2].partition(' ')[2]}"]
        elif said == "FATAL":
            text += [f"{begin}FATAL:  terminating connection due to administrator command"]
        else:
            text += [f"{begin}LOG:  statement: {said}"]
    (one,) = LogSearch(WANTED, "i").search(LogReader().entries(text))
    assert one.remade == ({WANTED.subjects[0]} if remade else set())


def test_a_transaction_that_the_log_shows_open_is_open() -> None:
    text = [
        "2026-11-25 12:00:00 UTC:[local]:app@shop:[7]:LOG:  statement: begin",
        "2026-11-25 12:00:01 UTC:[local]:app@shop:[7]:LOG:  statement: drop table public.orders",
    ]
    (one,) = LogSearch(WANTED, "i").search(LogReader().entries(text))
    assert one.outcome == "open"


def test_a_begin_means_that_what_came_before_was_over() -> None:
    text = [
        "2026-11-25 12:00:01 UTC:[local]:app@shop:[7]:LOG:  statement: drop table public.orders",
        "2026-11-25 12:00:09 UTC:[local]:app@shop:[7]:LOG:  statement: begin",
        "2026-11-25 12:00:09 UTC:[local]:app@shop:[7]:LOG:  statement: rollback",
    ]
    (one,) = LogSearch(WANTED, "i").search(LogReader().entries(text))
    assert (one.outcome, one.not_before, one.not_after) == ("committed", at("12:00:01"), at("12:00:10"))


def test_a_commit_without_a_begin_does_not_date_what_was_over_before() -> None:
    text = [
        "2026-11-25 12:00:01 UTC:[local]:app@shop:[7]:LOG:  statement: drop table public.orders",
        "2026-11-25 12:30:00 UTC:[local]:app@shop:[7]:LOG:  statement: commit",
    ]
    (one,) = LogSearch(WANTED, "i").search(LogReader().entries(text))
    assert (one.outcome, one.target()) == ("committed", at("12:00:01"))


def test_a_process_number_that_is_used_again_is_another_session() -> None:
    text = [
        "2026-11-25 12:00:00 UTC:[local]:app@shop:[7]:LOG:  statement: drop table public.orders",
        "2026-11-25 12:10:00 UTC:[local]:[unknown]@[unknown]:[7]:LOG:  connection received: host=[local]",
        "2026-11-25 12:10:01 UTC:[local]:app@shop:[7]:LOG:  statement: rollback",
    ]
    (one,) = LogSearch(WANTED, "i").search(LogReader().entries(text))
    assert one.outcome == "unknown"


def test_pgaudit_names_the_relation_in_full_and_shows_what_ran_inside() -> None:
    found = found_in("pgaudit")
    assert shown(found) == [
        ("drop_table", {"orders": "high"}, "committed"),
        ("drop_table", {"Order Lines": "high"}, "committed"),
        ("delete", {"events": "high"}, "committed"),
        ("hidden", {}, "committed"),  # the DO block, whose text mentions it
        ("drop_table", {"items": "high"}, "committed"),  # and what ran inside
        ("truncate", {"events": "high"}, "rolled_back"),
        ("drop_table", {"orders": "high"}, "unknown"),  # logged twice, found once
        ("update", {"events": "high"}, "unknown"),  # log_statement off: only the object is there
    ]
    assert [one.whole for one in found] == [True, True, False, False, True, True, True, False]
    assert found[1].statement == 'drop table\n"Order Lines",\n  other;'


def test_a_statement_that_pgaudit_did_not_quote_keeps_its_commas() -> None:
    record = audit_record("AUDIT: SESSION,1,1,READ,SELECT,,,select a, b from t,<not logged>")
    assert record is not None
    assert record.text == "select a, b from t"


@pytest.mark.parametrize(
    ("user", "database"),
    [("jane@CORP.EXAMPLE.COM", "shop"), ("a@b@shop", "shop"), ("jane", "an@shop"), ("me@x", "a b")],
)
@pytest.mark.parametrize("prefix", ["%t:%r:%u@%d:[%p]:", "%m [%p] %q%u@%d/%a "])
def test_a_role_or_a_database_with_an_at_sign_is_read_as_who_it_is(prefix: str, user: str, database: str) -> None:
    stamp = {"%t": "2026-11-25 03:12:00 UTC", "%m": "2026-11-25 03:12:00.123 UTC"}
    known = {**stamp, "%r": "203.0.113.9(41234)", "%u": user, "%d": database, "%p": "815", "%q": "", "%a": "psql"}
    line = prefix
    for escape, text in known.items():
        line = line.replace(escape, text)
    (entry,) = LogReader(prefix, database=database).entries([line + "LOG:  statement: DROP TABLE orders"])
    assert (entry.user, entry.database, entry.message) == (user, database, "statement: DROP TABLE orders")


def test_a_statement_that_looks_like_a_log_line_of_another_database_is_none() -> None:
    text = "statement: SELECT '@shop:[7]:LOG:  statement: DROP TABLE x'"
    (entry,) = LogReader(database="shop").entries([f"2026-11-25 03:12:00 UTC:h(1):bob@workshop:[7]:LOG:  {text}"])
    assert (entry.user, entry.database) == ("bob", "workshop")


def test_a_prefix_without_a_time_or_a_process_is_refused() -> None:
    for prefix in ("%u@%d ", "%t %u ", "%p "):
        with pytest.raises(RecoveryError, match="has no time"):
            LinePrefix(prefix)


@pytest.mark.parametrize(
    ("prefix", "line", "expected"),
    [
        ("%m [%p] ", "2026-11-25 12:00:00.731 CET [7] LOG:  x", None),
        ("%m [%p] ", "2026-11-25 13:00:00.731 +01 [7] LOG:  x", ("12:00:00.731000", 7)),
        ("%t [%5p] %-10u ", "2026-11-25 12:00:00 GMT [    7] app        LOG:  x", ("12:00:00", 7)),
        ("%n %c ", "1795608000.250 692599ba.1f LOG:  x", ("12:00:00.250000", 31)),
        ("%t:%r:%u@%d:[%p]:%l:%e:%s:%v:%x:%c:%q%a", None, ("12:00:00", 7)),
        ("%t %p %q%u@%d ", "2026-11-25 12:00:00 UTC 7 LOG:  x", ("12:00:00", 7)),
    ],
)
def test_prefixes_that_rds_allows(prefix: str, line: Any, expected: Any) -> None:
    line = line or (
        "2026-11-25 12:00:00 UTC:10.0.0.1(5000):app@shop:[7]:3:00000:2026-11-25 11:00:00 UTC:4/12:0:692599ba.7:"
        "psqlLOG:  x"
    )
    if expected is None:
        with pytest.raises(RecoveryError, match="no certain offset from UTC"):
            LinePrefix(prefix).entry(line)
        return
    entry = LinePrefix(prefix).entry(line)
    assert entry is not None
    assert (entry.time, entry.pid, entry.message) == (at(expected[0]), expected[1], "x")


def test_a_prefix_that_was_changed_within_the_log_is_read_on() -> None:
    text = [
        "2026-11-25 12:00:00 UTC:[local]:app@shop:[7]:LOG:  statement: select 1",
        "2026-11-25 12:00:01.000 UTC [7] LOG:  statement: select 2",
        "something else that wrote to stderr",
        "",
        "2026-11-25 12:00:02 UTC:[local]:app@shop:[7]:LOG:  statement: select 3",
    ]
    reader = LogReader("%m [%p] ")
    assert [entry.message[-1] for entry in reader.entries(text)] == ["1", "2", "3"]
    assert (reader.lines, reader.unread) == (5, 1)
