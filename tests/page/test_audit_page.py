# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of an audit of fifty hosts, in a real browser; its pictures stay in pytest's base directory."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.plugin_utils._audit.shown import page
from browser import Browser
from test_page import overlapping

TEXTS = """(() => {
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const text = node.data.trim(), range = document.createRange();
    if (!text) continue;
    range.selectNodeContents(node);
    for (const box of range.getClientRects())
      found.push({text, left: box.left, right: box.right, top: box.top, bottom: box.bottom});
  }
  return found;
})()"""


def row(number: int) -> dict[str, Any]:
    verdict = ("not_met", "unknown", "met")[min(number // 5, 2)]
    why = [[f"the last full backup in repository {repo} is 3 d 2 h old, and one is due every 1 d" for repo in (1, 2)]]
    why += [["the host could not be reached: Connection to 192.0.2.7 timed out after ten seconds"], []]
    known: dict[str, Any] = {"full": 266400.0, "diff": 14400.0, "incr": 720.0, "lag": 0.0, "reaches_back": 1900800.0}
    known |= {"restore_test": {"ago": 262800.0, "verdict": "could_not_verify"}, "rto": 660.0, "rpo": 0.4}
    answered = known if verdict != "unknown" else dict.fromkeys(known)
    named = {"host": f"db{number}.west.example.com", "tier": "critical", "verdict": verdict}
    return {**named, **answered, "why": why[("not_met", "unknown", "met").index(verdict)]}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.getbasetemp() / "audit.html"
    made = "2026-11-24T06:00:00+00:00"
    path.write_text(page({"format": 1, "made": made, "hosts": [row(number) for number in range(50)]}))
    return path


@pytest.mark.parametrize("width", [1280, 390])
def test_the_table_of_fifty_hosts_can_be_read(browser: Browser, file: Path, width: int) -> None:
    browser.show(file, width)
    browser.picture(file.with_name(f"audit-{width}.png"))
    texts = browser.ask(TEXTS)
    assert browser.ask("[document.documentElement.scrollWidth, innerWidth]") == [width, width], "nothing lies beside it"
    assert overlapping(texts) == []
    told = " ".join(one["text"] for one in texts)
    assert "50 hosts: 40 met, 5 not met, 5 unknown" in told
    assert all(f"db{number}.west.example.com" in told for number in range(50))


def test_the_table_of_fifty_hosts_prints_without_empty_pages(browser: Browser, file: Path) -> None:
    browser.show(file, 1280)
    printed = file.with_name("audit-print.pdf")
    browser.printed(printed)
    told = subprocess.run(["pdftotext", "-bbox", printed, "-"], capture_output=True, text=True, check=True).stdout
    pages = told.split("<page ")[1:]
    assert len(pages) <= 4
    assert all("<word" in one for one in pages)
    assert len(re.findall(r">db\d+\.west\.example\.com<", told)) == 50
