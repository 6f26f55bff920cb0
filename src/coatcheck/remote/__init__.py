"""What a process without a store needs of its issuer: its keys, its feed, and an answer when it has to ask.

origin.py    one HTTP server, asked by GET with the standard library alone
events.py    the feed over HTTP, read
keys.py      the issuer's public keys, fetched again in time
line.py      the thread that keeps both up to date
"""
