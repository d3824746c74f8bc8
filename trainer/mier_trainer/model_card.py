"""The model card of a checkpoint, generated from its manifest: nothing in it is written by hand."""

from __future__ import annotations

from typing import Any

from mier.checkpoint import Checkpoint


def model_card(checkpoint: Checkpoint) -> str:
    """Markdown."""
    m, agent = checkpoint.manifest, checkpoint.agent
    c = agent.configuration
    buffer = checkpoint.relabel_buffer
    parameters = {name: sum(p.numel() for p in module.parameters()) for name, module in agent.modules().items()}
    lines = [
        f"# Checkpoint `{checkpoint.name}`",
        "",
        f"Meta-trained with `{m['command']}` on {m['environment_steps']:,} environment steps "
        f"({m['epochs']} epochs, {m['sac_updates']:,} SAC updates, {m['training_seconds'] / 60:.0f} min on one core of "
        f"{m['hardware']}).",
        "",
        "![training curve](curve.png)",
        "",
        "| what | value |",
        "|---|---|",
        f"| family | {m['family']} ({m['training_tasks']} training tasks) |",
        f"| environment | {agent.spec.id}: {agent.spec.observation_dim} observations, {agent.spec.action_dim} actions, "
        f"{agent.spec.dt_s} s a step, horizon {agent.spec.horizon_steps} |",
        f"| variant | {c.name}: {c.model.conditioning} conditioning, {c.adapt.method} adaptation, "
        f"{c.model.context_dim} context dims{', action gate' if c.model.action_gate else ''} |",
        f"| parameters | {', '.join(f'{name} {count:,}' for name, count in parameters.items())} |",
        f"| relabel buffer | {len(buffer.task):,} episodes, {buffer.size:,} transitions, float16 |",
        f"| gate | {_gate(checkpoint)} |",
        f"| seed | {m['seed']} |",
        f"| versions | {', '.join(f'{k} {v}' for k, v in m['versions'].items())} |",
        f"| hash | `{checkpoint.hash}` |",
        "",
        "## Returns by context adaptation alone",
        "",
        f"{m['returns_protocol']['trajectories']} exploring trajectories, an adaptation after each, "
        f"{m['returns_protocol']['episodes']} deterministic episodes (seed {m['returns_protocol']['seed']}). "
        "Held-out NLL is of the model, before and after adaptation. Score: how far the context lies from those of the "
        "training tasks, in their standard deviations.",
        "",
        "| task | kind | unadapted | context-adapted | NLL before | NLL after | score |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_row(kind, row) for kind, rows in m["returns"].items() for row in rows]
    return "\n".join([*lines, "", "## Limits", "", _limits(checkpoint), ""])


def _gate(checkpoint: Checkpoint) -> str:
    if (gate := checkpoint.calibration.gate) is None:
        return "none: fine-tuned policies act unjudged (`mier-train calibrate` gives it one)"
    return (
        f"promotes what is better by more than {gate.promote_above:.1f} in imagined return, rejects what is worse by "
        f"more than {abs(gate.reject_below):.1f}; calibrated on {gate.candidates} candidates "
        "([calibration.jsonl](calibration.jsonl))"
    )


def _row(kind: str, row: dict[str, Any]) -> str:
    numbers = (row[key] for key in ("unadapted", "context_adapted"))
    nlls = (row[key] for key in ("nll_before", "nll_after", "ood_score"))
    return (
        f"| {row['task']} | {kind} | "
        + " | ".join([*(f"{n:.1f}" for n in numbers), *(f"{n:.2f}" for n in nlls)])
        + " |"
    )


def _limits(checkpoint: Checkpoint) -> str:
    return (
        f"Trained and evaluated in simulation only ({checkpoint.spec.id}); nothing here was run on a robot. "
        "It moves machines but is no safety system: limits, watchdogs and an emergency stop belong on the robot. "
        "Rows marked *test* are of tasks that training never saw. All are of one training seed; another may "
        "do better or worse."
    )
