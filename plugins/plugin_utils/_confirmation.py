# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a plan may be carried out, as far as that was said beforehand (dr_confirm)."""

from __future__ import annotations

import re
from typing import Optional

YES, NO, PLAN = "yes", "no", "plan"
_DIGEST = re.compile(r"plan-[0-9a-f]{12}")
# As Ansible's booleans are written.
_WORDS = {
    **dict.fromkeys(("yes", "y", "true", "t", "on", "1", "1.0"), YES),
    **dict.fromkeys(("", "none", "no", "n", "false", "f", "off", "0", "0.0"), NO),
    PLAN: PLAN,
}


def confirm_word(value: object) -> Optional[str]:
    """``value`` of dr_confirm as one of YES, NO and PLAN, or as the digest of a plan; None where it is nothing."""
    word = str(value).strip().lower()
    return word if _DIGEST.fullmatch(word) else _WORDS.get(word)


def said_before(word: str, digest: str, confirmed: bool) -> Optional[bool]:
    """Whether the plan with that digest is to be carried out; None where that has to be asked.

    ``word`` is what :func:`confirm_word` made of dr_confirm, ``confirmed`` whether an earlier run was told so.
    """
    if word == PLAN or _DIGEST.fullmatch(word):
        return word == digest
    return True if word == YES or confirmed else None


def refusal(why: str, incident: str, path: str, digest: str) -> str:
    """What is said where a plan is not carried out."""
    return (
        f"Not confirmed: {why}. Incident {incident} stops here; production was not touched. The plan shown above is in "
        f"{path}. To carry it out, run the same command again with -e dr_incident_id={incident} -e dr_confirm={digest} "
        "(that plan and no other) or with -e dr_confirm=yes, or run it in a terminal and type yes when asked; the plan "
        "is made anew then, and shown."
    )
