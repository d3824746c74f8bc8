"""Keeps the fine-tuning processes alive: starts them, wakes them, restarts one that dies, stops them all."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

import structlog

from mier_service.config import STORE_URL_VARIABLE, WorkerConfig
from mier_service.learning.worker_news import News, understood

_log = structlog.get_logger(__name__)
_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 30.0
_HEALTHY_AFTER_S = 60.0


class Workers:
    """Belongs to the event loop."""

    def __init__(
        self,
        config: WorkerConfig,
        store_url: str | None,
        count: int,
        stop_within_s: float,
        on_death: Callable[[], None],
        on_news: Callable[[News], None],
    ) -> None:
        self._config = config
        # Not on the command line, which everybody on the machine can read.
        self._environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._environment[STORE_URL_VARIABLE] = store_url or ""
        self._count = count
        self._stop_within_s = stop_within_s
        self._on_death = on_death
        self._on_news = on_news
        self._processes: set[asyncio.subprocess.Process] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    def start(self) -> None:
        self._keepers = [asyncio.create_task(self._keep(i)) for i in range(self._count)]

    def wake(self) -> None:
        """An operation waits."""
        for process in self._processes:
            if process.stdin is not None and not process.stdin.is_closing():
                process.stdin.write(b"wake\n")

    async def stop(self) -> None:
        """Lets them save and end; ends those that do not."""
        self._stopping.set()
        processes = list(self._processes)
        for process in processes:
            if process.returncode is None:
                process.terminate()
        try:
            async with asyncio.timeout(self._stop_within_s):
                await asyncio.gather(*(process.wait() for process in processes))
        except TimeoutError:
            for process in processes:
                if process.returncode is None:
                    _log.warning("worker_killed", pid=process.pid)
                    process.kill()
            await asyncio.gather(*(process.wait() for process in processes))
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def _keep(self, index: int) -> None:
        loop = asyncio.get_running_loop()
        delay_s = _FIRST_DELAY_S
        while not self._stopping.is_set():
            started_s = loop.time()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "mier_service.learning.worker",
                self._config.model_dump_json(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=self._environment,
            )
            self._processes.add(process)
            if self._stopping.is_set():  # it was started while the others were being stopped
                process.terminate()
            await self._listen(process)
            code = await process.wait()
            self._processes.discard(process)
            if self._stopping.is_set():
                return
            _log.error("worker_died", worker=index, code=code, restart_after_s=delay_s)
            self._on_death()
            if loop.time() - started_s > _HEALTHY_AFTER_S:
                delay_s = _FIRST_DELAY_S
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Until it ends: its news, and whatever libraries print."""
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than any news
                continue
            if not line:
                return
            news = understood(line.decode(errors="replace"))
            if news is not None:
                self._on_news(news)
            else:
                _log.info("worker_printed", text=line.decode(errors="replace").rstrip()[:500])
