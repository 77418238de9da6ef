# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a standby follows its primary, and why it does not; how a host is let in by pg_hba.conf."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Optional, TypedDict


class StandbyState(TypedDict):
    """What a standby says of itself.

    ``receiver`` is the status of its WAL receiver; ``received`` and ``replayed`` say whether it has come to the
    primary's end, ``held`` whether a recovery target of an incident is set.
    """

    in_recovery: bool
    receiver: Optional[str]
    received: bool
    replayed: bool
    replay_lsn: Optional[str]
    paused: bool
    waits_for: Optional[str]
    held: bool


def follows(state: StandbyState, delay: str) -> bool:
    """Whether a standby that holds back what it replays for ``delay`` (``0``: not at all) follows its primary.

    With a delay, what is received counts; and since PostgreSQL asks for WAL only when it has replayed what it has, a
    delayed standby that was restarted may have to wait for the delay before it streams again.
    """
    if not state["in_recovery"] or state["held"]:
        return False
    if delay != "0" and state["waits_for"] == "RecoveryApplyDelay":
        return True
    return state["receiver"] == "streaming" and state["received"] and (state["replayed"] or delay != "0")


def why_not(state: StandbyState, where: str, primary: str, primary_end: str, timeout: int) -> str:
    """Why the standby at ``where`` does not follow, for people; ``primary_end`` is an LSN, ``timeout`` in seconds."""
    if state["held"]:
        return (
            f"The standby on {where} stands at the recovery target of an incident. Finish that incident first (run "
            "dr-table-drop again with its dr_incident_id), then run this again."
        )
    paused = ", replay is PAUSED (SELECT pg_wal_replay_resume())" if state["paused"] else ""
    return (
        f"The standby on {where} does not follow {primary} after {timeout} s: in recovery {state['in_recovery']}, WAL "
        f"receiver {state['receiver'] or 'not running'}, replayed up to {state['replay_lsn']} of {primary_end}{paused}."
    )


class Verdict(TypedDict):
    """Whether it follows, and for people why it does not."""

    follows: bool
    why_not: str


def verdict(answer: Mapping[str, Any], where: str, primary: str, primary_end: str, delay: str, timeout: int) -> Verdict:
    """Of what postgresql_query returned: a row with a StandbyState in ``state``, or a ``msg`` why it let nobody in."""
    if not answer.get("query_result"):
        return {"follows": False, "why_not": f"The standby on {where} lets nobody in: {answer.get('msg', 'unknown')}."}
    state: StandbyState = answer["query_result"][0]["state"]
    return {
        "follows": follows(state, delay),
        "why_not": why_not(state, where, primary, primary_end, timeout),
    }


def hba_address(host: str) -> str:
    """A host as pg_hba.conf wants it: an address with the mask of this one alone, a name as it is."""
    try:
        return f"{host}/{ipaddress.ip_address(host).max_prefixlen}"
    except ValueError:
        return host
