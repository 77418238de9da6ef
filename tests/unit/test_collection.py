# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the collection agree with each other."""

from __future__ import annotations

import ast
import importlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.history import PHASES

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
SOURCES = [role for role in ROLES if role.startswith("recovery_source_")]
MODULES = sorted((ROOT / "plugins" / "modules").glob("[!_]*.py"))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def documentation(module: Path) -> dict[str, Any]:
    """The DOCUMENTATION of a module, read without importing it."""
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DOCUMENTATION":
            return yaml.safe_load(ast.literal_eval(node.value))
    raise AssertionError(f"{module} has no DOCUMENTATION")


def specs(role: str) -> dict[str, dict[str, Any]]:
    return load(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]


def defaults(role: str) -> dict[str, Any]:
    path = ROOT / "roles" / role / "defaults" / "main.yml"
    return (load(path) if path.exists() else None) or {}


@pytest.mark.parametrize("role", ROLES)
def test_every_default_of_a_role_is_documented(role: str) -> None:
    documented = {name for entry in specs(role).values() for name in entry.get("options", {})}
    assert set(defaults(role)) - documented == set()


@pytest.mark.parametrize("role", ROLES)
def test_documented_defaults_of_a_role_are_its_defaults(role: str) -> None:
    actual = defaults(role)
    for entry, spec in specs(role).items():
        for name, option in spec.get("options", {}).items():
            where = f"{role}, entry point {entry}, {name}"
            assert ("default" in option) == (name in actual), f"{where}: a default in one file only"
            assert option.get("default") == actual.get(name), where


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_of_a_role_carries_its_name(role: str) -> None:
    # What is the same for all sources has the same name in all of them.
    prefix = "recovery_source" if role in SOURCES else role
    names = set(defaults(role)) | {name for entry in specs(role).values() for name in entry.get("options", {})}
    assert {name for name in names if not name.startswith(f"{prefix}_")} == set()


@pytest.mark.parametrize("role", SOURCES)
def test_every_source_has_the_same_face(role: str) -> None:
    assert {"main", "hold", "find", "plan", "archive", "left", "absent"} <= set(specs(role))
    tasks = "".join(path.read_text() for path in (ROOT / "roles" / role / "tasks").glob("*.yml"))
    handed_on = {"plan", "instance", "proof", "left_to_do", "removed"}
    assert {name for name in handed_on if f"recovery_source_{name}" not in tasks} == set()


def test_a_playbook_knows_nothing_of_a_source_but_its_name() -> None:
    files = [*(ROOT / "playbooks").glob("*.yml"), *(ROOT / "playbooks" / "phases").rglob("*.yml")]
    named = {f"{path.name}: {role}" for path in files for role in SOURCES if re.search(rf"{role}\b", path.read_text())}
    assert named == set()


# Those that only end what another run has begun have no phases, and a drill has those of what it drills.
DISASTERS = [
    path
    for path in sorted((ROOT / "playbooks").glob("dr-*.yml"))
    if not path.is_symlink() and path.stem not in ("dr-abandon", "dr-release", "dr-drill")
]


def test_no_playbook_has_its_variables_parsed_again_for_every_task() -> None:
    assert [path.name for path in (ROOT / "playbooks").glob("*.yml") if "vars_files" in path.read_text()] == []


@pytest.mark.parametrize("playbook", DISASTERS, ids=lambda path: path.stem)
def test_a_disaster_playbook_reads_as_a_runbook(playbook: Path) -> None:
    text = playbook.read_text()
    assert len(text.splitlines()) <= 100
    # How far an earlier run came is asked in one place.
    assert re.findall("done_phases|finished_phases|__dr_planned|__dr_record_data|seconds", text) == []
    words = playbook.stem.removeprefix("dr-").replace("-", "_")
    scenario = load(ROOT / "playbooks" / "roles" / words / "vars" / "main.yml")["incident_scenario"]
    own, shared = ROOT / "playbooks" / "phases" / scenario, ROOT / "playbooks" / "phases"
    strategies = [path for path in own.glob("*") if path.is_dir()] or [own]
    phases = re.findall(r"phase: (\w+)", text)
    assert phases == [phase for phase in PHASES if phase in phases]
    for strategy in strategies:
        folders = (strategy, own, shared)
        assert {phase for phase in phases if not any((folder / f"{phase}.yml").exists() for folder in folders)} == set()


def test_every_scenario_has_its_drill_or_says_why_it_has_none() -> None:
    drills = load(ROOT / "playbooks" / "roles" / "drill" / "vars" / "main.yml")
    scenarios = drills["__drill_scenarios"]
    assert {entry["playbook"] for entry in scenarios.values()} == {path.stem for path in DISASTERS}
    told = {name for name, entry in scenarios.items() if f"__drill_told_{name}" in drills}
    assert told == {name for name, entry in scenarios.items() if not entry.get("why_not")}
    assert load(ROOT / "playbooks" / "vars" / "options.yml")["options"]["dr_scenario"]["choices"] == list(scenarios)


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_of_a_role_exists_and_is_documented(role: str) -> None:
    tasks = ROOT / "roles" / role / "tasks"
    assert {entry for entry in specs(role) if not (tasks / f"{entry}.yml").exists()} == set()
    assert "main" in specs(role) or not (tasks / "main.yml").exists()


@pytest.mark.parametrize("writer", ["role_readmes", "option_tables", "metrics_page"])
def test_generated_pages_are_what_the_specs_say(writer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tests" / "tools")
    wanted = importlib.import_module(writer).wanted(ROOT)
    outdated = [str(path.relative_to(ROOT)) for path in importlib.import_module("pages").outdated(wanted)]
    assert outdated == [], "run: make docs"


def test_a_playbook_with_hyphens_can_be_run_by_its_full_name() -> None:
    links = {path.name: str(path.readlink()) for path in (ROOT / "playbooks").glob("*.yml") if path.is_symlink()}
    files = [path.name for path in (ROOT / "playbooks").glob("*.yml") if not path.is_symlink()]
    assert links == {name.replace("-", "_"): name for name in files if "-" in name}


def fragment(name: str) -> dict[str, Any]:
    """What a fragment of the collection's own, by its full name, gives to the DOCUMENTATION of modules."""
    file, _dot, part = name.removeprefix("dbre.recovery.").partition(".")
    found = importlib.import_module(f"ansible_collections.dbre.recovery.plugins.doc_fragments.{file}").ModuleDocFragment
    return yaml.safe_load(getattr(found, part.upper() or "DOCUMENTATION"))


@pytest.mark.parametrize("group", ["pgbackrest", "postgresql"])
def test_an_action_group_holds_every_module_with_its_shared_options(group: str) -> None:
    shared = f"dbre.recovery.{group}"
    sharing = [path.stem for path in MODULES if shared in documentation(path).get("extends_documentation_fragment", [])]
    assert load(ROOT / "meta" / "runtime.yml")["action_groups"][group] == sorted(sharing)


def test_a_module_says_which_action_groups_it_is_in() -> None:
    said: dict[str, list[str]] = {}
    for path in MODULES:
        doc = documentation(path)
        own = [name for name in doc.get("extends_documentation_fragment", []) if name.startswith("dbre.recovery.")]
        # What a module says itself goes before what its fragments say.
        attributes = [*(fragment(name).get("attributes", {}) for name in own), doc["attributes"]]
        for group in next(
            (each["action_group"]["membership"] for each in reversed(attributes) if "action_group" in each), []
        ):
            said.setdefault(group.rpartition(".")[2], []).append(path.stem)
    assert said == load(ROOT / "meta" / "runtime.yml")["action_groups"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_says_what_check_and_diff_mode_do(path: Path) -> None:
    assert {"check_mode", "diff_mode"} <= set(documentation(path)["attributes"])


def tasks_of(item: Any) -> Iterator[dict[str, Any]]:
    """Tasks at any depth of a file of tasks or of a playbook, and the defaults that a block gives to modules."""
    for part in item if isinstance(item, list) else [item]:
        if isinstance(part, dict):
            yield part
            yield part.get("module_defaults") or {}
            for key in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers"):
                yield from tasks_of(part.get(key) or [])


@pytest.mark.parametrize("role", ROLES)
def test_a_task_that_check_mode_skips_takes_no_earlier_answer_away(role: str) -> None:
    # What a skipped task registers replaces what was registered under that name before.
    names: dict[str, list[str]] = {}
    for path in (ROOT / "roles" / role / "tasks").glob("*.yml"):
        for task in tasks_of(load(path)):
            if "register" in task:
                names.setdefault(str(task["register"]), []).append(str(task.get("when", "")))
    taken = {name for name, when in names.items() if len(when) > 1 and "ansible_check_mode" in "".join(when)}
    assert taken == set()


def sessions_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the tasks of a file, or the connections in the variables of a role, tell community.postgresql of a session.

    What a variable completes, as the module's defaults, is looked at there.
    """
    content = load(path)
    if isinstance(content, dict):
        yield from ((name, value) for name, value in content.items() if isinstance(value, dict) and "login_db" in value)
        return
    tasks = list(tasks_of(content))
    completed = {name for task in tasks for name, value in task.items() if isinstance(value, str)}
    for name, arguments in (item for task in tasks for item in task.items() if isinstance(item[1], dict)):
        whole = "connect_params" in arguments or name not in completed
        if name.startswith("community.postgresql.") and "login_db" in arguments and whole:
            yield name, arguments


def test_no_function_of_a_user_answers_for_one_of_postgresql_in_the_sql_of_roles() -> None:
    sessions = [
        (path, name, arguments)
        for path in [*(ROOT / "roles").rglob("*.yml"), *(ROOT / "playbooks").rglob("*.yml")]
        for name, arguments in sessions_of(path)
    ]
    safe = "-c search_path=pg_catalog,pg_temp"
    open_paths = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, name, arguments in sessions
        if safe not in str(arguments.get("connect_params", {}).get("options", ""))
    ]
    assert open_paths == []
    assert len(sessions) > 5


def test_roles_and_playbooks_hold_no_statements_of_jinja() -> None:
    # What has to be worked out is a function with a test, handed out as a filter.
    files = [path for room in ("roles", "playbooks") for path in (ROOT / room).rglob("*.yml")]
    assert [str(path.relative_to(ROOT)) for path in files if "{%" in path.read_text()] == []


def asking(tasks: Any, given: set[str]) -> Iterator[tuple[str, bool]]:
    """Tasks of a file that ask a server, by name, each with whether the file says how to reach it."""
    groups = load(ROOT / "meta" / "runtime.yml")["action_groups"]
    ours = {f"dbre.recovery.{name}" for name in groups["postgresql"]}
    for task in tasks:
        defaults_here = given | set(task.get("module_defaults") or {})
        for key in ("block", "rescue", "always"):
            yield from asking(task.get(key) or [], defaults_here)
        for module, arguments in task.items():
            known = {module, "group/dbre.recovery.postgresql"} if module in ours else {module}
            if module in ours or module == "community.postgresql.postgresql_query":
                said = any(str(name).startswith("login_") for name in arguments or {})
                yield str(task.get("name")), bool(said or known & defaults_here)


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_says_how_to_reach_the_server_it_asks(role: str) -> None:
    # What an entry point leaves to the file that includes it elsewhere, nobody says when it is entered.
    tasks = ROOT / "roles" / role / "tasks"
    unsaid = [
        f"{entry}: {name}"
        for entry in specs(role)
        for name, said in asking(load(tasks / f"{entry}.yml"), set())
        if not said
    ]
    assert unsaid == []


PLAYBOOKS = [path for path in sorted((ROOT / "playbooks").glob("*-*.yml")) if "rds" not in path.name]


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.stem)
def test_a_login_that_cannot_become_the_postgresql_user_is_told_at_the_start(playbook: Path) -> None:
    tasks = [task for play in load(playbook) for task in tasks_of(play.get("tasks") or [])]
    given = [task.get("ansible.builtin.include_tasks", "") for task in tasks]
    included = [str(one["file"] if isinstance(one, dict) else one) for one in given]
    paths = [ROOT / "playbooks" / name for name in included if name.startswith("tasks/")]
    assert any("become.yml" in path.name or "become.yml" in path.read_text() for path in paths)


def test_a_module_that_writes_progress_shows_it() -> None:
    # By links: with plugin_routing, defaults of an action group reach every module that is routed to the same plugin.
    assert "plugin_routing" not in load(ROOT / "meta" / "runtime.yml")
    links = {path.stem for path in (ROOT / "plugins" / "action").iterdir() if path.is_symlink()}
    assert {path.resolve().name for path in (ROOT / "plugins" / "action").iterdir() if path.is_symlink()} == {
        "progress.py"
    }
    names = {path.stem for path in MODULES}
    assert links <= names
    writers = {path.stem for path in MODULES if re.search(r"\bprogress\b", path.read_text(), re.IGNORECASE)}
    assert writers - links == set()


@pytest.mark.parametrize("place", ["postgres", "unit", "embedded", "rds", "e2e"])
def test_names_of_test_files_differ_so_that_they_can_run_together(place: str) -> None:
    """Directories of tests are no packages: of two files with one name pytest collects neither."""
    names = Counter(path.name for path in (ROOT / "tests" / place).rglob("test_*.py"))
    assert {name for name, times in names.items() if times > 1} == set()
    if place == "postgres":
        # In one run there are several conftest.py, and the name means any of them.
        files = [path.name for path in (ROOT / "tests" / place).rglob("*.py") if "from conftest" in path.read_text()]
        assert files == []
