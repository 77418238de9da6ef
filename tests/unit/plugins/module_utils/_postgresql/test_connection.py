# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries import find_client_dir
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.connect import libpq_keywords
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.sessions import Server


def programs(directory: Path, major: int) -> str:
    """A directory with a pg_dump that says it is of this version."""
    directory.mkdir(parents=True)
    program = directory / "pg_dump"
    program.write_text(f"#!/bin/sh\necho 'pg_dump (PostgreSQL) {major}.3'\n")
    program.chmod(0o755)
    return str(directory)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host that has client programs of PostgreSQL 14, 97 and 98 and nothing in PATH."""
    layout = str(tmp_path / "{major}" / "bin")
    monkeypatch.setattr(
        "ansible_collections.dbre.recovery.plugins.module_utils._postgresql.binaries.LAYOUTS", (layout,)
    )
    monkeypatch.setenv("PATH", "/nowhere")
    for major in (14, 97, 98):
        programs(tmp_path / str(major) / "bin", major)
    return tmp_path


def test_client_programs_of_the_server_s_version_go_first_then_the_lowest_newer_ones(installed: Path) -> None:
    assert find_client_dir(97) == str(installed / "97" / "bin")
    assert find_client_dir(98) == str(installed / "98" / "bin")
    assert find_client_dir(16) == str(installed / "97" / "bin")


def test_client_programs_that_are_all_older_are_named_with_what_to_install(installed: Path) -> None:
    with pytest.raises(RecoveryError, match="no pg_dump of that version or a newer one") as refused:
        find_client_dir(99)
    assert "PostgreSQL 98 in" in refused.value.msg
    assert "apt install postgresql-client-99" in refused.value.msg


def test_a_directory_that_was_named_is_taken_or_refused_but_never_replaced(installed: Path) -> None:
    assert find_client_dir(16, str(installed / "98" / "bin")) == str(installed / "98" / "bin")
    with pytest.raises(RecoveryError, match="PostgreSQL 14 in"):
        find_client_dir(16, str(installed / "14" / "bin"))


def test_programs_in_path_are_found(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = programs(tmp_path / "elsewhere", 16)
    monkeypatch.setenv("PATH", f"{elsewhere}:/usr/bin:/bin")
    assert find_client_dir(16) == elsewhere


def test_the_options_of_a_task_become_what_libpq_calls_them(tmp_path: Path) -> None:
    passfile = tmp_path / "pgpass"
    passfile.write_text("*:*:*:*:secret\n")
    passfile.chmod(0o600)
    params = {
        "login_host": "db.example.com",
        "login_port": 5432,
        "login_user": "master",
        "login_passfile": str(passfile),
        "ssl_mode": "verify-full",
        "ca_cert": "/etc/rds.pem",
        "ssl_cert": None,
    }
    keywords = {
        "host": "db.example.com",
        "port": 5432,
        "user": "master",
        "passfile": str(passfile),
        "sslmode": "verify-full",
        "sslrootcert": "/etc/rds.pem",
    }
    assert libpq_keywords(params) == keywords
    environment = Server(params, "").environment("shop")
    assert environment["PGPASSFILE"] == str(passfile)
    assert (environment["PGSSLMODE"], environment["PGSSLROOTCERT"]) == ("verify-full", "/etc/rds.pem")
    assert "PGPASSWORD" not in environment


def test_a_passfile_that_libpq_would_silently_leave_aside_is_an_error(tmp_path: Path) -> None:
    passfile = tmp_path / "pgpass"
    with pytest.raises(RecoveryError, match="No such file"):
        libpq_keywords({"login_passfile": str(passfile)})
    passfile.write_text("*:*:*:*:secret\n")
    passfile.chmod(0o640)
    with pytest.raises(RecoveryError, match="chmod 0600"):
        libpq_keywords({"login_passfile": str(passfile)})


@pytest.mark.parametrize("asked", ["verify-ca", "verify-full", None])
def test_a_recovered_instance_is_verified_by_the_certificate_it_hands_on(asked: str | None) -> None:
    instance = {"source": "rds", "host": "side.example.com", "port": 5432, "user": "master", "sslrootcert": "PEM"}
    server = Server.of_instance({**instance, "sslmode": asked}, "secret", "")
    environment = server.environment("shop")
    assert environment["PGSSLMODE"] == (asked or "verify-ca")
    assert Path(environment["PGSSLROOTCERT"]).read_text() == "PEM"
    assert environment["PGPASSWORD"] == "secret"
    server.close()
    assert not Path(environment["PGSSLROOTCERT"]).exists()
