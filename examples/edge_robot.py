"""A robot that acts by itself: the service may go and come back, and nothing that happens is lost.

    mier-serve                                            # in another terminal
    python examples/edge_robot.py --key "$(mierctl bundles key)"   # --help for the rest

The policy runs here, by ONNX Runtime; what the service makes of the robot's steps comes back as a signed bundle. Stop
the service, or pull the cable, and watch: the cheetah runs on, and its steps wait in the folder.
"""

import argparse
from pathlib import Path

import gymnasium

from mier_client import ActingRules, Client, FallbackKind, SessionMode, Step
from mier_client.edge import Edge


def session_in(folder: Path, client: Client) -> str:
    """The folder's own session: a robot that starts again goes on with it, also without the service."""
    note = folder / "session"
    if not note.is_file():
        session = client.create_session("cheetah-vel-ood", rules=ActingRules(fallback=FallbackKind.HOLD_ZERO))
        client.set_mode(session.id, SessionMode.CONTEXT)
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(session.id)
    return note.read_text()


def main(service: str, key: str, folder: Path, target: float, episodes: int) -> None:
    client = Client.connect(service)
    env = gymnasium.make("mier_envs:mier/CheetahVel-v0", target=target)
    with Edge(folder, session_in(folder, client), key, client, explore=True) as edge:
        for _ in range(episodes):
            observation, _ = env.reset(seed=edge.policy.episode)
            number, total, over = edge.policy.episode, 0.0, False
            while not over:
                action = edge.act(observation)
                following, reward, terminated, truncated, _ = env.step(action)
                over = terminated or truncated
                edge.add(
                    Step(observation, action, float(reward), following, terminated, truncated, edge.policy.version)
                )
                observation, total = following, total + float(reward)
            print(
                f"episode {number}: return {total:.1f}, version {edge.policy.version}, "
                f"{edge.queue.pending_steps} steps wait, {'cut off' if edge.submit_error else 'connected'}",
                flush=True,
            )
        print("all steps arrived" if edge.flush(60.0) else f"{edge.queue.pending_steps} steps wait in {folder}")
    client.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", default="grpc://127.0.0.1:50051", help="its URL (default: %(default)s)")
    parser.add_argument("--key", required=True, help="its public key, as `mierctl bundles key` prints it")
    parser.add_argument("--folder", type=Path, default=Path("robot"), help="the robot's own (default: %(default)s)")
    parser.add_argument("--target", type=float, default=1.5, help="speed in m/s (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=6)
    main(**vars(parser.parse_args()))
