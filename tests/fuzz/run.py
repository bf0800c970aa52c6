"""`make fuzz MINUTES=10`: everything of this directory, with other random choices in each round, until time is up.

The seed of a round is printed; SEED=n begins with that one. It ends with 1 at the first thing found.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import requests
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from fuzz.api import by_schema, operations, with_nasty_values
from fuzz.data_port import RECORDINGS, batch, meter_a_mutation, request, send
from fuzz.machine import machine
from fuzz.provider import mutating
from fuzz.running import running_node
from fuzz.test_data_port import closed, opened, upstream
from present import present
from waits import until


def one_round(number: int, found: Counter[str]) -> None:
    """Raises what a check raises."""
    chance = random.Random(number)
    batch(lambda one: meter_a_mutation(RECORDINGS, one), 5_000, chance)
    found["mutated recordings"] += 5_000
    with (
        tempfile.TemporaryDirectory() as directory,
        mutating(chance) as base_url,
        running_node(Path(directory), **upstream(base_url)) as (node, url),
        requests.Session() as session,
    ):
        host, port = present(node._ready()).listen.split(":")
        batch(lambda one: send((host, int(port)), request(one)), 500, chance)
        found["requests at the data port"] += 500
        until(lambda: not opened(node) - closed(node), "every opened call to be closed")
        for operation in operations(url):
            by_schema(operation, url, session, 15, chance.getrandbits(32))
            with_nasty_values(operation, url, session, 30, chance.getrandbits(32))
            found["examples at the control port"] += 60
        machines = machine(url)
        seed(chance.getrandbits(32))(machines)
        run_state_machine_as_test(
            machines,
            settings=settings(
                max_examples=15, stateful_step_count=25, database=None, deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )  # fmt: skip
        found["runs of keys and budgets"] += 15


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    given = parser.parse_args()
    until_s = time.monotonic() + given.minutes * 60
    number = given.seed
    names = (
        "mutated recordings",
        "requests at the data port",
        "examples at the control port",
        "runs of keys and budgets",
    )
    found = Counter(dict.fromkeys(names, 0))
    while time.monotonic() < until_s:
        print(f"SEED={number}", flush=True)
        log = io.StringIO()
        try:
            with contextlib.redirect_stdout(log):  # the node's, at its end
                one_round(number, found)
        except BaseException:
            print(log.getvalue()[-20_000:])
            traceback.print_exc()
            sys.exit(f"Found something in the round SEED={number}.")
        number += 1
    print("Nothing found in " + ", ".join(f"{count:,} {what}" for what, count in found.items()) + ".")


if __name__ == "__main__":
    main()
