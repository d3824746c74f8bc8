"""The data folder: the store, the immutable files that its rows name (either is elsewhere if it has a URL), and the
clock that stamps them.

`once` is how every write is made: the effect and the reply kept under the caller's idempotency key are one
transaction, so a retry finds both or neither; and so is what it counts of what the caller's key may store.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import structlog
from sqlalchemy import Connection

from mier_service.access.callers import current_caller
from mier_service.access.key_bounds import ROW_BYTES, KeyBounds, Room
from mier_service.config import CannotStart
from mier_service.data.durable import make_folder
from mier_service.data.files import ContentFiles
from mier_service.data.folder_mark import bind, require_own, require_pair
from mier_service.data.layout import Kind, content_files
from mier_service.data.places import place_at
from mier_service.errors import Reason, ServiceError
from mier_service.store import idempotency_rows, operation_rows, session_rows, usage_rows
from mier_service.store.idempotency_rows import Retry
from mier_service.store.url import open_store
from mier_service.values import Value

V = TypeVar("V", bound=Value)
_log = structlog.get_logger(__name__)
KEYS_KEPT_S = 7 * 24 * 3600.0


@dataclass
class Write(Generic[V]):
    """A write under way: either `earlier` is the reply to the same request, or the block sets `reply`."""

    c: Connection
    earlier: V | None
    reply: V | None = field(default=None)
    stored: Counter[str] = field(default_factory=Counter)
    """Bytes by session, as `added` was told."""

    @property
    def result(self) -> V:
        result = self.earlier if self.earlier is not None else self.reply
        assert result is not None, "a write sets its reply"
        return result

    def added(self, session_id: str, rows: int, content_bytes: int = 0) -> None:
        """The block added rows to the session, and arrays or files of that size with them."""
        self.stored[session_id] += rows * ROW_BYTES + content_bytes


class Storage:
    """Everything durable, in one folder."""

    def __init__(
        self,
        folder: Path,
        connections: int,
        clock: Callable[[], float],
        store_url: str | None = None,
        bounds: KeyBounds | None = None,
        files_url: str | None = None,
    ) -> None:
        """Opens the folder, making it if need be. OSError if that is impossible; `CannotStart` for a URL that is none
        of ours."""
        make_folder(folder)
        self._folder = folder
        try:
            self._place = place_at(files_url or folder)
        except ValueError as error:
            raise CannotStart(f"--files-url: {error}") from error
        self.clock = clock
        self.bounds = bounds or KeyBounds()
        self.store = open_store(folder, store_url, connections)
        self._together = not self.store.shared and not files_url
        self.weights = content_files(self._place, Kind.WEIGHTS)
        self.onnx = content_files(self._place, Kind.POLICIES)
        self.saves = content_files(self._place, Kind.SAVES)

    def prepare(self, alone: bool = True) -> None:
        """At the start of the service, before any worker: migrates, and clears what a crash left behind.

        Args:
            alone: no other service is at work. Where one is, its workers' leases and files are left as they are.
        """
        require_own(self._place, self._folder, self.store)
        if not alone:
            self._join()
            return
        self.store.migrate()
        with self.store.write() as c:
            bind(c, self._place, self._kinds(), self._together)
            operation_rows.expire_leases(c)
            idempotency_rows.forget_before(c, self.clock() - KEYS_KEPT_S)
            pairs = session_rows.file_hashes(c)
            used = (
                (self.weights, {weights for weights, _ in pairs}),
                (self.onnx, {onnx for _, onnx in pairs}),
                (self.saves, operation_rows.save_hashes(c)),
            )
            for files, names in used:
                files.remove_leftovers()
                for name in files.names() - names:
                    files.remove(name)

    def _join(self) -> None:
        if not self.store.is_current():
            raise ServiceError(
                Reason.STORAGE_UNAVAILABLE,
                f"expected a store with this release's schema, got {self.store.schema() or 'none'}, and other services "
                "are using it: stop them first, so that this one can bring it up to date, or start their release",
            )
        with self.store.read() as c:
            require_pair(c, self._place)

    def _kinds(self) -> tuple[ContentFiles, ...]:
        return (self.weights, self.onnx, self.saves)

    @contextmanager
    def once(
        self, retry: Retry, reply_type: type[V], room: Room = Room.DATA, of: str | None = None
    ) -> Iterator[Write[V]]:
        """A durable write that the same idempotency key makes once, and that the caller's bound has room for. `of`: see
        `Store.write`."""
        with self.store.write(of, retry.key) as c:
            earlier = idempotency_rows.earlier_reply(c, retry)
            write = Write(c, reply_type.model_validate_json(earlier) if earlier is not None else None)
            yield write
            if write.earlier is None:
                caller = current_caller()
                idempotency_rows.remember(c, retry, write.result.model_dump_json(), self.clock(), caller)
                for session_id, stored_bytes in write.stored.items():
                    usage_rows.add(c, caller, session_id, stored_bytes)
                if retry.key or write.stored:
                    self.bounds.require_stored(usage_rows.stored_bytes(c, caller), room)

    def drop_unused(self, versions: set[tuple[str, str]], saves: set[str]) -> None:
        """Removes the files of deleted rows, unless equal versions name them too. The write lock keeps a worker
        from publishing the same content in between. The rows are gone for good by then: where the storage fails now,
        the files stay until the next start, and the caller's change is none the less made."""
        if not versions and not saves:
            return
        try:
            self._drop_unused(versions, saves)
        except ServiceError as error:
            _log.warning("files_left", detail=error.detail)

    def _drop_unused(self, versions: set[tuple[str, str]], saves: set[str]) -> None:
        with self.store.write() as c:
            weights, onnx = session_rows.named_files(c, versions)
            for name in {pair[0] for pair in versions} - weights:
                self.weights.remove(name)
            for name in {pair[1] for pair in versions} - onnx:
                self.onnx.remove(name)
            # Equal sessions learn alike: another one's fine-tune may be at the same point.
            for save_hash in saves - operation_rows.save_hashes(c):
                self.saves.remove(save_hash)

    def room(self) -> tuple[int, int]:
        """Bytes of the database, and bytes that are left on the disk of the folder. OSError if the latter cannot be
        told."""
        return self.store.used_bytes(), shutil.disk_usage(self._folder).free

    def close(self) -> None:
        self.store.close()
