"""The auth server is killed between the acknowledgement of a revocation and its delivery."""

from __future__ import annotations

from pathlib import Path

from killed_server import end_and_kill


def test_p1_a_revocation_that_was_acknowledged_outlives_the_server_and_reaches_every_verifier(tmp_path: Path) -> None:
    """`make soak` does it a hundred times."""
    end_and_kill(tmp_path / "data", rounds=1)
