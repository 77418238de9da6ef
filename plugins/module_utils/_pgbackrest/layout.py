# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which host of a stanza keeps which repository, and what each host's pgbackrest.conf says of the others.

One description of all repositories serves every host: the options of a repository count on the host that keeps it, and
the other hosts reach it there. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

Sections = dict[str, dict[str, Any]]

MOST_REPOSITORIES = 4
DEFAULT_PATH = "/var/lib/pgbackrest"
_REPO = re.compile(r"repo(\d+)-(.+)")


class Member(NamedTuple):
    """A host with a cluster of the stanza: its inventory name, the address others reach it by, and the cluster."""

    name: str
    address: str
    path: str
    port: int
    socket_dir: str


class Transport(NamedTuple):
    """How hosts reach each other: ``kind`` is tls or ssh; ``certificates`` is the directory of the TLS files."""

    kind: str
    user: str
    config_path: str
    certificates: str
    address: str = "*"

    def client(self, prefix: str, address: str) -> dict[str, Any]:
        """Options by which pgBackRest reaches a host; ``prefix`` is such as ``repo1-host`` or ``pg1-host``."""
        options = {prefix: address, f"{prefix}-config": self.config_path}
        if self.kind == "ssh":
            return {**options, f"{prefix}-user": self.user}
        files = {name: f"{self.certificates}/{file}" for name, file in _FILES.items()}
        return {**options, f"{prefix}-type": "tls", **{f"{prefix}-{name}-file": path for name, path in files.items()}}

    def server(self, clients: Iterable[str], stanza: str) -> dict[str, Any]:
        """Options by which pgBackRest lets clients in, by the name in their certificate and for one stanza."""
        files = {f"tls-server-{name}-file": f"{self.certificates}/{file}" for name, file in _FILES.items()}
        auth = [f"{client}={stanza}" for client in clients]
        return {"tls-server-address": self.address, "tls-server-auth": auth, **files}


_FILES = {"ca": "ca.crt", "cert": "host.crt", "key": "host.key"}


class Layout(NamedTuple):
    """What one host is in a stanza."""

    config: Sections
    """Content of its pgbackrest.conf, without secrets."""
    kept: list[int]
    """Keys of the repositories that are kept by this host or, as object stores, reached from it."""
    lets_in: list[str]
    """Hosts that connect to this one."""
    connects_to: list[str]
    """Hosts that this one connects to."""
    directories: list[str]
    """Directories of repositories on this host."""
    seen: dict[int, str]
    """Repositories that this host can ask, by key, each with its directory where that is on this host, else empty."""


def repository_keys(*configs: Mapping[str, Mapping[str, Any] | None], keepers: Mapping[int, str]) -> list[int]:
    """Keys of all repositories that are described, and 1 in any case. Raises RecoveryError beyond four."""
    keys = {1, *keepers}
    for config in configs:
        for section, options in config.items():
            if section.startswith("global"):
                keys |= {int(match[1]) for match in map(_REPO.fullmatch, options or {}) if match}
    wrong = sorted(key for key in keys if not 1 <= key <= MOST_REPOSITORIES)
    if wrong:
        raise RecoveryError(
            f"repository {wrong[0]} is described, but a stanza has at most {MOST_REPOSITORIES} repositories, counted "
            "from 1. Nothing was changed. Renumber them in pgbackrest_config and pgbackrest_repository_hosts."
        )
    return sorted(keys)


def is_object_store(options: Mapping[str, Any], key: int) -> bool:
    """Whether a repository is reached from anywhere (S3, Azure, GCS, SFTP), not a directory of some host."""
    return str(options.get(f"repo{key}-type") or "posix") not in ("posix", "cifs")


def options_of(config: Mapping[str, Mapping[str, Any] | None], kept: Sequence[int]) -> Sections:
    """The sections without options of repositories that are not ``kept``, but for how to reach their host."""
    return {
        section: {name: value for name, value in (options or {}).items() if _counts(name, kept)}
        for section, options in config.items()
    }


def _counts(name: str, kept: Sequence[int]) -> bool:
    match = _REPO.fullmatch(name)
    return match is None or int(match[1]) in kept or match[2].startswith("host")


def layout(
    host: str,
    *,
    stanza: str,
    config: Mapping[str, Mapping[str, Any] | None],
    keepers: Mapping[int, str],
    members: Sequence[Member],
    readers: Sequence[str],
    addresses: Mapping[str, str],
    transport: Transport,
    path: str = DEFAULT_PATH,
    secrets: Optional[Mapping[str, Mapping[str, Any] | None]] = None,
) -> Layout:
    """What ``host`` is, in a stanza whose cluster is on ``members`` (the primary first).

    ``keepers`` are the hosts of repositories by key; a repository without one is a directory beside the cluster, or
    an object store. ``readers`` have no cluster and restore only. ``addresses`` are those of all hosts by name.
    ``config`` goes before everything that is computed here.
    """
    keys = repository_keys(config, secrets or {}, keepers=keepers)
    globals_ = config.get("global") or {}
    me = next((member for member in members if member.name == host), None)
    # A host that the user names in pgBackRest's own option is reached as the user says.
    by_hand = [key for key in keys if f"repo{key}-host" in globals_ and key not in keepers]
    remote = {key: keeper for key, keeper in keepers.items() if keeper != host}
    mine = [key for key, keeper in keepers.items() if keeper == host]
    free = [key for key in keys if key not in keepers and key not in by_hand]
    if me is not None:
        kept = sorted([*mine, *free])
    elif mine:
        kept = sorted(mine)
    else:
        kept = [key for key in free if is_object_store(globals_, key)]
    uses = me is not None or not mine  # a host that only keeps a repository has nothing to ask of the others'
    if not kept and not by_hand and not (remote and uses):
        raise RecoveryError(
            f"host {host} has no way to a repository of stanza {stanza!r}: the repository is a directory of another "
            "host that none of pgbackrest_repository_hosts names. Nothing was changed. Name that host there, as in "
            f"pgbackrest_repository_hosts={{1: {members[0].name if members else 'HOST'}}}."
        )

    own: Sections = {"global": {}, stanza: {}}
    directories = []
    seen = dict.fromkeys(sorted([*kept, *by_hand, *(remote if uses else ())]), "")
    for key in kept:
        if not is_object_store(globals_, key):
            usual = path if key == 1 else f"{path}-{key}"
            own["global"][f"repo{key}-path"] = usual
            seen[key] = str(globals_.get(f"repo{key}-path", usual))
            directories.append(seen[key])
    if len(set(directories)) < len(directories):
        raise RecoveryError(
            f"two repositories of stanza {stanza!r} on {host} have the same directory {directories[0]}. Nothing was "
            "changed. Give each its own repoN-path."
        )
    for key in sorted(remote) if uses else []:
        own["global"].update(transport.client(f"repo{key}-host", addresses[remote[key]]))
    if me is not None:
        own[stanza].update({"pg1-path": me.path, "pg1-port": me.port, "pg1-socket-path": me.socket_dir})
    standbys_too = str(globals_.get("backup-standby", "n")).lower() in ("y", "yes", "true", "prefer")
    asks = bool(mine) and (me is None or standbys_too)
    others = [member for member in members if member.name != host] if asks else []
    for number, member in enumerate(others, start=1 if me is None else 2):
        own[stanza].update(transport.client(f"pg{number}-host", member.address))
        cluster = {"path": member.path, "port": member.port, "socket-path": member.socket_dir}
        own[stanza].update({f"pg{number}-{name}": value for name, value in cluster.items()})

    # Whoever keeps a repository serves everybody else; whoever has a cluster serves those who take backups of it.
    served = {member.name for member in members} | set(readers)
    lets_in = (served if mine else set()) - {host}
    names = {member.name for member in members}
    lets_in |= {keeper for keeper in remote.values() if me is not None and (standbys_too or keeper not in names)}
    connects_to = {member.name for member in others} | (set(remote.values()) if uses else set())
    if transport.kind == "tls" and lets_in:
        own["global"].update(transport.server(sorted(lets_in), stanza))
    wanted = options_of(config, kept)
    merged = {section: {**own.get(section, {}), **wanted.get(section, {})} for section in {**own, **wanted}}
    return Layout(
        {section: options for section, options in merged.items() if options or section == "global"},
        kept,
        sorted(lets_in),
        sorted(connects_to),
        directories,
        seen,
    )


def preferred(kept: Sequence[int], retention: Mapping[str, Any], cores: int) -> Sections:
    """Defaults for what a host keeps; an older pgBackRest leaves out what it does not have.

    ``retention`` holds ``full``, ``full-type``, ``diff``, ``archive`` and ``archive-type`` where a policy sets them.
    """
    options: dict[str, Any] = {"compress-type": "zst", "process-max": cores, "start-fast": True}
    for key in kept:
        options.update({f"repo{key}-bundle": True, f"repo{key}-block": True})
        options.update({f"repo{key}-retention-{name}": value for name, value in retention.items() if value is not None})
    return {"global": options, "global:archive-push": {"archive-async": True}}
