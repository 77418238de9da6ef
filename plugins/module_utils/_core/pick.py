# Copyright: (c) 2026, the dbre.recovery authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, cast

T = TypeVar("T")


def pick(kind: type[T], given: Mapping[str, Any]) -> T:
    """What a dataclass asks for, out of options of the same names.

    Others are left aside; one that is null was not given, so that the dataclass's own default is taken.
    """
    names = [field.name for field in fields(cast(Any, kind))]
    return kind(**{name: given[name] for name in names if given.get(name) is not None})
