"""What is told once, over nodes and restarts, on both databases."""

from concurrent.futures import ThreadPoolExecutor

from taximeter.sinks.history.database import Database
from taximeter.sinks.history.told import Told


def test_who_asks_first_tells_and_nobody_else_ever(url):
    with Database(url) as one, Database(url) as two:
        told = Told(one)
        assert told.claim("budget:a", 1)
        assert not told.claim("budget:a", 2) and not Told(two).claim("budget:a", 3)
        assert Told(two).claim("budget:b", 4)
        assert told.prune(4) == 1 and told.claim("budget:a", 5)


def test_of_two_nodes_that_ask_at_once_one_tells(url):
    with Database(url) as one, Database(url) as two, ThreadPoolExecutor(8) as pool:
        tolds = [Told(one), Told(two)]
        for n in range(5):
            assert sum(pool.map(lambda told, n=n: told.claim(f"key{n}", 1), tolds * 4)) == 1
