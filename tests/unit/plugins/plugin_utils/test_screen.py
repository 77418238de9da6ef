# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One live line at the end of a terminal."""

from __future__ import annotations

import io
import sys

import pytest
from ansible_collections.dbre.recovery.plugins.plugin_utils._screen import Screen, failure_text, fitted, told


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_is_printed_takes_the_place_of_the_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, errors = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", errors)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "12")
    screen = Screen()
    screen.begin()
    assert screen.live
    sys.stdout.write("a line that is too long\r")
    sys.stdout.write("restore: 50%\r")
    sys.stdout.write("said\n")
    sys.stdout.write("more\r")
    sys.stderr.write("a warning\n")
    sys.stdout.write("end\r")
    screen.end()
    assert terminal.getvalue() == "a line that\r\x1b[Krestore: 50\r\x1b[Ksaid\nmore\r\x1b[Kend\r\x1b[K"
    assert errors.getvalue() == "a warning\n"
    assert (sys.stdout, sys.stderr, screen.live) == (terminal, errors, False)


@pytest.mark.parametrize(("terminal", "kind"), [(Terminal(), "dumb"), (io.StringIO(), "xterm")])
def test_where_nothing_can_be_overwritten_nothing_is(
    monkeypatch: pytest.MonkeyPatch, terminal: io.StringIO, kind: str
) -> None:
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", kind)
    screen = Screen()
    screen.begin()
    assert not screen.live
    assert sys.stdout is terminal


@pytest.mark.parametrize(("text", "line"), [("orders", "order"), ("表表表", "表表"), ("e\u0301toile", "e\u0301toil")])
def test_a_line_is_cut_by_the_columns_its_letters_take(text: str, line: str) -> None:
    assert fitted(text, 5) == line


def test_a_message_of_any_type_is_a_text() -> None:
    assert told(["one", {"two": 2}, 3]) == 'one\n{"two": 2}\n3'
    assert failure_text({}) == failure_text({"msg": " "}) == "it does not say why"
    assert failure_text({"msg": "", "exception": "Traceback: KeyError"}) == "Traceback: KeyError"
