"""Acting without the service: an exported policy on the robot itself, by ONNX Runtime alone (extra `edge`).

The graph holds normalisers and action bounds; its inputs are observation, context and noise, its output is the action
in environment units. Exploration noise is the service's own function of (seed, episode, step): the same question gets
the same action at the edge and over the wire.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mier_client.policy import Predicting
from mier_client.values import FloatArray


class EdgePolicy(Predicting):
    """One policy version, called step by step. Not for several threads at once: its buffers are its own.

    `predict` explores as it is told if there is a seed, else never.
    """

    def __init__(
        self, onnx: bytes | str | Path, context: npt.ArrayLike, *, seed: int | None = None, episode: int = 0
    ) -> None:
        """
        Args:
            onnx: the policy's graph, or the path of its file.
            context: [context_dim], the policy context that the version acts under.
            seed: explore, with the session's seed; None acts deterministically.
            episode: number of the first episode.

        Raises:
            ImportError: ONNX Runtime is not installed.
            ValueError: the context does not fit the graph.
        """
        super().__init__(episode)
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise ImportError("acting at the edge needs ONNX Runtime: pip install 'mier[edge]'") from error
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graph = onnx if isinstance(onnx, bytes) else Path(onnx).read_bytes()
        self._session: Any = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        dims = {item.name: int(item.shape[1]) for item in [*self._session.get_inputs(), *self._session.get_outputs()]}
        self._observation = np.zeros((1, dims["observation"]), np.float32)
        self._noise = np.zeros((1, dims["noise"]), np.float32)
        self._shape, self._action_dim = (dims["observation"],), dims["action"]
        values: FloatArray = np.array(context, np.float32)
        if values.shape != (dims["context"],) or not np.isfinite(values).all():
            raise ValueError(f"expected a finite context [{dims['context']}], came {list(values.shape)}")
        self._action: FloatArray = np.zeros((1, dims["action"]), np.float32)
        self._context = values[None]
        self._finite = np.zeros(self._shape, np.bool_)
        # Bound once: the graph reads and writes these arrays where they lie.
        self._binding = self._session.io_binding()
        self._kept = {
            name: ort.OrtValue.ortvalue_from_numpy(array)
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
        self._seed = seed

    def act(self, observation: npt.ArrayLike) -> FloatArray:
        """observation [observation_dim] -> action [action_dim] in environment units.

        Raises:
            ValueError: another shape, numbers that are not finite, or so large that the action would not be.
        """
        action = self.act_at(observation, self.episode, self.step, self._seed is None)
        self.step += 1
        return action

    def act_at(self, observation: npt.ArrayLike, episode: int, step: int, deterministic: bool) -> FloatArray:
        """The action at that step of that episode, without counting it; ValueError as of `act`."""
        values = observation if isinstance(observation, np.ndarray) else np.asarray(observation, np.float32)
        # A search for a zero byte takes a third of the time of `all`.
        if values.shape != self._shape or 0 in np.isfinite(values, self._finite).tobytes():
            raise ValueError(f"expected a finite observation {list(self._shape)}, came {values!r}")
        self._observation[0] = values
        if self._seed is not None:
            exploring = not deterministic
            self._noise[0] = exploration_noise(self._seed, episode, step, self._action_dim) if exploring else 0.0
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
