"""Acting on the robot itself (extra `edge`): ONNX Runtime and NumPy, neither torch nor the service."""

from mier_client.edge.bundled import BundledPolicy, BundleTooOld
from mier_client.edge.bundles import BundleReader, BundleRefused
from mier_client.edge.graphs import exploration_noise
from mier_client.edge.policy import EdgePolicy
from mier_client.edge.robot import Edge
from mier_client.edge.step_queue import QueueFull, QueueUnavailable, StepQueue

__all__ = [
    "BundleReader",
    "BundleRefused",
    "BundleTooOld",
    "BundledPolicy",
    "Edge",
    "EdgePolicy",
    "QueueFull",
    "QueueUnavailable",
    "StepQueue",
    "exploration_noise",
]
