"""The policy that all servers act with: one thread, one row. For the peers' environments: NumPy and ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort


class BarePolicy:
    def __init__(self, path: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        width = {item.name: item.shape[1] for item in self._session.get_inputs()}
        self._rest = {name: np.zeros((1, width[name]), np.float32) for name in ("context", "noise")}

    def act(self, observation: list[float]) -> list[float]:
        """The mean action under a context of zeros."""
        inputs = {"observation": np.asarray(observation, np.float32)[None], **self._rest}
        action: list[float] = self._session.run(["action"], inputs)[0][0].tolist()
        return action
