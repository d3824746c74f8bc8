"""What a figure of the study needs: which runs are evaluated how, and which of it is drawn (one TOML file a figure)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any, Self

from mier.config import FineTuneConfig
from mier_envs.families import FAMILIES
from mier_trainer.runs import RUNS

STAGES = ("unadapted", "context_adapted", "finetuned")


@dataclass(frozen=True)
class Evaluation:
    """One way to adapt to every test task of the family, on the checkpoint of one named run."""

    name: str
    run: str
    rounds: int = 1
    """Of two trajectories, adaptation and fine-tuning each; later ones go on from the one before."""
    curve_every: int = 0
    """Also act after every so many updates of the first round; 0 for not at all."""
    finetune: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the run's own fine-tune settings."""

    def __post_init__(self) -> None:
        if self.run not in RUNS:
            raise ValueError(f"evaluation '{self.name}': unknown run '{self.run}'; expected one of {', '.join(RUNS)}")

    def tuned(self, base: FineTuneConfig) -> FineTuneConfig:
        """`base` with this evaluation's differences."""
        return replace(base, **self.finetune)


@dataclass(frozen=True)
class Arm:
    """What one line or bar of the figure shows."""

    label: str
    evaluation: str
    stage: str


@dataclass(frozen=True)
class Study:
    """One figure: its family, its seeds, its evaluations and its arms."""

    name: str
    family: str
    seeds: tuple[int, ...]
    episodes: int
    evaluations: Mapping[str, Evaluation]
    arms: tuple[Arm, ...]
    relabelling: Mapping[str, str]
    """Evaluations whose return is drawn over fine-tune updates, with their labels."""

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"unknown family '{self.family}'; expected one of {', '.join(FAMILIES)}")
        for evaluation in self.evaluations.values():
            if (came := RUNS[evaluation.run].family) != self.family:
                raise ValueError(f"evaluation '{evaluation.name}': expected a run of {self.family}, came one of {came}")
        for label, name in [(arm.label, arm.evaluation) for arm in self.arms] + [
            (label, name) for name, label in self.relabelling.items()
        ]:
            if name not in self.evaluations:
                raise ValueError(f"'{label}': no evaluation '{name}'")
        for arm in self.arms:
            if arm.stage not in STAGES:
                raise ValueError(f"arm '{arm.label}': expected a stage of {', '.join(STAGES)}, came '{arm.stage}'")

    @classmethod
    def parse(cls, name: str, text: str) -> Self:
        """From the TOML of one figure.

        Raises:
            ValueError, TypeError: names what does not fit.
        """
        tree = tomllib.loads(text)
        return cls(
            name,
            tree["family"],
            tuple(tree["seeds"]),
            tree["episodes"],
            {key: Evaluation(key, **value) for key, value in tree["evaluations"].items()},
            tuple(Arm(**arm) for arm in tree["arms"]),
            tree["relabelling"],
        )


def studies() -> dict[str, Study]:
    """All figures, by name."""
    folder = files("mier_trainer").joinpath("studies")
    found = (entry for entry in folder.iterdir() if entry.name.endswith(".toml"))
    return {
        study.name: study
        for study in (Study.parse(entry.name.removesuffix(".toml"), entry.read_text()) for entry in found)
    }
