"""What the tests of coatcheck, and of stores and applications built on it, are made with.

`StoreContract` is the text of `coatcheck.store` as tests, for stores of third parties too; so is `DocumentsContract`
that of `coatcheck.documents`, and `FeedContract` that of `coatcheck.feed`. `make_record` makes what a store keeps.
`signed_in` makes a test client somebody's browser; `SettableClock` is a clock that stands still until it is told;
`FaultProxy` spoils what goes over the network.
"""

from coatcheck.testing.clock import SettableClock
from coatcheck.testing.contract import StoreContract
from coatcheck.testing.documents import DocumentsContract
from coatcheck.testing.faults import FaultProxy
from coatcheck.testing.feeds import FeedContract
from coatcheck.testing.records import make_record
from coatcheck.testing.signed_in import signed_in

__all__ = [
    "DocumentsContract",
    "FaultProxy",
    "FeedContract",
    "SettableClock",
    "StoreContract",
    "make_record",
    "signed_in",
]
