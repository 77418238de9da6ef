# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An audit for people: a table for the screen, and ``audit.html`` for a browser and paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from ansible_collections.dbre.recovery.plugins.module_utils._core import units
from ansible_collections.dbre.recovery.plugins.module_utils._monitoring.audit import totals
from jinja2 import Environment

TITLES = ("Host", "Tier", "Full", "Diff", "Incr", "WAL waits", "Window", "Restore test", "RTO", "RPO", "Objectives")


def age(seconds: Optional[float]) -> str:
    """``3 d 4 h``, and ``–`` for what is not known or never was."""
    return "–" if seconds is None else units.duration(seconds)


def tested(row: Mapping[str, Any]) -> str:
    test = row["restore_test"]
    return f"{test['verdict'].replace('_', ' ')}, {units.duration(test['ago'])}" if test else "never"


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row of the table, in the order of TITLES."""
    ages = [age(row[name]) for name in ("full", "diff", "incr", "lag", "reaches_back")]
    measured = [age(row[name]) for name in ("rto", "rpo")]
    return [row["host"], row["tier"], *ages, tested(row), *measured, row["verdict"].replace("_", " ")]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """All rows, then why objectives are not met, host by host."""
    lines = [[title.upper() for title in TITLES], *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(TITLES))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    for row in rows:
        text += [f"{row['host']}: {why}" for why in row["why"]]
    return "\n".join([*text, totals(row["verdict"] for row in rows)])


def page(audit: Mapping[str, Any]) -> str:
    """``audit.html``: one file that needs nothing else, every value escaped."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(age=age, moment=units.moment, duration=units.duration)
    template = environment.from_string(Path(__file__).with_name("audit.html.j2").read_text(encoding="utf-8"))
    rows = audit["hosts"]
    return template.render(
        audit=audit,
        titles=TITLES,
        rows=[(row, cells(row)) for row in rows],
        totals=totals(row["verdict"] for row in rows),
    )
