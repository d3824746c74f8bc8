"""Which environment variables the service reads as settings: those that deployments may set."""

from __future__ import annotations

from mier_service.config import ServeConfig

SETTINGS = {f"MIER_{name.upper()}" for name in ServeConfig.model_fields}


def taken(environment: dict[str, str]) -> ServeConfig:
    """The settings that a container with this environment starts with; fails on a name that is no setting."""
    ours = {name: value for name, value in environment.items() if name.startswith("MIER_") and name != "MIER_HOME"}
    assert set(ours) <= SETTINGS, f"no settings of the service: {sorted(set(ours) - SETTINGS)}"
    return ServeConfig(**{name.removeprefix("MIER_").lower(): value for name, value in ours.items()})  # type: ignore[arg-type]
