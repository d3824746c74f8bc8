"""A robot's process that ends by SIGKILL, run by tests as `python -m tests.queue_child`.

It puts steps into its queue and tells each that was taken, as `put EPISODE STEP`, on standard output. With a service it
is a whole `Edge`; without one it takes steps out itself, a few behind, and tells `done EPISODE STEP` before each.
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

import numpy as np

from mier_client import Client, Step
from mier_client.edge import Edge, StepQueue

EPISODE_STEPS = 25


def step_of(episode: int, number: int, observation_dim: int, action_dim: int) -> Step:
    """What is recorded there, a function of where it is."""
    value = np.float32(episode + number / 64.0)
    return Step(
        observation=np.full(observation_dim, value),
        action=np.full(action_dim, value % 1.0),
        reward=float(value),
        next_observation=np.full(observation_dim, value + 1.0),
        terminated=False,
        truncated=number == EPISODE_STEPS - 1,
        policy_version=1,
    )


def _tell(word: str, episode: int, number: int) -> None:
    print(word, episode, number, flush=True)


def fill_and_empty(file: Path, session_id: str) -> None:
    queue = StepQueue(file, session_id)
    for episode in count(queue.next_episode):
        for number in range(EPISODE_STEPS):
            queue.put(episode, number, step_of(episode, number, 4, 2))
            _tell("put", episode, number)
            if queue.pending_steps > 10 and (oldest := queue.oldest(3)) is not None:
                for i in range(len(oldest.batch.reward)):
                    _tell("done", oldest.batch.episode, oldest.batch.first_step + i)
                queue.done(oldest)


def live(folder: Path, session_id: str, public_key: str, url: str) -> None:
    client = Client.connect(url)
    edge = Edge(folder, session_id, public_key, client, submit_every_s=0.02, poll_every_s=0.2)
    dims = len(edge.policy.manifest.observation_names), len(edge.policy.manifest.action_names)
    while True:
        episode, number = edge.policy.episode, edge.policy.step
        edge.act(np.zeros(dims[0]))
        edge.add(step_of(episode, number, *dims))
        _tell("put", episode, number)


if __name__ == "__main__":
    place, session, *service = sys.argv[1:]
    if service:
        live(Path(place), session, *service)
    else:
        fill_and_empty(Path(place), session)
