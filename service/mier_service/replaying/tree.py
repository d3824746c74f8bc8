"""A session's lineage, from checkpoint to what acts: as values for programs, and as a tree to read.

A version under another was made from it. A straight line of versions is not indented further at each, or the thousandth
context that followed a task would be far to the right; of a run of these only the ends are shown.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from mier_service.replaying.log import ContextRecord, Log, VersionRecord
from mier_service.values import VersionOrigin

_RUN = 4
"""A run of followed contexts is shown as one line from so many on."""
_HEX = 12


def lineage(log: Log) -> dict[str, Any]:
    """Every version, model context and operation with what it was made from."""
    return {
        "session": log.session.model_dump(mode="json", include={"id", "checkpoint", "checkpoint_hash", "seed"})
        | {"active_version": log.session.active_version, "transitions_count": log.session.transitions_count},
        "versions": [
            record.value.model_dump(mode="json", exclude={"configuration_json", "made_with_json"})
            | {
                "configuration": json.loads(record.value.configuration_json or "null"),
                "made_with": json.loads(record.value.made_with_json or "null"),
                "onnx_hash": record.onnx_hash,
            }
            for record in log.versions.values()
        ],
        "model_contexts": [_context(record) for record in log.contexts.values()],
        "operations": [
            {name: getattr(row, name) for name in ("id", "state", "start_version", "result_version", "seed", "reason")}
            | {"first_transition": row.first_transition, "transitions_used": row.transitions_used}
            | {"made_with": json.loads(row.made_with_json or "null")}
            for row in log.operations.values()
        ],
        "promotions": [
            {name: getattr(row, name) for name in ("kind", "from_version", "to_version", "who", "reason")}
            for row in log.promotions
        ],
    }


def _context(record: ContextRecord) -> dict[str, Any]:
    origin = record.origin
    first = None if origin is None else origin.first_transition(record.value)
    return record.value.model_dump(mode="json") | {
        "followed": record.following_json is not None,
        "first_transition": first,
        "origin": None if origin is None else origin.model_dump(mode="json"),
    }


def lines(log: Log) -> Iterator[str]:
    """The tree."""
    children = defaultdict[int, list[int]](list)
    for number, record in log.versions.items():
        children[record.value.parent].append(number)
    yield f"session {log.session.id}"
    shown: str | None = None
    # (version, what stands before it): a stack, since a line may be thousands of versions long
    stack = [(number, "") for number in reversed(children[0])]
    while stack:
        number, margin = stack.pop()
        record = log.versions[number]
        if (named := f"{record.value.checkpoint} {record.value.checkpoint_hash[:_HEX]}") != shown:
            yield f"{margin}checkpoint {named}"
            shown = named
        run = _run(log, children, number)
        if len(run) >= _RUN:
            yield f"{margin}├ {_followed(log, run)}"
            number = run[-1]
        else:
            yield f"{margin}├ {_version(log, record)}"
        made = children[number]
        # The newest goes straight on, below what else was made from the same version.
        stack += [(child, margin if child == made[-1] else f"{margin}│ ") for child in reversed(made)]
    yield from _no_version(log)


def _run(log: Log, children: dict[int, list[int]], number: int) -> list[int]:
    """From that version on, followed contexts of which each was made from the one before it and from nothing else."""
    run = list[int]()
    while _is_followed(log, number) and number != log.session.active_version:
        run.append(number)
        if len(children[number]) != 1:
            break
        (number,) = children[number]
    return run


def _is_followed(log: Log, number: int) -> bool:
    value = log.versions[number].value
    context = log.contexts.get(value.model_context_number)
    return value.origin is VersionOrigin.ADAPT and context is not None and context.following_json is not None


def _version(log: Log, record: VersionRecord) -> str:
    value = record.value
    said = [f"version {value.number}"]
    if value.origin is VersionOrigin.FINE_TUNE:
        settings = json.loads(value.configuration_json or "{}")
        said.append(f"fine-tune {(value.operation_id or '')[:_HEX]} on {_transitions(value)}")
        said.append(f"{settings.get('updates')} updates, seed {value.seed}")
        relabelling = ("cross_task", "relabel_transitions", "rollout_steps", "best_share", "imagined_share")
        said.append("relabel " + " ".join(f"{name}={settings[name]}" for name in relabelling if name in settings))
        said.append(value.promotion.value)
    elif value.origin is VersionOrigin.ADAPT:
        context = log.contexts.get(value.model_context_number)
        followed = context is not None and context.following_json is not None
        percentile = None if context is None else context.value.ood_percentile
        how = "followed" if followed else "adapted"
        said.append(f"context {value.model_context_number} {how} from {_transitions(value)}")
        said += [] if percentile is None else [f"ood percentile {percentile:.1f}"]
    else:
        said.append("prior context")
    said.append(f"weights {value.weights_hash[:_HEX]}")
    said += ["ACTS" + (" (pinned)" if log.session.pinned else "")] if value.number == log.session.active_version else []
    return ", ".join(said)


def _followed(log: Log, run: list[int]) -> str:
    first, last = (log.versions[number].value for number in (run[0], run[-1]))
    return (
        f"versions {first.number} to {last.number}, contexts {first.model_context_number} to "
        f"{last.model_context_number} followed, at the end from {_transitions(last)}"
    )


def _transitions(value: Any) -> str:
    if value.first_transition is None:
        return f"{value.transitions_used} transitions"
    return f"transitions {value.first_transition} to {value.first_transition + value.transitions_used - 1}"


def _no_version(log: Log) -> Iterator[str]:
    """What was inferred and begun, and came to no version."""
    named = {record.value.model_context_number for record in log.versions.values()}
    if others := [str(number) for number in log.contexts if number not in named]:
        yield f"model contexts without a version: {_ranges(others)}"
    for row in log.operations.values():
        if not row.result_version:
            yield f"fine-tune {row.id[:_HEX]} from version {row.start_version}: {row.state}"


def _ranges(numbers: list[str]) -> str:
    shown = ", ".join(numbers[:20])
    return shown if len(numbers) <= 20 else f"{shown} and {len(numbers) - 20} more"
