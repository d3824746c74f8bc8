"""A session made again from its log: every model context and every version, each compared with what is stored.

Each is made from what is *stored* of those before it, so that one difference does not become all that follow; only
where that is damaged, from what was made in its place. If all are equal, all would be if made one from the other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import torch

from mier_service.data.checkpoints import Checkpoints
from mier_service.provenance import build
from mier_service.replaying.contexts import Contexts
from mier_service.replaying.finding import Finding, Outcome
from mier_service.replaying.log import Log
from mier_service.replaying.versions import Files, Progress, Versions


def replay(log: Log, checkpoints: Checkpoints, files: Files, tell: Progress) -> Iterator[Finding]:
    """What is found, as it is found: stored transitions, model contexts and versions in the order of their numbers."""
    torch.set_num_threads(1)  # as the service computes: more would add up in another order
    yield from _transitions(log)
    contexts = Contexts(log, checkpoints)
    for context in log.contexts.values():
        yield contexts.replay(context)
    versions = Versions(log, checkpoints, files, contexts, tell)
    for version in log.versions.values():
        yield versions.replay(version)


def other_builds(log: Log) -> list[str]:
    """Builds and CPU kinds other than this one that made some of it: for these a tolerance holds, not every bit."""
    made = [record.origin.made_with for record in log.contexts.values() if record.origin is not None]
    made += [each for record in log.versions.values() for each in record.builds]
    unknown = any(not record.builds for record in log.versions.values())
    unknown |= any(record.origin is None for record in log.contexts.values())
    others = [text for text in Counter(made) if text != build()]
    return [*others, *([json.dumps("not recorded")] if unknown else [])]


def _transitions(log: Log) -> Iterator[Finding]:
    """Whether they are what was stored, and all of it."""
    for batch in log.damaged():
        detail = f"it is not what was stored (row {batch.row} of transition_batches has another sha256)"
        yield Finding("transitions", f"{batch.first} to {batch.first + batch.count - 1}", Outcome.DIFFERENT,
                      f"{batch}: {detail}")  # fmt: skip
    if len(log.rows) != log.session.transitions_count:
        detail = f"expected {log.session.transitions_count}, {len(log.rows)} are stored"
        yield Finding("transitions", "all", Outcome.DIFFERENT, detail)
    unknown = sum(batch.count for batch in log.batches if batch.intact is None)
    known = len(log.rows) - unknown - sum(batch.count for batch in log.damaged())
    if known or not unknown:
        yield Finding("transitions", f"{known} of {len(log.rows)}", Outcome.EQUAL)
    if unknown:
        detail = "stored before releases kept digests; taken as they are"
        yield Finding("transitions", f"{unknown} of {len(log.rows)}", Outcome.NOT_REPLAYED, detail)
