"""One line an entry, and nothing in it that could be taken for another entry or that a terminal would act on."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import UTC, datetime

from taximeter.node.logs import FIELDS, SELDOM, SELDOM_S, Json, Plain, Seldom
from taximeter.supervisor.valkey import tell

ODD = "a\x1b[31m\r\n2026-01-01 00:00:00,000 INFO worker 1: forged\u202e\u2028"


def formatted(message: str, *args: object, error: BaseException | None = None) -> list[str]:
    told = (type(error), error, error.__traceback__) if error is not None else None
    record = logging.LogRecord("taximeter", logging.ERROR, __file__, 1, message, args, told)
    record.stack_info = f"Stack:\n  {ODD}" if error is not None else None
    return Plain("%(asctime)s %(levelname)s worker 1: %(message)s").format(record).split("\n")


def test_an_entry_is_one_line_with_odd_characters_spelled_out() -> None:
    (line,) = formatted("no price for %s\n", ODD)
    assert line.endswith(
        r"worker 1: no price for a\x1b[31m\r\n2026-01-01 00:00:00,000 INFO worker 1: forged\u202e\u2028"
    )


def test_a_traceback_goes_on_in_marked_lines() -> None:
    try:
        raise ValueError(ODD)
    except ValueError as error:
        first, *rest = formatted("failed", error=error)
    assert first.endswith("worker 1: failed")
    assert all(line.startswith("  | ") and line.isprintable() for line in rest)
    assert any(line.startswith("  | ValueError: a") for line in rest)
    assert sys.exc_info() == (None, None, None)


def test_a_time_is_of_utc_and_says_so() -> None:
    entry = logging.LogRecord("taximeter", logging.INFO, __file__, 1, "x", (), None)
    entry.created = datetime(2026, 11, 22, 9, 30, 0, 250_000, tzinfo=UTC).timestamp()
    assert Plain("%(asctime)s %(message)s").format(entry) == "2026-11-22T09:30:00.250Z x"
    assert json.loads(Json("control").format(entry))["time"] == "2026-11-22T09:30:00.250Z"


def test_in_json_an_entry_is_one_object_in_one_line_whatever_is_in_it() -> None:
    try:
        raise ValueError(ODD)
    except ValueError as error:
        told = (type(error), error, error.__traceback__)
    entry = logging.LogRecord("taximeter.upstream", logging.WARNING, __file__, 1, "no %s \ud800", (ODD,), told)
    setattr(entry, FIELDS, {"call": {"status": None}})
    line = Json("worker 1").format(entry)
    assert line.isprintable()
    read = json.loads(line)
    assert read["message"] == f"no {ODD} \ud800"
    assert read["exception"].splitlines()[0] == "Traceback (most recent call last):"
    assert {name: read[name] for name in ("level", "process", "pid", "logger", "call")} == {
        "level": "warning", "process": "worker 1", "pid": entry.process, "logger": "taximeter.upstream",
        "call": {"status": None},
    }  # fmt: skip


def test_what_valkey_writes_is_an_entry_of_its_own_process(caplog) -> None:
    caplog.set_level(logging.DEBUG)
    tell(b"4711:M 30 Nov 2026 10:00:00.123 * Ready to accept connections tcp")
    tell(b"4711:M 30 Nov 2026 10:00:00.124 # WARNING Memory overcommit must be enabled!")
    tell(b"4711:M 30 Nov 2026 10:00:00.125 # Error opening /setting AOF rewrite IPC pipes: No space left on device")
    tell(b"")
    tell(b"=== a line of another form")
    assert [(entry.levelname, entry.getMessage()) for entry in caplog.records] == [
        ("DEBUG", "valkey: Ready to accept connections tcp"),
        ("DEBUG", "valkey: WARNING Memory overcommit must be enabled!"),
        ("WARNING", "valkey: Error opening /setting AOF rewrite IPC pipes: No space left on device"),
        ("DEBUG", "valkey: === a line of another form"),
    ]
    assert json.loads(Json("supervisor").format(caplog.records[0]))["process"] == "valkey"


def test_what_each_request_would_say_of_an_outage_is_said_once_a_minute() -> None:
    def entry(text: str, at_s: float, **more: object) -> logging.LogRecord:
        made = logging.LogRecord("taximeter", logging.WARNING, __file__, 1, "%s", (text,), None)
        made.created = at_s
        made.__dict__.update(more)
        return made

    seldom = Seldom()
    said = [entry("down", 0.0, **SELDOM), entry("down", 1.0, **SELDOM), entry("other", 1.0, **SELDOM),
            entry("down", 2.0), entry("down", SELDOM_S, **SELDOM), entry("down", SELDOM_S + 1, **SELDOM)]  # fmt: skip
    assert [seldom.filter(each) for each in said] == [True, False, True, True, True, False]
    for number in range(1_000):
        seldom.filter(entry(str(number), 0.0, **SELDOM))
    assert len(seldom._said) == 100


FAULTS = """
import sys, threading
from taximeter.config.settings import LogSettings
from taximeter.node.logs import Printed, log_to_stderr

log_to_stderr("worker 1", LogSettings(format="json"))
sys.stdout = Printed()
print("a library\\nsays so")
thread = threading.Thread(target=lambda: 1 / 0, name="pool")
thread.start()
thread.join()

class Bad:
    def __del__(self):
        raise ValueError("in a finalizer")

Bad()
import warnings
warnings.warn("old")
raise KeyError("the end")
"""


def test_whatever_else_a_process_says_is_an_entry_too() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=False)
    entries = [json.loads(line) for line in done.stderr.splitlines()]
    told = [(entry["level"], entry["message"].partition(" <")[0], "exception" in entry) for entry in entries]
    assert (told[:3], done.stdout) == (
        [("info", "a library", False), ("info", "says so", False), ("error", "The thread pool ended by a fault", True)],
        "",
    )
    assert told[3][0] == "error" and "in a finalizer" in entries[3]["exception"]
    assert "UserWarning: old" in entries[4]["message"] and "\n" not in entries[4]["message"]
    assert told[5:] == [("critical", "This process ends by a fault", True)]


def test_no_library_tells_the_urls_that_it_calls() -> None:
    """A webhook's may hold a secret."""
    told = subprocess.run([sys.executable, "-c", CALLING], capture_output=True, text=True, check=True).stderr
    assert "our own entry" in told and "HTTP Request" not in told and "hunter2" not in told


CALLING = """
import logging, httpx2
from taximeter.config.settings import LogSettings
from taximeter.node.logs import log_to_stderr
for level in ("info", "debug"):
    log_to_stderr("control", LogSettings(level=level))
    logging.getLogger("taximeter").info("our own entry")
    answer = httpx2.MockTransport(lambda request: httpx2.Response(204))
    httpx2.Client(transport=answer).post("https://billing:hunter2@billing.test/?token=hunter2")
"""
