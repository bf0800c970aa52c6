"""Every script on a real Valkey, whatever is there and is asked: applied whole, as a model does it, or not at all.

A command that fails in the middle of a script leaves what came before it done, so an error reply must mean that nothing
has changed.
"""

import redis
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pytest import fixture, mark

from taximeter.sinks.redis.client import Script

BUDGETS = ("reserve.lua", "release.lua", "epoch.lua")
MIN, MAX = -(2**63), 2**63 - 1
WELL = [0, 1, 7, 2**31, 2**53 - 1, 2**53, 2**53 + 1, 2**62, MAX - 1, MAX]
numbers = st.sampled_from(WELL) | st.integers(0, 2**63 - 1)
signed = numbers | st.sampled_from([-1, -(2**53) - 1, MIN + 1, MIN]) | st.integers(MIN, MAX)
ODD = ["", "-0", "+1", "01", "1.5", "1e3", "x", "nan", " 1", "-", str(MAX + 1), str(MIN - 1), "9" * 40, "0x10", "1\n"]
odd = st.sampled_from(ODD)
names = st.sampled_from(["a", "b", "c", "ключ", "a{b}c", "%d", "%", "[", "*", "x" * 300, '"', "\\", "0", "-1"])
texts = st.one_of(signed.map(str), odd)


def mostly(good, bad):
    """Usually good, so that what is tested is not refusing only."""
    return st.one_of(good, good, good, good, good, bad)


@fixture(scope="module")
def server(valkey_url):
    client = redis.Redis.from_url(valkey_url, decode_responses=True)
    yield client
    client.flushall()
    client.close()


def state(server):
    found = {}
    for key in server.keys("*"):
        kind = server.type(key)
        value = {
            "string": server.get, "hash": server.hgetall, "set": server.smembers,
            "zset": lambda k: dict(server.zrange(k, 0, -1, withscores=True)), "list": lambda k: server.lrange(k, 0, -1),
        }[kind](key)  # fmt: skip
        found[key] = value
    return found


def put(server, found):
    server.flushall()
    for key, value in found.items():
        if isinstance(value, str):
            server.set(key, value)
        elif isinstance(value, list):
            server.rpush(key, *value)
        elif isinstance(value, set):
            server.sadd(key, *value)
        elif value and all(isinstance(each, float) for each in value.values()):
            server.zadd(key, value)
        elif value:
            server.hset(key, mapping=value)


def run(server, script, keys, args):
    """(reply or None after an error, state before, state afterwards); after an error both are the same."""
    before = state(server)
    try:
        package = "taximeter.budgets" if script in BUDGETS else "taximeter.sinks.redis"
        reply = server.eval(Script(script, package).source, len(keys), *keys, *args)
    except redis.ResponseError:
        reply = None
    after = state(server)
    if reply is None:
        assert after == before
    return reply, before, after


def plus(value, amount):
    return str(max(MIN, min(MAX, int(value) + amount)))


WRONG = [["a list"], "a string"]
HOLDS = ("held", "reserved", "since")


def parts(value):
    words = value.split()
    return [(b, int(n)) for b, n in zip(words[::2], words[1::2], strict=False)]


held = st.fixed_dictionaries(
    {},
    optional={
        "held": mostly(
            st.dictionaries(names, mostly(numbers.map(str), texts), min_size=1, max_size=4), st.sampled_from(WRONG)
        ),
        "reserved": mostly(
            st.dictionaries(
                st.sampled_from(["r1#1", "r2#1", "r3#1"]),
                st.lists(st.tuples(names, numbers), min_size=1, max_size=3, unique_by=lambda part: part[0]).map(
                    lambda found: " ".join(f"{name} {amount}" for name, amount in found)
                ),
                min_size=1,
                max_size=3,
            ),
            st.sampled_from(WRONG),
        ),
        "since": mostly(
            st.dictionaries(
                st.sampled_from(["r1#1", "r2#1"]), st.integers(0, 2**40).map(float), min_size=1, max_size=2
            ),
            st.sampled_from(WRONG),
        ),
    },
)

asked = st.lists(
    st.tuples(
        names,
        mostly(st.integers(1, 2), st.sampled_from([0, 3, "x"])),
        mostly(st.integers(1, 2**53), texts),
        mostly(numbers, texts),
        mostly(st.sampled_from(["t1", "t2"]), st.just("t3")),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda budget: budget[0],
)


@settings(max_examples=200, deadline=None)
@given(
    held=held,
    wanted=asked,
    spent=st.dictionaries(
        st.sampled_from(["p0", "p1", "p2", "p3"]),
        mostly(
            st.dictionaries(
                st.sampled_from(["used", "charged"]),
                mostly(signed.map(str), texts),
                min_size=1,
            ),
            st.sampled_from(WRONG),
        ),
    ),
    call=st.sampled_from(["r1#1", "r9#1", "r9#1", "r9#1", "r 9", ""]),
    now=mostly(st.integers(0, 2**40), odd),
    epoch=st.sampled_from(["7", "7", "7", "-7", None]),
    gen=st.sampled_from(["g", "g", "g", "rebuild:x", None, ["a list"]]),
    times=st.tuples(st.integers(0, 3), mostly(st.integers(0, 2), texts)),
    last=st.sampled_from(["7", ""]),
    flying=st.sampled_from(["0", "0", "1"]),
    tallies=mostly(st.just({"t1", "t2"}), st.sampled_from([set(), {"t1"}, ["a list"]])),
)
@example(held={}, wanted=[("a", 1, 10, 0, "t1")], spent={}, call="r9#1", now=1, epoch="7", gen="g", times=(0, 0),
         last="", flying="0", tallies={"t1"})  # fmt: skip
@example(held={"held": {"a": "1"}}, wanted=[("a", 1, 10, 9, "t1"), ("b", 1, 5, "-0", "t1")], spent={}, call="r9#1",
         now=1, epoch="7", gen="g", times=(2, 1), last="7", flying="0", tallies={"t1"})  # fmt: skip
def test_reserving(server, held, wanted, spent, call, now, epoch, gen, times, last, flying, tallies):
    sums = dict(held.get("held", {})) if isinstance(held.get("held", {}), dict) else None
    if sums is not None:
        held = held | {"held": sums | ({":epoch": epoch} if epoch else {}) | {":me": str(times[0])}}
    put(server, held | spent | ({"gen": gen} if gen else {}) | ({"tallies": tallies} if tallies else {}))
    counts = [count if isinstance(count, int) else 0 for _, count, *_ in wanted]
    places = ["gen", *HOLDS, "tallies", *(f"p{n}" for n in range(sum(counts)))]
    asked = [(name, count, limit, amount, "other", tally) for name, count, limit, amount, tally in wanted]
    args = [call, now, ":me", last, times[1], flying, *(part for each in asked for part in each)]
    reply, before, after = run(server, "reserve.lua", places, args)
    if reply is None:
        return
    held_before = before.get("held", {})
    if reply == ["lost"]:
        unmarked = {k: v for k, v in held_before.items() if k != ":epoch"} if isinstance(held_before, dict) else None
        assert after == before or after == {k: v for k, v in (before | {"held": unmarked}).items() if v}
        damaged = any(not isinstance(before.get(name, {}), dict) for name in (*HOLDS, *places[5:]))
        damaged = damaged or not isinstance(before.get("tallies", set()), set)
        damaged = damaged or not all(
            is_integer(v) for name in ("held", *places[5:]) for v in before.get(name, {}).values()
        )
        stale = epoch and last == "7" and times[0] < int(times[1])
        uncounted = any(tally not in before.get("tallies", ()) for *_, tally in wanted)
        assert damaged or stale or gen != "g" or epoch != "7" or uncounted
        return
    if flying == "0":
        assert gen == "g" and epoch == "7"
    if call in before.get("reserved", {}):
        assert reply[0] == "held" and after["reserved"] == before["reserved"]
        return
    over = full = None
    unheld: list[int] = []
    sums_of = iter(places[5:])
    for n, (name, count, limit, amount, tally) in enumerate(wanted, 1):
        mine = [before.get(next(sums_of), {}) for _ in range(count)]
        if flying == "1":
            continue
        assert tally in before["tallies"]
        used, charged = (sum(int(each.get(field, "0")) for each in mine) for field in ("used", "charged"))
        if count != 1 and max((abs(int(v)) for each in mine for v in each.values()), default=0) > 2**52:
            return  # beyond what a sum of many is exact for, and beyond any limit
        left = int(limit) - used
        left = left if left <= 0 else left - charged
        unheld.append(max(0, left - int(held_before.get(name, "0"))))
        if left <= 0 or int(amount) > left:
            over = over or ["over", n, str(used), str(charged), str(limit)]
        elif int(held_before.get(name, "0")) + int(amount) > left:
            full = full or ["full", n, str(used), str(charged), str(limit)]
    if over or full:
        refusal = over or full or []
        assert (reply[: len(refusal)], after) == (refusal, before)
        assert_told(reply[len(refusal) :], unheld)
        return
    takes = any(int(amount) for *_, amount, _ in wanted)
    assert_told(reply[3:], [left - int(each[3]) * takes for left, each in zip(unheld, wanted, strict=False)])
    amounts = [(name, int(amount)) for name, _, _, amount, _ in wanted if int(amount)]
    assert reply[0] == "held"
    if not amounts:
        assert after.get("reserved") == before.get("reserved")
        return
    for name, amount in amounts:
        assert after["held"][name] == plus(held_before.get(name, "0"), amount)
    assert after["held"][":me"] == str(times[0] + 1)
    assert parts(after["reserved"][call]) == amounts and after["since"][call] == now


def assert_told(told: list[str], unheld: list[int]) -> None:
    """What is left is told exactly up to a limit's size; beyond, where less was spent than nothing, nearly."""
    assert len(told) == len(unheld)
    assert all(abs(int(a) - b) <= abs(b) // 2**50 for a, b in zip(told, unheld, strict=True))


def is_integer(text):
    return is_number(text) and str(int(text)) == text and MIN <= int(text) <= MAX


@settings(max_examples=80, deadline=None)
@given(held=held, epoch=st.sampled_from(["7", "-7", None]), expected=st.sampled_from(["7", "-7", ""]))
def test_beginning_and_opening_an_epoch_sums_what_is_held_anew(server, held, epoch, expected):
    if epoch and isinstance(held.get("held", {}), dict):
        held = held | {"held": held.get("held", {}) | {":epoch": epoch, ":me": "3"}}
    put(server, held | {"gen": "g"})
    reply, before, after = run(server, "epoch.lua", ["gen", *HOLDS], [expected, "-9"])
    was = before.get("held", {})
    found = was.get(":epoch", "") if isinstance(was, dict) else ""
    if found != expected:
        assert reply == ["g", found] and after == before
        return
    sums: dict[str, str] = {}
    for text in before.get("reserved", {}).values() if isinstance(before.get("reserved", {}), dict) else ():
        for name, amount in parts(text):
            if amount:
                sums[name] = plus(sums.get(name, "0"), amount)
    assert reply == ["g", "-9"]
    assert after["held"] == sums | {":epoch": "-9"} | ({":me": "3"} if expected else {})
    assert all(isinstance(after.get(name, {}), dict) for name in HOLDS)


@settings(max_examples=80, deadline=None)
@given(held=held, calls=st.lists(st.sampled_from(["r1#1", "r2#1", "r9#1"]), max_size=3))
@example(held={"held": {"a": "0"}, "reserved": {"r1#1": "a 0"}, "since": {"r1#1": 1.0}}, calls=["r1#1"])
@example(held={"held": {"a": "5"}, "reserved": {"r1#1": "a 5"}, "since": {"r1#1": 1.0}}, calls=["r1#1", "r1#1"])
def test_letting_go(server, held, calls):
    put(server, held)
    reply, before, after = run(server, "release.lua", HOLDS, calls)
    if reply is not None:
        assert reply == len(set(calls) & set(before.get("reserved", {})))
        assert_let_go(before, after, calls)


def assert_let_go(before, after, calls):
    sums = dict(before.get("held", {}))
    for call in dict.fromkeys(calls):
        for name, amount in parts(before.get("reserved", {}).get(call, "")):
            if amount:
                sums[name] = plus(sums.get(name, "0"), -amount)
                if sums[name] == "0":
                    del sums[name]
    assert after.get("held", {}) == sums
    assert set(after.get("reserved", {})) == set(before.get("reserved", {})) - set(calls)
    assert set(after.get("since", {})) == set(before.get("since", {})) - set(calls)


FIELDS = ["requests", "total_tokens", "cost_nusd"]
cell = st.tuples(
    st.lists(st.tuples(st.sampled_from(["k1", "k2", "k3"]), st.sampled_from(["0", "m", "t", "99999999999", "-1", "x"])),
             min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(1, 4), mostly(signed.map(str), texts)), max_size=3),
)  # fmt: skip
HEAD = ["gen", "cursor", "models", "model:other", "tasks", "task:other"]


@settings(max_examples=120, deadline=None)
@given(
    held=held,
    hashes=st.dictionaries(
        st.sampled_from(["k1", "k2", "k3", "model:other", "cursor", "models"]),
        mostly(st.dictionaries(st.sampled_from([*FIELDS, "j1"]), mostly(signed.map(str), texts), min_size=1),
               st.sampled_from(WRONG)),
    ),
    gen=st.sampled_from([None, "g", "g", "g", "other", "rebuild:x"]),
    create=st.sampled_from(["0", "1"]),
    cursors=mostly(st.sampled_from([(0, 1, 3), (0, 2**53, 2**53 + 1)]), st.tuples(texts, texts, texts)),
    limit=st.sampled_from([0, 1, 2, 200]),
    cells=st.lists(cell, max_size=3),
    calls=st.none() | st.lists(st.sampled_from(["r1#1", "r2#1", "r9#1"]), min_size=1, max_size=3),
)  # fmt: skip
@example(held={"held": {"a": "0"}, "reserved": {"r1#1": "a 0"}}, hashes={}, gen="g", create="0", cursors=(0, 1, 1),
         limit=1, cells=[([("k1", "m"), ("k2", "m")], [(2, "5")])], calls=["r1#1"])  # fmt: skip
@example(held={}, hashes={"k2": "a string"}, gen=None, create="1", cursors=(0, 1, 1), limit=1,
         cells=[([("k1", "0")], [(2, "5")]), ([("k2", "0")], [(2, "5")])], calls=None)  # fmt: skip
@example(held={}, hashes={"k1": {"total_tokens": str(MAX)}}, gen="g", create="0", cursors=(0, 1, 1), limit=1,
         cells=[([("k1", "0")], [(2, str(MAX))])], calls=None)  # fmt: skip
def test_counting(server, held, hashes, gen, create, cursors, limit, cells, calls):
    put(server, held | hashes | ({"gen": gen} if gen else {}))
    words = [len(FIELDS), *FIELDS]
    for keys, sums in cells:
        words += [len(keys), *(mode for _, mode in keys), len(sums), *(word for each in sums for word in each)]
    places = [*HEAD, *(key for keys, _ in cells for key, _ in keys), *(HOLDS if calls else ())]
    args = ["g", create, "j1", *cursors, limit, " ".join(map(str, words)), *([" ".join(calls)] if calls else [])]
    reply, before, after = run(server, "counters.lua", places, args)
    if reply is None:
        return
    if reply != 1:
        assert reply[0] in ("generation", "cursor") and after == before
        return
    assert after["gen"] == "g" and after["cursor"]["j1"] == str(cursors[2])
    touched = set()
    sums = {key: dict(value) for key, value in before.items() if isinstance(value, dict)}
    sets = {name: set(before.get(name, ())) for name in ("models", "tasks")}
    for keys, amounts in cells:
        for named, mode in keys:
            key = named
            if mode in "mt":
                names, other = ("models", "model:other") if mode == "m" else ("tasks", "task:other")
                if not any(key in each for each in sets.values()):
                    if len(sets[names]) >= limit:
                        key = other
                    else:
                        sets[names].add(key)
            for field, amount in amounts:
                touched.add(key)
                cells_of = sums.setdefault(key, {})
                cells_of[FIELDS[field - 1]] = plus(cells_of.get(FIELDS[field - 1], "0"), int(amount))
    assert {key: after.get(key) for key in touched} == {key: sums[key] for key in touched}
    for key in before.keys() - touched - {"gen", "cursor", "models", "tasks", *HOLDS}:
        assert after[key] == before[key]
    usable = all(isinstance(before.get(name, {}), dict) for name in HOLDS)
    if calls and usable:
        whole = [call for call in dict.fromkeys(calls) if can_let_go(before, call)]
        assert_let_go(before, after, whole)
    else:
        assert all(after.get(name) == before.get(name) for name in HOLDS)


def can_let_go(before, call):
    sums = before.get("held", {})
    text = [sums.get(name, "0") for name, amount in parts(before.get("reserved", {}).get(call, "")) if amount]
    return all(str(int(value)) == value and MIN <= int(value) <= MAX if is_number(value) else False for value in text)


def is_number(value):
    return value.isascii() and value.removeprefix("-").isdigit()


@settings(max_examples=80, deadline=None)
@given(
    gen=st.sampled_from(["rebuild:1", "rebuild:1", "g", None]),
    there=st.dictionaries(st.sampled_from(["k1", "k2"]), st.sampled_from([*WRONG, {"a": "1"}, {"x"}])),
    writes=st.lists(
        st.tuples(
            mostly(st.sampled_from([0, 99_999_999_999]), odd),
            st.dictionaries(names, mostly(signed.map(str), texts), max_size=3) | st.sets(names, max_size=3),
        ),
        max_size=3,
    ),
    cut=st.integers(0, 6).map(lambda n: n if n < 2 else 0),
)
def test_rebuilding(server, gen, there, writes, cut):
    put(server, there | ({"gen": gen} if gen else {}))
    args: list[object] = ["rebuild:1", "after"]
    for expires, value in writes:
        listed = [part for pair in value.items() for part in pair] if isinstance(value, dict) else sorted(value)
        args += [expires, "hash" if isinstance(value, dict) else "set", len(listed), *listed]
    keys = [f"k{n}" for n in range(1, len(writes) + 1)]
    reply, before, after = run(server, "rebuild.lua", ["gen", *keys], args[: len(args) - cut])
    if reply == 0:
        assert gen != "rebuild:1" and after == before
    elif reply == 1:
        wanted = {key: value for key, (_, value) in zip(keys, writes, strict=True) if value}
        kept = {key: value for key, value in before.items() if key not in keys}
        assert after == kept | wanted | {"gen": "after"}


@settings(max_examples=80, deadline=None)
@given(
    there=st.dictionaries(st.sampled_from(["j1", "j2"]), mostly(numbers.map(str), texts), max_size=2),
    generation=st.sampled_from(["g", "g", "g", "other"]),
    moved=st.sampled_from([None, None, {"j1": "5"}, "a string"]),
    way=st.sampled_from(["up", "down", "up", "down", "sideways"]),
    now=mostly(st.integers(0, 2**40), odd),
    wanted=st.lists(
        st.tuples(st.sampled_from(["j1", "j2", "generation"]), mostly(numbers.map(str), texts)), max_size=3
    ),
)
def test_moving_watermarks(server, there, generation, moved, way, now, wanted):
    put(server, {"wm": there | {"generation": generation}} | ({"moved": moved} if moved else {}))
    args = ["g", way, "g2", now, *(part for each in wanted for part in each)]
    reply, before, after = run(server, "watermark.lua", ["wm", "moved"], args)
    if reply == 0:
        assert generation != "g" and after == before
    elif reply == 1:
        for journal, was in there.items():
            seqs = [int(seq) for name, seq in wanted if name == journal]
            if seqs:
                assert abs(int(after["wm"][journal]) - pick(way, int(was), seqs)) <= abs(int(was)) // 2**52
        assert (after["wm"]["generation"] == "g") is (after["wm"] == before["wm"] or way == "up")


def pick(way, was, seqs):
    return max(was, *seqs) if way == "up" else min(was, *seqs)


@mark.parametrize("wrong", ["gen", "cursor", "total"])
def test_an_audit_of_wrong_keys_says_so_and_changes_nothing(server, wrong):
    put(server, {wrong: ["a list"]})
    assert run(server, "audit.lua", ["gen", "cursor", "total"], FIELDS)[0] is None
