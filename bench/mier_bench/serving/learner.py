"""A client that makes a session learn while another acts: `python -m mier_bench.serving.learner URL SESSION`.

For each line with a number on its input it makes so many version swaps, with adaptations among them and a fine-tune
running all the while, then says `done`. Swaps alternate between the session's first version and its first fine-tuned
one, whose weights differ.
"""

from __future__ import annotations

import sys
from itertools import cycle, islice

from mier_bench.serving import checkpoints
from mier_client import Client

_ADAPT_EVERY = 25
_ENDLESS = 100_000


def main() -> None:
    url, session_id = sys.argv[1:]
    with Client.connect(url) as client:
        turns = cycle((1, _prepare(client, session_id)))
        print("prepared", flush=True)
        for line in sys.stdin:
            tuning = client.finetune(session_id, updates=_ENDLESS)
            for done, version in enumerate(islice(turns, int(line))):
                if done % _ADAPT_EVERY == 0:
                    client.adapt(session_id)
                client.promote(session_id, version, reason="bench")
            client.cancel_operation(tuning.id)
            for _ in client.watch_operation(tuning.id):
                pass  # until it has ended
            print("done", flush=True)


def _prepare(client: Client, session_id: str) -> int:
    """Number of a fine-tuned version."""
    session = client.get_session(session_id)
    rows = checkpoints.rewarded(session.environment.horizon_steps, session.environment.observation_dim, seed=1)
    for episode in range(3):
        client.submit_transitions(
            session_id,
            episode=episode,
            first_step=0,
            observation=rows.observation.numpy(),
            action=rows.action.numpy(),
            reward=rows.reward.numpy(),
            next_observation=rows.next_observation.numpy(),
            policy_version=1,
        )
    client.adapt(session_id)
    made = client.wait_operation(client.finetune(session_id, updates=60).id, timeout_s=600.0).result_version
    assert made is not None, "it has succeeded"
    return made


if __name__ == "__main__":
    main()
