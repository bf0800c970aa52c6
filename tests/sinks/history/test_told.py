"""What is told once, over nodes and restarts, on both databases."""

from concurrent.futures import ThreadPoolExecutor

from taximeter.sinks.history.database import Database
from taximeter.sinks.history.told import CLAIM_US, Told


def test_who_asks_first_tells_and_nobody_else_ever(url):
    with Database(url) as one, Database(url) as two:
        told = Told(one)
        assert told.claim("budget:a", 1)
        told.done("budget:a", 1)
        assert told.claim("budget:a", 2) is Told(two).claim("budget:a", CLAIM_US * 9) is False
        assert Told(two).claim("budget:b", 4)
        assert told.prune(4) == 1 and told.claim("budget:a", 5)


def test_who_asked_first_and_never_says_that_it_is_told_has_died_of_it(url):
    with Database(url) as one, Database(url) as two:
        dead, told = Told(one), Told(two)
        assert dead.claim("budget:a", 5)
        assert told.claim("budget:a", 4 + CLAIM_US) is None
        assert told.claim("budget:a", 5 + CLAIM_US) is True and dead.claim("budget:a", 6 + CLAIM_US) is None
        told.done("budget:a", 7 + CLAIM_US)
        assert dead.claim("budget:a", 5 + 3 * CLAIM_US) is False
        assert told.claim("budget:b", 9) and told.prune(9) == 0 and told.prune(10) == 1


def test_of_two_nodes_that_ask_at_once_one_tells(url):
    with Database(url) as one, Database(url) as two, ThreadPoolExecutor(8) as pool:
        tolds = [Told(one), Told(two)]
        for n in range(5):
            assert sum(map(bool, pool.map(lambda told, n=n: told.claim(f"key{n}", 1), tolds * 4))) == 1
