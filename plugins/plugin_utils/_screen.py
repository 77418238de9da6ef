# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run looks like on a screen: texts of results, and one live line below all that was printed."""

from __future__ import annotations

import atexit
import io
import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Mapping
from typing import Any, TextIO, cast

from ansible_collections.dbre.recovery.plugins.module_utils._core.errors import printable
from ansible_collections.dbre.recovery.plugins.module_utils._core.masking import mask_text

# Ends a text in whose place the next one comes, as terminals take it.
OVERWRITTEN = "\r"
_CLEAR = "\r\x1b[K"
_LAST_LINES = 10


def fitted(text: str, columns: int) -> str:
    """The beginning of a text that stands in one line of so many columns; wide letters take two."""
    taken = 0
    for place, letter in enumerate(text):
        taken += 2 if unicodedata.east_asian_width(letter) in "WF" else 0 if unicodedata.combining(letter) else 1
        if taken > columns:
            return text[:place]
    return text


def told(value: Any) -> str:
    """A message as people may see it, whatever type it has: secrets masked, and nothing a terminal acts on."""
    if isinstance(value, (list, tuple)):
        return "\n".join(told(item) for item in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return mask_text(printable(text)).strip()


def harmless(value: Any) -> Any:
    """Data with nothing in its texts that a terminal acts on."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {name: harmless(item) for name, item in value.items()}
    return [harmless(item) for item in value] if isinstance(value, (list, tuple)) else value


def failure_text(result: Mapping[str, Any]) -> str:
    """Why a task failed, from its result: its message, and the last lines of a program that it ran."""
    if result.get("censored"):
        return told(result["censored"])
    why = result.get("msg") or result.get("reason") or result.get("exception") or ""
    message = told(why) or "it does not say why"
    said = next((result[key] for key in ("stderr", "module_stderr", "stdout", "module_stdout") if result.get(key)), "")
    last = [line for line in told(said).splitlines()[-_LAST_LINES:] if line not in message]
    return "\n".join([message, *last])


class Screen:
    """A terminal on which a text that ends with ``OVERWRITTEN`` is gone as soon as another one comes.

    All that Ansible prints goes through sys.stdout and sys.stderr, also what its workers and other plugins have to say,
    one text at a time under one lock; so these two are what has to know of the live line. Workers are forks: they see
    in ``SCREEN`` whether there is one.
    """

    def __init__(self) -> None:
        self.live = False
        self._shown = False
        self._before: tuple[TextIO, TextIO] | None = None

    def begin(self) -> None:
        """Have a live line, where stdout is a terminal that can clear one; else print each line when it is there."""
        if self._before:
            return
        if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(line_buffering=True)
            return
        self._before = sys.stdout, sys.stderr
        sys.stdout = cast(TextIO, _Above(sys.stdout, self))
        if sys.stderr.isatty():
            sys.stderr = cast(TextIO, _Above(sys.stderr, self))
        self.live = True
        atexit.register(self.end)

    def end(self) -> None:
        """Leave the terminal as it was found."""
        if self._before:
            self._clear(self._before[0])
            sys.stdout, sys.stderr = self._before
        self._before, self.live = None, False

    def write(self, stream: TextIO, text: str) -> None:
        """Print a text on a stream, in place of the live line; or the live line itself, on stdout."""
        out = self._before[0] if self._before else stream
        self._clear(out)
        if text.endswith(OVERWRITTEN):
            out.write(fitted(text.rstrip(), shutil.get_terminal_size().columns - 1))
            out.flush()
            self._shown = True
        else:
            stream.write(text)
            stream.flush()

    def _clear(self, out: TextIO) -> None:
        if self._shown:
            out.write(_CLEAR)
            out.flush()
        self._shown = False


class _Above:
    """A stream of which everything that is written appears above the live line."""

    def __init__(self, stream: TextIO, screen: Screen) -> None:
        self._stream = stream
        self._screen = screen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._screen.write(self._stream, text)
        return len(text)


SCREEN = Screen()
