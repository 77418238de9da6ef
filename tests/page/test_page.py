# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report page as people see it: records of real runs, shown by a real browser.

What it shows stays in pytest's base directory: ``<record>-1280.png``, ``-390.png``, ``-dark.png``, ``-print.pdf`` and
a picture of each page of that.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.history import phase_seconds
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.page import render_html
from ansible_collections.dbre.recovery.plugins.plugin_utils._incident.report import build_report
from browser import Browser

DATA = Path(__file__).parent / "data"
RECORDS = sorted(path.stem for path in DATA.glob("*.json"))

# Texts with their boxes: of each line of each text node. Where a box is hidden or folded there is none.
TEXTS = """(() => {
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const text = node.data.trim(), range = document.createRange();
    if (!text) continue;
    range.selectNodeContents(node);
    let block = node.parentElement;
    while (getComputedStyle(block).display.startsWith("inline")) block = block.parentElement;
    const card = node.parentElement.closest("section, header, .numbers div, footer").getBoundingClientRect();
    for (const box of range.getClientRects())
      found.push({text, left: box.left, right: box.right, top: box.top, bottom: box.bottom,
                  room: block.clientWidth, size: parseFloat(getComputedStyle(node.parentElement).fontSize),
                  inside: box.left >= card.left && box.right <= card.right + 1 && box.bottom <= card.bottom + 1});
  }
  return found;
})()"""


def page(name: str, folder: Path) -> tuple[dict[str, Any], Path]:
    """The report of a recorded incident, and the page of it."""
    record = json.loads((DATA / f"{name}.json").read_text())
    state = record["record"]
    report = build_report(state, record["evidence"], record["plan"], phase_seconds(state["events"], state["ended"]))
    file = folder / f"{name}.html"
    file.write_text(render_html(report))
    return report, file


def overlapping(texts: list[dict[str, Any]], slack: float = 2) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes cover each other by more than ``slack`` pixels both ways."""
    return [
        (one["text"], other["text"])
        for number, one in enumerate(texts)
        for other in texts[number + 1 :]
        if min(one["right"], other["right"]) - max(one["left"], other["left"]) > slack
        if min(one["bottom"], other["bottom"]) - max(one["top"], other["top"]) > slack
    ]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", RECORDS)
def test_the_page_can_be_read(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, name: str, width: int
) -> None:
    shots = tmp_path_factory.getbasetemp()
    report, file = page(name, shots)
    browser.show(file, width)
    browser.picture(shots / f"{name}-{width}.png")
    browser.ask("document.querySelectorAll('details').forEach(one => { one.open = true })")
    texts = browser.ask(TEXTS)
    assert report["headline"].partition(":")[0] in " ".join(one["text"] for one in texts)
    assert browser.ask("[document.documentElement.scrollWidth, innerWidth]") == [width, width], "nothing lies beside it"
    assert overlapping(texts) == []
    assert [one["text"] for one in texts if not one["inside"]] == []
    # A column in which each line holds a word or less is not read.
    assert [one["text"] for one in texts if len(one["text"]) > 24 and one["room"] < 110] == []
    assert min(one["size"] for one in texts) >= 12


@pytest.mark.parametrize("name", RECORDS)
def test_it_prints_on_three_pages_at_most_with_all_that_is_folded_and_none_of_them_empty(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    shots = tmp_path_factory.getbasetemp()
    report, file = page(name, shots)
    browser.show(file, 1280, dark=True)
    browser.printed(shots / f"{name}-print.pdf")
    subprocess.run(["pdftoppm", "-r", "60", "-png", f"{name}-print.pdf", f"{name}-print"], cwd=shots, check=True)
    told = subprocess.run(
        ["pdftotext", "-bbox", shots / f"{name}-print.pdf", "-"], capture_output=True, text=True, check=True
    ).stdout
    pages = told.split("<page ")[1:]
    height = float(re.findall(r'height="([\d.]+)"', pages[0])[0])
    filled = [max(map(float, re.findall(r'yMax="([\d.]+)"', one)), default=0.0) / height for one in pages]
    assert len(pages) <= 3
    assert min(filled[:-1], default=1) > 0.25
    words = re.findall(r">([^<]*)</word>", told)
    folded = [check["setting"] for check in report["isolation"]["settings"]]
    folded += [item["type"].lower() for item in report["came_back"]["objects"]]
    assert set(" ".join(folded).split()) <= set(words)


def test_what_people_look_for_first_comes_first(tmp_path: Path) -> None:
    _report, file = page("proved", tmp_path)
    headings = re.findall(r"<h[12]>(.*)</h[12]>", file.read_text())
    assert headings == [
        "Recovered and proved",
        "What happened",
        "What is left to do",
        "What came back",
        "Committed before the damage, and lost",
        "Proof: before the incident, and now",
        "Timeline",
        "Isolation of the side instance",
        "Where it was found, and how far it was replayed",
    ]


def test_a_swap_tells_what_serves_and_what_is_only_in_the_one_that_is_kept(tmp_path: Path) -> None:
    _report, file = page("rds_swap", tmp_path)
    headings = re.findall(r"<h[12]>(.*)</h[12]>", file.read_text())
    assert headings[:5] == [
        "Recovered and proved",
        "What happened",
        "What is left to do",
        "What took over",
        "Not in the database that serves now",
    ]


def test_it_is_dark_where_people_want_it_dark(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    shots = tmp_path_factory.getbasetemp()
    _report, file = page("proved", shots)
    browser.show(file, 1280, dark=True)
    browser.picture(shots / "proved-dark.png")
    red, green, blue = map(int, re.findall(r"\d+", browser.ask("getComputedStyle(document.body).backgroundColor")))
    assert max(red, green, blue) < 60
