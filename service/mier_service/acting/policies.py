"""ONNX Runtime policies: what acts. One inference session for each ONNX file, shared by all sessions on it.

The context is an input, so thousands of sessions act through one loaded policy. Runs are single-threaded, without
spinning, and safe to make from several threads at once; nothing here is locked while one runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

FloatArray = npt.NDArray[np.float32]


class Policy:
    """One loaded set of weights."""

    def __init__(self, onnx: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        # Tensors here are tiny; an arena per policy would only hold memory.
        options.enable_cpu_mem_arena = False
        self._session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])

    def act(self, observation: FloatArray, context: FloatArray, noise: FloatArray) -> FloatArray:
        """[n, observation_dim], [n, context_dim], [n, action_dim] standard normal (0: the mean action) ->
        action [n, action_dim] in environment units."""
        (action,) = self._session.run(["action"], {"observation": observation, "context": context, "noise": noise})
        return np.asarray(action, np.float32)


class PolicyCache:
    """The policies that somebody acts with, by their ONNX file. It keeps none alive: who acts with one does."""

    def __init__(self) -> None:
        self._policies: WeakValueDictionary[str, Policy] = WeakValueDictionary()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._policies)

    def get(self, onnx_hash: str, load: Callable[[], bytes]) -> Policy:
        """The policy of that hash; `load` gives its ONNX bytes if it is not here."""
        with self._lock:
            policy = self._policies.get(onnx_hash)
        if policy is not None:
            return policy
        loaded = Policy(load())
        with self._lock:
            # Two threads may have loaded it at once: all act with the first one.
            return self._policies.setdefault(onnx_hash, loaded)
