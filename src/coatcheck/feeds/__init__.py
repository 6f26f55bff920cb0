"""Feeds: how revocations reach other processes; `coatcheck.feed.Feed` says what all of them promise."""
