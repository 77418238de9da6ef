# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import botocore.session
import pytest
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.waiting import Waiting
from ansible_collections.dbre.recovery.tests.unit.plugins.module_utils._rds.scripted import Clock, ScriptedAws
from botocore.config import Config
from botocore.stub import Stubber

SESSION = botocore.session.get_session()  # it remembers the service model, which is large


class Region:
    """RDS in one region, whose answers are told beforehand in their order; botocore checks them against its model."""

    def __init__(self, name: str) -> None:
        client = SESSION.create_client(
            "rds",
            region_name=name,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"max_attempts": 0}),
        )
        self.stubber = Stubber(client)
        self.stubber.activate()
        self.rds = Rds(client, name)

    def answers(self, method: str, response: dict[str, Any], **expected: Any) -> None:
        """The next call is ``method`` and gets ``response``; ``expected`` are all its arguments where they matter."""
        self.stubber.add_response(method, response, expected or None)

    def refuses(self, method: str, code: str, message: str = "") -> None:
        """The next call is ``method`` and gets an error of AWS."""
        self.stubber.add_client_error(method, service_error_code=code, service_message=message)


class SwapState:
    """Regions by name, and one clock for all."""

    def __init__(self) -> None:
        self.regions: dict[str, Region] = {}
        self.clock = Clock()
        self.waiting = Waiting(600.0, sleep=self.clock.sleep, clock=self.clock.time)

    def region(self, name: str) -> Region:
        return self.regions.setdefault(name, Region(name))


@pytest.fixture
def aws() -> ScriptedAws:
    return ScriptedAws()


@pytest.fixture
def another_region() -> Callable[[str], ScriptedAws]:
    return ScriptedAws


@pytest.fixture
def waiting() -> Waiting:
    clock = Clock()
    return Waiting(3600.0, sleep=clock.sleep, clock=clock.time)


@pytest.fixture
def world() -> Iterator[SwapState]:
    """Every answer that was told must have been asked for in the end: no call more, no call less."""
    made = SwapState()
    yield made
    for region in made.regions.values():
        region.stubber.assert_no_pending_responses()


@pytest.fixture
def here(world: SwapState) -> Region:
    return world.region("eu-central-1")
