"""The arithmetic of the benchmarks and the page it is written to; no load is run here."""

from asyncio import BaseTransport
from dataclasses import replace
from subprocess import Popen
from typing import cast

import pytest

from bench import answers, books, interpreter, latency, lightrag, otel, page, path, provider, rounds, workers
from bench.figures import Books, LeftOut, Load, Measured, Spread, Turn, by_title_us, of_proxy, ratios
from bench.paced import Latency, request
from bench.running import Running


def turn(proxy, number, cpu_us, *, calls=1_000, rate=500.0, **split):
    """A turn of so many µs a call, which `split` shares out by process."""
    of = {title: us * calls / 1e6 for title, us in split.items()} or {"other": cpu_us * calls / 1e6}
    return Turn(proxy, number, Load(calls, rate, 1.0, 2.0), of, 50 * 2**20, "none")


SWINGING = [
    turn("nginx", 0, 10),
    turn("taximeter", 0, 60),
    turn("nginx", 1, 20),
    turn("taximeter", 1, 100),
    turn("nginx", 2, 15),
    turn("taximeter", 2, 60),
]
"""A machine whose speed changes by a factor of two: within rounds 6, 5 and 4 times nginx."""


def test_a_ratio_is_taken_within_a_round():
    assert ratios(SWINGING, "taximeter", "nginx") == pytest.approx([6.0, 5.0, 4.0])


def test_a_round_without_its_floor_has_no_ratio():
    assert ratios([*SWINGING, turn("taximeter", 3, 999)], "taximeter", "nginx") == pytest.approx([6.0, 5.0, 4.0])
    assert ratios(SWINGING, "taximeter", "another") == []


def test_a_spread_is_the_median_and_both_ends():
    assert Spread.of([3, 1, 100]) == Spread(3, 1, 100)
    assert Spread.of([4, 2]) == Spread(3, 2, 4)
    assert (Spread.of([3, 1, 1234]).shown(1), Spread.of([7]).shown(2)) == ("3.0 (1.0–1,234.0)", "7.00")
    with pytest.raises(ValueError, match="no values"):
        Spread.of([])


def test_cpu_is_split_by_process_and_a_process_that_came_later_counts_as_nothing_before():
    turns = [turn("t", 0, 0, worker=80, control=30), turn("t", 1, 0, worker=90, control=20, tokenizer=6)]
    assert turns[1].cpu_us == pytest.approx(116)
    assert by_title_us(turns) == pytest.approx({"worker": 85, "control": 25, "tokenizer": 3})
    assert list(by_title_us(turns)) == ["worker", "control", "tokenizer"]


def test_a_table_shows_medians_ratios_spreads_and_what_is_missing():
    turns = [*SWINGING, turn("taximeter", 3, 0, worker=40, control=20)]
    measured = Measured(turns, ["litellm: no network"], {"taximeter": 0.012}, {"nginx": 0.12})
    lines = page.table(measured, "nginx")
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines[:4]}
    assert rows["nginx"] == ["15 (10–20)", "1", "500", "1.00", "2.00", "0", "-", "50", "0.1", "none"]
    assert rows["taximeter"][:2] == ["60 (60–100)", "5.00 (4.00–6.00)"]
    assert lines[-1] == "Left out: litellm: no network"


def test_a_table_tells_the_processes_of_a_proxy_and_what_it_takes_between_turns():
    turns = [turn("taximeter", number, 0, worker=80, control=30, valkey=0.2) for number in range(2)]
    lines = page.table(Measured(turns, idle_cores={"taximeter": 0.012}), None)
    assert lines[-1] == "taximeter, by process: worker 80, control 30 µs; between its turns 1.2 % of a core."
    assert "| taximeter | 110 | - |" in lines[2]


OLD = "# Benchmarks\n\nAn old head.\n\n## unary\n\nold\n\n## gone\n\nof no use\n\n## memory\n\n1,000 streams\n"


def test_a_partial_run_replaces_its_own_sections_and_keeps_the_others_in_order():
    new = page.merged(OLD, {"latency": ["fast"], "unary": ["new", "", "*stamp*"]}, ["unary", "latency", "memory"])
    assert new == page.HEAD + "\n## unary\n\nnew\n\n*stamp*\n\n## latency\n\nfast\n\n## memory\n\n1,000 streams\n"
    assert page.merged(new, {}, ["unary", "latency", "memory"]) == new


def test_sections_of_an_earlier_day_are_named():
    new = ["fast", "", "*2026-12-01, commit b: CPU*"]
    page_now = page.merged("## memory\n\nlittle\n\n*2026-11-22, commit a: CPU*", {"unary": new}, ["unary", "memory"])
    assert (
        "\n\nOlder than the newest figures (2026-12-01), so of what was built then, 2026-11-22: memory.\n\n" in page_now
    )
    assert "Older than" not in page.merged(page_now, {"memory": new}, ["unary", "memory"])


def test_a_first_run_has_a_head_and_its_sections():
    assert page.merged("", {"memory": ["little"]}, ["unary", "memory"]) == page.HEAD + "\n## memory\n\nlittle\n"


def test_added_latency_is_the_difference_within_a_round():
    rows = [
        latency.Row("alone", "direct", [Latency(9, 1.0, 2.0), Latency(9, 2.0, 4.0), Latency(9, 3.0, 3.0)]),
        latency.Row(
            "alone", "nginx", [Latency(9, 1.1, 2.5), Latency(9, 2.3, 4.0, 0.5), Latency(9, 3.2, 3.5)], [14, 15, 19]
        ),
    ]
    assert latency.page(rows)[-2:] == [
        "| alone | direct | - | 2.00 | 3.00 | - | - | - |",
        "| alone | nginx | 15 (14–19) | 2.30 | 3.50 | 200 (100–300) | 0.50 (0.00–0.50) | - |",
    ]


def test_who_shares_a_core_is_said_by_the_number_of_cores():
    assert "share the other core with the provider and the generator" in " ".join(latency.placed(2))
    assert "neither the worker's nor the load's" in " ".join(latency.placed(4))


def test_two_workers_are_compared_with_one_within_a_round():
    measured = Measured(
        [turn(name, number, 9, rate=rate) for number, pair in enumerate(((100, 190), (50, 80))) for name, rate in zip(
            ("1 worker", "2 workers"), pair, strict=True)]
    )  # fmt: skip
    assert workers.page(measured, "1-3")[-2:] == [
        "| 1 worker | 75 (50–100) | 1 | 2.00 |",
        "| 2 workers | 135 (80–190) | 1.75 (1.60–1.90) | 2.00 |",
    ]


def test_too_few_cores_for_two_workers_are_said():
    with pytest.raises(LeftOut, match="need 4 cores, this machine has 3"):
        workers.measure(1, 1, cores=3)


def test_the_export_costs_the_difference_within_a_round():
    pairs = ((100, 150), (200, 240), (100, 160))
    turns = [turn(name, number, 0, worker=us - 10, control=10) for number, pair in enumerate(pairs)
             for name, us in zip((otel.OFF, otel.ON), pair, strict=True)]  # fmt: skip
    assert [row.split("|")[1:5] for row in otel.page(Measured(turns))[-2:]] == [
        [" export off ", " 100 (100–200) ", " - ", " 10 "],
        [" export on ", " 160 (150–240) ", " 50 (40–60) ", " 10 "],
    ]


def test_a_request_goes_out_with_its_length_and_the_names_a_proxy_wants():
    asked = request("http://127.0.0.1:1/v1/chat/completions", b'{"model":"a"}', {"Authorization": "Bearer other"})
    head, _, body = asked.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"POST /v1/chat/completions HTTP/1.1"
    assert b"authorization: Bearer other" in head and b"sk-bench" not in head and b"content-length: 13" in head
    running = Running("peer", "", cast("Popen[bytes]", None), "none", models={"a": "peer::a"})
    assert (body, running.named(body)) == (b'{"model":"a"}', b'{"model":"peer::a"}')


def test_a_proxy_that_bears_fewer_connections_gets_fewer():
    running = Running("peer", "", cast("Popen[bytes]", None), "none")
    assert running.connections(32) == 32
    assert [replace(running, most_connections=8).connections(wanted) for wanted in (32, 4)] == [8, 4]


def test_turns_are_found_by_proxy():
    assert [each.number for each in of_proxy(SWINGING, "nginx")] == [0, 1, 2]


def test_a_plugins_overhead_is_taken_within_a_round():
    taken = {lightrag.WITHOUT: [(10.0, 20.0), (30.0, 60.0)], lightrag.WITH: [(12.0, 25.0), (33.0, 66.0)]}
    lines = lightrag._table(taken)
    assert lines[2:4] == [
        "| LightRAG | 20.0 (10.0–30.0) | 40.0 (20.0–60.0) |",
        "| LightRAG with the plugin | 22.5 (12.0–33.0) | 45.5 (25.0–66.0) |",
    ]
    assert lines[5].startswith("The plugin adds 2.5 (2.0–3.0) ms of CPU and 5.5 (5.0–6.0) ms to a query")


def test_how_an_interpreter_is_built_is_read_from_its_code_where_its_configuration_is_silent():
    plain, debian = "'--enable-shared' 'CC=gcc'", "'--with-computed-gotos' 'CFLAGS=-g'"
    assert interpreter.built(plain, "-g -O3 -Wall", 8_384) == "-O3, no PGO, no LTO"
    assert interpreter.built(debian, "-g -O2 -Wall", 1_544_672) == "-O2, PGO, LTO not told"
    assert interpreter.built("'--enable-optimizations' '--with-lto'", "-O3", 8_384) == "-O3, PGO, LTO"
    assert 0 < interpreter.spread_bytes() < 100 * 2**20


def test_interpreters_are_compared_with_nginx_and_the_first_within_a_round():
    turns = [turn(name, number, us) for number, row in enumerate(((10, 60, 40), (20, 90, 70)))
             for name, us in zip(("nginx", "Python 1", "Python 2"), row, strict=True)]  # fmt: skip
    assert interpreter.page(Measured(turns), ["Python 1", "Python 2"])[-2:] == [
        "| Python 1 | 75 (60–90) | 5.25 (4.50–6.00) | 1 |",
        "| Python 2 | 55 (40–70) | 3.75 (3.50–4.00) | 0.72 (0.67–0.78) |",
    ]


def kept(number, billed, counted):
    """A turn of a proxy that keeps books."""
    return Turn("peer", number, Load(9, 3.0, 1.0, 2.0), {"other": 1.0}, billed=billed, counted=counted)


def test_what_a_proxy_counted_is_told_beside_what_the_provider_answered():
    whole = [kept(0, Books(100, 4_600), Books(100, 4_600)), kept(1, Books(1_100, 50_600), Books(1_100, 50_600))]
    assert page.counted(whole) == "1,200 of 1,200, all tokens"
    short = [*whole, kept(2, Books(800, 36_800), Books(790, 36_340))]
    assert page.counted(short) == "1,990 of 2,000, -0.500 % of the tokens"
    assert page.counted([kept(0, Books(10, 460), Books(9, None))]) == "9 of 10"
    assert page.counted([kept(0, Books(10, 460), None)]) == "-"


def test_books_are_the_sum_over_a_counters_labels():
    exposed = """# HELP calls_total of calls
calls_total{model="a b",status="200"} 1.0e+03
calls_total{model="c",note="} 7"} 20 1790000000000
calls_total_created{model="c"} 1.79e+09
tokens 46
"""
    assert books.summed(exposed, "calls_total") == 1_020
    assert books.summed(exposed, "tokens") == 46
    assert books.summed(exposed, "absent") == 0


def test_a_slow_proxys_turn_is_longer_within_a_bound():
    assert [rounds.lasting_s(3, rate) for rate in (20_000, 200, 100, 10, 0)] == [3, 3, 6, 9, 9]


def test_a_proxy_that_fails_is_named_with_how_much():
    def failing(proxy, failed):
        return Turn(proxy, 0, Load(1_000, 500.0, 1.0, 2.0, failed), {"other": 1.0})

    turns = [failing("right", 10), failing("wrong", 11), failing("wrong", 39)]
    assert rounds.failing(turns) == {"wrong": "50 of 2,000 calls failed"}


CHAT = b'{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":12,"completion_tokens":34}}'
DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (CHAT, ("hi", 12, 34)),
        (b'{"content":[{"text":"hi"}],"usage":{"input_tokens":12,"output_tokens":34}}', ("hi", 12, 34)),
        (b'{"data":[{"embedding":"AA"}],"usage":{"prompt_tokens":12}}', ("embedding", 12)),
        (DELTA % b"h" + DELTA % b"i" + b'data: {"choices":[],"usage":{}}\n\ndata: [DONE]\n\n', ("hi",)),
    ],
)
def test_an_answer_is_compared_by_what_it_says(body, said):
    assert answers.Answer(200, {}, body).says() == said


def test_a_stream_that_is_cut_says_nothing():
    with pytest.raises(ValueError, match="without its last event"):
        answers.Answer(200, {}, DELTA % b"h").says()


def test_a_proxy_that_answers_something_else_or_another_way_is_left_out(monkeypatch):
    direct = answers.Answer(200, {}, CHAT)
    running = Running("peer", "", cast("Popen[bytes]", None), "none", marks={"x-rust": "true"})
    for headers, body in (({}, CHAT), ({"x-rust": "true"}, CHAT.replace(b"34", b"33")), ({"x-rust": "true"}, b"{}")):
        given = answers.Answer(200, headers, body)
        monkeypatch.setattr(answers, "post", lambda *_, given=given: given)
        with pytest.raises(LeftOut, match="peer gives a wrong answer"):
            answers.check(running, "/chat/completions", b"{}", direct)
    monkeypatch.setattr(answers, "post", lambda *_: answers.Answer(200, {"x-rust": "true"}, CHAT))
    answers.check(running, "/chat/completions", b"{}", direct)


TRACED = """\
7 epoll_pwait(5<anon_inode:[eventpoll]>, [{events=EPOLLIN}], 1024, 9, NULL, 8) = 1
7 read(11<TCP:[127.0.0.1:8000->127.0.0.1:40001]>, "POST /v1/cha"..., 256000) = 223
7 write(9</tmp/x/data/journal/w1.log>, "open"..., 90) = 90
9 futex(0x1, FUTEX_WAKE, 1) = 0
7 write(12<TCP:[127.0.0.1:40002->127.0.0.1:9000]>, "POST /v1/cha"..., 240) = 240
7 epoll_pwait(5<anon_inode:[eventpoll]>,  <unfinished ...>
9 write(9</tmp/x/data/journal/w1.log>, "else"..., 90) = 90
7 <... epoll_pwait resumed>[{events=EPOLLIN}], 1024, 9, NULL, 8) = 1
7 read(12<TCP:[127.0.0.1:40002->127.0.0.1:9000]>, "HTTP/1.1 200"..., 256000) = 800
7 write(11<TCP:[127.0.0.1:8000->127.0.0.1:40001]>, "HTTP/1.1 200"..., 820) = 820
7 epoll_pwait(5<anon_inode:[eventpoll]>, [], 1024, 9, NULL, 8) = 0
"""


def test_the_path_of_a_call_is_its_loop_turns_and_their_system_calls():
    seen = path.shapes(TRACED * 3 + TRACED.replace("open", "sync").replace("7 write(9", "7 fsync(9"), 8000, 9000)
    assert sorted(seen.values()) == [1, 3]
    assert path.page("taximeter", seen) == [
        "**taximeter**: 2 turns of its loop and 7 system calls, in 3 of 4 calls.",
        "",
        "| turn | what the loop waits with, and what it does then |",
        "|---:|---|",
        "| 1 | `epoll_wait`, `read` (client: request), `write` (journal), `write` (upstream: request) |",
        "| 2 | `epoll_wait`, `read` (upstream: answer), `write` (client: answer) |",
        "",
    ]


class Written:
    """A transport that keeps what is written."""

    def __init__(self):
        self.last = b""

    def write(self, data):
        self.last = data


async def test_the_benchs_provider_tells_what_it_has_answered():
    answers_made = provider.Answers(chunks=1, answer_bytes=4, embedding_bytes=8)
    connection, wire = provider.Connection(answers_made, 0), Written()
    connection.connection_made(cast("BaseTransport", wire))
    said = []
    for path_asked, body in (("chat/completions", b"{}"), ("messages", b"{}"), ("embeddings", b"{}"),
                             ("chat/completions", b'{"stream":true}')):  # fmt: skip
        connection.data_received(b"POST /v1/%b HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (
            path_asked.encode(), len(body), body))  # fmt: skip
        said.append(wire.last)
    assert [b'"xxxx"' in said[0], b'"type": "message"' in said[1], b'"AAAAAAAA"' in said[2]] == [True] * 3
    assert said[3].endswith(b"[DONE]\n\n\r\n0\r\n\r\n")
    connection.data_received(b"GET /health HTTP/1.1\r\n\r\n")
    assert wire.last.endswith(b'{"calls": 4, "tokens": 150}')
