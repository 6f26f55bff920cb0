"""Stores and documents for work that may wait: a move has half a minute for what a request has a second for."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from coatcheck.documents import Documents
from coatcheck.store import Store
from coatcheck.stores import documents_from_url, store_from_url

_TIMEOUT: Final = timedelta(seconds=30)


def patient_store(url: str) -> Store:
    """Return the store that a URL names; see `store_from_url`."""
    if url.startswith("redis"):
        from coatcheck.stores.redis import RedisStore

        return RedisStore.from_url(url, timeout=_TIMEOUT)
    if url.startswith("postgres"):
        from coatcheck.stores.postgres import PostgresStore

        return PostgresStore(url, timeout=_TIMEOUT)
    return store_from_url(url)


def patient_documents(url: str) -> Documents:
    """Return the documents that a URL names; see `documents_from_url`."""
    if url.startswith("redis"):
        from coatcheck.stores.redis_documents import RedisDocuments

        return RedisDocuments.from_url(url, timeout=_TIMEOUT)
    if url.startswith("postgres"):
        from coatcheck.stores.postgres_documents import PostgresDocuments

        return PostgresDocuments(url, timeout=_TIMEOUT)
    return documents_from_url(url)
