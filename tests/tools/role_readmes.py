"""Writes roles/*/README.md from meta/argument_specs.yml. Needs PyYAML.

With --check it writes nothing and ends with 1 when a README differs from what it would write.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml
from pages import ROOT, write

NAMESPACE = "dbre.recovery"


def markdown(text: str) -> str:
    """Turn Ansible's markup (C(), O(), V(), B(), I(), M(), E(), U(), L()) into Markdown."""
    text = re.sub(r"\b[COVEMR]\(([^()]*(?:\([^()]*\)[^()]*)*)\)", r"`\1`", text)
    text = re.sub(r"\bB\(([^()]*)\)", r"**\1**", text)
    text = re.sub(r"\bI\(([^()]*)\)", r"*\1*", text)
    text = re.sub(r"\bU\(([^()]*)\)", r"<\1>", text)
    return re.sub(r"\bL\(([^(),]*), ?([^()]*)\)", r"[\1](\2)", text)


def paragraphs(description: Any) -> list[str]:
    """The paragraphs of a description, which may be one text or a list."""
    texts = description if isinstance(description, list) else [description or ""]
    return [markdown(str(text).strip()) for text in texts if str(text).strip()]


def default_text(option: dict[str, Any]) -> str:
    if option.get("required"):
        return "required"
    if "default" not in option:
        return "unset"
    value = option["default"]
    shown = value if isinstance(value, str) and value else yaml.safe_dump(value, default_flow_style=True, width=1000)
    return f"`{shown.removesuffix('...' + chr(10)).strip()}`".replace("|", "\\|")


def option_rows(options: dict[str, Any], prefix: str = "") -> list[str]:
    """Rows of the table of variables; suboptions follow their parent, named in full."""
    rows: list[str] = []
    for name, option in options.items():
        kind = option.get("type", "str")
        if kind == "list" and "elements" in option:
            kind = f"list of {option['elements']}"
        text = " ".join(paragraphs(option.get("description")))
        if option.get("choices"):
            text += " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "."
        escaped = text.replace("|", "\\|").replace("\n", " ")
        rows.append(f"| `{prefix}{name}` | {kind} | {default_text(option)} | {escaped} |")
        rows += option_rows(option.get("options", {}), f"{prefix}{name}.")
    return rows


def readme(role: str, specs: dict[str, Any]) -> str:
    """The whole README of a role, from its argument specs."""
    lines = [
        "<!-- Generated from meta/argument_specs.yml by tests/tools/role_readmes.py. -->",
        "",
        f"# {NAMESPACE}.{role}",
    ]
    for entry, spec in specs.items():
        if entry == "main":
            lines += ["", markdown(spec["short_description"].rstrip(".")) + "."]
        else:
            lines += ["", f"## `tasks_from: {entry}`", "", markdown(spec["short_description"].rstrip(".")) + "."]
        for paragraph in paragraphs(spec.get("description")):
            lines += ["", paragraph]
        if spec.get("options"):
            lines += ["", "| variable | type | default | meaning |", "|---|---|---|---|", *option_rows(spec["options"])]
    return "\n".join(lines) + "\n"


def wanted(root: Path = ROOT) -> dict[Path, str]:
    """The READMEs of all roles as their specs say them."""
    roles = {file.parents[1]: yaml.safe_load(file.read_text()) for file in root.glob("roles/*/meta/argument_specs.yml")}
    return {role / "README.md": readme(role.name, specs["argument_specs"]) for role, specs in sorted(roles.items())}


if __name__ == "__main__":
    sys.exit(write(wanted()))
