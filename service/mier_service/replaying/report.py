"""What `mierctl replay` prints."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mier_service.data.checkpoints import Checkpoints
from mier_service.data.layout import Kind, content_files
from mier_service.mierctl.output import note, print_json
from mier_service.provenance import build
from mier_service.replaying.finding import Finding, exit_status
from mier_service.replaying.log import Log
from mier_service.replaying.replay import other_builds, replay
from mier_service.replaying.tolerance import ACTION_SHARE, CONTEXT_STDS, SCORE_SHARE
from mier_service.replaying.versions import Files


def report(log: Log, checkpoints: Path, data: Path, *, as_json: bool) -> int:
    """Replays the session and says what is found; the exit status."""
    files = Files(content_files(data, Kind.WEIGHTS), content_files(data, Kind.POLICIES))
    others = other_builds(log)
    found = list[Finding]()
    for finding in replay(log, Checkpoints(checkpoints), files, _tell):
        found.append(finding)
        if not as_json:
            print(finding, flush=True)
    if as_json:
        print_json(_json(log, found, others))
    else:
        _sum_up(log, found, others)
    return exit_status(found)


def _tell(version: int, done: int, total: int) -> None:
    if done == total or done % max(100, total // 1000 * 200) == 0:
        note(f"version {version}: {done} of {total} updates made again")


def _sum_up(log: Log, found: list[Finding], others: list[str]) -> None:
    for row in log.operations.values():
        if not row.result_version:
            made = f"{row.updates_done} of {row.updates_total} updates"
            print(f"fine-tune {row.id}: {row.state} after {made}, no version")
    counts = Counter(finding.outcome.value.replace("_", " ") for finding in found if finding.what != "transitions")
    print(f"session {log.session.id}: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    print(f"this build: {build()}")
    for other in others:
        print(f"made with: {other}")
    print(f"compared: bit for bit{'' if not others else ' where this build made it; elsewhere ' + _tolerance()}")


def _tolerance() -> str:
    return (
        f"contexts within {CONTEXT_STDS:g} of the training tasks' deviations, scores within {SCORE_SHARE:.0%}, mean "
        f"actions of fine-tuned policies within {ACTION_SHARE:.0%} of their range, verdicts of the gate the same"
    )


def _json(log: Log, found: list[Finding], others: list[str]) -> dict[str, object]:
    return {
        "session": log.session.id,
        "exit_status": exit_status(found),
        "build": build(),
        "made_with_others": others,
        "tolerance": _tolerance() if others else None,
        "findings": [finding.to_json() for finding in found],
    }
