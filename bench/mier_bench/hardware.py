"""What the figures were measured on."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from mier_mujoco import provenance

_OF_INTEREST = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16")


def cpu_flags() -> list[str]:
    """Instruction sets that decide how fast matrix products are; empty where the system does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return [flag for flag in _OF_INTEREST if flag in line.split()]


def has_amx() -> bool:
    return "amx_bf16" in cpu_flags()


def hardware() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return provenance.hardware() | {"cpu_flags": cpu_flags(), "gpus": gpus}


def versions() -> dict[str, str]:
    return provenance.versions() | {"stable-baselines3": metadata.version("stable-baselines3")}
