# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have Patroni make this host's member its leader, and prove what came of it. Of PostgreSQL nothing is touched."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import format_lsn, parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._failover.ancestry import timelines_of
from ansible_collections.dbre.recovery.plugins.module_utils._failover.patroni import Asked, leader_of
from ansible_collections.dbre.recovery.plugins.module_utils._failover.patroni_plan import WELL, member_named, words
from ansible_collections.dbre.recovery.plugins.module_utils._failover.session import Session
from ansible_collections.dbre.recovery.plugins.module_utils._failover.state import PatroniMember
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import Login, connect
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.queries import rows, value

POLL = 0.5
# Words with which patronictl and Patroni say that nothing has begun, or that they have given it up (ctl.py and api.py
# of 3.0). Another 503, "status unknown", comes while the old leader still shuts down: it goes on.
_REFUSED = ("Error:", "details: 4", "503, Switchover failed", "503, Failover failed")
_SERVER = """
SELECT pg_is_in_recovery() AS in_recovery, current_setting('data_directory') AS data,
       CASE WHEN NOT pg_is_in_recovery() THEN
         ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END AS timeline
"""


@dataclass(frozen=True)
class Wanted:
    """What is to be so: ``member`` leads, with all WAL up to ``lsn`` of ``timeline``, and ``followers`` follow it.

    ``leader`` is whose place it takes, alive with ``switchover``; empty where nobody knows its name.
    """

    executable: str
    config: str
    scope: str
    member: str
    leader: str
    timeline: int
    lsn: str
    timeout: float
    switchover: bool = False
    followers: list[str] = field(default_factory=list)


class Leading:
    """One look at the world after the other until the member leads."""

    def __init__(self, login: Login, wanted: Wanted, check_mode: bool) -> None:
        self.login, self.wanted, self.check_mode = login, wanted, check_mode
        self.ask = Asked(wanted.executable, wanted.config, wanted.scope)
        self.said = ""

    def ensure(self) -> dict[str, Any]:
        """Have it so; the module's result. RecoveryError where it does not come about, or is not what was wanted."""
        began, now = time.monotonic(), datetime.now(timezone.utc).isoformat()
        members = self.ask.members()
        leader = leader_of(members)
        changed = leader != self.wanted.member
        if changed:
            self._refuse_other(leader)
            if self.check_mode:
                return {"changed": True}
            self._command()
            self._wait_for_lead(began)
        result = {"changed": changed, "leader": self.wanted.member, "said": self.said, **self._proved()}
        if changed:
            result |= {"began": now, "seconds": round(time.monotonic() - began, 3)}
        missing = [] if self.check_mode else self._follow(result["timeline"])
        return {**result, "missing": missing}

    def _refuse_other(self, leader: str) -> None:
        """Raise RecoveryError where another member leads than the one whose place is to be taken."""
        if leader in ("", self.wanted.leader, self.wanted.member):
            return
        raise RecoveryError(
            f"Patroni has made {leader} the leader of {self.wanted.scope} since the plan was made, and not "
            f"{self.wanted.member}. {leader} takes writes; nothing more was asked of Patroni. Run this again as a new "
            "incident (without dr_incident_id): it goes on with the leader that there is."
        )

    def _command(self) -> None:
        wanted = self.wanted
        given = {"leader": wanted.leader, "member": wanted.member, "switchover": wanted.switchover}
        self.said = self.ask.do(words(given), self.wanted.timeout)
        if "no such option" in self.said.lower():  # Patroni 2, which knows the leader by another word only
            older = ["--master" if word == "--leader" else word for word in words(given)]
            self.said = self.ask.do(older, self.wanted.timeout)

    def _wait_for_lead(self, began: float) -> None:
        refused = any(word in self.said for word in _REFUSED)
        members: Sequence[PatroniMember] = []
        while True:
            try:
                members = self.ask.members()
            except RecoveryError as error:
                self.said = f"{self.said} {error.msg}"
            leader = leader_of(members)
            if leader == self.wanted.member and self._writes():
                return
            self._refuse_other(leader)
            over = time.monotonic() - began > self.wanted.timeout
            if refused or over:
                raise RecoveryError(self._complaint(leader, refused))
            time.sleep(POLL)

    def _complaint(self, leader: str, refused: bool) -> str:
        listed = " ".join(self.ask.argv(["list"]))
        how = f"Patroni said: {self.said or 'nothing'}"
        if refused:
            return (
                f"Patroni does not make {self.wanted.member} the leader of {self.wanted.scope}. {how}. Its leader is "
                f"{leader or 'nobody'}; nothing was changed. Mend that, and run this again with the same "
                "dr_incident_id."
            )
        return (
            f"{self.wanted.member} is not the leader of {self.wanted.scope} after {self.wanted.timeout:g} s; that is "
            f"{leader or 'nobody'}. {how}. Patroni has the order, and may carry it out yet: its log on each host says "
            f"what it waits for. See {listed}, and run this again with the same dr_incident_id, which looks first."
        )

    def _writes(self) -> bool:
        try:
            connection = connect(self.login, any_database=True)
        except RecoveryError:
            return False
        try:
            return not value(connection, "SELECT pg_is_in_recovery()")
        finally:
            connection.close()

    def _proved(self) -> dict[str, Any]:
        """Timeline and fork of the server here, which takes writes; RecoveryError where it does not, or lacks WAL."""
        connection = connect(self.login, any_database=True)
        try:
            now = rows(connection, _SERVER)[0]
            if now["in_recovery"]:
                raise RecoveryError(
                    f"Patroni's leader is {self.wanted.member}, and the server of this host is a standby: it is not "
                    "that member's, or Patroni is at work. Nothing was changed here. Run this again with the same "
                    "dr_incident_id."
                )
            # A transaction id is given only to who may write.
            value(connection, "SELECT txid_current()")
        finally:
            connection.close()
        ends = dict(timelines_of(now["timeline"], Session.history(now["data"], now["timeline"])).ends)
        fork = ends.get(self.wanted.timeline)
        if fork is None or fork < parse_lsn(self.wanted.lsn):
            has = ", ".join(f"{timeline} up to {format_lsn(end)}" for timeline, end in ends.items()) or "none"
            raise RecoveryError(
                f"{self.wanted.member} is the leader on timeline {now['timeline']}, which did not begin where timeline "
                f"{self.wanted.timeline} had ended ({self.wanted.lsn} or later); it has of others: {has}. Patroni made "
                "it so. What lies between is missing: look at both servers before applications go on."
            )
        return {"timeline": now["timeline"], "fork_lsn": format_lsn(fork)}

    def _follow(self, timeline: int) -> list[dict[str, str]]:
        """Wait until all followers run on the new timeline; those that do not when time is over, and how they are."""
        if not self.wanted.followers:
            return []
        deadline = time.monotonic() + self.wanted.timeout
        while True:
            members = self.ask.members()
            how = {name: _how(member_named(members, name), timeline) for name in self.wanted.followers}
            left = [{"member": name, "why": why} for name, why in how.items() if why]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(POLL)


def _how(member: Optional[PatroniMember], timeline: int) -> str:
    """Why a member does not follow; empty when it does."""
    if member is None:
        return "is not in Patroni's list: Patroni does not run there"
    if member["state"] not in WELL:
        return f"is {member['state']}"
    if member["timeline"] != timeline:
        return f"is {member['state']} on timeline {member['timeline']}, and the leader on {timeline}"
    return ""
