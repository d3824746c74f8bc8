"""Ends a process of the service by SIGKILL at a named moment of its writing to disk.

The service has no hooks for this: inside the process under test, the few functions through which every durable write
goes are wrapped. A moment is named `before commit: lease.Job.publish`, after the function of the service that asked
for the write; `write_paths.py` lists them all.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

from sqlalchemy import Connection, event

_PACKAGE = "mier_service."
_PASSED_OVER = (
    "mier_service.data.files",
    "mier_service.store.store",
    "mier_service.data.data_lock",
    "mier_service.data.purging",
)
"""How something is written, not who writes it."""
_STEPS = {"storage.Storage.once", "lease.Job._change", "lease.Job._drop_save_if"}

_MIGRATE = "store.Store.migrate"


@dataclass(frozen=True)
class Armed:
    """At which moment to end, the how manieth time, and whom: the process alone, or its whole group."""

    point: str
    times: int
    group: bool
    trigger: str
    """A file: nothing happens until it is there."""
    note: str
    """A file that is written just before the end."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> Self:
        return cls(**values)


class _Moments:
    """Counts, and kills."""

    def __init__(self, armed: Armed) -> None:
        self._armed = armed
        self._left = armed.times
        self._lock = threading.Lock()

    def reach(self, moment: str, place: str | None = None) -> None:
        place = place or _place()
        if place is None or f"{moment}: {place}" != self._armed.point or not os.path.exists(self._armed.trigger):
            return
        with self._lock:
            self._left -= 1
            if self._left:
                return
            Path(self._armed.note).write_text(self._armed.point)
            if self._armed.group:
                os.killpg(0, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
            threading.Event().wait()  # for the signal


def install(armed: Armed) -> None:
    """Wraps what writes, in this process."""
    from mier_service.store import promotion_rows
    from mier_service.store.store import Store

    moments = _Moments(armed)
    write: Callable[[Store], Any] = Store.write
    migrate = Store.migrate
    fsync, replace, unlink, swap = os.fsync, Path.replace, Path.unlink, promotion_rows.swap

    @contextmanager
    def write_and_tell(self: Store, *arguments: Any, **named: Any) -> Iterator[Connection]:
        with write(self, *arguments, **named) as c:
            yield c
            moments.reach("before commit")
        moments.reach("after commit")

    def migrate_and_tell(self: Store) -> None:
        def before(_: Connection) -> None:
            moments.reach("before commit", _MIGRATE)

        event.listen(self.engine, "commit", before)
        migrate(self)
        event.remove(self.engine, "commit", before)
        moments.reach("after commit", _MIGRATE)

    def fsync_and_tell(descriptor: int) -> None:
        folder = Path(f"/proc/self/fd/{descriptor}").is_dir()
        if not folder:
            moments.reach("before fsync")
        fsync(descriptor)
        if folder:
            moments.reach("after folder sync")

    def replace_and_tell(self: Path, target: Path) -> Path:
        moments.reach("before rename")
        result = replace(self, target)
        moments.reach("after rename")
        return result

    def unlink_and_tell(self: Path, missing_ok: bool = False) -> None:
        moments.reach("before unlink")
        unlink(self, missing_ok=missing_ok)
        moments.reach("after unlink")

    def swap_and_tell(*arguments: Any) -> None:
        moments.reach("before swap")
        swap(*arguments)
        moments.reach("after swap")

    replaced: list[tuple[Any, str, Any]] = [
        (Store, "write", write_and_tell),
        (Store, "migrate", migrate_and_tell),
        (os, "fsync", fsync_and_tell),
        (Path, "replace", replace_and_tell),
        (Path, "unlink", unlink_and_tell),
        (promotion_rows, "swap", swap_and_tell),
    ]
    for owner, name, function in replaced:
        setattr(owner, name, function)


def _place() -> str | None:
    """The function of the service that asked for what is being done."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module == "__main__" and frame.f_globals.get("__spec__") is not None:
            module = frame.f_globals["__spec__"].name
        if module.startswith(_PACKAGE):
            place = f"{module.rpartition('.')[2]}.{frame.f_code.co_qualname}"
            if not module.startswith(_PASSED_OVER) and place not in _STEPS:
                return place
        frame = frame.f_back
    return None
