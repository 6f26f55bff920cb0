"""Which Pythons there are is said in several places, and they agree."""

from __future__ import annotations

import tomllib
from typing import Any

import dev
import pytest

PROJECT: dict[str, Any] = tomllib.loads(dev.PYPROJECT.read_text(encoding="utf-8"))
CLASSIFIER = "Programming Language :: Python :: 3."
RUN = [each.rpartition(" ")[2] for each in PROJECT["project"]["classifiers"] if each.startswith(CLASSIFIER)]
"""The versions that tests were run on."""


def test_the_oldest_python_is_the_same_for_pip_the_locks_and_every_checker() -> None:
    tools = PROJECT["tool"]
    assert PROJECT["project"]["requires-python"] == f">={dev.OLDEST_PYTHON}"
    assert tools["ruff"]["target-version"] == "py" + dev.OLDEST_PYTHON.replace(".", "")
    assert tools["mypy"]["python_version"] == tools["pyright"]["pythonVersion"] == dev.OLDEST_PYTHON
    assert RUN[0] == dev.OLDEST_PYTHON


def test_contributors_are_told_which_pythons_tests_were_run_on() -> None:
    words = (dev.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert f"CPython {', '.join(RUN[:-1])} and {RUN[-1]}" in words
    assert f"Python {dev.OLDEST_PYTHON} or later" in words


def test_a_lock_serves_the_oldest_python_whichever_one_makes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to itself, uv locks for the Python that it finds and for later ones: the older ones' packages are gone."""
    made: list[dev.Command] = []
    monkeypatch.setattr(dev, "find_uv", lambda: "uv")
    monkeypatch.setattr(dev, "quietly", lambda command, what: made.append(command))
    assert dev.lock([]) == 0
    assert len(made) == len(dev.LOCKS)
    for command in made:
        words = [str(word) for word in command]
        assert words[words.index("--python-version") + 1] == dev.OLDEST_PYTHON
        assert "--universal" in words
