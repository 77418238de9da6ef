"""Writes the tables of options (dr_*) in README.md, and docs/options.md, from playbooks/vars/options.yml. Needs PyYAML.

With --check it writes nothing and ends with 1 when a page differs from what it would write.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pages import ROOT, write

SERVERS = "dr-table-drop"
# What is generated in README.md is the block below such a mark.
MARK = "<!-- Generated from playbooks/vars/options.yml by tests/tools/option_tables.py: {}. -->"

HEAD = """\
What is given with `-e` or a survey, or stands in the inventory, under a name that begins with `dr_`. A name that is
nearly one of this page is refused before anything is touched, and so is, in `-e` and in surveys, one that is not on
this page or that the playbook or the source (`dr_source`) does not use. An inventory serves all playbooks, and may have
words of its own. What is empty counts as not given."""

NAMES = """\
`names` are a list, a JSON list as text, or a text with commas or line ends between; a `group` has to be in the
inventory."""


def code(names: Iterable[Any]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def default(option: Mapping[str, Any]) -> str:
    """What counts where the option is not given."""
    if option.get("required") and "sources" not in option:
        return "required"
    value = option.get("default")
    if value is None:
        return option.get("usually", "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    return code(value) if isinstance(value, list) else f"`{value}`"


def meaning(option: Mapping[str, Any], sources: list[str]) -> str:
    parts = [option["description"]]
    if any(f"`{choice}`" not in option["description"] for choice in option.get("choices", [])):
        parts.append(f"One of {code(option['choices'])}.")
    parts += [f"`{old}` is a former name of `{new}`." for old, new in option.get("former", {}).items()]
    if used := option.get("sources"):
        others = [source for source in sources if source not in used]
        shorter, word = (others, "Not") if len(others) < len(used) else (used, "Only")
        needs = ", which needs it" if option.get("required") else ""
        parts.append(f"{word} with {code(f'dr_source={source}' for source in shorter)}{needs}.")
    return re.sub(r"\s+", " ", " ".join(parts)).replace("|", "\\|")


def table(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in (head, *rows)]
    return [lines[0], "|" + "---|" * len(head), *lines[1:]]


class Pages:
    """The pages as they should be."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.options: dict[str, dict[str, Any]] = spec["options"]
        self.sources: list[str] = self.options["dr_source"]["choices"]
        self.times = re.sub(r"\s+", " ", spec["types"]["time"]).strip()

    def servers(self) -> list[str]:
        """Of dr-table-drop, for README.md."""
        own = {name: option for name, option in self.options.items() if SERVERS in option["playbooks"]}
        rows = [[code([name]), default(option), meaning(option, self.sources)] for name, option in own.items()]
        return table(["option", "default", "meaning"], rows)

    def rds(self) -> list[str]:
        """Of the dr-rds playbooks, for README.md: what says the same on servers is only named."""
        playbooks = sorted({name for one in self.options.values() for name in one["playbooks"] if "dr-rds" in name})
        own = {name: one for name, one in self.options.items() if set(playbooks) & set(one["playbooks"])}
        same = {name: one for name, one in own.items() if SERVERS in one["playbooks"]}
        fewer = {name: list(one["choices_of"].values())[0] for name, one in same.items() if "choices_of" in one}
        said = [f"; {code([name])} is one of {code(choices)}" for name, choices in fewer.items()]
        rows = [[code(same), "", f"as above{''.join(said)}"]]
        for name, one in own.items():
            takes = [playbook for playbook in playbooks if playbook in one["playbooks"]]
            where = "" if takes == playbooks else f"{code(takes)}: "
            if name not in same:
                rows.append([code([name]), default(one), where + meaning(one, self.sources)])
        return table(["option", "default", "meaning"], rows)

    def times_text(self) -> list[str]:
        names = code(name for name, option in self.options.items() if option["type"] == "time")
        return [f"{names} are times: {self.times}."]

    def all(self) -> str:
        """docs/options.md."""
        rows = []
        for name, option in self.options.items():
            kind = f"list of {option['elements']}" if option["type"] == "list" else option["type"]
            text = meaning(option, self.sources)
            for playbook, choices in option.get("choices_of", {}).items():
                text += f" With `{playbook}` one of {code(choices)}."
            rows.append([code([name]), kind, default(option), code(option["playbooks"]), text])
        lines = [
            MARK.format("this page"),
            "",
            "# Options of the disaster-recovery playbooks",
            "",
            HEAD,
            "",
            "A `time` is " + self.times + ".",
            "",
            NAMES,
            "",
            *table(["option", "type", "default", "playbooks", "meaning"], rows),
        ]
        return "\n".join(lines) + "\n"

    def readme(self, text: str) -> str:
        """README.md with its tables as they should be."""
        for name, lines in {"servers": self.servers(), "RDS": self.rds(), "times": self.times_text()}.items():
            mark = MARK.format(name)
            if mark not in text:
                raise ValueError(f"README.md has no line {mark}")
            before, after = text.split(f"{mark}\n\n", 1)
            text = "\n".join([before + mark, "", *lines, "", after.split("\n\n", 1)[1]])
        return text


def wanted(root: Path = ROOT) -> dict[Path, str]:
    """README.md and docs/options.md as the spec says them."""
    pages = Pages(yaml.safe_load((root / "playbooks" / "vars" / "options.yml").read_text()))
    readme, page = root / "README.md", root / "docs" / "options.md"
    return {readme: pages.readme(readme.read_text()), page: pages.all()}


if __name__ == "__main__":
    sys.exit(write(wanted()))
