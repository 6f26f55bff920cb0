"""Members of a stranger's JSON object, held against the shape that they must have."""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from coatcheck.errors import WrongClaim

T = TypeVar("T")

# The place comes before the missing member: of `bits` missing in `status_list`, the claim is `status_list`.
_PLACES: Final = (re.compile(r"at `\$\.(\w+)"), re.compile(r"missing required field `(\w+)"))


def fit(members: object, shape: type[T], *, within: str = "") -> T:
    """Return the members of an object in a struct of this class; further members are ignored.

    Args:
        members: from `strict_json.loads`.
        shape: a msgspec Struct. Where a member may be missing but not null, its type says UnsetType.
        within: the claim that holds the members, if they are not claims themselves.

    Raises:
        WrongClaim: a member is missing, or of the wrong type or size; `claim` says which claim it is in.
    """
    try:
        return msgspec.convert(members, shape)
    except msgspec.ValidationError as error:
        # The message names the place, never the value; only the name is taken from it.
        found = next((match[1] for place in _PLACES if (match := place.search(str(error)))), "")
    place = f"{found} in {within}" if within and found else found or within
    raise WrongClaim(within or found, f"claim {place} is missing, or of the wrong type or size")
