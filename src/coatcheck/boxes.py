"""Boxes: seals and opens the boxes of sealed sessions, and knows again those that were here before.

A browser sends the same box with each request until something is written. So one that was sealed or opened here is
known again, for as long as the keys stay as they are; what time and revocations say of it is judged each time,
elsewhere.
"""

from __future__ import annotations

import secrets
from typing import Final

from coatcheck.core.credentials import SessionBox
from coatcheck.core.keys import Keyring, Roles
from coatcheck.core.record import Record
from coatcheck.core.seal import NONCE_SIZE
from coatcheck.core.sealed_record import BOX_KEYS, NOTE_KEYS, encode_record, open_record, read_note, seal_record

# Bounds of what is remembered (P9): some 30 MiB at most, and much less with sessions of the usual size.
_MOST_KEPT: Final = 4096
_LONGEST_KEPT: Final = 2048  # characters


class Boxes:
    """The boxes of one cookie.

    Args:
        keyring: whose current and retired secrets sealed them.
        name: of the session cookie.
    """

    __slots__ = ("_kept", "_keyring", "_name")

    def __init__(self, keyring: Keyring, name: str) -> None:
        self._keyring = keyring
        self._name = name
        self._kept: dict[SessionBox, tuple[Roles, Record]] = {}

    def seal(self, record: Record) -> SessionBox:
        """Return a new box with a session.

        Raises:
            InvalidValue: it is larger than the cookies that a session may take.
        """
        roles, encoded = self._keyring.roles, encode_record(record)
        nonce = secrets.token_bytes(NONCE_SIZE)
        box = seal_record(encoded, keys=self._keyring.derive(BOX_KEYS), name=self._name, nonce=nonce)
        self._keep(box, roles, Record.decode(encoded))  # as every other process will read it
        return box

    def open(self, box: SessionBox) -> Record:
        """Return the session in a box, as last seen by the box or by the note that came with it.

        Not checked: whether it lives, and whether it is the newest box of its session.

        Raises:
            Malformed, BadSignature, StoreUnavailable: as `coatcheck.core.sealed_record.open_record`.
        """
        roles = self._keyring.roles  # before it is opened: keys that change meanwhile end what is kept
        kept = self._kept.get(box)
        if kept is not None and kept[0] is roles:
            return kept[1]
        record = self._opened(box)
        self._keep(box, roles, record)
        return record

    def _keep(self, box: SessionBox, roles: Roles, record: Record) -> None:
        if len(box.text) + len(box.note) <= _LONGEST_KEPT:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()  # whatever of it is still in use is back with its next request
            self._kept[box] = roles, record

    def _opened(self, box: SessionBox) -> Record:
        record = open_record(box, keys=self._keyring.derive(BOX_KEYS), name=self._name)
        if not box.note:
            return record
        return record.seen(read_note(box.note, record.id, keys=self._keyring.derive(NOTE_KEYS), name=self._name))
