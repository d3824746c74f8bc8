"""Every place of the service that writes to disk, read from its source; and the moments at which it is killed there.

`write_paths()` is what the source has; `TRIED`, `TRIED_APART` and `NOT_OF_THE_SERVICE` say what is done about each. A
test holds them against each other, so that a new write path has to be given its place here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import mier_service

_FILE_WRITES = {"put", "write_durably", "remove", "remove_leftovers", "write_bytes", "write_text", "rename", "replace"}
_FILE_WRITES |= {"unlink", "fsync", "sync_folder", "rmtree", "mkdir", "compact", "migrate", "connect", "copyfile"}
_RECEIVERS = {
    "write": {"store"},
    "once": {"storage"},
    "put": {"weights", "onnx", "saves", "ours"},
    "remove": {"weights", "onnx", "saves", "files", "kept"},
    "replace": {"temporary"},
    "connect": {"sqlite3"},
    "swap": {"promotion_rows"},
}
"""Calls of these names count on these objects only: the last part of what stands before the dot."""

COMMIT = ("before commit", "after commit")
PUT = ("before fsync", "before rename", "after rename", "after folder sync")
UNLINK = ("before unlink", "after unlink")
SWAP = ("before swap", "after swap")

SERVER = "server"
WORKER = "worker"

TRIED: dict[str, dict[str, tuple[str, ...]]] = {
    SERVER: {
        "storage.Storage.prepare": COMMIT,
        "life.Sessions._create": COMMIT,
        "life.Sessions._delete": COMMIT,
        "life.Sessions._set_state": COMMIT,
        "life.Sessions._set_mode": COMMIT,
        "self_adapting.SelfAdapting._write": COMMIT,
        "recording.Recording._submit": COMMIT,
        "learning.Learning._adapt": COMMIT,
        "publishing.publish_context": SWAP,
        "learning.Learning._fine_tune": COMMIT,
        "learning.Learning._cancel": COMMIT,
        "lineage.Lineage._decide": COMMIT,
        "lineage._apply": SWAP,
        "moving.Moving._move": COMMIT,
        "moving.Moving._record": SWAP,
        "retention.Retention._touch": COMMIT,
        "retention.Retention._forget_keys": COMMIT,
        "monitor.Monitor.try_store": COMMIT,
        "storage.Storage._drop_unused": (*COMMIT, *UNLINK),
    },
    WORKER: {
        "worker.Worker.work_once": COMMIT,
        "lease.Job.report": COMMIT,
        "lease.Job.save": (*COMMIT, *PUT),
        "lease.Job.end": COMMIT,
        "lease.Job.publish": (*COMMIT, *PUT, *SWAP),
        "lease.Job._renew": COMMIT,
        "storage.Storage._drop_unused": (*COMMIT, *UNLINK),
    },
}
"""Killed at under traffic, by process."""

TRIED_APART: dict[str, tuple[str, ...]] = {
    "retention.Retention._delete": COMMIT,
    "store.Store.migrate": COMMIT,
    "bootstrap.Service._announce": PUT,
    "life.Sessions._create": PUT,
    "moving.Moving._record": PUT,
    "storage.Storage.prepare": UNLINK,
    "folder_mark._write_mark": PUT,
}
"""Moments of the server that traffic on a grown store does not reach: each has a scene of its own."""

TRIED_IN = {
    "regression.roll_back_if_fallen": "test_kill_rollback",
    "shadowing._decide": "test_kill_shadow",
    "shadowing.Shadowing._compare": "test_kill_shadow",
}
"""Places of the server whose moments a test of their own tries."""

WITHIN = {
    "files.ContentFiles.put",
    "files.ContentFiles.remove",
    "files.ContentFiles.remove_leftovers",
    "files.write_durably",
    "files.sync_folder",
    "files.make_folder",
    "storage.Storage.once",
    "lease.Job._change",
    "data_lock._open",
    "store.Store.compact",
}
"""Steps of the places above (which are named after who asked for the write), folders made, and calls of them."""

BEHIND_A_STEP = {"lease.Job.report", "lease.Job.end", "store.Store.migrate"}
"""Places that have no write in their own lines: `lease.Job._change` and Alembic make it for them."""

NOT_OF_THE_SERVICE = {"backups", "mierctl"}
"""Modules of the operator's command: it works on folders of its own, or while no service runs (test_backup, ...)."""


def points(process: str) -> list[str]:
    """Names of the moments at which traffic gets the process killed."""
    return [f"{moment}: {place}" for place, moments in TRIED[process].items() for moment in moments]


def points_apart() -> list[str]:
    """Names of the moments that have a scene of their own."""
    return [f"{moment}: {place}" for place, moments in TRIED_APART.items() for moment in moments]


def write_paths() -> set[str]:
    """`module.Class.function` of every function of the service whose own lines write to disk."""
    root = Path(mier_service.__file__).parent
    found = set()
    for file in sorted(root.rglob("*.py")):
        packages = file.relative_to(root).parts[:-1]
        if "migrations" not in packages:
            module = f"mierctl.{file.stem}" if "mierctl" in packages else file.stem
            for name, node in _functions(ast.parse(file.read_text()), module):
                if any(_writes(call) for call in _own_calls(node)):
                    found.add(name)
    return found


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}.{child.name}"
            if not isinstance(child, ast.ClassDef):
                yield name, child
            yield from _functions(child, name)
        else:
            yield from _functions(child, prefix)


def _own_calls(node: ast.AST) -> Iterator[ast.Call]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(child, ast.Call):
            yield child
        yield from _own_calls(child)


def _writes(call: ast.Call) -> bool:
    function = call.func
    if isinstance(function, ast.Name):
        return function.id in ("write_durably", "sync_folder") or _opens_for_writing(function.id, call)
    if not isinstance(function, ast.Attribute):
        return False
    receiver = function.value
    name = receiver.attr if isinstance(receiver, ast.Attribute) else getattr(receiver, "id", "")
    if function.attr in _RECEIVERS:
        return name.strip("_") in _RECEIVERS[function.attr]
    return function.attr in _FILE_WRITES or _opens_for_writing(function.attr, call)


def _opens_for_writing(name: str, call: ast.Call) -> bool:
    if name != "open":
        return False
    modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return any(set(mode) & set("wax+") and len(mode) <= 3 for mode in modes)
