"""Floor 1: judgement. Pure functions and values: no I/O, no clock, no randomness of their own."""
