# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.dbre.recovery.plugins.module_utils._core.timers import (
    PACKAGE,
    program_files,
    timer_steps,
    unit_states,
)

# systemctl show --property=Id,ActiveState,UnitFileState,NeedDaemonReload of systemd 252: a timer that runs, one whose
# file was changed, and one that there is not.
SHOWN = """Id=dbre-backup-main-full.timer
ActiveState=active
UnitFileState=enabled
NeedDaemonReload=no

Id=dbre-backup-main-incr.timer
ActiveState=active
UnitFileState=enabled
NeedDaemonReload=yes

Id=dbre-backup-main-diff.timer
ActiveState=inactive
UnitFileState=
NeedDaemonReload=no
"""
TIMERS = [f"dbre-backup-main-{kind}.timer" for kind in ("full", "incr", "diff")]


def test_a_program_comes_with_what_its_imports_import_and_nothing_else() -> None:
    texts = {
        "_a/start.py": f"import os\nfrom {PACKAGE}._a.one import x\nfrom {PACKAGE}._b import two, three\n",
        "_a/one.py": f"def f():\n    from {PACKAGE}._a.start import y\n",
        "_b/two.py": "from ansible.module_utils.basic import AnsibleModule\n",
        "_b/three.py": "",
        "_b/four.py": "",
    }
    assert list(program_files("_a/start.py", texts.__getitem__)) == [
        "_a/one.py",
        "_a/start.py",
        "_b/three.py",
        "_b/two.py",
    ]


def test_timers_that_run_by_their_files_are_left_alone() -> None:
    states = unit_states(SHOWN)
    assert timer_steps(TIMERS[:1], states, []) == {"enable": [], "restart": []}


def test_a_timer_goes_by_a_file_that_was_written_even_if_an_earlier_run_was_killed_before_systemd_read_it() -> None:
    states = unit_states(SHOWN)
    assert timer_steps(TIMERS[:2], states, [])["restart"] == [TIMERS[1]]
    assert timer_steps(TIMERS[:1], states, [TIMERS[0]]) == {"enable": [], "restart": [TIMERS[0]]}


def test_a_timer_that_systemd_does_not_know_is_enabled_and_started() -> None:
    assert timer_steps(TIMERS[2:], unit_states(SHOWN), []) == {"enable": [TIMERS[2]], "restart": [TIMERS[2]]}
    assert timer_steps(["new.timer"], {}, []) == {"enable": ["new.timer"], "restart": ["new.timer"]}
