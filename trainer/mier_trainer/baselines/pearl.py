"""PEARL (Rakelly et al. 2019, "Efficient Off-Policy Meta-RL via Probabilistic Context Variables"): the baseline.

Equal to ours in environments, data per epoch, replay, policy and critic networks, SAC and its number of updates;
different in how a task is known: an encoder's posterior, trained by the critic's loss and an information bottleneck.
As in meta-training, an epoch is a function of (state, seed, epoch number).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mier import sac
from mier.networks import Policy, TwinCritic
from mier.types import EnvSpec
from mier_envs.families import FAMILIES, Task
from mier_trainer.baselines.pearl_encoder import ContextEncoder, kl_to_prior
from mier_trainer.epoch_random import EpochRandom
from mier_trainer.evaluate import EVALUATION_SEED
from mier_trainer.experience import Experience
from mier_trainer.rollout import collect, flatten_episodes
from mier_trainer.runs import PearlRun


@dataclass
class PearlTrainer:
    """Encoder, SAC and replay of one run; `epoch` moves it, `state_dict` carries it."""

    run: PearlRun
    seed: int
    spec: EnvSpec
    encoder: ContextEncoder
    encoder_optimizer: torch.optim.Adam
    sac_state: sac.SacState
    experience: Experience
    """The encoder is trained on each task's newest data under the prior."""
    epochs_done: int = 0

    @staticmethod
    def start(run: PearlRun, seed: int, device: torch.device) -> PearlTrainer:
        family, config, training = FAMILIES[run.family], run.configuration, run.training
        spec = EnvSpec.from_json(family.spec_json())
        tasks = family.train_tasks(seed)
        torch.manual_seed(seed)
        encoder = ContextEncoder(spec, config).to(device)
        policy = Policy(spec, config.context_dim, config.sac).to(device)
        critic = TwinCritic(spec, config.context_dim, config.sac).to(device)
        window = training.prior_episodes * spec.horizon_steps
        return PearlTrainer(
            run,
            seed,
            spec,
            encoder,
            torch.optim.Adam(encoder.parameters(), lr=config.learning_rate, fused=True),
            sac.SacState.start(spec, policy, critic, config.sac),
            Experience.start(family, tasks, spec, before=window, everything=training.buffer_capacity, device=device),
        )

    @property
    def tasks(self) -> list[Task]:
        return self.experience.tasks

    @property
    def environment_steps(self) -> int:
        return self.experience.environment_steps

    @property
    def device(self) -> torch.device:
        return self.encoder.head.weight.device

    def epoch(self, on_step: Callable[[int], None]) -> dict[str, float]:
        """Collect, then train; returns mean metrics. `on_step` hears of every encoder step."""
        draw = EpochRandom.of(self.seed, self.epochs_done)
        self.sac_state.set_learning_rate(
            self.run.training.rate_at(self.epochs_done, self.run.configuration.sac.learning_rate)
        )
        metrics = self._collect(draw)
        self._fit_normalizers(draw)
        metrics |= self._train(draw, on_step)
        self.epochs_done += 1
        return metrics

    def _collect(self, draw: EpochRandom) -> dict[str, float]:
        training = self.run.training
        chosen = draw.numpy.choice(len(self.tasks), training.tasks_per_epoch, replace=False)
        returns = {}
        for stage, episodes in (("prior", training.prior_episodes), ("adapted", training.adapted_episodes)):
            rows = [int(t) for t in chosen for _ in range(episodes)]
            adapted = stage == "adapted"
            contexts = self._sampled(rows, draw) if adapted else self._prior(len(rows), draw)
            returns[f"return_{stage}"] = self.experience.gather(
                rows, self.sac_state.policy, contexts, draw, adapted=adapted
            )
        return returns

    def _prior(self, count: int, draw: EpochRandom) -> Tensor:
        """[count, context_dim], one hypothesis a trajectory: exploring by posterior sampling (section 4.2)."""
        return torch.randn(count, self.run.configuration.context_dim, generator=draw.torch).to(self.device)

    @torch.no_grad()
    def _sampled(self, rows: list[int], draw: EpochRandom) -> Tensor:
        """[len(rows), context_dim], drawn from each row's task's posterior over its newest prior data."""
        noise = self._prior(len(rows), draw)
        posteriors = [self.encoder(self.experience.before.contents(task)) for task in rows]
        mean, variance = (torch.stack(parts) for parts in zip(*posteriors, strict=True))
        return mean + variance.sqrt() * noise

    def _fit_normalizers(self, draw: EpochRandom) -> None:
        if self.epochs_done >= self.run.training.normalizer_epochs:
            return
        rate, state = 1.0 / (1.0 + self.epochs_done), self.sac_state
        modules = (self.encoder, state.policy, state.critic, state.target_critic)
        rows = self.experience.fit_normalizers(modules, rate, draw)
        self.encoder.reward_norm.fit(rows.reward[:, None], rate=rate)

    def _train(self, draw: EpochRandom, on_step: Callable[[int], None]) -> dict[str, float]:
        training, filled = self.run.training, self.experience.before.filled_tasks
        steps = training.model_steps * training.sac_steps_per_model_step
        sums: dict[str, Tensor] = {}
        for step in range(steps):
            tasks = filled[torch.randint(len(filled), (training.meta_batch_tasks,), generator=draw.torch)]
            for name, value in self._update(tasks, draw).items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value.detach()
            if step % training.sac_steps_per_model_step == 0:
                on_step(step)
        return {name: (total / steps).item() for name, total in sums.items()}

    def _update(self, tasks: Tensor, draw: EpochRandom) -> dict[str, Tensor]:
        """One step of encoder, critics and policy (Algorithm 1, lines 14-20)."""
        training, config, state = self.run.training, self.run.configuration, self.sac_state
        posterior = self.encoder(self.experience.before.sample(tasks, training.adaptation_rows, draw.torch))
        z = posterior.mean + posterior.variance.sqrt() * self._prior(len(tasks), draw)
        batch = flatten_episodes(self.experience.everything.sample(tasks, training.evaluation_rows, draw.torch))
        noise = sac.SacNoise.draw(batch.size, self.spec.action_dim, draw.torch)
        noise = sac.SacNoise(*(n.to(self.device) for n in noise))
        context = z.repeat_interleave(training.evaluation_rows, 0)
        self.encoder_optimizer.zero_grad()
        kl = kl_to_prior(posterior)
        (config.kl_weight * kl).backward(retain_graph=True)
        # The critic's loss goes on through the context into the encoder.
        critic_loss, q_mean = sac.update_critic(state, batch, context, noise.next_action, config.sac.target_rate)
        self.encoder_optimizer.step()
        actor_loss, entropy = sac.update_actor(state, batch, context.detach(), noise.action)
        return {
            "kl": kl,
            "context_std": posterior.variance.sqrt().mean(),
            "critic_loss": critic_loss,
            "actor_loss": actor_loss,
            "entropy": entropy,
            "q_mean": q_mean,
            "alpha": state.log_alpha.exp(),
        }

    def evaluate(self, tasks: list[Task], *, episodes: int, seed: int) -> list[dict[str, Any]]:
        """Each task's mean deterministic return before and after adaptation, as a test task would go."""
        return [
            row | {arm: float(np.mean(row[arm])) for arm in ("unadapted", "context_adapted")}
            for row in self.adapted_episodes(tasks, episodes=episodes, seed=seed)
        ]

    def adapted_episodes(self, tasks: list[Task], *, episodes: int, seed: int) -> list[dict[str, Any]]:
        """Each task's deterministic episode returns under the prior's mean ('unadapted') and the posterior's.

        Two exploring trajectories under contexts drawn from the prior; the posterior's mean is what they are known by.
        """
        family, draw, count = FAMILIES[self.run.family], EpochRandom.of(seed, 0), self.run.training.prior_episodes
        policy = self.sac_state.policy
        rows = [t for t in tasks for _ in range(count)]
        gathered = collect(family, rows, policy, self._prior(len(rows), draw), rng=draw.numpy, generator=draw.torch)
        with torch.no_grad():
            blocks = (gathered.rows(slice(i, i + count)).flat() for i in range(0, len(rows), count))
            adapted = torch.stack([self.encoder(block).mean for block in blocks])
        many = [t for t in tasks for _ in range(episodes)]
        returns = {}
        for arm, z in (("unadapted", torch.zeros_like(adapted)), ("context_adapted", adapted)):
            contexts = z.repeat_interleave(episodes, 0)
            played = collect(family, many, policy, contexts, rng=np.random.default_rng(EVALUATION_SEED), generator=None)
            returns[arm] = played.returns().view(len(tasks), episodes).tolist()
        return [
            {"task": task.name, "target": task.target} | {arm: values[i] for arm, values in returns.items()}
            for i, task in enumerate(tasks)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Everything the next epoch depends on."""
        return {
            "encoder": self.encoder.state_dict(),
            "encoder_optimizer": self.encoder_optimizer.state_dict(),
            "sac": self.sac_state.state_dict(),
            "epochs_done": self.epochs_done,
        } | self.experience.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.encoder.load_state_dict(state["encoder"])
        self.encoder_optimizer.load_state_dict(state["encoder_optimizer"])
        self.sac_state.load_state_dict(state["sac"])
        self.experience.load_state_dict(state)
        self.epochs_done = state["epochs_done"]
