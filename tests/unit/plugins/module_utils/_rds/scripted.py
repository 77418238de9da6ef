# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Union

import botocore.session
from ansible_collections.dbre.recovery.plugins.module_utils._rds.calls.api import Rds
from botocore.awsrequest import AWSResponse
from botocore.exceptions import BotoCoreError
from botocore.stub import Stubber
from botocore.validate import validate_parameters

SESSION = botocore.session.get_session()

Answer = Union[dict[str, Any], str, BotoCoreError, Callable[[dict[str, Any]], Any]]


class ScriptedAws(Stubber):
    """A Stubber whose answers are kept by operation, the last one for all later calls.

    Waiting asks the same thing as often as it needs to, and a test says how a status goes on, not how often somebody
    looks. Like Stubber it checks what goes in and out against botocore's service model. An answer is a response, the
    code of an error, an exception, or a function of the arguments that gives one of these.
    """

    def __init__(self, region: str = "eu-central-1") -> None:
        super().__init__(
            SESSION.create_client("rds", region_name=region, aws_access_key_id="test", aws_secret_access_key="test")
        )
        self.region = region
        self.answers: dict[str, list[Answer]] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.client.meta.events.register_first("before-parameter-build.rds", self._note, unique_id="scripted-note")
        self.client.meta.events.register_first("before-call.rds", self._answer, unique_id="scripted-answer")

    def script(self, operation: str, *answers: Answer) -> None:
        """Answers of an operation, one after another."""
        self.answers[operation] = list(answers)

    def called(self, operation: str) -> list[dict[str, Any]]:
        """Arguments of the calls of an operation."""
        return [arguments for name, arguments in self.calls if name == operation]

    def written(self) -> list[str]:
        """Operations that were called and change something."""
        return [name for name, _arguments in self.calls if not name.startswith(("Describe", "List"))]

    def rds(self) -> Rds:
        return Rds(self.client, self.region)

    def _note(self, params: dict[str, Any], model: Any, **_more: Any) -> None:
        self.calls.append((model.name, dict(params)))

    def _answer(self, model: Any, **_more: Any) -> tuple[AWSResponse, dict[str, Any]]:
        queue = self.answers.get(model.name)
        assert queue, f"nobody said what AWS answers to {model.name} {self.calls[-1][1]}"
        answer: Any = queue.pop(0) if len(queue) > 1 else queue[0]
        while callable(answer):
            answer = answer(self.calls[-1][1])
        if isinstance(answer, BotoCoreError):
            raise answer
        if isinstance(answer, str):
            return AWSResponse("", 400, {}, None), {
                "Error": {"Code": answer, "Message": f"told in the test ({answer})"}
            }
        if model.output_shape is not None:
            validate_parameters(answer, model.output_shape)
        return AWSResponse("", 200, {}, None), {**answer, "ResponseMetadata": {"HTTPStatusCode": 200}}


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def time(self) -> float:
        return self.now
