"""examples/revocation runs, and shows what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SEE = Path(__file__).resolve().parents[2] / "examples" / "revocation" / "see.py"


def test_two_apis_are_seen_to_refuse_a_device_that_has_signed_out_and_no_other() -> None:
    done = subprocess.run([sys.executable, SEE], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^  (api \d) +(\d+) +(\d+)$", done.stdout, re.MULTILINE) == [
        ("api 1", "200", "200"),
        ("api 2", "200", "200"),
        ("api 1", "401", "200"),
        ("api 2", "401", "200"),
    ]
    assert len(re.findall(r"^api \d has refused the laptop \d+ ms after", done.stdout, re.MULTILINE)) == 2
