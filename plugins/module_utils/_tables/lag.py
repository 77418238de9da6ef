# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far standbys fall behind while a recovery loads, and when it waits for them.

PostgreSQL measures ``replay_lag`` when a standby passes a position, so it stands still while replay does
(LagTrackerRead in src/backend/replication/walsender.c). Here it is how long ago that was written which the standby
does not have yet.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.progress import Progress
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows

# Seconds between two looks, at least and at most.
INTERVALS = 0.1, 1.0
# Replay that has not moved for so long is paused or delayed by its operator. Queries of a standby hold it up for
# max_standby_streaming_delay, 30 s by default.
PATIENCE = 60.0
# Seconds that one run waits for standbys in all: what was lost comes first.
LONGEST = 600.0
# Behind by more bytes than this when we begin, replay is behind for reasons of its own.
BEHIND = 16 << 20

LOOK = """
SELECT (pg_catalog.pg_current_wal_flush_lsn() - '0/0'::pg_catalog.pg_lsn)::int8 AS position,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity
        WHERE application_name = pg_catalog.current_setting('application_name') AND usename = session_user) AS sessions
"""
# pg_receivewal replays nothing; a logical decoder is behind a slot.
STANDBYS = """
SELECT r.pid, r.application_name AS name, pg_catalog.host(r.client_addr) AS address,
       (r.write_lsn - '0/0'::pg_catalog.pg_lsn)::int8 AS written,
       (r.replay_lsn - '0/0'::pg_catalog.pg_lsn)::int8 AS replayed
FROM pg_catalog.pg_stat_replication r LEFT JOIN pg_catalog.pg_replication_slots s ON s.active_pid = r.pid
WHERE r.state IN ('streaming', 'catchup') AND coalesce(s.slot_type, 'physical') = 'physical' ORDER BY 2, 3, 1
"""


class _Standby:
    """What is known of one connection of a standby."""

    def __init__(self, row: Mapping[str, Any], position: int, now: float) -> None:
        self.name = str(row["name"]) + (f" at {row['address']}" if row["address"] else "")
        self.replayed: Optional[int] = row["replayed"]
        self.moved = now
        self.late_since: Optional[float] = None
        self.most = 0.0
        # The position up to which it is behind for reasons of its own.
        self.own = position if self.replayed is not None and self.replayed < position - BEHIND else None
        self.stands = False

    def why(self) -> Optional[str]:
        """Why its replay is not waited for, if it is not."""
        if self.own is not None:
            return "its replay was behind when loading began (delayed, paused or slow)"
        return "its replay did not move (delayed or paused)" if self.stands else None


class Lag:
    """Which standbys are behind by more than ``limit`` seconds because of us; 0 waits for none.

    One whose replay does not move (``recovery_min_apply_delay``, a pause) is waited for ``patience`` seconds, and then
    for what it receives only, until it has caught up.
    """

    def __init__(self, limit: float, patience: float = PATIENCE) -> None:
        self.limit = limit
        self._patience = patience
        self._positions: list[int] = []
        self._times: list[float] = []
        self._standbys: dict[int, _Standby] = {}

    def look(self, now: float, position: int, standbys: Sequence[Mapping[str, Any]]) -> list[str]:
        """Names of those to be waited for now. ``position`` is production's, rows are those of STANDBYS."""
        if not self._positions or position > self._positions[-1]:
            self._positions.append(position)
            self._times.append(now)
        late = []
        for row in standbys:
            known = self._standbys.setdefault(row["pid"], _Standby(row, position, now))
            if self._is_late(known, row, now):
                late.append(known.name)
        return late

    def _is_late(self, known: _Standby, row: Mapping[str, Any], now: float) -> bool:
        receiving, replaying = (self._behind(row[key], now) for key in ("written", "replayed"))
        known.most = max(known.most, receiving, replaying)
        if row["replayed"] != known.replayed:
            known.replayed, known.moved = row["replayed"], now
        if known.own is not None and (known.replayed or 0) >= known.own:
            known.own = None
        if replaying <= self.limit:
            known.late_since, known.stands = None, False
        elif known.late_since is None:
            known.late_since = now
        elif now - max(known.moved, known.late_since) > self._patience:
            known.stands = True
        waits = receiving if known.why() else max(receiving, replaying)
        return 0 < self.limit < waits

    def _behind(self, position: Optional[int], now: float) -> float:
        """Seconds since the first look that saw more written than ``position``."""
        if position is None:
            return 0.0
        first = bisect_right(self._positions, position)
        return now - self._times[first] if first < len(self._times) else 0.0

    def standbys(self) -> list[dict[str, Any]]:
        """Each that was seen, how far it was behind at most, and why its replay was not waited for."""
        return [
            {"name": item.name, "most_lag_seconds": round(item.most, 1), "not_waited_for": item.why()}
            for item in self._standbys.values()
        ]


class Watch:
    """Looks at production while a recovery loads: what it costs, and whether it must wait.

    By a session that has nothing else to do meanwhile: production may have none to spare.
    """

    def __init__(self, lag: Lag, progress: Progress) -> None:
        self._lag = lag
        self._progress = progress
        self._late: Sequence[str] = ()
        self._changed = threading.Condition()
        # What the limit needs, but no more and no less often than that.
        self._interval = min(max(lag.limit / 4, INTERVALS[0]), INTERVALS[1]) if lag.limit else INTERVALS[1]
        self._waiting = 0
        self._waited = 0.0
        self._sessions = 0
        self._positions: list[int] = []

    def look(self, connection: Any) -> None:
        """Once, outside of a transaction."""
        found, standbys = rows(connection, LOOK)[0], rows(connection, STANDBYS)
        connection.rollback()
        self._positions = [*self._positions[:1], found["position"]]
        self._sessions = max(self._sessions, found["sessions"])
        late = self._lag.look(time.monotonic(), found["position"], standbys)
        self._let(late if self._waited < LONGEST else ())

    def _let(self, late: Sequence[str]) -> None:
        with self._changed:
            self._late = late
            self._changed.notify_all()

    @contextmanager
    def looking(self, connection: Any) -> Iterator[None]:
        """Look all the time; nobody else uses the session meanwhile."""
        over = threading.Event()
        thread = threading.Thread(target=self._run, args=(connection, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _run(self, connection: Any, over: threading.Event) -> None:
        # Who loads must not wait for one who cannot look any more.
        with suppress(Exception):
            before = time.monotonic()
            while not over.wait(self._interval):
                now = time.monotonic()
                if self._waiting and self._late:
                    self._waited += now - before
                    self._progress.say(f"wait for {', '.join(self._late)}", int(self._waited), int(LONGEST), "seconds")
                before = now
                self.look(connection)
        self._let(())

    def wait(self) -> None:
        """Return when no standby is behind because of us, or when that was waited for long enough."""
        if not self._late:
            return
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._late)
            self._waiting -= 1

    def measured(self) -> dict[str, Any]:
        """What was seen between the first look and the last. WAL that others wrote meanwhile is in it."""
        return {
            "wal_bytes": self._positions[-1] - self._positions[0],
            "sessions": self._sessions,
            "max_lag": self._lag.limit,
            "waited_seconds": round(self._waited, 1),
            "standbys": self._lag.standbys(),
        }
