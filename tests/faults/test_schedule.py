"""Anything, at any time, in an order drawn from the seed: afterwards the books agree to the token."""

import random

import pytest

from faults import upsets
from faults.faults import FAULTS
from faults.house import House

pytestmark = pytest.mark.timeout(300)

ROUNDS, FAULTS_A_ROUND = 3, 6


async def test_whatever_happens_in_whatever_order_the_books_agree(seed, tmp_path, figures):
    dice = random.Random(seed)
    async with House(tmp_path) as house:
        house.provider.handler = upsets.of(house.provider, random.Random(f"{seed}/upsets"), 0.08)
        for number in range(ROUNDS):
            async with house.load(clients=4, seed=seed + number, chance_to_leave=0.15):
                for fault in dice.sample(FAULTS, FAULTS_A_ROUND):
                    print(number, fault.__name__, flush=True)
                    await house.answered(dice.randint(5, 40))
                    await fault(house, dice)
                await house.until_ready()
                await house.answered(20)
            await house.settle()
            compared = house.compare()
            print(compared)
        figures.add(compared)
