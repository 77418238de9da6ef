"""Where a standby can be read, out of what pg_waldump 15 printed of real transactions."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._wal.locks import LockLog, precedes, unsafe_commits, xids_of

# Each part is headed by its name and by what was run.
PARTS = (Path(__file__).parent / "data" / "locks.txt").read_bytes().split(b"== ")[1:]
TEXTS = {part.split(None, 1)[0].decode(): part.partition(b"\n")[2] for part in PARTS}
DATABASE = 5
A, B, C = 16384, 16389, 16397

END = parse_lsn("0/0176E000")


def followed(*names: str, database: int | None = DATABASE, known: tuple[int, ...] = (A, B, C)) -> LockLog:
    log = LockLog(database, known)
    for name in names:
        log.add(TEXTS[name])
    return log


def test_a_dropped_table_is_readable_until_it_was_locked() -> None:
    found = followed("DROP_A", "DROP_C").readable(END)
    assert found.lsn == parse_lsn("0/0176C370")
    assert found.locked == {A: parse_lsn("0/0176C370"), B: parse_lsn("0/0176C3D0"), C: parse_lsn("0/0176CB08")}
    assert found.commits == ()


def test_what_committed_while_some_tables_were_locked_may_have_changed_the_others() -> None:
    found = followed("DROP_A", "OTHER", "DROP_C").readable(END)
    assert unsafe_commits(found, A, END) == ()
    assert xids_of(unsafe_commits(found, C, END)) == {724}
    assert xids_of(unsafe_commits(found, 99, END)) == {724}


def test_a_commit_ends_the_locks_of_its_subtransactions_too() -> None:
    found = followed("DROP_A", "DROP_C", "COMMIT").readable(END)
    assert (found.lsn, found.locked) == (END, {})


def test_a_subtransaction_that_was_rolled_back_locks_nothing() -> None:
    assert followed("LOCK_B").readable(END).lsn == parse_lsn("0/0176D2F0")
    assert followed("LOCK_B", "ABORT_B").readable(END).lsn == END


def test_a_prepared_transaction_locks_until_it_ends_and_the_first_lock_counts() -> None:
    assert followed("PREPARE").readable(END).locked == {B: parse_lsn("0/0176D3F8")}
    assert followed("PREPARE", "ABORT_PREPARED").readable(END).lsn == END
    assert followed("PREPARE", "AFTER_CRASH").readable(END).lsn == END


def test_the_list_of_running_transactions_tells_which_began_later() -> None:
    assert followed("PREPARE", "AFTER_CRASH").next_xid == 730
    assert followed("DROP_A").next_xid is None


def test_locks_of_another_database_do_not_matter() -> None:
    assert followed("DROP_A", database=7).readable(END).lsn == END
    assert followed("DROP_A", database=None).readable(END).lsn == parse_lsn("0/0176C370")


def test_a_relation_that_nobody_else_sees_yet_locks_nobody_out() -> None:
    assert followed("LOCK_B", known=()).readable(END).lsn == END
    # Made by one transaction, locked by a later one.
    found = followed("DROP_A", "COMMIT", "LOCK_B", known=()).readable(END)
    assert (found.lsn, found.locked) == (parse_lsn("0/0176D2F0"), {B: parse_lsn("0/0176D2F0")})
    assert followed("DROP_A", known=(A,)).readable(END).locked == {A: parse_lsn("0/0176C370")}


def test_transaction_numbers_go_round() -> None:
    assert precedes(0xFFFFFFF0, 5)
    assert not precedes(5, 0xFFFFFFF0)
    assert not precedes(5, 5)
