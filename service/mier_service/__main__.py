"""`mier-serve`: the service as a command."""

from __future__ import annotations

import os

# Workers are started as new programs; gRPC need not prepare for a fork. Read when gRPC is loaded.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import asyncio
import signal
import sys

import uvloop
from pydantic import ValidationError
from pydantic_settings import CliApp

from mier_service.config import CannotStart, ServeConfig
from mier_service.ending import end_now
from mier_service.watching import tracing
from mier_service.watching.logs import configure_logs


def main(arguments: list[str] | None = None) -> None:
    """Serves until SIGTERM or SIGINT; then drains and exits with 0. With 1 where a part of it failed, with 2 where it
    could not start."""
    try:
        config = CliApp.run(ServeConfig, cli_args=sys.argv[1:] if arguments is None else arguments)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            flag = "--" + "-".join(str(part) for part in item["loc"]).replace("_", "-")
            print(f"mier-serve: {flag}: {item['msg']}, got {item.get('input')!r}", file=sys.stderr)
        sys.exit(2)
    configure_logs(config.log_level)
    try:
        tracing.start(config.trace_endpoint, config.trace_ratio, "mier-serve")
    except CannotStart as error:
        print(f"mier-serve: {error}", file=sys.stderr)
        end_now(2)
    status = uvloop.run(_serve(config))
    tracing.stop()
    end_now(status)


async def _serve(config: ServeConfig) -> int:
    # Loads torch, which takes seconds: a wrong flag should not wait for it.
    from mier_service.bootstrap import Service

    try:
        service = Service(config)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, service.stop)
        return await service.run()
    except CannotStart as error:
        print(f"mier-serve: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    main()
