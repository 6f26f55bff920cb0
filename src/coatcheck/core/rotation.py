"""The refresh table: what a refresh token of generation g gets from a session of generation n.

    presented         within grace of the last refresh     verdict
    g = n             any                                  ROTATE   n becomes n + 1
    g = n - 1         yes                                  RETRY    the same successor, n, once more
    g = n - 1         no                                   REUSE    the session ends
    anything else     any                                  REUSE    the session ends

RETRY is what racing tabs, lost answers and answers in the wrong order look like; REUSE is what a thief looks
like (RFC 9700, 4.14.2). A successor is derived from session id and generation alone, so every racer gets the
identical one.
"""

from __future__ import annotations

from enum import Enum


class Verdict(Enum):
    """What the refresh table says."""

    ROTATE = "rotate"
    RETRY = "retry"
    REUSE = "reuse"


_TABLE = {
    # (generations behind, within grace)
    (0, True): Verdict.ROTATE,
    (0, False): Verdict.ROTATE,
    (1, True): Verdict.RETRY,
}


def judge(presented: int, current: int, refreshed_at: int, now: int, grace: int) -> Verdict:
    """Look the presented generation up in the table.

    Args:
        presented: the generation that the refresh token names.
        current: the generation that the session is at.
        refreshed_at: when it got there, in milliseconds since the epoch.
        now: milliseconds since the epoch.
        grace: how long the direct predecessor is forgiven, in milliseconds.
    """
    return _TABLE.get((current - presented, now - refreshed_at <= grace), Verdict.REUSE)
