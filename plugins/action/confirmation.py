# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsiblePromptInterrupt, AnsiblePromptNoninteractive
from ansible.plugins.action import ActionBase
from ansible_collections.dbre.recovery.plugins.module_utils._core.units import duration
from ansible_collections.dbre.recovery.plugins.plugin_utils._confirmation import (
    PLAN,
    confirm_word,
    refusal,
    said_before,
)
from ansible_collections.dbre.recovery.plugins.plugin_utils._shown import is_parsed, show

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "incident": {"type": "str", "required": True},
    "path": {"type": "str", "required": True},
    "digest": {"type": "str", "required": True},
    "confirm": {"type": "str", "default": ""},
    "confirmed": {"type": "bool", "default": False},
    "timeout": {"type": "int", "default": 1800},
}
QUESTION = (
    "Type yes to carry out the plan above, anything else to stop. Production has not been touched so far. "
    "Without an answer this stops by itself in {}:"
)


class ActionModule(ActionBase):
    """Asks on the controller's terminal, where nothing was said beforehand; changes nothing."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(ARGUMENT_SPEC)
        word, digest = confirm_word(args["confirm"]), args["digest"]
        if word is None:
            return self._refused(result, f"dr_confirm is {args['confirm']!r}, no answer and no digest of a plan", args)
        said = said_before(word, digest, args["confirmed"])
        if word == PLAN:
            show(
                self._display,
                f"Stopped after the plan, as dr_confirm=plan says; production was not touched. To carry out this plan "
                f"and no other: -e dr_incident_id={args['incident']} -e dr_confirm={digest}",
            )
        if said is None:
            why = self._ask(args["timeout"])
            if why:
                return self._refused(result, why, args)
            return {**result, "changed": False, "confirmed": True, "how": "typed yes"}
        if not said and word != PLAN:
            why = f"dr_confirm is the digest of another plan, {word}; the one above is {digest}. Look at what differs"
            return self._refused(result, why, args)
        how = f"confirmed beforehand (dr_confirm={word})" if said else "stopped after the plan"
        return {**result, "changed": False, "confirmed": said, "how": how}

    def _ask(self, timeout: int) -> str:
        """Why nobody said yes; empty when somebody did."""
        if is_parsed():
            return "a program reads this output, so nobody was asked"
        began = time.monotonic()
        try:
            typed = self._display.prompt_until(QUESTION.format(duration(timeout)), seconds=timeout)
        except AnsiblePromptNoninteractive:
            return "there is no terminal to ask on"
        except AnsiblePromptInterrupt:
            return "it was interrupted"
        if time.monotonic() - began >= timeout:
            return f"nobody answered within {duration(timeout)} (dr_confirm_timeout)"
        answer = typed.decode(errors="replace").strip()
        return "" if answer.lower() == "yes" else f"the answer was {answer!r}"

    def _refused(self, result: dict[str, Any], why: str, args: dict[str, Any]) -> dict[str, Any]:
        return {**result, "failed": True, "msg": refusal(why, args["incident"], args["path"], args["digest"])}
