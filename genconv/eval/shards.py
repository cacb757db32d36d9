"""Sharing work out over processes that need not know of each other."""

from genconv.errors import UserError

__all__ = ["parse_shard", "part"]


def parse_shard(text: str) -> tuple[int, int]:
    """Turn `I/K` into (I, K).

    Raises:
        UserError: it has another form, or I is not below K.
    """
    shard, slash, shards = text.partition("/")
    if not (slash and shard.isdecimal() and shards.isdecimal() and int(shard) < int(shards)):
        raise UserError(f"--shard must be I/K with 0 <= I < K, as 0/4, not {text}")
    return int(shard), int(shards)


def part(n: int, size: int, shard: int, shards: int) -> range:
    """Return the rows of a shard: whole batches, so that shards do as one process would."""
    whole = -(-n // size)
    bounds = [min(n, whole * i // shards * size) for i in (shard, shard + 1)]
    return range(*bounds)
