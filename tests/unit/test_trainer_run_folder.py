"""A run's files: saves replaced whole or not at all, logs cut to what a save holds, provenance."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from mier.serialization import CorruptedData, same
from mier_trainer.run_folder import RunFolder, append_jsonl, read_jsonl, write_atomically

STATE = {"weights": torch.arange(2000.0), "epoch": 3}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.open(tmp_path / "runs", "tiny", 4)


def test_a_new_folder_holds_no_save(folder: RunFolder) -> None:
    assert folder.path.name == "tiny-seed4"
    assert folder.load() is None
    assert folder.rows() == []


def test_saves_replace_each_other(folder: RunFolder) -> None:
    folder.save(STATE)
    assert same(folder.load(), STATE)
    folder.save({"epoch": 4})
    assert folder.load() == {"epoch": 4}
    assert [file.name for file in folder.path.iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize("when", ["before the data is on disk", "before the rename"])
def test_an_interrupted_save_leaves_the_old_one(folder: RunFolder, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    folder.save(STATE)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if when == "before the rename":
            patch.setattr(Path, "replace", interrupted)
        else:
            patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            folder.save({"epoch": 4})
    assert same(folder.load(), STATE)
    # What was left over does not get in the way.
    (folder.path / "state.safetensors.partial").write_bytes(b"half a save")
    folder.save({"epoch": 5})
    assert folder.load() == {"epoch": 5}
    assert not list(folder.path.glob("*.partial"))


def test_data_is_on_disk_before_the_old_save_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    rename = Path.replace

    def replace(path: Path, target: Path) -> Path:
        order.append("replace")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", lambda file: order.append(f"fsync {os.fstat(file).st_size}"))
    monkeypatch.setattr(Path, "replace", replace)
    write_atomically(tmp_path / "file", b"12345")
    assert order == ["fsync 5", "replace"]
    assert (tmp_path / "file").read_bytes() == b"12345"


def test_a_damaged_save_is_refused_by_name(folder: RunFolder) -> None:
    folder.save(STATE)
    path = folder.path / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptedData, match=r"state\.safetensors: .*or delete it to start the run anew"):
        folder.load()


def test_rows_past_the_save_are_cut(folder: RunFolder) -> None:
    for epoch in range(1, 6):
        folder.log({"epoch": epoch, "loss": epoch / 3})
    folder.cut_log("epoch", 3)
    assert folder.rows() == [{"epoch": epoch, "loss": epoch / 3} for epoch in (1, 2, 3)]
    folder.log({"epoch": 4})
    assert [row["epoch"] for row in folder.rows()] == [1, 2, 3, 4]
    folder.cut_log("epoch", 0)
    assert folder.rows() == []


def test_a_row_cut_short_by_a_kill_is_done_again(folder: RunFolder) -> None:
    folder.log({"epoch": 1})
    with folder.curve.open("a") as file:
        file.write('{"epoch": 2, "lo')
    assert folder.rows() == [{"epoch": 1}]
    folder.cut_log("epoch", 2)
    folder.log({"epoch": 2})
    assert folder.rows() == [{"epoch": 1}, {"epoch": 2}]


def test_damage_within_a_log_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n{"a": 2, oh\n{"a": 3}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl, line 2: expected JSON, came"):
        read_jsonl(path)


def test_appending_goes_on_after_a_cut_row(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.jsonl"
    append_jsonl(path, {"a": 1}, {"a": 2})
    with path.open("a") as file:
        file.write('{"a": 3')
    append_jsonl(path, {"a": 3})
    append_jsonl(path, {"a": 4})
    assert read_jsonl(path) == [{"a": n} for n in (1, 2, 3, 4)]


def test_a_run_describes_what_made_it(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/mier-train", "run", "tiny", "--seed", "4"])
    described = folder.describe(4, device="cpu", precision="bf16")
    assert json.loads((folder.path / "run.json").read_text()) == described
    assert described["command"] == "mier-train run tiny --seed 4"
    assert (described["seed"], described["device"], described["precision"]) == (4, "cpu", "bf16")
    assert set(described["versions"]) == {"python", "torch", "numpy", "gymnasium", "mujoco"}
    assert described["hardware"].startswith(f"{os.cpu_count()} x ")
