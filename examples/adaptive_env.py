"""A Gymnasium loop that becomes adaptive in two lines, on the bundled cheetah.

    mier-serve                        # in another terminal
    python examples/adaptive_env.py   # --help for the rest

The cheetah is to run at a speed that its policy was never trained for. The first episode shows that; after it the
service adapts, and the loop goes on with what came of it.
"""

import argparse

import gymnasium

from mier_client.adaptive_env import AdaptiveEnv


def main(service: str, target: float, episodes: int) -> None:
    env = gymnasium.make("mier_envs:mier/CheetahVel-v0", target=target)

    env = AdaptiveEnv(env, service, "cheetah-vel-ood")  # the first line,
    policy = env.policy  # and the second; the rest is a loop as it always was

    for number in range(episodes):
        observation, _ = env.reset(seed=number)
        total, over = 0.0, False
        while not over:
            action, _ = policy.predict(observation)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
        print(f"episode {number}: return {total:.1f}")
    env.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", default="grpc://127.0.0.1:50051", help="its URL (default: %(default)s)")
    parser.add_argument("--target", type=float, default=2.0, help="speed in m/s (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=3)
    main(**vars(parser.parse_args()))
