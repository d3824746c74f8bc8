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
        self._row: _Row | None = None

    def act(self, observation: FloatArray, context: FloatArray, noise: FloatArray) -> FloatArray:
        """[n, observation_dim], [n, context_dim], [n, action_dim] standard normal (0: the mean action) ->
        action [n, action_dim] in environment units."""
        (action,) = self._session.run(["action"], {"observation": observation, "context": context, "noise": noise})
        return np.asarray(action, np.float32)

    def act_one(self, observation: FloatArray, context: FloatArray, noise: FloatArray | None) -> FloatArray:
        """[observation_dim], [1, context_dim], [action_dim] (None: the mean action) -> [action_dim]. For the event loop
        alone: one row is read and written where it lies, which takes half the time of handing arrays over."""
        if self._row is None:
            self._row = _Row(self._session)
        return self._row.act(observation, context, noise)


class _Row:
    """One row's arrays, bound to a session once."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        dims = {item.name: int(item.shape[1]) for item in (*session.get_inputs(), *session.get_outputs())}
        arrays = {name: np.zeros((1, dims[name]), np.float32) for name in ("observation", "context", "noise", "action")}
        self._kept = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
        self._binding = session.io_binding()
        for name in ("observation", "context", "noise"):
            self._binding.bind_ortvalue_input(name, self._kept[name])
        self._binding.bind_ortvalue_output("action", self._kept["action"])
        self._observation, self._context = arrays["observation"][0], arrays["context"]
        self._noise, self._action = arrays["noise"][0], arrays["action"][0]

    def act(self, observation: FloatArray, context: FloatArray, noise: FloatArray | None) -> FloatArray:
        self._observation[:] = observation
        self._context[:] = context
        self._noise[:] = 0.0 if noise is None else noise
        self._session.run_with_iobinding(self._binding)
        action: FloatArray = self._action.copy()
        return action


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
