# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one client that reaches a side instance over the network: the networks it comes from, and where it is awaited.

Names are resolved here and once. pg_hba.conf would take a name only where the client's address leads back to it.
"""

from __future__ import annotations

import ipaddress
import re
import socket

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError

_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
NOTHING = "Nothing was changed."


def _resolve(name: str, what: str, word: str) -> list[str]:
    host = socket.gethostname()
    if not _HOST_NAME.fullmatch(name) and ":" not in name:
        raise RecoveryError(f"{what} {name!r} is no address and no host's name. {NOTHING} Give an address with {word}.")
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise RecoveryError(
            f"{what} {name!r} does not resolve on {host}: {error}. {NOTHING} Give an address with {word}."
        ) from error
    return list(dict.fromkeys(str(item[4][0]) for item in found))


def networks(address: str) -> list[str]:
    """Networks, as pg_hba.conf wants them, of an address, a network or a host's name. Raises RecoveryError."""
    try:
        return [str(ipaddress.ip_network(address, strict=False))]
    except ValueError:
        found = _resolve(address, "the address of the side instance's client", "dr_primary_address")
        return [str(ipaddress.ip_network(item.split("%")[0])) for item in found]


def check_listen(listen: str) -> None:
    """Refuse an address to listen on that this host does not have."""
    word = "dr_side_address"
    found = _resolve(listen, "the side instance's address", word)
    failures = []
    for item in found:
        family = socket.AF_INET6 if ":" in item else socket.AF_INET
        with socket.socket(family) as probe:
            try:
                probe.bind((item, 0))
                return
            except OSError as error:
                failures.append(f"{item}: {error.strerror}")
    raise RecoveryError(
        f"the side instance cannot listen on {listen!r} on {socket.gethostname()} ({'; '.join(failures)}): it is no "
        f"address of that host. {NOTHING} Give one with {word}."
    )
