"""Row 7: the context kept up with each transition, against adapting anew to all of them."""

from __future__ import annotations

from mier import streaming
from mier.adaptation import infer_context, nll, split_holdout
from mier_bench import bundled
from mier_bench.interleaving import Pace, interleave
from mier_bench.row import MILLISECONDS, Row, Target, Wanted, compared, require_equal
from mier_envs.families import FAMILIES

ID = 7
TARGET = Target(Wanted.AT_LEAST, 30.0)


def rows(pace: Pace) -> list[Row]:
    return [_of(name, pace) for name in bundled.FAMILY_NAMES]


def _of(name: str, pace: Pace) -> Row:
    agent = bundled.checkpoint(name).agent
    model, config, known = agent.model, agent.configuration.adapt, agent.training_contexts
    task = FAMILIES[name].test_tasks[1]
    transitions = bundled.trajectories(name, [task], 2).rows(0)
    fit, held = split_holdout(transitions, config.holdout_fraction)
    # The first half in one batch, as after a robot's first trajectory; then one transition at a time.
    first = fit.rows(slice(fit.size // 2))
    belief = streaming.StreamingContext.after(
        model, first, infer_context(model, first, config, known=known), config, known
    )
    for i in range(first.size, fit.size):
        belief = streaming.observe(model, belief, fit.rows(slice(i, i + 1)), config, known)
    batch = nll(model, held, infer_context(model, fit, config, known=known)).item()
    streamed = nll(model, held, belief.mean).item()
    # Only a worse one counts as a difference.
    worse = max(0.0, (streamed - batch) / abs(batch))
    checked = {"held-out nll, relative": require_equal("held-out nll of the stream", worse, 0.02)}
    one = fit.rows(slice(0, 1))
    timed = interleave(
        {
            "stream": lambda: streaming.observe(model, belief, one, config, known),
            "batch": lambda: infer_context(model, fit, config, known=known),
        },
        pace,
    )
    return compared(
        ID,
        f"streaming context update, {task.name}",
        TARGET,
        MILLISECONDS,
        timed["stream"],
        ("adapting anew", timed["batch"]),
        checked=checked,
        notes=f"held-out NLL {streamed:.3f}, batch {batch:.3f}",
    )
