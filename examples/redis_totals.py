"""What a workspace used, read from the Redis counters themselves: exact, also while they are written anew.

    python examples/redis_totals.py redis://localhost:6379/0 acme [total | month:2026-11 | day:2026-11-22 | …]

Most workspaces have all their counters under one hash tag, `tm:{acme}:total`. One that is split (`redis.split`) has
parts, `tm:{acme|1}:total` and so on, and what it used is the sum over them. `tm:{acme}:gen` says how many there are,
after a slash; it begins with `rebuild:` while the counters are written anew, and is another one afterwards.
"""

import asyncio
import sys
from collections import Counter

from redis.asyncio import Redis, RedisCluster

RETRY_S = 0.05


async def used(redis: Redis | RedisCluster, workspace: str, scope: str = "total") -> Counter[str]:
    """The sums of one hash of a workspace over all its parts. The client decodes its answers (`decode_responses`)."""
    while True:
        before = await redis.get(f"tm:{{{workspace}}}:gen") or ""
        parts = int(before.partition("/")[2] or 1)
        tags = [workspace, *(f"{workspace}|{part}" for part in range(1, parts))]
        sums: Counter[str] = Counter()
        for found in await asyncio.gather(*(redis.hgetall(f"tm:{{{tag}}}:{scope}") for tag in tags)):
            sums.update({field: int(amount) for field, amount in found.items()})
        if not before.startswith("rebuild:") and (await redis.get(f"tm:{{{workspace}}}:gen") or "") == before:
            return sums
        await asyncio.sleep(RETRY_S)  # the counters are being written anew


async def main(url: str, workspace: str, scope: str = "total") -> None:
    kind = RedisCluster if "cluster" in url.partition(":")[0] else Redis
    async with kind.from_url(url.replace("+cluster", ""), decode_responses=True) as redis:
        for field, amount in sorted((await used(redis, workspace, scope)).items()):
            print(f"{field}\t{amount}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:]))
