"""The Open Inference Protocol (V2, REST) over acting, for clients and tools that speak it already.

A model is a session, and its version is the policy version that acts: which one that is changes as the session learns,
so none can be asked for. Only inference is here; what makes a session, and what it learns from, are the service's own
calls. Refusals are problems, as everywhere, with the protocol's `error` beside them.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import Field

from mier_service.access.guarded import GuardedCore
from mier_service.acting.acting import ActCall, Action
from mier_service.acting.timely import MAX_BATCH
from mier_service.errors import ServiceError, invalid
from mier_service.http.bodies import JSON, Body, Index, Rows, Vector, media_type, read_json, request_body
from mier_service.http.parameters import refusals
from mier_service.http.problems import OPEN_INFERENCE
from mier_service.offload import BoundedPool
from mier_service.values import EXAMPLE_ID, Value
from mier_service.watching.monitor import Monitor

_PLATFORM = "onnx_onnxruntime"
_INPUT, _ACTION, _VERSION = "observation", "action", "policy_version"

Dimension = Annotated[int, Field(ge=0, le=1_000_000)]


class ServerMetadata(Value):
    """What serves."""

    name: str = Field(examples=["mier"])
    version: str
    extensions: list[str] = Field(description="None.")


class ServerHealth(Value):
    """Of the server."""

    live: bool | None = None
    ready: bool | None = None


class TensorMetadata(Value):
    """An input or output."""

    name: str = Field(examples=[_INPUT])
    datatype: str = Field(examples=["FP32"])
    shape: list[int] = Field(description="-1: any number of rows.", examples=[[-1, 20]])


class ModelMetadata(Value):
    """A session as a model."""

    name: str = Field(description="The session's id.", examples=[EXAMPLE_ID])
    versions: list[str] = Field(description="The policy version that acts now.", examples=[["3"]])
    platform: str = Field(examples=[_PLATFORM])
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(Value):
    """Whether the session can act."""

    name: str = Field(examples=[EXAMPLE_ID])
    ready: bool


class InferInput(Body):
    """The observations."""

    name: Literal["observation"]
    shape: list[Dimension] = Field(
        min_length=1, max_length=2, description="[observation_dim] or [n, observation_dim]", examples=[[1, 20]]
    )
    datatype: Literal["FP32", "FP64"] = Field(examples=["FP32"])
    data: Vector | Rows = Field(description="Row after row, flat or nested as the shape is.")


class InferOutput(Body):
    """An output that is asked for."""

    name: Literal["action", "policy_version"]


class InferParameters(Body):
    """How to act."""

    deterministic: bool = Field(default=True, description="False: exploring, as in /act, for one row.")
    episode: Index | None = Field(default=None, description="Required when exploring.")
    step: Index | None = Field(default=None, description="Required when exploring.")


class InferBody(Body):
    """Asks for the actions for some observations."""

    id: str | None = Field(default=None, max_length=100, description="Comes back with the reply.")
    parameters: InferParameters = Field(default_factory=InferParameters)
    inputs: list[InferInput] = Field(min_length=1, max_length=1)
    outputs: list[InferOutput] | None = Field(default=None, max_length=2, description="Left out: all.")

    def rows(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """observation [n, observation_dim]"""
        given = self.inputs[0]
        try:
            with np.errstate(over="ignore"):
                flat = np.asarray(given.data, np.float32).reshape(-1)
            rows = flat.reshape(given.shape)
        except ValueError:
            raise invalid(
                "inputs.0.data", f"inputs.0.data: expected as many values as shape {given.shape} says, got others"
            ) from None
        return np.atleast_2d(rows)


class InferTensor(Value):
    """One output."""

    name: str = Field(examples=[_ACTION])
    datatype: str = Field(examples=["FP32"])
    shape: list[int] = Field(examples=[[1, 6]])
    data: list[float] | list[int] = Field(description="Row after row, flat.")


class InferReply(Value):
    """The actions, and what chose them."""

    model_name: str = Field(examples=[EXAMPLE_ID])
    model_version: str = Field(description="The policy version that chose the last row.", examples=["3"])
    id: str | None = None
    parameters: dict[str, str] = Field(description="weights_hash: of that version.")
    outputs: list[InferTensor]


def build_inference(core: GuardedCore, pool: BoundedPool, monitor: Monitor) -> APIRouter:
    """For the root alone: the paths have the protocol's own version."""
    router = APIRouter(prefix=OPEN_INFERENCE, tags=["open inference protocol"])

    @router.get("")
    async def server_metadata() -> ServerMetadata:
        """Name and version of the server."""
        return ServerMetadata(name="mier", version=version("mier"), extensions=[])

    @router.get("/health/live", response_model_exclude_none=True)
    async def server_live() -> ServerHealth:
        """200 as long as the process answers."""
        return ServerHealth(live=True)

    unready: dict[int | str, dict[str, Any]] = {503: {"description": "Not ready.", "model": ServerHealth}}

    @router.get("/health/ready", responses=unready, response_model_exclude_none=True)
    async def server_ready(response: Response) -> ServerHealth:
        """200 while calls are served; /readyz says why not."""
        if not monitor.ready:
            response.status_code = 503
        return ServerHealth(ready=monitor.ready)

    @router.get("/models/{session_id}", responses=refusals(404))
    async def model_metadata(session_id: str) -> ModelMetadata:
        """What a session takes and gives."""
        session = await core.sessions.get(session_id)
        environment = session.environment
        return ModelMetadata(
            name=session.id,
            versions=[str(session.active_version)],
            platform=_PLATFORM,
            inputs=[_metadata(_INPUT, "FP32", -1, environment.observation_dim)],
            outputs=[_metadata(_ACTION, "FP32", -1, environment.action_dim), _metadata(_VERSION, "INT64", -1)],
        )

    @router.get("/models/{session_id}/ready", responses=refusals(404))
    async def model_ready(session_id: str) -> ModelReady:
        """200 where the session is there, and so can act."""
        session = await core.sessions.get(session_id)
        return ModelReady(name=session.id, ready=True)

    @router.post(
        "/models/{session_id}/infer",
        openapi_extra=request_body((JSON, InferBody)),
        responses=refusals(404, 415),
        response_model_exclude_none=True,
    )
    async def infer(session_id: str, request: Request) -> InferReply:
        """Actions for observations, by the session's active version."""
        media_type(request, (JSON,))
        body = await read_json(request, InferBody, pool)
        actions = await _act(core, session_id, body)
        return _reply(session_id, body, actions)

    return router


async def _act(core: GuardedCore, session_id: str, body: InferBody) -> list[Action]:
    rows, how = body.rows(), body.parameters
    calls = [ActCall(session_id, row, how.deterministic, how.episode, how.step) for row in rows[: MAX_BATCH + 1]]
    if len(calls) == 1:
        return [await core.acting.act(calls[0])]
    if not 1 <= len(calls) <= MAX_BATCH:
        raise invalid("inputs.0.shape", f"inputs.0.shape: expected 1 to {MAX_BATCH} rows, got {len(rows)}")
    if not how.deterministic:
        raise invalid("parameters.deterministic", "exploring is for one row: the noise is of one step")
    actions = []
    for outcome in await core.acting.act_batch(list(calls)):
        if isinstance(outcome, ServiceError):
            raise outcome
        actions.append(outcome)
    return actions


def _reply(session_id: str, body: InferBody, actions: list[Action]) -> InferReply:
    chosen = np.stack([action.action for action in actions])
    versions = [action.policy_version for action in actions]
    outputs = [
        InferTensor(name=_ACTION, datatype="FP32", shape=list(chosen.shape), data=chosen.reshape(-1).tolist()),
        InferTensor(name=_VERSION, datatype="INT64", shape=[len(versions)], data=versions),
    ]
    wanted = None if body.outputs is None else {output.name for output in body.outputs}
    return InferReply(
        model_name=session_id,
        model_version=str(versions[-1]),
        id=body.id,
        parameters={"weights_hash": actions[-1].weights_hash},
        outputs=[output for output in outputs if wanted is None or output.name in wanted],
    )


def _metadata(name: str, datatype: str, *shape: int) -> TensorMetadata:
    return TensorMetadata(name=name, datatype=datatype, shape=list(shape))
