# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/warnings.md: every option that is used is on it, and what it and docs/security.md name exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._side.side_config import (
    TARGET_SETTINGS,
    isolation_settings,
    target_settings,
    tuning_settings,
)

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "warnings.md").read_text()
SECURITY = (ROOT / "docs" / "security.md").read_text()
# What says where, how loud and in which form, and of which no manual warns.
HARMLESS = {
    *("--config", "--stanza", "--repo", "--output", "--log-level-console", "--log-level-stderr", "--no-log-timestamp"),
    *("--recurse", "--path", "--start", "--end", "--limit", "--rmgr", "--relation", "--xid", "--timeline", "--quiet"),
    *("--file", "--format", "--compress", "--verbose", "--version", "--command", "--dbname", "--no-password"),
    *("--no-psqlrc", "--exit-on-error", "--globals-only", "--iterations", "--no-header", "--config-file"),
    *("--host", "--port", "--username", "--database", "--tuples-only", "--no-align"),
}
# Of a program of our own, of ansible-playbook, of gpg in an advice, and beginnings of words.
OTHERS = {
    "--executable",
    "--state",
    "--wait",
    "--clean",
    "--check",
    "--limit",
    "--decrypt",
    "--name",
    "--no-",
    "--no-name",
}
# Of managers of high availability in an advice, and of systemctl.
OTHERS |= {"--signal", "--ban", "--resource", "--node", "--siblings-follow", "--property", "--become", "--become-user"}
OTHERS |= {"--leader", "--master", "--candidate", "--force", "--all", "--plain", "--no-legend"}


def options_used() -> Iterator[tuple[str, str]]:
    """Options in the texts of modules and their rooms, with the file; those for AWS have no such programs."""
    for path in [*ROOT.glob("plugins/module_utils/_[!r]*/*.py"), *ROOT.glob("plugins/modules/p*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            # Long texts are documentation and messages.
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 100:
                yield from ((option, path.name) for option in re.findall(r"(?<![\\w-])--[a-z][a-z0-9-]*", node.value))


def settings_used() -> set[str]:
    target = {"value": "0/1", "timeline": 1, "exclusive": True}
    targets = [target_settings({**target, "type": kind}, "x") for kind in TARGET_SETTINGS]
    return {name for found in [isolation_settings(18), tuning_settings(18, 1, 1), *targets] for name in found}


def test_every_option_that_is_used_is_on_the_page() -> None:
    known = set(re.findall(r"--[a-z][a-z0-9-]*", PAGE)) | HARMLESS | OTHERS
    assert {(option, file) for option, file in options_used() if option not in known} == set()


def test_every_setting_of_a_side_instance_is_on_the_page() -> None:
    assert {name for name in settings_used() if f"`{name}`" not in PAGE} == set()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", PAGE + SECURITY))))
def test_a_test_that_a_page_names_exists(name: str) -> None:
    assert any(f"def {name}(" in path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
