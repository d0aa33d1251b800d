"""Pictures from a folder, an archive, addresses, Wikimedia Commons or Openverse, and a record of where each is from."""

from vez.collect.stage import collect

__all__ = ["collect"]
