# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lost subscription comes back with the options that it had."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._tables.with_secrets import subscription_options

# Rows of pg_subscription, the columns that are options.
OF_13 = {"subsynccommit": "off", "subslotname": "fed"}
OF_15 = {**OF_13, "subbinary": False, "substream": True, "subtwophasestate": "d", "subdisableonerr": False}
OF_18 = {
    **OF_15,
    **{"substream": "p", "subtwophasestate": "p", "subpasswordrequired": True, "subrunasowner": False},
    **{"suborigin": "any", "subfailover": False},
}


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (OF_13, []),
        (OF_15, ["streaming = on"]),
        ({**OF_15, "substream": False, "subtwophasestate": "e"}, ["streaming = off", "two_phase = on"]),
        ({**OF_15, "substream": "t"}, ["streaming = on"]),
        (OF_18, ["streaming = parallel", "two_phase = on"]),
        (
            {**OF_18, "substream": "f", "suborigin": "none", "subfailover": True, "subpasswordrequired": False},
            ["streaming = off", "two_phase = on", "password_required = off", "origin = 'none'", "failover = on"],
        ),
        ({**OF_13, "subsynccommit": "remote_apply"}, ["synchronous_commit = 'remote_apply'"]),
    ],
)
def test_options_of_a_lost_subscription_that_are_not_the_default_are_named(
    settings: dict[str, Any], options: list[str]
) -> None:
    assert subscription_options(settings) == options
