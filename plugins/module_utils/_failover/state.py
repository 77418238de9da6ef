# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of one server of a cluster: a contract between whoever looks at a host and whoever decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional, TypedDict, cast

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError


class Upstream(TypedDict):
    """Whom a standby asks for WAL, out of its primary_conninfo; all empty where it asks nobody."""

    host: str
    port: str
    name: str
    """application_name, by which synchronous_standby_names knows the standby."""
    slot: str
    user: str


class Slot(TypedDict):
    """A replication slot; ``usable`` says that it would be of use after a promotion."""

    name: str
    kind: str
    active: bool
    lost: bool
    usable: bool
    temporary: bool


class Manager(TypedDict):
    """A program that fails over by itself, and its own command for it."""

    name: str
    found: str
    command: str


class PatroniMember(TypedDict):
    """A member of a cluster as ``patronictl list`` has it; ``role`` and ``state`` in small letters."""

    name: str
    role: str
    state: str
    timeline: Optional[int]
    tags: dict[str, Any]


class PatroniView(TypedDict):
    """What Patroni says of its cluster, asked on one host, and how it was asked there.

    ``config`` is the file, ``program`` patronictl, ``member`` this host's name in the cluster, ``unit`` what starts
    Patroni here, ``running`` whether it does. ``unread`` says why the rest could not be asked. ``settings`` are those
    of the dynamic configuration that decide something, ``configuration`` is a checksum of all of it, ``scheduled`` the
    time of a switchover that somebody has scheduled.
    """

    program: str
    config: str
    scope: str
    member: str
    unit: str
    running: bool
    unread: str
    members: list[PatroniMember]
    settings: dict[str, str]
    configuration: str
    scheduled: str


class Recorded(TypedDict):
    """Settings of the primary that were written down at a time; ``where`` names the file or the backup."""

    where: str
    at: str
    synchronous_standby_names: str
    synchronous_commit: str
    synchronized_standby_slots: str


class HostState(TypedDict, total=False):
    """One server, running or dead. ``host`` is the inventory's name; LSNs are texts, times ISO 8601 in UTC.

    ``end`` is the end of valid WAL in pg_wal, proved by pg_waldump; ``commits`` and ``last_commit`` are those from
    ``read_from`` on. ``first`` is the oldest segment there. ``lacks`` are settings that are lower than the primary had
    them, with which replay would stop. ``barred`` is why Patroni would not have it for a leader. ``archived`` are
    history files in the archive, by the timeline's number. What only a running server knows is null of a dead one.
    """

    host: str
    reachable: bool
    why: str
    running: bool
    answers: bool
    in_recovery: Optional[bool]
    stands_by: bool
    service: str
    masked: bool
    database: str
    version_num: Optional[int]
    major: int
    system_identifier: str
    data_directory: str
    bin_dir: str
    cluster_state: str
    segment_size: int
    timeline: int
    history: str
    read_from: str
    end: Optional[str]
    first: Optional[str]
    commits: int
    last_commit: Optional[str]
    receive_lsn: Optional[str]
    replay_lsn: Optional[str]
    replay_time: Optional[str]
    primary_lsn: Optional[str]
    primary_time: Optional[str]
    receiver: Optional[str]
    upstream: Upstream
    paused: Optional[bool]
    held: bool
    delay_seconds: float
    ready: int
    slots: list[Slot]
    prepared: Optional[int]
    lacks: list[str]
    archive_mode: Optional[str]
    archives: bool
    restores: bool
    synchronous_standby_names: Optional[str]
    synchronous_commit: Optional[str]
    managers: list[Manager]
    patroni: PatroniView
    barred: str
    synchronized_standby_slots: Optional[str]
    archived: dict[str, str]
    archive_unread: str
    recorded: list[Recorded]


_NEEDED = ("system_identifier", "timeline", "segment_size", "running", "data_directory")


def unreachable(host: str, why: str) -> HostState:
    """The state of a host that nobody could look at."""
    return {"host": host, "reachable": False, "why": why, "running": False, "answers": False}


def host_state(host: str, given: Mapping[str, Any]) -> HostState:
    """A state as the module postgresql_cluster_info returned it; RecoveryError names what it lacks."""
    missing = [key for key in _NEEDED if given.get(key) is None]
    if missing:
        raise RecoveryError(
            f"what is known of {host} lacks {', '.join(missing)}. Nothing was changed. Hand on the whole state as "
            "postgresql_cluster_info returned it."
        )
    return cast(HostState, {"why": "", **given, "host": host, "reachable": True})
