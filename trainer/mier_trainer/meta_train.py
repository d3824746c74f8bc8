"""Meta-training (paper, Algorithm 1), one epoch at a time.

An epoch is a function of (state, seed, epoch number): every random draw of epoch e comes from generators seeded by
(seed, e), so a run resumed at an epoch's end goes on to the same result as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mier import sac
from mier.actuator_frame import unsigned_context
from mier.adaptation import infer_context, joint_loss, meta_loss
from mier.agent import Agent
from mier.dreams import dreamed_contexts, dreamed_rewards, with_hindsight
from mier.types import EnvSpec, Transitions
from mier_envs.families import FAMILIES, Task
from mier_trainer.epoch_random import EpochRandom
from mier_trainer.experience import Experience
from mier_trainer.rollout import collect, flatten_episodes
from mier_trainer.runs import Run

_CONTEXT_NORM_RATE = 0.1
_CONTEXT_INITIAL_STD = 0.1
_CONTEXT_MINIMUM_STD = 1e-2
_GAIN_MINIMUM_STD = 0.25
"""For policy and critic: lesser differences between an actuator's gains are not tasks, but errors of adaptation."""


@dataclass
class MetaTrainer:
    """Networks, optimisers and replay of one run; `epoch` moves it, `state_dict` carries it."""

    run: Run
    seed: int
    agent: Agent
    sac_state: sac.SacState
    model_optimizer: torch.optim.Adam
    experience: Experience
    task_contexts: Tensor
    """[tasks, context_dim] learned together with the model, where `AdaptConfig.joint` says so."""
    epochs_done: int = 0

    @staticmethod
    def start(run: Run, seed: int, device: torch.device) -> MetaTrainer:
        family = FAMILIES[run.family]
        spec = EnvSpec.from_json(family.spec_json())
        tasks = family.train_tasks(seed)
        torch.manual_seed(seed)
        agent = Agent.build(spec, run.configuration, len(tasks))
        for module in agent.modules().values():
            module.to(device)
        trained = [p for p in agent.model.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [{"params": trained}]
        adapt, capacity = run.configuration.adapt, run.training.buffer_capacity
        task_contexts = (_CONTEXT_INITIAL_STD * torch.randn(len(tasks), agent.model.config.context_dim)).to(device)
        if adapt.joint:
            groups.append({"params": [task_contexts.requires_grad_()], "lr": adapt.joint_learning_rate})
        return MetaTrainer(
            run,
            seed,
            agent,
            sac.SacState.start(spec, agent.policy, agent.critic, run.configuration.sac),
            torch.optim.Adam(groups, lr=run.training.model_learning_rate, fused=True),
            Experience.start(family, tasks, spec, before=capacity, everything=capacity, device=device),
            task_contexts,
        )

    @property
    def tasks(self) -> list[Task]:
        return self.experience.tasks

    @property
    def environment_steps(self) -> int:
        return self.experience.environment_steps

    @property
    def device(self) -> torch.device:
        return self.agent.model.prior_context.device

    def epoch(self, on_step: Callable[[int], None]) -> dict[str, float]:
        """Collect, then train; returns mean metrics. `on_step` hears of every model step."""
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
        trained = set(self.experience.everything.filled_tasks.tolist()) if self.run.configuration.adapt.joint else set()
        stages = {
            "prior": (training.prior_episodes, self._prior),
            "adapted": (training.adapted_episodes, lambda rows: self._adapted(rows, trained)),
            "dreamed": (training.dreamed_episodes, lambda rows: self._dreamed(len(rows), draw)),
        }
        for stage, (episodes, contexts_of) in stages.items():
            if not episodes:
                continue
            rows = [int(t) for t in chosen for _ in range(episodes)]
            returns[f"return_{stage}"] = self.experience.gather(
                rows, self.agent.policy, contexts_of(rows), draw, adapted=stage != "prior"
            )
        return returns

    def _prior(self, rows: list[int]) -> Tensor:
        return self.agent.prior_context.expand(len(rows), -1)

    def _dreamed(self, count: int, draw: EpochRandom) -> Tensor:
        return dreamed_contexts(self._known(), count, self.run.training.dream_reach, draw.torch)

    def _known(self) -> Tensor:
        """[k, context_dim]: contexts of the tasks that there is data of, from which dreams go on."""
        known = self.task_contexts.detach()
        filled = self.experience.everything.filled_tasks
        return known[filled] if len(filled) > 1 else known

    def _adapted(self, rows: list[int], trained: set[int]) -> Tensor:
        """What a task adapts to: where contexts are learned, the learned one, once there was an epoch to learn it."""
        contexts = self.task_contexts.detach()[rows]
        new = [i for i, task in enumerate(rows) if task not in trained]
        if new:
            contexts[new] = self._inferred([rows[i] for i in new])
        return contexts

    def contexts(self, tasks: list[int]) -> Tensor:
        """[len(tasks), context_dim]: the learned ones, or where there are none those that a test task would get."""
        if self.run.configuration.adapt.joint:
            return self.task_contexts.detach()[tasks]
        return self._inferred(tasks)

    def training_contexts(self) -> Tensor:
        """[tasks, context_dim] on the CPU, as a checkpoint keeps them; a task without data yet has the prior's."""
        filled = [int(t) for t in self.experience.everything.filled_tasks]
        contexts = self.agent.prior_context.detach().expand(len(self.tasks), -1).clone()
        contexts[filled] = self.contexts(filled)
        return contexts.cpu()

    def _inferred(self, tasks: list[int]) -> Tensor:
        """[len(tasks), context_dim]: each task's context from its latest prior episodes, as a test task would get."""
        adapt, model = self.run.configuration.adapt, self.agent.model
        window = self.run.training.prior_episodes * self.agent.spec.horizon_steps
        known = self.task_contexts.detach()[self.experience.before.filled_tasks] if adapt.joint else None
        found: dict[int, Tensor] = {}
        for task in tasks:
            if task not in found:
                latest = self.experience.before.contents(task).rows(slice(-window, None))
                found[task] = infer_context(model, latest, adapt, later_steps=adapt.later_steps, known=known).detach()
        return torch.stack([found[task] for task in tasks])

    def _fit_normalizers(self, draw: EpochRandom) -> None:
        agent, filled = self.agent, self.experience.everything.filled_tasks
        if self.epochs_done < self.run.training.normalizer_epochs:
            rate = 1.0 / (1.0 + self.epochs_done)
            modules = (agent.model, agent.policy, agent.critic)
            rows = self.experience.fit_normalizers(modules, rate, draw)
            target = torch.cat([rows.reward[:, None], rows.next_observation - rows.observation], -1)
            agent.model.target_norm.fit(target[:, : agent.model.target_dim], rate=rate)
        contexts = self.contexts([int(t) for t in filled[-32:]])
        floor = _CONTEXT_MINIMUM_STD
        if agent.policy.frame_dim:
            contexts, floor = unsigned_context(contexts, agent.policy.frame_dim), _GAIN_MINIMUM_STD
        elif self.run.training.dream_reach:
            contexts = torch.cat([contexts, self._dreamed(len(contexts), draw)])
        # One scale for all entries: an entry that no training task moves must not be blown up to unit variance.
        mean = contexts.mean(0)
        scale = (contexts - mean).square().mean().sqrt().clamp_min(floor)
        rate = _CONTEXT_NORM_RATE if self.epochs_done else 1.0
        for norm in (
            agent.policy.context_norm,
            agent.critic.context_norm,
            self.sac_state.target_critic.context_norm,
        ):
            norm.mean.lerp_(mean, rate)
            norm.std.lerp_(scale.expand_as(norm.std), rate)
        self.sac_state.target_critic.observation_norm.load_state_dict(agent.critic.observation_norm.state_dict())

    def _train(self, draw: EpochRandom, on_step: Callable[[int], None]) -> dict[str, float]:
        training, adapt = self.run.training, self.run.configuration.adapt
        model, filled = self.agent.model, self.experience.before.filled_tasks
        trained = [p for group in self.model_optimizer.param_groups for p in group["params"]]
        sums: dict[str, Tensor] = {}
        for step in range(training.model_steps):
            tasks = filled[torch.randint(len(filled), (training.meta_batch_tasks,), generator=draw.torch)]
            loss, metrics, context, evaluation = self._loss(tasks, draw)
            self.model_optimizer.zero_grad()
            loss.backward()
            metrics["gradient_norm"] = torch.nn.utils.clip_grad_norm_(trained, training.gradient_clip)
            self.model_optimizer.step()
            for repeat in range(training.sac_steps_per_model_step):
                if repeat:
                    evaluation = self.experience.everything.sample(tasks, training.evaluation_rows, draw.torch)
                batch, own = self._with_dreams(tasks, evaluation, context, draw)
                rows = own.repeat_interleave(training.evaluation_rows, 0)
                noise = sac.SacNoise.draw(len(rows), self.agent.spec.action_dim, draw.torch)
                noise = sac.SacNoise(*(n.to(self.device) for n in noise))
                result = sac.update(self.sac_state, flatten_episodes(batch), rows, noise)
            for name, value in (metrics | result._asdict()).items():
                sums[name] = sums.get(name, torch.zeros((), device=self.device)) + value.detach()
            on_step(step)
        if adapt.joint:
            # What to expect of a task before any data: the middle of the known ones.
            model.prior_context.data.copy_(self.task_contexts.detach()[filled].mean(0))
        return {name: (total / training.model_steps).item() for name, total in sums.items()}

    def _with_dreams(
        self, tasks: Tensor, rows: Transitions, context: Tensor, draw: EpochRandom
    ) -> tuple[Transitions, Tensor]:
        """Rows [tasks, n, dim] and contexts [tasks, context_dim], the first of them dreamed instead."""
        training = self.run.training
        count = round(training.dream_share * len(context)) if training.dream_reach else 0
        if not count:
            return rows, context
        dreamed = self._dreamed(count, draw)
        imagined = dreamed_rewards(self.agent.model, dreamed, rows.rows(slice(count)))
        if training.dream_best_of > 1:
            more = self.experience.everything.sample(
                tasks[:count], training.evaluation_rows // 2 * training.dream_best_of, draw.torch
            )
            imagined = with_hindsight(
                dreamed, self._known(), imagined, dreamed_rewards(self.agent.model, dreamed, more)
            )
        lived = rows.rows(slice(count, None))
        return Transitions.concatenate([imagined, lived]), torch.cat([dreamed, context[count:]])

    def _loss(self, tasks: Tensor, draw: EpochRandom) -> tuple[Tensor, dict[str, Tensor], Tensor, Transitions]:
        """Outer loss of one model step, its parts, the tasks' contexts (detached), and the rows it was taken on."""
        training, adapt, model = self.run.training, self.run.configuration.adapt, self.agent.model
        if adapt.joint:
            evaluation = self.experience.everything.sample(tasks, training.evaluation_rows, draw.torch)
            context = self.task_contexts[tasks]
            return *joint_loss(model, evaluation, context, adapt), context.detach(), evaluation
        adaptation = self.experience.before.sample(tasks, training.adaptation_rows, draw.torch)
        evaluation = self.experience.everything.sample(tasks, training.evaluation_rows, draw.torch)
        return *meta_loss(model, adaptation, evaluation, adapt), evaluation

    def evaluate(self, tasks: list[Task], *, episodes: int, seed: int) -> list[dict[str, Any]]:
        """`adapted_returns` with the agent as it stands."""
        # What adapting compares with, and may start from.
        self.agent.training_contexts = self.training_contexts()
        count = self.run.training.prior_episodes
        return adapted_returns(self.agent, self.run.family, tasks, prior_episodes=count, episodes=episodes, seed=seed)

    def state_dict(self) -> dict[str, Any]:
        """Everything the next epoch depends on, as nested dictionaries of tensors and numbers."""
        return {
            "model": self.agent.model.state_dict(),
            "model_optimizer": self.model_optimizer.state_dict(),
            "sac": self.sac_state.state_dict(),
            "task_contexts": self.task_contexts.detach(),
            "epochs_done": self.epochs_done,
        } | self.experience.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.agent.model.load_state_dict(state["model"])
        self.model_optimizer.load_state_dict(state["model_optimizer"])
        self.sac_state.load_state_dict(state["sac"])
        self.experience.load_state_dict(state)
        # Saves of runs from before joint training have none, and need none.
        if "task_contexts" in state:
            self.task_contexts.data.copy_(state["task_contexts"])
        self.epochs_done = state["epochs_done"]


def adapted_returns(
    agent: Agent, family_name: str, tasks: list[Task], *, prior_episodes: int, episodes: int, seed: int
) -> list[dict[str, Any]]:
    """Each task's mean deterministic return before and after context adaptation, as a test task would go.

    Two exploring trajectories under the prior context, one adaptation, then `episodes` under each context.
    """
    family, draw = FAMILIES[family_name], EpochRandom.of(seed, 0)
    device = agent.model.prior_context.device
    prior = agent.prior_context.expand(len(tasks) * prior_episodes, -1)
    rows = [t for t in tasks for _ in range(prior_episodes)]
    gathered = collect(family, rows, agent.policy, prior, rng=draw.numpy, generator=draw.torch)
    adaptations = [
        agent.adapt(gathered.rows(slice(i * prior_episodes, (i + 1) * prior_episodes)).flat())
        for i in range(len(tasks))
    ]
    contexts = torch.stack([torch.from_numpy(a.context) for a in adaptations]).to(device)
    returns = {}
    for arm, z in (("unadapted", agent.prior_context.expand(len(tasks), -1)), ("context_adapted", contexts)):
        many = [t for t in tasks for _ in range(episodes)]
        played = collect(
            family,
            many,
            agent.policy,
            z.repeat_interleave(episodes, 0),
            rng=np.random.default_rng(seed),
            generator=None,
        )
        returns[arm] = played.returns().view(len(tasks), episodes).mean(-1)
    return [
        {
            "task": task.name,
            "unadapted": returns["unadapted"][i].item(),
            "context_adapted": returns["context_adapted"][i].item(),
            "nll_before": adaptations[i].nll_before,
            "nll_after": adaptations[i].nll_after,
            "context": [round(float(c), 4) for c in adaptations[i].context],
        }
        for i, task in enumerate(tasks)
    ]
