"""Room for as many open files as there may be connections, so that these are refused in order, by their own bound."""

from __future__ import annotations

import resource

import structlog

from mier_service.config import ServeConfig

_log = structlog.get_logger(__name__)
_BESIDES = 512
"""Files of the store, of policies and of workers, and connections that wait to be refused."""


def make_room(config: ServeConfig) -> None:
    """Raises the process's own limit as far as the machine allows; says so if that is not far enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * config.max_connections + _BESIDES  # over HTTP and over gRPC
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    if raised < wanted:
        _log.warning(
            "few_open_files",
            detail=f"{raised} files may be open, and {wanted} would be with all of --max-connections: raise the limit "
            "(ulimit -Hn, LimitNOFILE), or have fewer connections",
        )
