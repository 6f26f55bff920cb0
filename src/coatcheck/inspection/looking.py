"""Looking: what an explainer knows besides the text, and how it has a part looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from coatcheck.core.keys import Key
from coatcheck.inspection.report import Part, Report
from coatcheck.inspection.words import shown

Role = Literal["credential", "anything"]

_DEEPEST: Final = 4


@dataclass(frozen=True, kw_only=True)
class Looking:
    """How a text is looked at.

    Args:
        now: milliseconds since the epoch.
        keys: what signatures are checked with.
        role: what the text is used for: a credential must not be guessed, anything else may be "dark".
        look: looks at a text.
        depth: how many texts this one is inside of.
    """

    now: int
    keys: tuple[Key, ...]
    look: Callable[[str, Looking], Report]
    role: Role = "credential"
    depth: int = 0

    def into(self, name: str, text: str, role: Role = "credential") -> tuple[Part, ...]:
        """Return what is to be said about a part; nothing for an empty one, or beyond some depth."""
        if not text or self.depth >= _DEEPEST:
            return ()
        return (Part(shown(name), self.look(text, replace(self, role=role, depth=self.depth + 1))),)


Explain: TypeAlias = Callable[[str, Looking], Report | None]
"""Says what a text is, or returns None if it is nothing of this kind."""
