"""A policy's ONNX graph on the robot, run by ONNX Runtime alone.

The graph holds normalisers and action bounds; its inputs are observation, context and noise, its output is the action
in environment units.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mier_client.values import FloatArray


class Graph:
    """A loaded graph, for any number of contexts. Safe to share between threads."""

    def __init__(self, onnx: bytes) -> None:
        """ImportError: ONNX Runtime is not installed. Raises ONNX Runtime's own errors for what is no graph."""
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise ImportError("acting at the edge needs ONNX Runtime: pip install 'mier[edge]'") from error
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session: Any = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self.new_value: Any = ort.OrtValue.ortvalue_from_numpy
        both = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.dims = {item.name: int(item.shape[1]) for item in both}


class Actor:
    """A graph under one context. Not for several threads at once: its buffers are its own."""

    def __init__(self, graph: Graph, context: npt.ArrayLike) -> None:
        """context [context_dim]; ValueError if it does not fit."""
        dims = graph.dims
        self._session = graph.session
        self._observation = np.zeros((1, dims["observation"]), np.float32)
        self._noise = np.zeros((1, dims["noise"]), np.float32)
        self.observation_dim, self.action_dim = dims["observation"], dims["action"]
        self._shape = (self.observation_dim,)
        values: FloatArray = np.array(context, np.float32)
        if values.shape != (dims["context"],) or not np.isfinite(values).all():
            raise ValueError(f"expected a finite context [{dims['context']}], came {list(values.shape)}")
        self._action: FloatArray = np.zeros((1, dims["action"]), np.float32)
        self._context = values[None]
        self._finite = np.zeros(self._shape, np.bool_)
        # Bound once: the graph reads and writes these arrays where they lie.
        self._binding = graph.session.io_binding()
        self._kept = {
            name: graph.new_value(array)
            for name, array in (
                ("observation", self._observation),
                ("context", self._context),
                ("noise", self._noise),
                ("action", self._action),
            )
        }
        for name in ("observation", "context", "noise"):
            self._binding.bind_ortvalue_input(name, self._kept[name])
        self._binding.bind_ortvalue_output("action", self._kept["action"])
        self._explored = False

    def __call__(self, observation: npt.ArrayLike, noise: FloatArray | None) -> FloatArray:
        """observation [observation_dim], noise [action_dim] standard normal (None: the mean action) -> action
        [action_dim].

        Raises:
            ValueError: another shape, numbers that are not finite, or so large that the action would not be.
        """
        values = observation if isinstance(observation, np.ndarray) else np.asarray(observation, np.float32)
        # A search for a zero byte takes a third of the time of `all`.
        if values.shape != self._shape or 0 in np.isfinite(values, self._finite).tobytes():
            raise ValueError(f"expected a finite observation {list(self._shape)}, came {values!r}")
        self._observation[0] = values
        if noise is not None:
            self._noise[0] = noise
        elif self._explored:
            self._noise[0] = 0.0
        self._explored = noise is not None
        self._session.run_with_iobinding(self._binding)
        action: FloatArray = self._action[0].copy()
        # Numbers so large that the network overflows are finite, too.
        if not math.isfinite(sum(action.tolist())):
            raise ValueError(
                f"expected an observation in the policy's range, came {values!r}: its action is not finite"
            )
        return action


def exploration_noise(seed: int, episode: int, step: int, action_dim: int) -> FloatArray:
    """Standard normal [action_dim] of a step: the service's (counter-based Philox)."""
    key = np.array([seed % 2**64, episode], np.uint64)
    bits = np.random.Philox(key=key, counter=np.array([0, step, 0, 0], np.uint64))
    return np.random.Generator(bits).standard_normal(action_dim, np.float32)
