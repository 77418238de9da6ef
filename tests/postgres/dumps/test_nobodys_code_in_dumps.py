# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Code of those who own what is in a dump stays their own when it is restored, beside production and into it."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._dumps.logical_instance import Asked, LogicalRestore
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_instance import SideInstance
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_recovery import ensure_state

HERE = Path(__file__).parent
SCRIPTS = (HERE.parent / "tables" / "mallory.sql", HERE / "mallory.sql", HERE.parent / "tables" / "of_superuser.sql")
COPY = "mallory again"
TABLES = [
    *("bounded_one", "checked", "child", "colored", "computed", "indexed", "innocent", "keyed_a", "looped", "parted_a"),
    *(
        "parted_b",
        "pointed",
        "pointing",
        "secured",
        "public.ranged_1",
        "spans",
        "triggered",
        "typed",
        "written",
        "zero",
    ),
]
SOME = ["m.child", "m.typed", "m.computed", "m.innocent", "public.treasure"]
# Of a superuser, who uses what the role made.
TRUSTING = [
    "t.typed",
    "t.checked",
    "t.constant",
    "t.computed",
    "t.indexed",
    "t.keyed_a",
    "t.secured",
    "t.child",
    "t.plain",
]
TABLES += TRUSTING
ROWS = {**dict.fromkeys(TABLES, 3), "parted_a": 1, "parted_b": 2}


@pytest.fixture(scope="module")
def mallory(shop: Any) -> Iterator[Any]:
    """The server with a database of a role that owns one schema and one table, and nothing else."""
    shop.psql("CREATE ROLE dbre_mallory")
    shop.psql("CREATE DATABASE mallory")
    for script in SCRIPTS:
        shop.program("psql", "-qX", "-v", "ON_ERROR_STOP=1", "-f", script, database="mallory")
    yield shop
    for name in ("mallory", COPY):
        shop.drop(name)
    shop.psql("DROP ROLE dbre_mallory")


@pytest.fixture(scope="module")
def dumps(mallory: Any) -> dict[str, Any]:
    return {
        "custom": mallory.dump("mallory", name="custom-m"),
        "directory": mallory.dump("mallory", name="directory-m", format="directory", jobs=2),
    }


def assert_stayed_its_own(program: Any, database: str, data: Path) -> None:
    """No rights for the role, nothing written outside its tables, and its code run as nobody but itself."""

    def ask(query: str) -> str:
        return str(program("psql", "-XAtq", "-c", query, database=database)).strip()

    assert ask("SELECT DISTINCT who || ': ' || place FROM m.seen WHERE who <> 'dbre_mallory'") == ""
    assert ask("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = 'dbre_mallory'") == "f"
    assert ask("SELECT coins FROM treasure") == "100"
    assert not (data / "stolen").exists()
    # It did run, as its owner.
    assert int(ask("SELECT count(DISTINCT place) FROM m.seen")) > 5


def rows_of(program: Any, database: str) -> dict[str, int]:
    """Numbers of rows, by COPY, which runs nothing of the owner."""
    answers = {}
    for name in TABLES:
        out = program(
            "psql", "-XAtq", "-c", f"COPY {name if '.' in name else f'm.{name}'} TO STDOUT", database=database
        )
        answers[name] = len(out.splitlines())
    return answers


def definitions(cluster: Any, database: str) -> str:
    """All definitions but for what the attacker's code does to its own tables."""
    text = cluster.definitions(database).replace('"Shop"', "mallory")
    return "\n".join(line for line in text.splitlines() if "planted" not in line)


@pytest.mark.parametrize(("format_of", "jobs"), [("custom", 1), ("directory", 2)])
def test_a_new_database_is_restored_as_those_who_own_it(
    mallory: Any, dumps: dict[str, Any], format_of: str, jobs: int
) -> None:
    mallory.drop(COPY)
    assert mallory.load(dumps[format_of], COPY, jobs=jobs).restore()["how"] == "new"
    assert_stayed_its_own(mallory.program, COPY, mallory.home / "data")
    assert rows_of(mallory.program, COPY) == ROWS
    assert definitions(mallory, COPY) == definitions(mallory, "mallory")


def test_a_database_that_is_there_is_filled_as_those_who_own_what_comes(mallory: Any, dumps: dict[str, Any]) -> None:
    mallory.drop(COPY)
    mallory.psql(f'CREATE DATABASE "{COPY}"; GRANT CREATE ON DATABASE "{COPY}" TO dbre_mallory')
    assert mallory.load(dumps["custom"], COPY).restore()["how"] == "empty"
    assert_stayed_its_own(mallory.program, COPY, mallory.home / "data")
    assert rows_of(mallory.program, COPY) == ROWS
    assert definitions(mallory, COPY) == definitions(mallory, "mallory")
    tables = ["m.typed", "m.computed", "m.zero", "m.spans"]
    some = mallory.dump("mallory", name="some-m", tables=tables)
    drop = f"DROP TABLE {', '.join(tables)}"
    mallory.program("psql", "-qX", "-U", "dbre_mallory", "-c", "SET dbre.quiet = on", "-c", drop, database=COPY)
    assert mallory.load(some, COPY, existing="add").restore()["how"] == "add"
    assert_stayed_its_own(mallory.program, COPY, mallory.home / "data")
    assert rows_of(mallory.program, COPY) == ROWS
    assert definitions(mallory, COPY) == definitions(mallory, "mallory")


def test_a_script_with_code_of_others_is_refused(mallory: Any) -> None:
    mallory.drop(COPY)
    dump = mallory.dump("mallory", name="plain-m", format="plain")
    with pytest.raises(
        RecoveryError, match="which only a superuser can run, and code in it .* belongs to dbre_mallory"
    ):
        mallory.load(dump, COPY).restore()
    assert COPY not in mallory.databases()


@pytest.mark.parametrize("relations", [[], SOME], ids=["all", "some"])
def test_an_instance_beside_is_made_as_those_who_own_it(
    mallory: Any, dumps: dict[str, Any], relations: list[str]
) -> None:
    with tempfile.TemporaryDirectory(prefix="dbre-side-") as home:
        path = f"{home}/side"
        params = {
            **{"dump": f"{dumps['custom']['path']}/{dumps['custom']['dump']}", "path": path, "database": "mallory"},
            **{"relations": relations, "schemas": [], "roles": ["dbre_mallory"], "tablespaces": [], "port": 0},
            **{"major_version": 0, "jobs": 2, "incident": "i1", "bin_dir": None, "utc_offset": None, "client": None},
        }
        instance = LogicalRestore(Asked(**params)).ensure()[0]

        def program(name: str, *arguments: str, database: str) -> str:
            where = ["-h", instance["socket"], "-p", str(instance["port"]), "-d", database]
            command = [f"{mallory.bin_dir}/{name}", *where, *arguments]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        try:
            assert_stayed_its_own(program, "mallory", Path(path) / "data")
            wanted = {name: ROWS[name] if not relations or f"m.{name}" in relations else 0 for name in TABLES}
            assert rows_of(program, "mallory") == wanted
        finally:
            ensure_state(SideInstance(path), "absent")
