# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are the old or the new ones whole, whatever happens while they are written."""

from __future__ import annotations

import os
from contextlib import suppress


def write_atomically(path: str | os.PathLike[str], text: str, mode: int = 0o600, durable: bool = True) -> None:
    """Put ``text`` at ``path`` with ``mode``; ``durable`` has it on disk afterwards."""
    folder, name = os.path.split(os.fspath(path))
    scratch = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    # Others may write there, too: what lies there already is not followed.
    with suppress(FileNotFoundError):
        os.unlink(scratch)
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:
            os.fchmod(descriptor, mode)
            stream.write(text)
            stream.flush()
            if durable:
                os.fsync(descriptor)
        os.replace(scratch, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(scratch)
        raise
    if durable:
        sync_directory(folder or ".")


def sync_directory(path: str) -> None:
    """Have on disk which files a directory has."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
