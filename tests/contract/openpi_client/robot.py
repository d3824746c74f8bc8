"""A robot of somebody else: openpi's own client, and nothing of ours. Reads what to do as JSON, prints what came of it.

Runs in a virtual environment that has `openpi-client` and not this project.
"""

import json
import sys

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy


def main() -> None:
    told = json.load(sys.stdin)
    policy = WebsocketClientPolicy(**told["connect"])
    replies: list[dict[str, object]] = []
    refusal = ""
    try:
        for observation in told["observations"]:
            values = {**observation, "observation": np.asarray(observation["observation"], np.float32)}
            if "image" in observation:
                values["image"] = np.zeros(observation["image"], np.uint8)
            reply = policy.infer(values)
            assert isinstance(reply["actions"], np.ndarray)
            replies.append({**reply, "actions": reply["actions"].tolist(), "dtype": str(reply["actions"].dtype)})
        broker = ActionChunkBroker(policy, action_horizon=1)
        chunk = [
            broker.infer({"observation": np.asarray(one, np.float32)})["actions"].tolist() for one in told["chunk"]
        ]
    except RuntimeError as error:
        refusal = str(error)
        chunk = []
    metadata = policy.get_server_metadata()
    json.dump(
        {
            "metadata": {key: metadata[key] for key in ("service", "session_id", "checkpoint")},
            "action_high": metadata["environment"]["action_high"].tolist(),
            "replies": replies,
            "chunk": chunk,
            "refusal": refusal,
            "numpy": np.__version__,
        },
        sys.stdout,
    )


main()
