"""Joints flip in mid-run and a gate judges what comes of it: joints_that_flip.py [SERVICE [FURTHER_CHECKPOINT ...]]."""

import sys
import time

from mier_client import Client, SessionMode
from mier_client.recorder import Recorder, Step
from mier_envs.cheetah_families import negated_task
from mier_envs.families import FAMILIES
from mier_envs.switching import take_over


def main(service: str = "grpc://127.0.0.1:50051", *further: str) -> None:
    family, client = FAMILIES["cheetah-negated"], Client.connect(service)
    session = client.set_mode(client.create_session("cheetah-negated").id, SessionMode.CONTEXT).id
    recorder, env, acting = Recorder(client, session, submit_every_steps=10), family.make(negated_task((0, 1, 2))), [0]
    for episode in range(4):
        (seen, _), rewards, over = env.reset(seed=episode), list[float](), False
        while not over:
            if (episode, len(rewards)) == (1, 100):  # nobody tells the service
                env = take_over(env, family.make(negated_task((0, 1, 5))))
            acted = client.act(session, seen, episode=episode, step=len(rewards))
            after, reward, fell, ended, _ = env.step(acted.action)
            recorder.add(Step(seen, acted.action, float(reward), after, fell, ended, acted.policy_version))
            seen, over, rewards = after, fell or ended, [*rewards, float(reward)]
            time.sleep(0.03)
        now, acting = client.get_session(session), [*acting, acted.policy_version]
        print(f"return {sum(rewards):.0f}, task {now.task_number}, percentile {now.model_context.ood_percentile}")
    client.set_mode(session, SessionMode.OFF)
    for checkpoint in [*further, "cheetah-negated"]:
        client.move(session, checkpoint, reason="to see what its fine-tunes make")
        if checkpoint == "cheetah-negated":
            client.promote(session, acting[1], reason="by mistake: it acted before the flip")
        client.wait_operation(client.finetune(session, updates=300).id)
        print(checkpoint, (made := list(client.list_versions(session))[-1]).promotion.value, made.gate)


if __name__ == "__main__":
    main(*sys.argv[1:])
