# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import glob
import os
import re
import shutil
import socket
import subprocess
from typing import Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError, UnfitHost

# Where the distributions put the programs of one major version.
LAYOUTS = ("/usr/lib/postgresql/{major}/bin", "/usr/pgsql-{major}/bin")


def parse_major(version_text: str) -> int:
    """Major version out of what ``postgres --version`` prints, such as ``postgres (PostgreSQL) 15.18 (Debian ...)``."""
    match = re.search(r"\(PostgreSQL\) (\d+)", version_text)
    if match is None:
        raise RecoveryError(f"cannot read a PostgreSQL version from {version_text!r}")
    return int(match.group(1))


def _major_of(bin_dir: str, name: str = "postgres") -> Optional[int]:
    """Major version of the program ``name`` in ``bin_dir``; None when there is none."""
    program = os.path.join(bin_dir, name)
    if not os.access(program, os.X_OK):
        return None
    # Called where there is no module, and so no run_command, too.
    said = subprocess.run(  # pylint: disable=ansible-bad-function
        [program, "--version"], capture_output=True, text=True, check=True
    )
    return parse_major(said.stdout)


def find_bin_dir(major: int, override: Optional[str] = None) -> str:
    """Directory with the server programs (``postgres``, ``pg_ctl``, ``pg_controldata``) of major version ``major``.

    ``override`` is a directory the user named; it must hold that version. Otherwise the usual places of Debian and
    Red Hat are looked at, then PATH. Raises RecoveryError naming the version, the host and the package to install.
    """
    host = socket.gethostname()
    if override:
        found = _major_of(override)
        if found == major:
            return override
        what = "no PostgreSQL server" if found is None else f"PostgreSQL {found}"
        raise UnfitHost(
            f"{override} on {host} holds {what}, but PostgreSQL {major} is needed. Nothing was changed. "
            f"Set bin_dir (postgresql_bin_dir) to the directory of PostgreSQL {major}'s programs."
        )
    places = [layout.format(major=major) for layout in LAYOUTS]
    on_path = shutil.which("postgres")
    if on_path:
        places.append(os.path.dirname(os.path.realpath(on_path)))
    for place in places:
        if _major_of(place) == major:
            return place
    raise UnfitHost(
        f"PostgreSQL {major} is not installed on {host} (looked in {', '.join(places)}). Nothing was changed. "
        f"Install it there (Debian: apt install postgresql-{major}; Red Hat: dnf install postgresql{major}-server), "
        f"name another directory with bin_dir (postgresql_bin_dir), or choose a host that has PostgreSQL {major}."
    )


def find_client_dir(major: int, override: Optional[str] = None) -> str:
    """Directory with client programs (``pg_dump``, ``pg_restore``, ``psql``) for a server of ``major`` elsewhere.

    The same major version goes first, then the lowest newer one: pg_dump reads servers that are older than itself.
    ``override`` is a directory the user named. Raises RecoveryError naming what to install.
    """
    host = socket.gethostname()
    places = [override] if override else []
    if not override:
        for layout in LAYOUTS:
            places += glob.glob(layout.format(major="*"))
        # What Debian has in /usr/bin is a wrapper (of another name), which looks for clusters of this host.
        on_path = os.path.realpath(shutil.which("pg_dump") or "")
        places += [os.path.dirname(on_path)] if os.path.basename(on_path) == "pg_dump" else []
    found = {place: version for place in places if (version := _major_of(place, "pg_dump")) is not None}
    fitting = [place for place in found if found[place] >= major]
    if fitting:
        return min(fitting, key=lambda place: found[place])
    there = ", ".join(f"PostgreSQL {found[place]} in {place}" for place in found) or "none"
    raise RecoveryError(
        f"the server is PostgreSQL {major}, but no pg_dump of that version or a newer one is on {host} (looked in "
        f"{', '.join(places) or 'the usual places'}; found: {there}). Nothing was changed. Install it there "
        f"(Debian: apt install postgresql-client-{major}; Red Hat: dnf install postgresql{major}), or name another "
        "directory with bin_dir (postgresql_bin_dir)."
    )
