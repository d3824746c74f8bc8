"""Whether tensors from a file are those that something needs: names, shapes, types, finite values.

Torch's own loading converts types in silence and takes whatever values come. Errors are `ValueError`s, which each
reader turns into its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_SHOWN = 3


def require_state(what: str, came: Any, expected: Mapping[str, Tensor]) -> None:
    """Refuses what is not exactly the `expected` tensors, with finite values of its own. Only the shapes and types of
    `expected` count, so it may lie on the meta device, where it takes no memory."""
    if not isinstance(came, Mapping):
        raise ValueError(f"{what}: expected tensors by name, came {type(came).__name__}")
    if missing := sorted(set(expected) - set(came)):
        raise ValueError(f"{what}: {len(missing)} tensors are missing, such as {missing[:_SHOWN]}")
    if unknown := sorted(set(came) - set(expected), key=str):
        raise ValueError(
            f"{what}: {len(unknown)} tensors are of nothing that is known, such as {unknown[:_SHOWN]!r:.200}"
        )
    for name, tensor in expected.items():
        require_tensor(f"{what}.{name}", came[name], tuple(tensor.shape), tensor.dtype)


def require_tensor(
    what: str, came: Any, shape: tuple[int | None, ...], dtype: torch.dtype = torch.float32, *, finite: bool = True
) -> None:
    """Refuses what is no tensor of that shape (None: any length) and type, or not finite."""
    if not isinstance(came, Tensor):
        raise ValueError(f"{what}: expected a tensor, came {type(came).__name__}")
    fits = len(shape) == came.ndim and all(want in (None, have) for want, have in zip(shape, came.shape, strict=True))
    if not fits or came.dtype is not dtype:
        wanted = "[" + ", ".join("n" if length is None else str(length) for length in shape) + "]"
        raise ValueError(f"{what}: expected {dtype} {wanted}, came {came.dtype} {list(came.shape)}")
    if finite and came.is_floating_point() and not came.isfinite().all():
        raise ValueError(f"{what}: expected finite values, came others")


def require_adam(what: str, came: Any, optimizer: torch.optim.Optimizer) -> None:
    """Refuses what is no state of this optimiser: other parameters, or other settings than the learning rate."""
    own: dict[str, Any] = optimizer.state_dict()
    if not isinstance(came, Mapping) or set(came) != set(own):
        raise ValueError(f"{what}: expected the state of an optimiser, came something else")
    groups = came["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(own["param_groups"]):
        raise ValueError(f"{what}: expected {len(own['param_groups'])} groups of parameters, came others")
    for group, mine in zip(groups, own["param_groups"], strict=True):
        if not isinstance(group, Mapping) or not isinstance(rate := group.get("lr"), float) or not rate >= 0.0:
            raise ValueError(f"{what}: expected a learning rate, came none")
        # By representation, as JSON brings it: a pair is a list there.
        if repr(_lists({**group, "lr": 0.0})) != repr(_lists({**mine, "lr": 0.0})):
            raise ValueError(f"{what}: expected the settings of this optimiser, came others")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    moments = came["state"]
    if not isinstance(moments, Mapping) or (moments and set(moments) != set(range(len(parameters)))):
        raise ValueError(f"{what}: expected moments of {len(parameters)} parameters or none, came others")
    for index, parameter in enumerate(parameters if moments else ()):
        shape = tuple(parameter.shape)
        entry = moments[index]
        if not isinstance(entry, Mapping) or set(entry) != {"step", "exp_avg", "exp_avg_sq"}:
            raise ValueError(f"{what}: expected the moments of parameter {index}, came something else")
        require_tensor(f"{what}.{index}.step", entry["step"], ())
        require_tensor(f"{what}.{index}.exp_avg", entry["exp_avg"], shape, parameter.dtype)
        require_tensor(f"{what}.{index}.exp_avg_sq", entry["exp_avg_sq"], shape, parameter.dtype)


def load_state(what: str, module: nn.Module, came: Any) -> None:
    """Loads what fits the module; refuses anything else."""
    require_state(what, came, module.state_dict())
    module.load_state_dict(came)


def _lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _lists(value[key]) for key in sorted(value)}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value
