"""Sessions of production wait for a recovery for moments only, whoever else is in its way."""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import login_of
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks import Lock, Locks, patiently
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import open_production
from ansible_collections.dbre.recovery.plugins.module_utils._tables.actions import SWAP
from ansible_collections.dbre.recovery.plugins.module_utils._tables.impact import impact_on

pytestmark = pytest.mark.parametrize("world", ["socket"], indirect=True)

LIMIT = 2000  # milliseconds
# Those in the way of staging leave when they were met; all others then, one kind after the other, in so many seconds.
STAGING, REST = "_parent$", "_(?!parent)"
SITTING = 8
# Sessions in the way, each in an open transaction that touched its tables.
KINDS = {
    "reader": "SELECT FROM {} LIMIT 1",
    "writer": "UPDATE {} SET v = v WHERE id = 1",
    "locker": "SELECT FROM {} WHERE id = 1 FOR UPDATE",
    "vacuum": "LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE",
}
OF_PLACE = [
    *("key_from", "key_to", "trigger", "check", "default", "index", "policy", "rule"),
    *("view", "matview", "parent", "tree", "others"),
]
# Ways to load, by incident.
WAYS = {
    "place": OF_PLACE,
    "merge": ["merge", "merge_key"],
    "columns": ["columns"],
    "replace": ["replace"],
    "beside": ["beside"],
}
STEPS = [step for steps in WAYS.values() for step in steps]
DAMAGE = ["DROP SCHEMA gone CASCADE"] + [
    statement.format(kind)
    for kind in KINDS
    for statement in (
        "DELETE FROM {}_merge WHERE id IN (1, 3, 5)",
        "ALTER TABLE {}_columns DROP COLUMN w",
        "DELETE FROM {}_replace WHERE id > 50",
        "DELETE FROM {}_beside WHERE id > 50",
    )
]
ACQUIRED = re.compile(r"process (\d+) acquired \w+ on (\w+) (\d+).* after ([\d.]+) ms")
MET = """
SELECT string_agg(DISTINCT a.application_name, ' ') FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE NOT l.granted AND a.application_name ~ '^dbre.recovery' AND l.relation::regclass::text ~ '{}'
"""


class Others:
    """Sessions that read and write the tables all the time, and what the server says of their waits for locks."""

    def __init__(self, production: Any) -> None:
        self._production = production
        self._over = threading.Event()
        self._kinds: dict[int, str] = {}
        self._failed: list[BaseException] = []
        self._threads = [threading.Thread(target=self._work, args=(kind,)) for kind in KINDS]
        for thread in self._threads:
            thread.start()

    def _work(self, kind: str) -> None:
        connection = self._production.connect("waits")
        try:
            self._kinds[connection.info.backend_pid] = kind
            with connection.cursor() as cursor:
                # Makes the server log each wait that is longer than that, and how long it was.
                cursor.execute("SET log_lock_waits = on; SET deadlock_timeout = '20ms'")
                for step in cycle(STEPS):
                    if self._over.is_set():
                        return
                    cursor.execute(f"SELECT count(*) FROM {kind}_{step}")
                    cursor.execute(f"UPDATE {kind}_{step} SET v = v + 1 WHERE id = 2")
                    time.sleep(0.003)  # four of them would have two cores to themselves
        except BaseException as error:
            self._failed.append(error)
        finally:
            connection.close()

    def end(self) -> dict[tuple[str, str], float]:
        """The longest wait in milliseconds by step and kind."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert self._failed == []
        longest: dict[tuple[str, str], float] = defaultdict(float)
        for pid, on, number, milliseconds in ACQUIRED.findall(self._production.log.read_text(errors="replace")):
            if int(pid) not in self._kinds:
                continue
            kind, step = self._kinds[int(pid)], "rows"
            if on == "relation":
                name = self._production.sql("waits", f"SELECT {number}::regclass::text")
                step = name.removeprefix(f"{kind}_")
            longest[step, kind] = max(longest[step, kind], float(milliseconds))
        return longest


def sit(production: Any, where: str) -> list[Any]:
    """Sessions, one of each kind, in an open transaction in which they have touched their tables of the steps."""
    sessions = [production.connect("waits") for unused in KINDS]
    for session, (kind, statement) in zip(sessions, KINDS.items()):
        session.autocommit = False
        with session.cursor() as cursor:
            for step in STEPS:
                if re.search(where, f"_{step}"):
                    cursor.execute(statement.format(f"{kind}_{step}"))
    return sessions


def leave(production: Any, where: str, ways: set[str], sessions: list[Any], seconds: float) -> None:
    """End the sessions within some seconds after all of the ways to load were seen to wait for them."""
    deadline = time.monotonic() + 90
    seen: set[str] = set()
    while not ways <= seen:
        assert time.monotonic() < deadline, ways - seen
        seen |= set((production.sql("waits", MET.format(where)) or "").split())
        time.sleep(0.01)
    for session in sessions:
        time.sleep(seconds / len(sessions))
        session.close()


def test_nobody_waits_longer_than_two_seconds_whoever_is_in_the_way(waits: Any) -> None:
    production = waits.production
    definition, contents = production.definition("waits"), production.contents("waits")
    production.sql("waits", *DAMAGE)
    asked: dict[str, Any] = {
        way: {
            "relations": [f"{kind}_{step}" for kind in KINDS for step in steps],
            "load": "beside" if way == "columns" else way,
        }
        for way, steps in WAYS.items()
    }
    asked["place"] = {"schemas": ["gone"]}
    staging, rest = sit(production, STAGING), sit(production, REST)
    others = Others(production)
    drivers = [waits.start_recovery("waits", incident=way, parallel=len(KINDS), **asked[way]) for way in WAYS]
    leave(production, STAGING, {"place"}, staging, 1)
    leave(production, REST, {"place", "merge", "columns", "replace"}, rest, SITTING)
    answers = dict(zip(WAYS, map(waits.finish, drivers)))
    longest = others.end()

    print(f"\nlongest wait of others in ms: {'':8}{''.join(f'{kind:>9}' for kind in KINDS)}")
    for step in [*STEPS, "rows"]:
        print(f"{step:38}{''.join(f'{longest[step, kind]:9.0f}' for kind in KINDS)}")
    assert [answer.get("error") for answer in answers.values()] == [None] * len(WAYS)
    assert max(longest.values()) < LIMIT
    for way in ("place", "merge", "columns", "replace"):
        assert [item for item in answers[way]["result"]["left_to_do"] if item["lost"]] == []
    for way in WAYS:
        waits.remove("waits", incident=way)
        production.sql("waits", f"DROP SCHEMA IF EXISTS recovered_{way} CASCADE")
    assert production.definition("waits") == definition
    now = production.contents("waits")
    lost = [name for name in contents if name.startswith("gone.")]
    assert {name: now[name] for name in lost} == {name: contents[name] for name in lost}


def test_who_is_in_the_way_is_named_and_not_ended(waits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, other = waits.production.connect("waits"), waits.production.connect("waits")
    ours.autocommit = other.autocommit = False
    locks = Locks(ours)
    wanted = [Lock("public.keys", "ACCESS EXCLUSIVE"), Lock("public.reader_tree", "EXCLUSIVE", tree=True)]
    with other.cursor() as cursor:
        cursor.execute("SET application_name = 'cart'; SELECT FROM keys")
    monkeypatch.setattr("ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks.ATTEMPTS", 1)
    named = (
        rf'We need "public"."keys" in ACCESS EXCLUSIVE mode. It is held by session {other.info.backend_pid} '
        r"\(role postgres, application cart, idle in transaction since .* UTC, AccessShareLock\). Wait for them"
    )
    with pytest.raises(RecoveryError, match=named):
        patiently(ours, lambda: locks.take(wanted), locks=locks)
    other.rollback()

    # One of two who wait for each other must go.
    monkeypatch.undo()
    with other.cursor() as cursor:
        cursor.execute("LOCK TABLE reader_others")

    def lock_first() -> None:
        with ours.cursor() as cursor:
            cursor.execute("LOCK TABLE keys")
        locks.take(wanted)

    thread = threading.Thread(target=patiently, args=(ours, lock_first), kwargs={"locks": locks})
    thread.start()
    with other.cursor() as cursor:
        cursor.execute("LOCK TABLE keys")
    other.close()
    thread.join()
    ours.close()


def test_locks_on_partitions_that_everybody_uses_in_another_order_can_be_had(
    waits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    production = waits.production
    production.sql(
        "waits",
        "CREATE TABLE crossed (id int) PARTITION BY LIST (id)",
        "CREATE TABLE crossed_2 PARTITION OF crossed FOR VALUES IN (2)",
        "CREATE TABLE crossed_1 PARTITION OF crossed FOR VALUES IN (1) PARTITION BY LIST (id)",
        "CREATE TABLE crossed_1_1 PARTITION OF crossed_1 FOR VALUES IN (1)",
    )
    over = threading.Event()
    failed: list[BaseException] = []

    def use(*order: int) -> None:
        connection = production.connect("waits")
        try:
            with connection.cursor() as cursor:
                # Without us nobody is in anybody's way. So slow that two are always in the midst of it.
                cursor.execute("SET deadlock_timeout = '1min'")
                while not over.is_set():
                    first, second = (f"SELECT FROM crossed WHERE id = {number}" for number in order)
                    cursor.execute(f"BEGIN; {first}; SELECT pg_sleep(0.05); {second}; COMMIT")
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=use, args=order) for order in ((1, 2), (2, 1), (1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    ours = production.connect("waits")
    ours.autocommit = False
    monkeypatch.setattr("ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks.ATTEMPTS", 3)
    try:
        for wanted in (
            [Lock("public.crossed_1_1", "ACCESS EXCLUSIVE"), Lock("public.crossed_2", "ACCESS EXCLUSIVE")],
            [Lock("public.crossed", "ACCESS EXCLUSIVE", tree=True)],
        ):
            locks = Locks(ours)
            patiently(ours, partial(locks.take, wanted), locks=locks)
        # Somebody who sits on another part is not in the way of those who need not wait for him.
        sitting = production.connect("waits")
        sitting.autocommit = False
        with sitting.cursor() as cursor:
            cursor.execute("SELECT FROM crossed WHERE id = 2")
        locks = Locks(ours)
        patiently(ours, partial(locks.take, [Lock("public.crossed_1_1", "ACCESS EXCLUSIVE")]), locks=locks)
        sitting.close()
    finally:
        over.set()
        for thread in threads:
            thread.join()
        ours.close()
    assert failed == []


def test_a_prepared_transaction_in_the_way_is_named_with_what_decides_it(
    waits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits.production.sql("waits", "CREATE TABLE IF NOT EXISTS mine (id int); INSERT INTO mine VALUES (1)")
    ours, other = waits.production.connect("waits"), waits.production.connect("waits")
    ours.autocommit = False
    monkeypatch.setattr("ansible_collections.dbre.recovery.plugins.module_utils._postgresql.locks.ATTEMPTS", 1)
    with other.cursor() as cursor:
        for statement in ("BEGIN", "SAVEPOINT a", "UPDATE mine SET id = 2", "PREPARE TRANSACTION 'half done'"):
            cursor.execute(statement)
    other.close()

    def lock_table(locks: Locks) -> None:
        locks.take([Lock("public.mine", "ACCESS EXCLUSIVE")])

    def lock_rows(_locks: Locks) -> None:
        with ours.cursor() as cursor:
            cursor.execute("SELECT FROM mine FOR UPDATE")

    def refused(work: Callable[[Locks], None]) -> str:
        locks = Locks(ours)
        with pytest.raises(RecoveryError) as caught:
            patiently(ours, lambda: work(locks), locks=locks)
        assert "(ROLLBACK PREPARED 'half done';), then run again" in caught.value.msg
        return caught.value.msg

    held = "It is held by the prepared transaction 'half done', RowExclusiveLock since"
    assert held in refused(lock_table)
    assert "The longest transactions are those of the prepared transaction 'half done' since" in refused(lock_rows)
    ours.close()
    # Its locks have another number then.
    waits.production.stop("fast")
    waits.production.start()
    ours = waits.production.connect("waits")
    ours.autocommit = False
    assert held in refused(lock_table)
    ours.close()
    # Known before anything is restored, where tables are to change places.
    with open_production(login_of(waits.params), waits.params["bin_dir"], "test") as production:
        (told,) = impact_on(production, "waits", ["public.mine"], [], SWAP, 1, "test")["holding"]
    assert told.startswith("NOTE prepared transaction 'half done' holds public.mine: before")
    waits.production.sql("waits", "ROLLBACK PREPARED 'half done'", "DROP TABLE mine")
