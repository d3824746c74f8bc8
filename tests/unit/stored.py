"""Rows of a store, put there without a service."""

from __future__ import annotations

from mier_service.data.storage import Storage
from mier_service.store import operation_rows, session_rows
from mier_service.values import (
    EnvironmentValue,
    ModelContextValue,
    OperationState,
    OperationValue,
    Promotion,
    SessionState,
    SessionValue,
    VariesValue,
    VersionOrigin,
    VersionValue,
)


def session_value(name: str, now_s: float, seed: int = 0) -> SessionValue:
    """A session that has done nothing yet."""
    now = session_rows.to_time(now_s)
    environment = EnvironmentValue(
        id="tiny",
        observation_dim=1,
        action_dim=1,
        observation_names=["x"],
        action_names=["push"],
        action_low=[-1.0],
        action_high=[1.0],
        dt_s=0.1,
        horizon_steps=10,
        varies=VariesValue.REWARD,
        healthy_ranges=[],
    )
    return SessionValue(
        id=name,
        checkpoint="tiny",
        checkpoint_hash="0" * 64,
        environment=environment,
        seed=seed,
        state=SessionState.ACTIVE,
        active_version=1,
        model_context=ModelContextValue(number=0, values=[0.0], create_time=now),
        transitions_count=0,
        create_time=now,
    )


def add_session(storage: Storage, name: str, weights: bytes, seed: int = 0) -> None:
    """A session whose fine-tuned version has files of those bytes."""
    now = session_rows.to_time(storage.clock())
    version = VersionValue(
        number=1,
        parent=0,
        weights_hash=storage.weights.put(weights),
        policy_context=[0.0],
        model_context_number=0,
        origin=VersionOrigin.FINE_TUNE,
        promotion=Promotion.UNGATED,
        checkpoint_hash="0" * 64,
        transitions_used=0,
        create_time=now,
        checkpoint="tiny",
    )
    session = session_value(name, storage.clock(), seed)
    with storage.store.write() as c:
        session_rows.add_session(c, session)
        session_rows.add_version(c, name, version, storage.onnx.put(weights))


def operation_value(operation_id: str, session_id: str, now_s: float) -> OperationValue:
    """A fine-tune that waits."""
    now = session_rows.to_time(now_s)
    return OperationValue(
        id=operation_id,
        session_id=session_id,
        state=OperationState.QUEUED,
        cancel_requested=False,
        updates_done=0,
        updates_total=10,
        seed=0,
        transitions_used=0,
        start_version=1,
        result_version=0,
        attempts=0,
        create_time=now,
        update_time=now,
    )


def add_operation(storage: Storage, session_id: str) -> str:
    """A fine-tune that waits; its id."""
    operation = operation_value(f"fine-tune of {session_id}", session_id, storage.clock())
    with storage.store.write() as c:
        operation_rows.add(c, operation, 0, 0, 0)
    return operation.id
