"""What comes out of a fine-tune is its best stage; and the imagined rows that it learns from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from mier.checkpoint import Checkpoint
from mier.config import FineTuneConfig
from mier.finetune import FineTune
from mier.judge import Judge
from mier.relabel import relabel_rewards
from mier.types import Transitions
from mier.world import World

Make = Callable[..., Transitions]
Ready = tuple[Checkpoint, Transitions]


def test_what_comes_out_is_the_best_stage_as_imagined_episodes_tell(
    ready: Ready, tiny_fine_tune: FineTuneConfig
) -> None:
    """Every stage is judged anew here, by an equal fine-tune that is not judged."""
    checkpoint, rows = ready
    # A rate at which the policy moves, for better or for worse.
    config = replace(tiny_fine_tune, learning_rate=0.03, judge_every_updates=2)
    came_out = set()
    for seed in range(6):
        judged = FineTune.start(checkpoint, None, rows, replace(config, judge_steps=6), seed)
        plain = FineTune.start(checkpoint, None, rows, config, seed)
        world = World(checkpoint.spec, plain.model, plain.model_context, checkpoint.agent.dynamics)
        judge = Judge.of(checkpoint, world, rows, 6)
        values, stages = [], []
        for _ in range(7):
            stages.append(plain.result())
            values.append(judge.mean_return(plain.sac.policy, plain.policy_context))
            plain.run(2)
            judged.run(2)
        best = int(np.argmax(values))
        assert judged.result().to_bytes() == stages[best].to_bytes()
        came_out.add(best)
    assert len(came_out) > 1


def test_a_judge_plays_from_real_first_states(ready: Ready) -> None:
    checkpoint, _ = ready
    buffer = checkpoint.relabel_buffer
    own = buffer.transitions.rows(buffer.episode < 2)
    world = World(checkpoint.spec, checkpoint.agent.model, torch.zeros(4), checkpoint.agent.dynamics)
    starts = Judge.of(checkpoint, world, own, 3).starts
    first = [int((buffer.episode == e).nonzero()[0]) for e in range(6)]
    assert torch.equal(starts, buffer.transitions.observation[first[:2] + first])


def test_where_the_reward_varies_a_share_of_the_rows_is_imagined(
    reward_checkpoint: Checkpoint, transitions: Make, tiny_fine_tune: FineTuneConfig
) -> None:
    """Of 16 rows 4 are real; of the other 12, half lead where the world says and not where anything was lived."""
    rows = transitions(reward_checkpoint.spec, 40, 3)
    lived = torch.cat([rows.next_observation, reward_checkpoint.relabel_buffer.transitions.next_observation])
    agent = reward_checkpoint.agent
    for share, expected in ((0.0, 0), (0.5, 6), (1.0, 12)):
        tuned = FineTune.start(reward_checkpoint, None, rows, replace(tiny_fine_tune, imagined_share=share), seed=1)
        tuned.run(7)
        batch = tuned._batch()
        new = torch.tensor([not bool((lived == state).all(-1).any()) for state in batch.next_observation])
        assert int(new.sum()) == expected
        if not expected:
            continue
        imagined = batch.rows(new)
        world = World(agent.spec, tuned.model, tuned.model_context, agent.dynamics)
        reward = relabel_rewards(world.model, world.context, imagined).reward
        torch.testing.assert_close(imagined.reward, reward)
