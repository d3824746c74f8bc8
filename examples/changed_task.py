"""A task that changes in mid-run: nobody tells the service, which notices, adapts and goes on.

    mier-serve                       # in another terminal
    python examples/changed_task.py  # --help for the rest

The cheetah runs at a speed within the training range; in the middle of its second episode it is to run at one beyond.
It only acts and submits, ten steps at a time.
"""

import argparse
import time

from mier_client import Client, SessionMode
from mier_client.recorder import Recorder, Step
from mier_envs.cheetah_families import vel_task
from mier_envs.families import FAMILIES
from mier_envs.switching import take_over


def main(service: str, before: float, after: float, episodes: int, pace: float) -> None:
    family, client = FAMILIES["cheetah-vel-ood"], Client.connect(service)
    session = client.set_mode(client.create_session("cheetah-vel-ood").id, SessionMode.AUTO).id
    recorder, env = Recorder(client, session, submit_every_steps=10), family.make(vel_task(before))
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        total, over, step = 0.0, False, 0
        while not over:
            if (episode, step) == (1, 100):
                env = take_over(env, family.make(vel_task(after)))
            acted = client.act(session, observation, episode=episode, step=step)
            following, reward, terminated, truncated, _ = env.step(acted.action)
            recorder.add(
                Step(observation, acted.action, float(reward), following, terminated, truncated, acted.policy_version)
            )
            observation, total, over, step = following, total + float(reward), terminated or truncated, step + 1
            time.sleep(pace)
        now = client.get_session(session)
        print(
            f"episode {episode}: return {total:.1f}, task {now.task_number}, version {now.active_version}, "
            f"percentile {now.model_context.ood_percentile}, {now.model_context.transitions_used} transitions"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", default="grpc://127.0.0.1:50051", help="its URL (default: %(default)s)")
    parser.add_argument("--before", type=float, default=0.8, help="speed in m/s (default: %(default)s)")
    parser.add_argument("--after", type=float, default=1.5, help="speed in m/s, from then on (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--pace", type=float, default=0.03, help="seconds to wait a step (default: %(default)s)")
    main(**vars(parser.parse_args()))
