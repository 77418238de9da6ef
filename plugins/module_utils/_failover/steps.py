# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a failover does to a standby: cut it off, bring it to the proved end of WAL, promote it, let others follow.

Each step looks at the server first, so that a run that was killed goes on.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn, parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import size
from ansible_collections.dbre.recovery.plugins.module_utils._failover.ancestry import timelines_of
from ansible_collections.dbre.recovery.plugins.module_utils._failover.conninfo import with_primary
from ansible_collections.dbre.recovery.plugins.module_utils._failover.leaving import left_at, will_leave
from ansible_collections.dbre.recovery.plugins.module_utils._failover.quorum import parse_standby_names
from ansible_collections.dbre.recovery.plugins.module_utils._failover.session import (
    AUTO,
    POLL,
    SET_IN,
    Request,
    Session,
)
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_literal
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import execute, rows, value

with suppress(ImportError):  # connect() says so
    import psycopg2

# Seconds without any progress of replay after which nothing more is to be expected: PostgreSQL looks into archive and
# pg_wal every five.
STALLED = 20.0
CUT_PATIENCE = 20.0
RECEIVER_PATIENCE = 2.0


class Step(Session):
    """What can be done to a server."""

    # Cut off

    def cut(self) -> dict[str, Any]:
        """Have the standby ask nobody for WAL; what it asked is kept in the record."""
        now = self.look()
        if not now["in_recovery"] or (not now["conninfo"] and not now["receivers"]):
            return {"changed": False}
        if not self.check_mode:
            self.remember()
            self.set_conninfo("")
            self._end_receiver()
            self.wait(self._is_cut, CUT_PATIENCE, "its WAL receiver does not stop")
        return {"changed": True}

    def _end_receiver(self) -> None:
        """End the WAL receiver where nobody else does.

        That is the startup process, which does so when it wants more WAL: not while it holds a commit back (a delayed
        standby) or waits for queries (xlogrecovery.c: StartupRequestWalReceiverRestart).
        """
        deadline = time.monotonic() + RECEIVER_PATIENCE
        while not self._is_cut():
            if time.monotonic() > deadline:
                for pid in self.look()["receivers"]:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)
                return
            time.sleep(POLL)

    def _is_cut(self) -> bool:
        now = self.look()
        return not now["conninfo"] and not now["receivers"]

    # Bring it to the end, and promote it

    def _replay(self, begin: int) -> None:
        """Wait until everything up to the position is replayed, from ``begin`` on."""
        wanted = parse_lsn(self.request.lsn)
        if begin >= wanted:
            return
        self.reload()
        reached, moved = begin, time.monotonic()
        deadline = time.monotonic() + self.request.timeout
        while reached < wanted:
            if time.monotonic() > min(deadline, moved + STALLED):
                raise RecoveryError(
                    f"the standby on {self.host} has replayed up to {format_lsn(reached)} and does not come to "
                    f"{self.request.lsn}, {size(wanted - reached)} further. Nothing is promoted. Its log in "
                    "/var/log/postgresql says what is missing; what lacks may be on another host or in the archive. "
                    "Run this again then, or do without: -e dr_salvage_on_timeout=lose"
                )
            time.sleep(POLL)
            at = parse_lsn(self.look()["replay_lsn"])
            if at > reached:
                reached, moved = at, time.monotonic()
                self.progress.say("replay", reached - begin, wanted - begin, "bytes")
        self.progress.end()

    def promoted(self) -> dict[str, Any]:
        """Make a primary of it when it has replayed everything up to the position; with slots for followers.

        RecoveryError where it does not come there, or its new timeline does not begin there or behind.
        """
        now = self.look()
        changed = bool(now["in_recovery"])
        if changed and self.check_mode:
            return {"changed": True}
        if changed:
            self._replay(parse_lsn(now["replay_lsn"]))
        began = time.monotonic()
        if changed:
            value(self.connection, "SELECT pg_promote(false)")
            self.wait(lambda: not self._in_recovery(), self.request.timeout, "it stays in recovery")
            now = self.look()
        seconds = time.monotonic() - began
        fork = self._require_descent(now)
        if not self.check_mode:
            if changed:
                execute(self.connection, "CHECKPOINT")
            changed = self._settle_promoted() or changed
            changed = self._have_slots() or changed
        return {
            "changed": changed,
            "timeline": now["timeline"],
            "fork_lsn": format_lsn(fork),
            "promotion_seconds": round(seconds, 3),
            "hba_file": now["hba_file"],
        }

    def _in_recovery(self) -> bool:
        return bool(value(self.connection, "SELECT pg_is_in_recovery()"))

    def _require_descent(self, now: Mapping[str, Any]) -> int:
        """Where the server left the old timeline; RecoveryError where it is another timeline's."""
        timelines = timelines_of(now["timeline"], self.history(now["data"], now["timeline"]))
        ends = dict(timelines.ends)
        fork = ends.get(self.request.timeline)
        if fork is None or fork < parse_lsn(self.request.lsn):
            raise RecoveryError(
                f"{self.host} is a primary on timeline {now['timeline']}, which does not begin where timeline "
                f"{self.request.timeline} ended ({self.request.lsn} or later): its history says {ends}. It was not "
                "changed. Somebody promoted it before it had all WAL; look at both before you go on."
            )
        return fork

    def _settle_promoted(self) -> bool:
        """Put primary_conninfo back as it was, for the day when this is a standby again."""
        known = self.remembered()
        if not known:
            return False
        self.set_conninfo(known["automatic"])
        os.unlink(self.record_file)
        return True

    def _have_slots(self) -> bool:
        """Physical slots of these names, which keep WAL from now on."""
        there = {row["slot_name"] for row in rows(self.connection, "SELECT slot_name FROM pg_replication_slots")}
        missing = [name for name in self.request.slots if name not in there]
        for name in missing:
            value(self.connection, "SELECT slot_name FROM pg_create_physical_replication_slot(%s, true)", (name,))
        return bool(missing)

    def synchronous(self) -> dict[str, Any]:
        """Have commits wait for standbys as they did on the old primary, when there are enough that stream.

        With fewer, every commit would wait; then nothing is set, and ``applied`` is false.
        """
        names = self.request.synchronous_standby_names
        wanted = parse_standby_names(names)
        streaming = [row["name"] for row in rows(self.connection, _STREAMING)]
        if wanted and len({name for name in streaming if wanted.wants(name)}) < wanted.count:
            return {"changed": False, "applied": False, "streaming": streaming}
        there = [row["slot_name"] for row in rows(self.connection, "SELECT slot_name FROM pg_replication_slots")]
        slots = [name for name in self.request.synchronized_standby_slots.split(", ") if name in there]
        settings = {"synchronous_standby_names": names, "synchronized_standby_slots": ", ".join(slots)}
        changed = [name for name, text in settings.items() if text and self._differs(name, text)]
        if not self.check_mode:
            for name in changed:
                execute(self.connection, f"ALTER SYSTEM SET {name} TO {quote_literal(settings[name])}")
            self.reload()
        return {"changed": bool(changed), "applied": True, "streaming": streaming}

    def _differs(self, name: str, text: str) -> bool:
        now = value(self.connection, "SELECT current_setting(%s, true)", (name,))
        return now is not None and now != text

    # Follow

    def following(self) -> dict[str, Any]:
        """Let the standby ask the new primary for WAL, and wait until it streams, and has replayed, what that wrote.

        One that has left the new primary's way is cut off instead, and ``left`` says where. A delayed one asks only
        when it has replayed what it has (xlogrecovery.c), which may take hours.
        """
        now = self.look()
        if not now["in_recovery"]:
            raise RecoveryError(
                f"{self.host} is to follow the new primary and is a primary itself. It was not changed. Look at once "
                "whether applications write to it."
            )
        known = self.remembered()
        wanted = with_primary(
            known.get("conninfo") or now["conninfo"], self.request.primary_host, self.request.primary_port
        )
        result = {"changed": now["conninfo"] != wanted, "left": None, **self.where_set(known)}
        if left := self._left(now):
            return {**result, **self.cut(), "left": left}
        if result["changed"] and not self.check_mode:
            self.set_conninfo(wanted)
        if not self.check_mode and not now["delayed"]:
            left = self._wait_for_the_new(self.request.timeout)
            if left:
                return {**result, **self.cut(), "left": left}
        return result

    def _left(self, now: Mapping[str, Any]) -> Optional[dict[str, Any]]:
        fork, timeline = parse_lsn(self.request.lsn), self.request.timeline
        left = left_at(self.connection, fork, timeline, self.check_mode)
        return left or (will_leave(self.connection, fork, timeline) if now["delayed"] else None)

    def _wait_for_the_new(self, patience: float) -> Optional[dict[str, Any]]:
        """Wait until the first record of the new timeline is replayed; where it has left instead."""
        self.wait(self._is_beyond, patience, "it does not stream from the new primary")
        if left := self._left(self.look()):
            return left
        self.wait(self._streams, patience, "it does not stream from the new primary")
        return None

    def _is_beyond(self) -> bool:
        return parse_lsn(self.look()["replay_lsn"]) > parse_lsn(self.request.lsn)

    def _streams(self) -> bool:
        now = self.look()
        return now["receiver"] == "streaming" and now["received_timeline"] == self.request.timeline

    def settled(self) -> dict[str, Any]:
        """Let the configuration file speak again, once it names the new primary; nothing more is remembered then."""
        now, found = self.look(), rows(self.connection, SET_IN)
        files = [row["setting"] for row in found if os.path.basename(row["sourcefile"]) != AUTO]
        automatic = any(os.path.basename(row["sourcefile"]) == AUTO for row in found)
        by_file = automatic and bool(files) and files[-1] == now["conninfo"]
        known = self.remembered()
        if not self.check_mode:
            if by_file:
                self.set_conninfo(None)
            if known:
                os.unlink(self.record_file)
        return {"changed": by_file or bool(known)}


_STREAMING = "SELECT application_name AS name FROM pg_stat_replication WHERE state = 'streaming' ORDER BY 1"

STEPS: Mapping[str, Callable[[Step], dict[str, Any]]] = {
    "synchronous": Step.synchronous,
    "cut": Step.cut,
    "promoted": Step.promoted,
    "following": Step.following,
    "settled": Step.settled,
}


def take_step(login: Login, state: str, request: Request, check_mode: bool) -> dict[str, Any]:
    """Bring a server into a state; the module's result. RecoveryError where that cannot be."""
    step = Step(login, request, check_mode)
    try:
        return STEPS[state](step)
    except psycopg2.Error as error:
        raise RecoveryError(
            f"the server on {step.host}, port {step.port}, refused: {str(error).strip()}. Run this again with the same "
            "dr_incident_id; it goes on where it was.",
            sqlstate=error.pgcode,
        ) from error
    finally:
        step.close()
