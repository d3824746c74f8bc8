"""A session's transitions as a Minari data set, and data sets as transitions.

Every piece of an episode (see `episodes`) is one of Minari's episodes. Its `infos` have what Minari has no word for,
one entry for each observation: `mier_episode`, `mier_step` (that begins there) and `mier_policy_version` (that led
there). With them a data set goes back into a session as it came out. Other data sets go in, too; their episodes are
numbered as they come.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import minari
import numpy as np
from gymnasium.spaces import Box, Space
from minari import EpisodeBuffer, EpisodeData, MinariDataset
from minari.dataset.minari_dataset import parse_dataset_id
from minari.storage.datasets_root_dir import get_dataset_path

from mier_client.transport import TransitionBatch
from mier_client.values import EnvironmentSpec, Session
from mier_data.about import about
from mier_data.episodes import Piece
from mier_data.refused import Refused

_EPISODE, _STEP, _VERSION = "mier_episode", "mier_step", "mier_policy_version"


def spaces(environment: EnvironmentSpec) -> tuple[Box, Box]:
    """Of observations, unbounded, and of actions: float32, as `AdaptiveEnv` would have them."""
    low, high = (np.array(bound, np.float32) for bound in (environment.action_low, environment.action_high))
    return Box(-np.inf, np.inf, (environment.observation_dim,), np.float32), Box(low, high, dtype=np.float32)


def write(dataset_id: str, session: Session, pieces: Sequence[Piece]) -> MinariDataset:
    """The data set, among Minari's own (MINARI_DATASETS_PATH). Refused where one of that name is there."""
    observation_space, action_space = spaces(session.environment)
    try:
        parse_dataset_id(dataset_id)
        there = get_dataset_path(dataset_id).exists()
    except (TypeError, ValueError):
        raise Refused(f"expected a data set's id, such as mier/cheetah-v0, got {dataset_id!r}") from None
    if there:
        raise Refused(f"there is a data set {dataset_id!r} already: take a name or a version that is free")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of authors and links, which only a publisher knows
            return minari.create_dataset_from_buffers(
                dataset_id,
                (_buffer(piece) for piece in pieces),
                observation_space=observation_space,
                action_space=action_space,
                algorithm_name="mier",
                description=json.dumps(about(session)),
                jpeg_encoding=False,
            )
    except BaseException:  # half a data set is none
        shutil.rmtree(get_dataset_path(dataset_id), ignore_errors=True)
        raise


def read(dataset_id: str) -> MinariDataset:
    """Refused where it is not among Minari's own on this machine."""
    try:
        return minari.load_dataset(dataset_id)
    except (FileNotFoundError, TypeError, ValueError) as error:
        raise Refused(f"no data set {dataset_id!r} here ({error}): `minari list local` shows which there are") from None


def require_fit(dataset: MinariDataset, environment: EnvironmentSpec) -> None:
    """Refuses spaces that are not the environment's; what is in the data set the service itself judges."""
    expected = {"observation": (environment.observation_dim,), "action": (environment.action_dim,)}
    given: dict[str, Space[Any]] = {"observation": dataset.observation_space, "action": dataset.action_space}
    for name, shape in expected.items():
        space = given[name]
        if not isinstance(space, Box) or space.shape != shape:
            raise Refused(
                f"expected {name}s as the environment {environment.id!r} has them, a Box of shape {list(shape)}, got "
                f"{space}: open a session on a checkpoint of the data set's environment, or flatten its {name}s first"
            )


def batches(dataset: MinariDataset, first_episode: int, max_steps: int) -> Iterator[TransitionBatch]:
    """What is to be submitted. No version of the session that it goes to chose these actions, so they say 0."""
    for i, episode in enumerate(dataset.iterate_episodes()):
        number, first_step = _place(episode, i)
        observation = np.asarray(episode.observations, np.float32)
        for start in range(0, len(episode.rewards), max_steps):
            part = slice(start, start + max_steps)
            reward = np.asarray(episode.rewards[part], np.float32)
            stop = start + len(reward)
            yield TransitionBatch(
                episode=first_episode + number,
                first_step=first_step + start,
                observation=observation[start:stop],
                action=np.asarray(episode.actions[part], np.float32),
                reward=reward,
                next_observation=observation[start + 1 : stop + 1],
                terminated=np.asarray(episode.terminations[part], np.bool_),
                truncated=np.asarray(episode.truncations[part], np.bool_),
                policy_version=(0,),
            )


def _buffer(piece: Piece) -> EpisodeBuffer:
    steps = np.arange(piece.count + 1)  # one for each observation
    return EpisodeBuffer(
        observations=piece.observation,
        actions=piece.action,
        rewards=piece.reward,
        terminations=piece.terminated,
        truncations=piece.truncated,
        infos={
            _EPISODE: np.full(len(steps), piece.episode),
            _STEP: piece.first_step + steps,
            _VERSION: np.concatenate([[0], piece.policy_version]),
        },
    )


def _place(episode: EpisodeData, i: int) -> tuple[int, int]:
    """Its number and first step, as it came out of a session; else its place in the data set."""
    infos = episode.infos or {}
    if _EPISODE in infos and _STEP in infos:
        return int(infos[_EPISODE][0]), int(infos[_STEP][0])
    return i, 0
