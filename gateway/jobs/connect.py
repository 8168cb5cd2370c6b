"""Choosing the store."""

from urllib.parse import urlsplit

from gateway.jobs.settings import OTHER_SCHEME
from gateway.jobs.store import Store, StoreError


def connect(url: str, timeout_s: float) -> Store:
    """Choose the store by the URL's scheme: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE.

    Imports its client library only here, and connects when first used. Raises StoreError if the library is
    not installed, or for another scheme.
    """
    scheme = urlsplit(url).scheme
    try:
        if scheme == "sqlite":
            from gateway.jobs.sqlite_store import SqliteStore

            return SqliteStore(url.removeprefix("sqlite:///"), timeout_s)
        if scheme in ("postgresql", "postgres"):
            from gateway.jobs.postgresql_store import PostgresqlStore

            return PostgresqlStore(url, timeout_s)
    except ImportError as error:
        raise StoreError(f"{scheme}:// needs psycopg: pip install 'mlaas[postgresql]' ({error})") from error
    raise StoreError(OTHER_SCHEME)
