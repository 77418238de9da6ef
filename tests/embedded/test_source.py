# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup tool of somebody's own: one role and one small package beside the collection, and nothing changed in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, SUPERUSER, Shop

SOURCE = "acme.files.recovery_source_directory"


class Files:
    """A base backup of the production, and its WAL as it is written, in a directory of the production's user."""

    def __init__(self, shop: Shop) -> None:
        self.path = shop.folder / "files"
        shop.run("mkdir", "-m", "0700", self.path, self.path / "wal")
        login = ["-h", shop.socket_dir, "-p", shop.port, "-U", SUPERUSER]
        self._receiver = shop.begin(shop.program("pg_receivewal"), *login, "-D", self.path / "wal", "-n")
        shop.run(shop.program("pg_basebackup"), *login, "-D", self.path / "base", "-X", "none", "-c", "fast")

    def end(self) -> None:
        self._receiver.terminate()
        self._receiver.wait(30)


@pytest.fixture
def files(shop: Shop) -> Iterator[Files]:
    files = Files(shop)
    try:
        yield files
    finally:
        files.end()
        shop.run("rm", "-rf", files.path)


@pytest.mark.whole
def test_a_table_comes_back_from_a_source_of_somebodys_own(
    shop: Shop, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ansible_collections" / "acme").mkdir(parents=True)
    (tmp_path / "ansible_collections" / "acme" / "files").symlink_to(ROOT / "tests" / "embedded" / "directory_source")
    monkeypatch.setenv("ANSIBLE_COLLECTIONS_PATH", f"{os.environ['ANSIBLE_COLLECTIONS_PATH']}:{tmp_path}")
    before = shop.query("shop", "SELECT * FROM public.lines ORDER BY id")
    shop.query("shop", "DROP TABLE public.lines")
    run = shop.recover(
        dr_tables="public.lines",
        dr_incident_id="files",
        dr_source=SOURCE,
        recovery_source_directory=str(files.path),
        # No pgBackRest takes part.
        pgbackrest_executable="/nowhere/pgbackrest",
    )
    assert run.rc == 0, run.output
    assert shop.query("shop", "SELECT * FROM public.lines ORDER BY id") == before
    assert shop.report("files")["verdict"] == "proved"
    assert "Base backup" in run.output, "the plan shows what the source wants shown"
