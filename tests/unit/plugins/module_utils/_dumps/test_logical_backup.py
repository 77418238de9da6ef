# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.timers import program_files
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.dump_archive import read_archive
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_catalogue import (
    check_name,
    dump_id,
    expired,
    format_time,
    parse_time,
)
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_needs import (
    dump_needs,
    named_roles,
    rename_database,
    role_statements,
)

ROOT = Path(__file__).resolve().parents[5]
DATA = Path(__file__).parent / "data"
NOW = datetime(2026, 11, 25, 2, 15, tzinfo=timezone.utc)
BOTH = pytest.mark.parametrize("major", [15, 17])


def globals_of(major: int) -> str:
    return (DATA / f"globals-{major}.sql").read_text()


# Retention


def dumps(*ages: float, damaged: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    """Dumps of these ages in days, named by their place in the list."""
    return [
        {"id": number, "ended": format_time(NOW - timedelta(days=age)), "whole": number not in damaged}
        for number, age in enumerate(ages)
    ]


@pytest.mark.parametrize(
    ("ages", "days", "count", "gone"),
    [
        ((3, 2, 1, 0), None, None, []),
        ((3, 2, 1, 0), None, 2, [0, 1]),
        ((3, 2, 1, 0), 1.5, None, [0, 1]),
        ((30, 20, 10), 7, None, [0, 1]),
        ((30, 20, 10), 7, 3, []),
        ((30, 20, 10, 1), 7, 3, [0]),
        ((3, 2, 1, 0), 7, 1, []),
        ((3, 2, 1, 0), 0, 0, [0, 1, 2]),
        ((), 0, 0, []),
    ],
)
def test_a_dump_goes_when_every_limit_lets_it_but_never_the_newest(
    ages: tuple[float, ...], days: Optional[float], count: Optional[int], gone: list[int]
) -> None:
    assert [dump["id"] for dump in expired(dumps(*ages), NOW, days, count)] == gone


def test_of_two_dumps_that_end_in_the_same_second_the_older_one_goes():
    ended = {"ended": "2026-11-28T11:08:47+00:00", "whole": True}
    both = [{"id": "20261128T110846Z", **ended}, {"id": "20261128T110847Z", **ended}]
    assert [dump["id"] for dump in expired(both, NOW, None, 1)] == ["20261128T110846Z"]


def test_damaged_dumps_do_not_count_as_kept() -> None:
    known = dumps(30, 20, 10, damaged=(1, 2))
    assert expired(known, NOW, 1, None) == []
    assert expired(known, NOW, None, 1) == []
    assert [dump["id"] for dump in expired([*known, *dumps(0)], NOW, 1, 1)] == [0, 1, 2]


def test_times_carry_an_offset_and_names_sort_by_time() -> None:
    zone = timezone(timedelta(hours=5, minutes=30))
    moment = datetime(2026, 11, 25, 7, 45, 3, tzinfo=zone)
    assert format_time(moment) == "2026-11-25T02:15:03+00:00"
    assert parse_time(format_time(moment)) == moment
    assert dump_id(moment) == "20261125T021503Z"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a b", "-x", "é", "x\n"])
def test_names_that_could_not_be_folders_and_units(name: str) -> None:
    with pytest.raises(RecoveryError, match="cannot be the name of a set"):
        check_name(name)


# What a dump needs


@BOTH
def test_a_dump_says_what_it_needs_and_how_its_database_is_made(major: int) -> None:
    needs = dump_needs(read_archive(str(DATA / "logical" / f"pg{major}.dir")), "database")
    assert needs["roles"] == ['Odd "Role', "only_in_dump", *(["postgres"]), "shop_app", "shop_owner"]
    assert needs["tablespaces"] == ["fast"]
    assert needs["schemas"] == []
    assert ["Sales", "Order Lines"] in needs["relations"]
    assert needs["create"].startswith("CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8'")
    assert needs["owner"] == "shop_owner"
    assert any("SET work_mem TO '7MB'" in text for text in needs["properties"])


def test_a_dump_of_tables_needs_their_schemas_and_nothing_of_the_database() -> None:
    needs = dump_needs(read_archive(str(DATA / "logical" / "pg17.dir")), "tables")
    assert needs["schemas"] == ["Sales", "public"]
    assert needs["properties"] == []


@pytest.mark.parametrize(
    ("statement", "renamed"),
    [
        ("CREATE DATABASE shop WITH TEMPLATE = template0;", 'CREATE DATABASE "New one" WITH TEMPLATE = template0;'),
        ("ALTER DATABASE shop SET work_mem TO '7MB';", "ALTER DATABASE \"New one\" SET work_mem TO '7MB';"),
        ("GRANT CONNECT ON DATABASE shop TO shop;", 'GRANT CONNECT ON DATABASE "New one" TO shop;'),
        (
            "ALTER ROLE shop IN DATABASE shop SET work_mem TO '8MB';",
            "ALTER ROLE shop IN DATABASE \"New one\" SET work_mem TO '8MB';",
        ),
        ("COMMENT ON DATABASE shop IS 'of shop';", "COMMENT ON DATABASE \"New one\" IS 'of shop';"),
        ("ALTER DATABASE shopping SET work_mem TO '7MB';", "ALTER DATABASE shopping SET work_mem TO '7MB';"),
    ],
)
def test_only_the_name_of_the_database_changes(statement: str, renamed: str) -> None:
    assert rename_database(f"{statement}\n", "shop", "New one") == f"{renamed}\n"


def test_a_database_whose_name_needs_quotes_is_renamed() -> None:
    before = 'REVOKE CONNECT,TEMPORARY ON DATABASE "Sh""op" FROM PUBLIC;'
    assert rename_database(before, 'Sh"op', "x") == 'REVOKE CONNECT,TEMPORARY ON DATABASE "x" FROM PUBLIC;'


# Roles out of the globals


@BOTH
def test_all_roles_of_the_globals(major: int) -> None:
    assert named_roles(globals_of(major)) == ["Odd Role", "app", "grp", "lonely", "owner", "postgres"]


@BOTH
def test_a_missing_role_comes_with_its_password_settings_and_memberships(major: int) -> None:
    statements, roles = role_statements(globals_of(major), ["app"], ["postgres", "owner"])
    assert roles == ["app"]
    text = "\n".join(statements)
    assert text.startswith("CREATE ROLE app;\nALTER ROLE app WITH ")
    assert "PASSWORD 'SCRAM-SHA-256$" in text
    assert "ALTER ROLE app SET work_mem TO '6MB';" in text
    assert "COMMENT ON ROLE app IS 'two\nlines';" in text
    assert re.search(r"GRANT owner TO app\b.* GRANTED BY postgres;", text)
    assert "postgres WITH" not in text
    assert "CREATE ROLE owner" not in text


@BOTH
def test_the_roles_it_is_a_member_of_come_too(major: int) -> None:
    statements, roles = role_statements(globals_of(major), ["app"], ["postgres"])
    assert roles == ["app", "grp", "owner"]
    assert "CREATE ROLE grp;" in statements
    assert any(re.match(r"GRANT grp TO owner\b", statement) for statement in statements)


@BOTH
def test_roles_that_the_globals_do_not_make_are_named(major: int) -> None:
    with pytest.raises(RecoveryError, match=r'CREATE ROLE "Else" NOLOGIN; CREATE ROLE nobody NOLOGIN;') as caught:
        role_statements(globals_of(major), ["app", "nobody", "Else"], ["postgres"])
    assert caught.value.details["missing_roles"] == ["Else", "nobody"]


# The program on the hosts


def test_the_program_of_the_timers_needs_no_file_that_the_role_does_not_install(tmp_path: Path) -> None:
    package = tmp_path / "ansible_collections/dbre/recovery/plugins/module_utils"
    files = program_files(
        "_dumps/logical_backup.py", lambda path: (ROOT / "plugins" / "module_utils" / path).read_text()
    )
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    module = "ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_backup"
    # Isolated, so that nothing is found but the standard library and the copy.
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from {module} import main; sys.exit(main(sys.argv[1:]))"
    jobs = tmp_path / "jobs.json"
    jobs.write_text("{}")
    command = [sys.executable, "-I", "-S", "-B", "-c", code, str(jobs), "shop"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "has no job 'shop'" in done.stderr
