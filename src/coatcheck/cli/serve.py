"""`coatcheck serve`."""

from __future__ import annotations

import argparse
import os

from coatcheck.server import serve as server
from coatcheck.server.settings import Settings


def serve(arguments: argparse.Namespace) -> None:
    """Run the auth server until a signal ends it."""
    server.serve(Settings.read(vars(arguments)), os.environ)
