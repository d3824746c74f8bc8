"""Robots under asynchronous control: each acts at its own rate, and what it lives through is learned meanwhile.

    mier-serve                              # in another terminal
    python examples/async_control_loop.py   # --help for the rest

Every action has a deadline. Where none comes in time the robot holds its last one, and says so in the record: version 0
is no version of the session. (What to do without an action is the robot's decision, never the service's.)
"""

import argparse
import asyncio
from typing import Any

import gymnasium
import numpy as np

from mier_client import AsyncActing, AsyncClient, DeadlineExceeded, Overloaded, Unavailable

CHECKPOINT = "cheetah-vel-ood"
Row = tuple[Any, ...]


class Robot:
    """One robot with a session of its own."""

    def __init__(self, client: AsyncClient, acting: AsyncActing, session_id: str, target: float, pace: float) -> None:
        self.client, self.acting, self.session_id = client, acting, session_id
        self.env = gymnasium.make("mier_envs:mier/CheetahVel-v0", target=target)
        self.period_s = pace * 0.05  # the cheetah's control period
        self.held_steps = 0

    async def live(self, episodes: int) -> tuple[float, float]:
        """Returns before anything was learned, and after so many exploring episodes."""
        before = await self.episode(0, deterministic=True)
        learning: list[asyncio.Task[None]] = []
        for number in range(episodes):
            rows: list[Row] = []
            await self.episode(number, deterministic=False, rows=rows)
            learning.append(asyncio.create_task(self.learn(number, rows)))  # and the next episode begins meanwhile
        await asyncio.gather(*learning)
        return before, await self.episode(0, deterministic=True)

    async def episode(self, number: int, deterministic: bool, rows: list[Row] | None = None) -> float:
        """One episode at the robot's rate; the sum of its rewards."""
        loop = asyncio.get_running_loop()
        observation, _ = self.env.reset(seed=number)
        action, total, step, over = np.zeros(6, np.float32), 0.0, 0, False
        tick_s = loop.time()
        while not over:
            version = 0
            try:
                acted = await self.acting.act(
                    self.session_id,
                    observation,
                    deterministic=deterministic,
                    episode=number,
                    step=step,
                    timeout_s=max(self.period_s, 0.05),
                )
                action, version = acted.action, acted.policy_version
            except (DeadlineExceeded, Overloaded, Unavailable):
                self.held_steps += 1
            following, reward, terminated, truncated, _ = self.env.step(action)
            if rows is not None:
                rows.append((observation, action, reward, following, terminated, truncated, version))
            observation, total, step, over = following, total + float(reward), step + 1, terminated or truncated
            tick_s += self.period_s
            await asyncio.sleep(max(0.0, tick_s - loop.time()))
        return total

    async def learn(self, episode: int, rows: list[Row]) -> None:
        """Reports an episode, and adapts to all that was reported."""
        names = ("observation", "action", "reward", "next_observation", "terminated", "truncated")
        *columns, versions = zip(*rows, strict=True)
        arrays: dict[str, Any] = {name: np.asarray(column) for name, column in zip(names, columns, strict=True)}
        await self.client.submit_transitions(
            self.session_id, episode=episode, first_step=0, policy_version=versions, **arrays
        )
        await self.client.adapt(self.session_id)


async def main(service: str, targets: list[float], episodes: int, pace: float) -> None:
    async with AsyncClient.connect(service) as client, asyncio.TaskGroup() as robots:

        async def run(target: float) -> None:
            session = await client.create_session(CHECKPOINT)
            async with client.open_act_stream() as acting:
                robot = Robot(client, acting, session.id, target, pace)
                before, after = await robot.live(episodes)
            await client.delete_session(session.id)
            print(f"{target:g} m/s: return {before:.1f} before, {after:.1f} after; held {robot.held_steps} steps")

        for target in targets:
            robots.create_task(run(target))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", default="grpc://127.0.0.1:50051", help="its URL (default: %(default)s)")
    parser.add_argument("--targets", type=float, nargs="+", default=[1.5, 2.0], help="a robot for each speed, in m/s")
    parser.add_argument("--episodes", type=int, default=2)
    parser.add_argument("--pace", type=float, default=1.0, help="1: real time; 0: as fast as it goes")
    asyncio.run(main(**vars(parser.parse_args())))
