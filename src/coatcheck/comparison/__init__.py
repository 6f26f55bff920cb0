"""The table that everyone is taught about sessions, cookies and tokens, measured on this machine.

    kinds      what is compared
    claims     the words of the table; each names the tests that prove it
    visits     requests made in this process, of one application, bare and behind the middleware
    measuring  bytes, look-ups, CPU, and what can be read
    revoking   how long it takes until another process refuses what was ended
    report     words and figures put together, for people and for programs

Its users are `coatcheck compare` and the auth server's page `/compare`.
"""

from __future__ import annotations

from coatcheck.comparison.kinds import KINDS, Kind
from coatcheck.comparison.measuring import Measured, Measurements, compare
from coatcheck.comparison.report import Cell, Report, Row, TradeOff, as_json, proofs_of, report, taught

__all__ = [
    "KINDS",
    "Cell",
    "Kind",
    "Measured",
    "Measurements",
    "Report",
    "Row",
    "TradeOff",
    "as_json",
    "compare",
    "proofs_of",
    "report",
    "taught",
]
