"""A fleet of robots on one service: each has a session, acts over a stream, and adapts to a task of its own.

    mier-serve                  # in another terminal
    python examples/fleet.py    # --help for the rest

Here they are simulated cheetahs, and nobody waits for a control period to pass, so that the service is asked as much as
it can answer. Real ones act each at its own rate (async_control_loop.py).
"""

import argparse
import asyncio
import time
from typing import Any

import gymnasium
import numpy as np

from mier_client import AsyncActing, AsyncClient, Timeouts

CHECKPOINT = "cheetah-vel-ood"
NAMES = ("observation", "action", "reward", "next_observation", "terminated", "truncated")
PATIENT = Timeouts(act_s=60.0, call_s=120.0, adapt_s=600.0)
"""A hundred robots on one small machine may wait for each other; a robot that cannot wait says so with `budget_ms`."""


class Robot:
    """One of them."""

    def __init__(self, client: AsyncClient, acting: AsyncActing, session_id: str, target: float) -> None:
        self.client, self.acting, self.session_id = client, acting, session_id
        self.env = gymnasium.make("mier_envs:mier/CheetahVel-v0", target=target)
        self.act_ms: list[float] = []

    async def episode(self, number: int, steps: int, record: bool) -> float:
        """The mean reward of so many steps; what is recorded is submitted and adapted to."""
        rows: list[tuple[Any, ...]] = []
        observation, _ = self.env.reset(seed=number)
        for step in range(steps):
            asked_s = time.perf_counter()
            acted = await self.acting.act(
                self.session_id, observation, deterministic=not record, episode=number, step=step
            )
            self.act_ms.append(1e3 * (time.perf_counter() - asked_s))
            following, reward, terminated, truncated, _ = self.env.step(acted.action)
            rows.append((observation, acted.action, reward, following, terminated, truncated, acted.policy_version))
            observation = following
        *columns, versions = zip(*rows, strict=True)
        arrays: dict[str, Any] = {name: np.asarray(column) for name, column in zip(NAMES, columns, strict=True)}
        if record:
            await self.client.submit_transitions(
                self.session_id, episode=number, first_step=0, policy_version=versions, **arrays
            )
            await self.client.adapt(self.session_id)
        return float(np.mean(arrays["reward"]))


async def live(client: AsyncClient, target: float, steps: int) -> tuple[float, float, list[float]]:
    """Mean rewards before and after one exploring episode was learned from; how long each act took, in milliseconds."""
    session = await client.create_session(CHECKPOINT)
    async with client.open_act_stream() as acting:
        robot = Robot(client, acting, session.id, target)
        before = await robot.episode(0, steps, record=False)
        await robot.episode(1, steps, record=True)
        after = await robot.episode(0, steps, record=False)
    await client.delete_session(session.id)
    return before, after, robot.act_ms


async def main(service: str, robots: int, steps: int) -> None:
    targets = np.linspace(1.2, 2.0, robots)
    async with AsyncClient.connect(service, PATIENT) as client:
        began_s = time.perf_counter()
        lives = await asyncio.gather(*(live(client, float(target), steps) for target in targets))
        took_s = time.perf_counter() - began_s
    before, after, act_ms = zip(*lives, strict=True)
    acts = np.concatenate(act_ms)
    better = int(np.sum(np.asarray(after) > np.asarray(before)))
    print(f"{robots} robots, {len(acts)} acts in {took_s:.1f} s")
    print(f"act: median {np.median(acts):.1f} ms, 99th percentile {np.percentile(acts, 99):.1f} ms")
    print(f"reward a step: {np.mean(before):.2f} before, {np.mean(after):.2f} after; better: {better} robots")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", default="grpc://127.0.0.1:50051", help="its URL (default: %(default)s)")
    parser.add_argument("--robots", type=int, default=100)
    parser.add_argument("--steps", type=int, default=200, help="of an episode (default: %(default)s)")
    asyncio.run(main(**vars(parser.parse_args())))
