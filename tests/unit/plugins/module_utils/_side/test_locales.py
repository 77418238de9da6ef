# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._side.locales import host_has, make_command


def test_a_host_has_c_and_not_what_nobody_made() -> None:
    assert host_has("C")
    assert host_has("POSIX")
    assert not host_has("xx_YY.UTF-8")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("de_DE.UTF-8", "localedef -i de_DE -f UTF-8 de_DE.UTF-8"),
        ("de_DE.utf8", "localedef -i de_DE -f UTF-8 de_DE.utf8"),
        ("de_DE@euro", "localedef -i de_DE@euro -f ISO-8859-1 de_DE@euro"),
        ("sr_RS.UTF-8@latin", "localedef -i sr_RS@latin -f UTF-8 sr_RS.UTF-8@latin"),
        ("ja_JP.eucJP", "localedef -i ja_JP -f eucJP ja_JP.eucJP"),
    ],
)
def test_the_command_makes_the_very_locale(name: str, command: str) -> None:
    assert make_command(name) == command
