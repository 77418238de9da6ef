# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make pgbackrest.conf from dictionaries and let the installed pgBackRest itself judge it before it counts."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from typing import Any

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import RecoveryError
from ansible_collections.dbre.recovery.plugins.module_utils._pgbackrest.runner import (
    REACHED,
    Run,
    parse_error,
    parse_warnings,
)

Sections = dict[str, dict[str, Any]]

HEADER = "# Made by dbre.recovery.pgbackrest_config: change the variables, not this file.\n"
HIDDEN = "(secret)"
# Option that says whom the TLS server lets in, and for which stanzas.
AUTH = "tls-server-auth"

# Options whose value is a secret (pgBackRest: src/build/config/config.yaml, `secure: true`).
_SECRET = re.compile(
    r"repo\d*-(cipher-pass|azure-key|s3-key|s3-key-secret|s3-sse-customer-key|s3-token"
    r"|sftp-private-key-passphrase)"
)
# Commands that accept most options, asked first; a rarer option costs a few more questions.
_ASK_FIRST = ("backup", "archive-push", "archive-get", "restore", "server")


def is_secret(option: str) -> bool:
    """Return whether an option's value must never be shown."""
    return _SECRET.fullmatch(option) is not None


def option_values(value: Any) -> list[str]:
    """Return an option's values as pgBackRest writes them: y and n for booleans, one line each for a list or dict."""
    if isinstance(value, bool):
        return ["y" if value else "n"]
    if isinstance(value, Mapping):
        return [f"{key}={entry}" for key, entry in value.items()]
    if isinstance(value, (list, tuple)):
        return [text for entry in value for text in option_values(entry)]
    return [str(value)]


def merge(*layers: Mapping[str, Mapping[str, Any] | None]) -> Sections:
    """Return sections merged option by option, later layers before earlier; an option set to None is left out."""
    merged: Sections = {}
    for layer in layers:
        for section, options in layer.items():
            merged.setdefault(section, {}).update(options or {})
    return {
        section: {option: value for option, value in options.items() if value is not None}
        for section, options in merged.items()
    }


def render(sections: Mapping[str, Mapping[str, Any]], hide_secrets: bool = False) -> str:
    """Return the text of pgbackrest.conf: [global...] first, options sorted, with secrets hidden for showing."""
    lines = [HEADER]
    for section in sorted(sections, key=lambda name: (not name.startswith("global"), name)):
        lines.append(f"[{section}]\n")
        for option, value in sorted(sections[section].items()):
            for text in option_values(value):
                lines.append(f"{option}={HIDDEN if hide_secrets and is_secret(option) else text}\n")
        lines.append("\n")
    return "".join(lines).rstrip("\n") + "\n"


def parse(text: str) -> Sections:
    """Return the sections of a pgbackrest.conf (an INI file where an option may be given several times)."""
    sections: Sections = {}
    section = ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            sections.setdefault(section, {})
        elif line and not line.startswith("#") and "=" in line and section:
            option, value = (part.strip() for part in line.split("=", 1))
            known = sections[section].get(option)
            if known is None:
                sections[section][option] = value
            else:
                sections[section][option] = [*(known if isinstance(known, list) else [known]), value]
    return sections


def keep_other_stanzas(wanted: Sections, present: Mapping[str, Mapping[str, Any]]) -> Sections:
    """Return the wanted sections with those of other stanzas that the file has: several clusters can share a host.

    Whom the file lets in for other stanzas stays let in.
    """
    ours = {section.split(":")[0] for section in wanted} | {"global"}
    others = {name: dict(options) for name, options in present.items() if name.split(":")[0] not in ours}
    whole = {**others, **wanted}
    now = wanted.get("global", {})
    own = option_values(now.get(AUTH, []))
    ours |= {stanza for entry in own for stanza in _stanzas(entry)}
    before = present.get("global", {})
    theirs = []
    for entry in option_values(before.get(AUTH, [])):
        stanzas = [stanza for stanza in _stanzas(entry) if stanza not in ours and stanza != "*"]
        if stanzas:
            theirs.append(f"{entry.partition('=')[0]}={','.join(stanzas)}")
    if theirs:
        server = {name: value for name, value in before.items() if name.startswith("tls-server-")}
        whole["global"] = {**server, **now, AUTH: [*own, *(entry for entry in theirs if entry not in own)]}
    return whole


def stanzas_of(sections: Mapping[str, Any]) -> list[str]:
    """Stanzas that have a section; a file without one is read as a stanza's all the same."""
    return sorted({name.split(":")[0] for name in sections} - {"global"}) or ["main"]


def _stanzas(entry: str) -> list[str]:
    """Stanzas that an entry of tls-server-auth (``client=stanza,stanza``) is about."""
    return [stanza.strip() for stanza in entry.partition("=")[2].split(",")]


def misplaced_secrets(config: Mapping[str, Mapping[str, Any] | None]) -> dict[str, list[str]]:
    """Return values by [section] option of secrets among plain options, where Ansible would show and log them."""
    return {
        f"[{section}] {option}": option_values(value)
        for section, options in config.items()
        for option, value in (options or {}).items()
        if is_secret(option) and value is not None
    }


def broken_values(config: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Return what would not stay in its line: a line break in a value begins an option, or shows half a secret."""
    wrong = []
    for section, options in config.items():
        if re.search(r"[\]\[\s]", section):
            wrong.append(f"a section cannot be called {section!r}")
        if not isinstance(options or {}, Mapping):
            # Its value is not shown: it may be a secret.
            wrong.append(f"{section!r} must be a section with options, such as {{global: {{{section}: ...}}}}")
            continue
        for option, value in (options or {}).items():
            if value is not None and any(re.search(r"[\x00-\x1f\x7f]", text) for text in option_values(value)):
                wrong.append(f"the value of [{section}] {option} has a line break or another control character")
    return wrong


def without_old_secrets(text: str, now: str) -> str:
    """Return an older copy of a file with those secrets hidden that are not in force in the file ``now``."""
    known = {line.strip() for line in now.splitlines()}
    lines = []
    for line in text.splitlines(keepends=True):
        option, sign, value = line.partition("=")
        if sign and is_secret(option.strip()) and line.strip() not in known and value.strip() != HIDDEN:
            line = f"{option}={HIDDEN}\n"
        lines.append(line)
    return "".join(lines)


def misplaced_options(config: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Return what is wrong about options in a section where pgBackRest would silently ignore them."""
    wrong = []
    for section, options in config.items():
        for option in options or {}:
            if section.startswith("global") and re.match(r"pg\d*-", option):
                wrong.append(f"'{option}' counts in a stanza's section only, not in [{section}]")
            elif not section.startswith("global") and option.startswith("tls-server-"):
                wrong.append(f"'{option}' counts in [global] only, not in [{section}]")
    return wrong


class Judge:
    """The installed pgBackRest, asked what it thinks of options and of a whole file. Nothing is changed by asking."""

    def __init__(self, run: Run, executable: str = "pgbackrest") -> None:
        self._run = run
        self._executable = executable
        self._accepted: dict[str, bool] = {}
        self._beta: set[str] = set()
        self.commands = self._commands()

    def _commands(self) -> list[str]:
        rc, stdout, stderr = self._run([self._executable, "help"])
        block = stdout.partition("Commands:")[2].partition("Use '")[0]
        commands = re.findall(r"^    ([a-z-]+) {2,}\S", block, re.MULTILINE)
        if rc != 0 or not commands:
            raise RecoveryError(
                f"'{self._executable} help' lists no commands on {socket.gethostname()}: {(stderr or stdout)[:300]}"
            )
        return [name for name in commands if name not in ("help", "version")]

    def knows(self, option: str, command: str | None = None) -> bool:
        """Return whether a command, or any command at all, has the option."""
        ordered = [*_ASK_FIRST, *(name for name in self.commands if name not in _ASK_FIRST)]
        for name in [command] if command else [name for name in ordered if name in self.commands]:
            key = f"{name} {option}"
            if key not in self._accepted:
                rc, stdout, _stderr = self._run([self._executable, "help", name, option])
                self._accepted[key] = rc == 0
                if "FOR BETA TESTING ONLY" in stdout:
                    self._beta.add(option)
            if self._accepted[key]:
                return True
        return False

    def unknown_options(self, sections: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
        """Return (section, option) of what this pgBackRest does not know, in section order."""
        unknown = []
        for section, options in sections.items():
            command = section.partition(":")[2] or None
            for option in options:
                if not re.fullmatch(r"[a-z0-9-]+", option) or not self.knows(option, command):
                    unknown.append((section, option))
        return unknown

    def unknown_commands(self, sections: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Return sections like `global:bakcup` whose command does not exist: pgBackRest would silently skip them."""
        return [name for name in sections if ":" in name and name.split(":", 1)[1] not in self.commands]

    def sift(
        self, wanted: Sections, required: Mapping[str, Mapping[str, Any]]
    ) -> tuple[Sections, list[str], list[str]]:
        """Return the sections without unknown options, what was left out of them, and what must be refused.

        An option that is not in `required` is a default: where this pgBackRest does not have it, or has it for tests
        only, it is left out.
        """
        reasons = [f"there is no command for section [{name}]" for name in self.unknown_commands(wanted)]
        left_out = []
        sifted = {section: dict(options) for section, options in wanted.items()}
        for section, option in self.unknown_options(wanted):
            if option in required.get(section, {}):
                reasons.append(f"this pgBackRest has no option '{option}' for section [{section}]")
            else:
                left_out.append(f"[{section}] {option}")
                del sifted[section][option]
        for section, options in wanted.items():
            for option in self._beta.intersection(options) - set(required.get(section, {})):
                left_out.append(f"[{section}] {option}")
                del sifted[section][option]
        return sifted, left_out, reasons

    def complaints(self, path: str, sections: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Return what pgBackRest has against a file, as each of its commands reads it: bad values, misplaced options.

        `help` reads a file's values without acting on them; `info` also warns of options in the wrong section.
        """
        found: list[str] = []
        for stanza in stanzas_of(sections):
            base = [self._executable, f"--config={path}", f"--stanza={stanza}"]
            for command in self.commands:
                rc, stdout, stderr = self._run([*base, "help", command])
                code, text = parse_error(stderr + stdout)
                if rc != 0 and code is not None and "not valid for command" not in text:
                    found.append(text)
            quiet = ["--log-level-console=off", "--log-level-stderr=warn", "--no-log-timestamp", "--output=json"]
            rc, stdout, stderr = self._run([*base, *quiet, "info"])
            found += parse_warnings(stderr)
            if rc != 0:
                found.append(parse_error(stderr, stdout)[1])
        return sorted(set(found))


def newly_broken(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What a new configuration would break: repositories that could be read with the old one and cannot with it.

    ``before`` and ``after`` are a stanza's facts (:func:`..info.stanza_facts`) with either file.
    """
    worked = {repo["repo"] for repo in before["repositories"] if _readable(repo)}
    return [
        f"repository {repo['repo']} of stanza '{after['name']}' could be read before and could not with it: "
        f"{repo['status']['message']}"
        for repo in after["repositories"]
        if repo["repo"] in worked and not _readable(repo)
    ]


def _readable(repo: Mapping[str, Any]) -> bool:
    return repo["status"]["code"] in REACHED


def refuse(path: str, reasons: list[str]) -> RecoveryError:
    """Return the error for a file that was not written."""
    text = "; ".join(reason.replace("\n", " ").rstrip(".") for reason in reasons)
    return RecoveryError(
        f"{path} on {socket.gethostname()} was not changed, the file there stays in force: {text}. "
        "Correct the variables (role dbre.recovery.pgbackrest: pgbackrest_config) and run again."
    )
