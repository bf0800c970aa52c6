"""Anything, at any time, in an order drawn from the seed: afterwards the books agree to the token."""

import asyncio
import random

from faults import misbehaving
from faults.faults import DEATHS, TROUBLES
from faults.running import Node

ROUNDS, FAULTS_A_ROUND = 4, 5


async def test_whatever_happens_in_whatever_order_the_books_agree(seed, tmp_path, figures):
    dice = random.Random(seed)
    compared = {}
    async with Node(tmp_path) as node:
        node.provider.handler = misbehaving.of(node.provider, random.Random(f"{seed}/upsets"), 0.08)
        for number in range(ROUNDS):
            async with node.load(clients=4, seed=seed + number, chance_to_leave=0.15):
                for _ in range(FAULTS_A_ROUND):
                    await node.answered(dice.randint(5, 40))
                    await one_or_two(node, dice)
                await node.until_ready()
                await node.answered(20)
            await node.settle()
            compared = node.compare()
            print(compared, flush=True)
        figures.add(compared)


async def one_or_two(node, dice):
    """A death, a trouble, or a death in the middle of a trouble."""
    what = dice.random()
    faults = [dice.choice(DEATHS)] if what < 0.6 else []
    faults += [dice.choice(TROUBLES)] if what > 0.4 else []
    print(*(fault.__name__ for fault in faults), flush=True)
    async with asyncio.TaskGroup() as group:
        for fault in faults:
            group.create_task(fault(node, random.Random(dice.random())))
