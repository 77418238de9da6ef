# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Subscribers of a primary that is replaced: which of their slots the new one has, and what becomes of the others.

A logical slot is of one server. Since PostgreSQL 17 a standby may keep a copy of it (failover slots); else the consumer
is refused by the new primary, and a new slot would begin at that moment, leaving out what it has not got.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.lsn import parse_lsn
from ansible_collections.dbre.recovery.plugins.module_utils._failover.state import HostState, Slot
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import quote_ident

# PostgreSQL: ReplicationSlotOnDisk in src/backend/replication/slot.c, the same in its beginning since 9.4: magic,
# checksum, version, length; then name, OID of the database (0: a physical slot), and whether it outlives its session.
_SLOT = struct.Struct("<IIII64sII")
_MAGIC, _PERSISTENT = 0x1051CA1, 0


def slot_on_disk(content: bytes) -> Optional[Slot]:
    """A slot out of its file ``state`` in pg_replslot; None for one that ends with its session, and for none."""
    if len(content) < _SLOT.size:
        return None
    magic, _checksum, _version, _length, name, database, persistency = _SLOT.unpack_from(content)
    if magic != _MAGIC or persistency != _PERSISTENT:
        return None
    kind = "logical" if database else "physical"
    text = name.split(b"\0", 1)[0].decode("ascii", "replace")
    return {"name": text, "kind": kind, "active": False, "lost": False, "usable": False, "temporary": False}


def slots_on_disk(data: str) -> list[Slot]:
    """Slots of a server that does not answer, out of its data directory."""
    folder = os.path.join(data, "pg_replslot")
    found = []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        path = os.path.join(folder, name, "state")
        if os.path.isfile(path):
            with open(path, "rb") as file:
                found.append(slot_on_disk(file.read(_SLOT.size)))
    return [slot for slot in found if slot is not None]


def logical_slots(old: HostState, candidate: HostState) -> list[dict[str, Any]]:
    """Logical slots that consumers of the old primary need, as ``{name, kept}``: whether the candidate has them.

    Of an old primary whose disk cannot be read only those are known that the candidate keeps.
    """
    kept = {slot["name"] for slot in candidate.get("slots") or [] if slot["kind"] == "logical" and slot["usable"]}
    needed = {
        slot["name"]
        for slot in old.get("slots") or []
        if slot["kind"] == "logical" and not slot["temporary"] and not slot["lost"]
    }
    return [{"name": name, "kept": name in kept} for name in sorted(kept | needed)]


def logical_lines(old: HostState, new: str, slots: Sequence[dict[str, Any]]) -> list[str]:
    """What the plan says of them."""
    said = []
    for slot in slots:
        if slot["kept"]:
            said.append(f"logical slot {slot['name']} is on {new}, too: its consumer goes on there")
        else:
            said.append(
                f"WARNING: logical slot {slot['name']} of {old['host']} is not on {new}: its consumer gets nothing any "
                "more until it is begun anew"
            )
    if not old.get("reachable"):
        said.append(f"which other logical slots {old['host']} had is not known; their consumers have to begin anew")
    return said


def subscribed_of(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Subscriptions on all hosts, as ``{host, database, name, slot, remote_lsn, left}``; of a host that failed
    ``{host, left}``.

    ``results`` are those of a task in a loop over hosts, with the module postgresql_subscription_lead.
    """
    found = []
    for result in results:
        host = str(result.get(str(result.get("ansible_loop_var", "item"))))
        if "subscriptions" in result:
            found += [{"host": host, **each} for each in result["subscriptions"]]
        else:
            said = " ".join(str(result.get("msg") or "no answer").split()).replace("Task failed: ", "")
            found.append({"host": host, "left": said})
    return found


def logical_left(
    slots: Sequence[dict[str, Any]],
    old: str,
    new: str,
    fork_lsn: str,
    whole: bool,
    subscribed: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """What people have to do for consumers.

    ``whole``: whether the new primary has all that the old one had; ``subscribed`` is what :func:`subscribed_of`
    returned.
    """
    by_slot = {each["slot"]: each for each in subscribed if each.get("slot")}
    # Of a primary whose disk cannot be read, a subscriber knows what slot it had.
    unknown = sorted(by_slot.keys() - {slot["name"] for slot in slots})
    entries = []
    for slot in [*slots, *({"name": name, "kept": False} for name in unknown)]:
        name, known = slot["name"], by_slot.get(slot["name"])
        if not slot["kept"]:
            entries.append(_begin_anew(name, new))
        elif known is None:
            entries.append(_lead(name, old, new, "" if whole else fork_lsn))
        elif known["left"]:
            entries.append(_look_at(known, new, fork_lsn))
    for each in subscribed:
        if not each.get("slot"):
            reason = (
                f"Whether its subscriptions go on is not known: {each['left']}. Of those that lead to {old}: ALTER "
                f"SUBSCRIPTION ... CONNECTION, with {new} for it."
            )
            entries.append({"what": f"Look at {each['host']}, which subscribes to {old}", "reason": reason})
    return entries


def _look_at(known: Mapping[str, Any], new: str, fork_lsn: str) -> dict[str, Any]:
    """What to do with a subscription whose slot the new primary has, and which was left as it is."""
    of = f"subscription {known['name']} of database {known['database']} on {known['host']}"
    beyond = bool(known["remote_lsn"]) and parse_lsn(known["remote_lsn"]) > parse_lsn(fork_lsn)
    if beyond:
        return {
            "what": f"{of}, which has more than {new}",
            "lost": True,
            "reason": f"It was left as it is: {known['left']}. {_ANEW.format(new=new)}",
        }
    return {
        "what": f"Lead {of} to {new}",
        "reason": (
            f"It was left as it is: {known['left']}. When that is mended, in that database: ALTER SUBSCRIPTION "
            f"{quote_ident(known['name'])} CONNECTION, with {new} for the old primary."
        ),
    }


_ANEW = (
    "Begin the consumer anew with a copy; on a subscriber: ALTER SUBSCRIPTION ... DISABLE, then SET (slot_name = "
    "NONE), DROP SUBSCRIPTION, empty its tables, and CREATE SUBSCRIPTION with a connection to {new}."
)


def _lead(name: str, old: str, new: str, fork_lsn: str) -> dict[str, Any]:
    beyond = (
        f" But first see that it is not beyond {new}, which lacks what was lost: where remote_lsn in "
        f"pg_replication_origin_status on the subscriber is higher than {fork_lsn}, it has rows that {new} has not, "
        "and would leave out the first ones that are committed now. Begin it anew then, with a copy of its tables."
    )
    return {
        "what": f"Lead the consumer of logical slot {name} to {new}",
        "reason": (
            f"Its slot is on {new} and keeps WAL until it comes. A subscription whose connection is a name that leads "
            f"there by now has come by itself (pg_replication_slots says active on {new}). Else, on the subscriber: "
            f"ALTER SUBSCRIPTION ... CONNECTION, with {new} for {old}.{beyond if fork_lsn else ''}"
        ),
    }


def _begin_anew(name: str, new: str) -> dict[str, Any]:
    return {
        "what": f"logical replication slot {name}, and so what its consumer had not got yet",
        "lost": True,
        "reason": (
            f"{new} does not have it, and a new one begins at the moment when it is made: what was committed before "
            f"and not sent would be left out without a word. {_ANEW.format(new=new)} From PostgreSQL 17 on, a slot "
            "made with failover = true and standbys with sync_replication_slots and hot_standby_feedback spare that."
        ),
    }
