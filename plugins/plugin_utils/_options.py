# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options (dr_*) of the disaster-recovery playbooks, and whether what people gave is meant by them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Optional, TypedDict

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._core.times import parse_time
from ansible_collections.dbre.recovery.plugins.module_utils._postgresql.names import single_names
from ansible_collections.dbre.recovery.plugins.plugin_utils._confirmation import confirm_word
from ansible_collections.dbre.recovery.plugins.plugin_utils._groups import fault as group_fault

PATH = Path(__file__).resolve().parents[2] / "playbooks" / "vars" / "options.yml"
SOURCE = "dr_source"
INCIDENT = "dr_incident_id"
_ROLE = re.compile(r"[a-z_]\w*(?:\.[a-z_]\w*){2,}")
# Of the option's own spec, what Ansible's validator reads.
_VALIDATED = ("type", "elements", "default", "required")
# Paths are those of other hosts, too, where ~ is another folder.
_CHECKED_AS = {"time": "str", "group": "str", "path": "str", "names": "raw", "confirmation": "str"}
# Values may be long, and messages are read at night.
_LONGEST = 300
# From so many letters on, dr included, two of them may be wrong.
_LONG = 9


class Option(TypedDict, total=False):
    """One option, as playbooks/vars/options.yml has it."""

    description: str
    playbooks: list[str]
    sources: list[str]
    type: str
    elements: str
    required: bool
    default: Any
    usually: str
    choices: list[str]
    choices_of: dict[str, list[str]]
    former: dict[str, str]
    roles: bool
    controller: bool


def known_options() -> dict[str, Option]:
    """All options of all playbooks."""
    known: dict[str, Option] = yaml.safe_load(PATH.read_text(encoding="utf-8"))["options"]
    return known


def own_options(known: Mapping[str, Option], playbook: str) -> dict[str, Option]:
    """Those that the playbook takes."""
    return {name: option for name, option in known.items() if playbook in option["playbooks"]}


def check_options(
    known: Mapping[str, Option],
    playbook: str,
    given: Mapping[str, Any],
    groups: Mapping[str, Sequence[str]],
    for_this_run: Collection[str],
) -> dict[str, Any]:
    """Values of all options: converted, times in UTC, and the default, or None, of what was not given or is of others.

    ``groups`` are those of the inventory, with their hosts. ``for_this_run`` names what was given for this run alone
    (-e, a survey): all of it has to mean something, while an inventory serves other playbooks, too. What was left empty
    in a form counts as not given. Raises RecoveryError, which names everything that is wrong.
    """
    mistyped = [name for name in given if name not in known and near_miss(name, known)]
    given = {name: value for name, value in given.items() if not _is_empty(value)}
    own = own_options(known, playbook)
    source = str(given.get(SOURCE) or own.get(SOURCE, {}).get("default", ""))
    ours = _source(own, source)
    used = {name: option for name, option in own.items() if _serves(option, ours)}
    strange = [name for name in given if name not in own and name in for_this_run]
    faults = [_unknown(name, playbook, known) for name in dict.fromkeys([*mistyped, *strange])]
    for name in (name for name in own if name in given and name in for_this_run and name not in used):
        fits = " or ".join(own[name]["sources"])
        faults.append(f"With {SOURCE}={source}, nothing uses {name}. It is for {SOURCE}={fits}.")
    for name, option in used.items():
        if ours in option.get("sources", []) and option.get("required") and name not in given:
            faults.append(f"{SOURCE}={source} needs {name}.")
    meant = {name: _now(own[name], given[name]) for name in own if name in given}
    spec = {name: _argument(option, playbook, meant.get(name)) for name, option in own.items()}
    result = ArgumentSpecValidator(spec).validate({name: meant[name] for name in used if name in meant})
    faults += [_short(message) for message in result.error_messages]
    defaults = {name: option.get("default") for name, option in known.items()}
    values: dict[str, Any] = {**defaults, **result.validated_parameters}
    faults += _faults_of_paths({name: used[name] for name in used if name in meant}, meant)
    faults += _faults_of_values({name: used[name] for name in used if name in meant}, values, groups)
    if faults:
        nothing = "" if any("Nothing was " in one for one in faults) else " Nothing was touched."
        raise RecoveryError(f"{' '.join(faults)}{nothing} docs/options.md lists what {playbook} takes.")
    return values


def near_miss(name: str, known: Collection[str]) -> Optional[str]:
    """The known name that ``name`` most likely is, mistyped; None for one that a site may have made itself.

    One slip (a letter too many, too few or wrong, or two exchanged) in a short name, two in a long one; case, hyphens
    and underscores count for nothing.
    """
    plain = _letters(name)
    near = [(_slips(plain, _letters(one)), one) for one in known]
    least, nearest = min(near, default=(len(plain), ""))
    return nearest if least <= (1 if len(plain) < _LONG else 2) else None


def _letters(name: str) -> str:
    return re.sub(r"[-_]", "", name.lower())


def _slips(one: str, other: str) -> int:
    """How many letters have to be put in, taken away, changed, or exchanged with the next, to make one of the other."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        older, before, row = before, row, [i]
        for j, wanted in enumerate(other, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted)))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                row[j] = min(row[j], older[j - 2] + 1)
    return row[-1]


def _is_empty(value: Any) -> bool:
    """Whether it is what a form has for a question that was not answered."""
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _source(own: Mapping[str, Option], given: str) -> Optional[str]:
    """The source of that name; None when a role, which may use any option, or nothing is called so."""
    option = own.get(SOURCE, {})
    name = option.get("former", {}).get(given, given)
    return name if name in option.get("choices", []) else None


def _serves(option: Option, source: Optional[str]) -> bool:
    return source is None or source in option.get("sources", [source])


def _unknown(name: str, playbook: str, known: Mapping[str, Option]) -> str:
    if name in known:
        return f"{name} is for {', '.join(known[name]['playbooks'])}, not for {playbook}."
    near = near_miss(name, known) or "".join(get_close_matches(name, list(own_options(known, playbook)), 1))
    return f"{name} is not known{f'; did you mean {near}?' if near else ' to any playbook.'}"


def _now(option: Option, value: Any) -> Any:
    """The value under its name of today."""
    return option.get("former", {}).get(value, value) if isinstance(value, str) else value


def _argument(option: Option, playbook: str, value: Any) -> dict[str, Any]:
    """The option as Ansible's validator reads it."""
    # mypy does not see that these names are keys of Option.
    argument: dict[str, Any] = {key: option[key] for key in _VALIDATED if key in option}  # type: ignore[literal-required]
    if not option.get("controller"):
        argument["type"] = _CHECKED_AS.get(argument["type"], argument["type"])
    if option.get("sources"):
        argument.pop("required", None)
    choices = option.get("choices_of", {}).get(playbook, option.get("choices"))
    if choices and not (option.get("roles") and _ROLE.fullmatch(str(value))):
        argument["choices"] = choices
    return argument


def _short(message: str) -> str:
    text = message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…"
    return text if text.endswith((".", "…")) else f"{text}."


def _faults_of_paths(given: Mapping[str, Option], meant: Mapping[str, Any]) -> Iterator[str]:
    """Paths on hosts that lead elsewhere for each user there, and for each directory that a task runs in."""
    for name, option in given.items():
        path = str(meant[name] or "")
        if option["type"] == "path" and not option.get("controller") and path and not path.startswith("/"):
            said = _short(f"{name} is {path!r}")[:-1]
            yield f"{said}, which is another place for each user of a host. Write it from / on."


def _confirmation(value: str) -> str:
    if (word := confirm_word(value)) is None:
        raise RecoveryError(f"{value!r} is none of yes, no and plan, and no digest as a plan shows it (plan-…).")
    return word


def _faults_of_values(
    given: Mapping[str, Option], values: dict[str, Any], groups: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """What is wrong with times, names and groups that were given; times are put in UTC, names one a text."""
    for name, option in given.items():
        value = str(values[name] or "")
        try:
            if option["type"] == "time":
                values[name] = parse_time(value, name).isoformat()
            elif option["type"] == "confirmation":
                values[name] = _confirmation(value)
            elif option["type"] == "names":
                given_names = values[name]
                several = isinstance(given_names, list)
                values[name] = single_names([str(one) for one in given_names] if several else str(given_names))
        except RecoveryError as error:
            yield _short(error.msg if option["type"] == "time" else f"{name}: {error.msg}")
        if option["type"] == "group" and value and (said := group_fault(name, value, groups)):
            yield said
