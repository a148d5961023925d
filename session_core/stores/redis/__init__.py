"""The store on Redis or Valkey: single server, Sentinel, Cluster."""

from session_core.stores.redis.store import RedisStore

__all__ = ("RedisStore",)
