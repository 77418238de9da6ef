# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of groups and hosts that people give, and whether they are there. A play without hosts ends in silence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Optional

from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader

# What only Ansible itself can resolve: wildcards, ranges, regular expressions, files of names.
_PATTERN = re.compile(r"[*?\[\]~@]")
_BESIDES = ("all", "ungrouped")


def terms(pattern: str) -> Optional[list[str]]:
    """Names that a host pattern is made of, those that are taken away left out; None when it has wildcards."""
    if _PATTERN.search(pattern):
        return None
    parts = [part.strip() for part in re.split(r"[,:]", pattern)]
    return [part.lstrip("&") for part in parts if part and not part.startswith("!")]


def hosts_of(pattern: str, groups: Mapping[str, Sequence[str]]) -> Optional[set[str]]:
    """Hosts that a pattern of plain names can mean at most; None when only Ansible can tell."""
    names = terms(pattern)
    if names is None:
        return None
    everything = set(groups.get("all") or [])
    return {host for name in names for host in groups.get(name) or ({name} & everything)}


def fault(variable: str, pattern: str, groups: Mapping[str, Sequence[str]]) -> str:
    """Why ``pattern``, the value of ``variable``, names no host; empty when it does or only Ansible can tell."""
    hosts = hosts_of(pattern, groups)
    names = terms(pattern) or []
    known = [*(name for name in groups if name not in _BESIDES), *(groups.get("all") or [])]
    unknown = [name for name in names if name not in known and name not in _BESIDES]
    if hosts is None or (hosts and not unknown):
        return ""
    listed = ", ".join(sorted(name for name in groups if name not in _BESIDES)) or "none"
    if not unknown:
        return f"{variable} is {pattern!r}, and no host is in that group of the inventory."
    near = get_close_matches(unknown[0], known, 3, 0.6)
    hint = f" Similar: {', '.join(near)}." if near else ""
    return f"{variable} is {pattern!r}, and the inventory has no such group or host.{hint} Its groups: {listed}."


def nobody_left(patterns: Sequence[str], groups: Mapping[str, Sequence[str]], limit: Optional[str]) -> bool:
    """Whether no host of any of the patterns is left by ``--limit``, all as Ansible itself reads them."""
    inventory = InventoryManager(DataLoader(), parse=False)
    for host in groups.get("all") or []:
        inventory.add_host(host)
    for group, hosts in groups.items():
        inventory.add_group(group)
        for host in hosts:
            inventory.add_host(host, group)
    inventory.subset(limit)
    return not inventory.get_hosts(",".join(patterns))
