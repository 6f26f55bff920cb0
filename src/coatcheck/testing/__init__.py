"""What the tests of coatcheck, and of stores and applications built on it, are made with.

`StoreContract` is the text of `coatcheck.store` as tests, for stores of third parties too; `make_record` makes what
it stores; `SettableClock` is a clock that stands still until it is told.
"""

from coatcheck.testing.clock import SettableClock
from coatcheck.testing.contract import StoreContract
from coatcheck.testing.records import make_record

__all__ = ["SettableClock", "StoreContract", "make_record"]
