"""Choosing the store."""

from urllib.parse import urlsplit

from gateway.jobs.store import Store, StoreError


def connect(url: str, timeout_s: float) -> Store:
    """Choose the store by the URL's scheme; its client library is imported here and nowhere earlier.

    sqlite:///path, redis://host:6379/0, postgresql://user:password@host/database. Connects when first used.
    Raises StoreError if the library is not installed, or the URL cannot be.
    """
    scheme = urlsplit(url).scheme
    try:
        if scheme == "sqlite":
            from gateway.jobs.sqlite_store import SqliteStore

            return SqliteStore(url.removeprefix("sqlite:///"), timeout_s)
        if scheme in ("redis", "rediss"):
            from gateway.jobs.redis_store import RedisStore

            return RedisStore(url, timeout_s)
        if scheme in ("postgresql", "postgres"):
            from gateway.jobs.postgresql_store import PostgresqlStore

            return PostgresqlStore(url, timeout_s)
    except ImportError as error:
        extra = "redis" if scheme.startswith("redis") else "postgresql"
        raise StoreError(f"{scheme}:// needs a library: pip install 'mlaas[{extra}]' ({error})") from error
    raise StoreError("no store of that kind: use sqlite:///path, redis://host:6379/0 or postgresql://host/db")
