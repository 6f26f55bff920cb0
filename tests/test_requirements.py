"""Every row of the requirements has a test that names it, and docs/requirements.md says which."""

from __future__ import annotations

import requirements


def test_c20_the_threat_model_says_that_cookies_do_not_isolate_by_port() -> None:
    """Two applications on one host share their cookies: whoever runs them is told."""
    words = (requirements.ROOT / "docs" / "threats.md").read_text(encoding="utf-8")
    assert "C20" in words
    assert "port" in words


def test_every_row_has_a_test_and_the_table_is_current() -> None:
    """The table is made from the tests: `python3 tools/requirements.py`."""
    assert requirements.problems() == []
