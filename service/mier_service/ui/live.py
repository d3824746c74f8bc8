"""Pages that follow what happens: sections that changed are sent as server-sent events, rendered as the page has them.

What a session does is written by many (callers, workers, other services on the same store), and only of operations is
anybody told. So a stream looks, a few times a second, by the same use cases and through the same gate as the page
itself, which is also how it ends with its key.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from sse_starlette import ServerSentEvent

from mier_service.errors import ServiceError
from mier_service.http.problems import problem_json

_RETRY_MS = 2000

Sections = Mapping[str, str]
"""HTML by the id of its element."""


async def follow(
    look: Callable[[], Awaitable[Sections | None]],
    every_s: float,
    ended: Callable[[], bool],
    idle_s: float,
    request_id: str,
) -> AsyncIterator[ServerSentEvent]:
    """Sections now and at each change; `look` gives None where nothing changed. Ends where nothing does for `idle_s`,
    and when the service drains; the browser then asks again."""
    clock = asyncio.get_running_loop().time
    sent: dict[str, str] = {}
    last_s = clock()
    try:
        while not ended() and clock() - last_s < idle_s:
            found = await look() or {}
            if changed := {name: html for name, html in found.items() if sent.get(name) != html}:
                sent.update(changed)
                last_s = clock()
                yield ServerSentEvent(json.dumps(changed), event="sections", retry=_RETRY_MS)
            await asyncio.sleep(every_s)
    except ServiceError as error:
        yield ServerSentEvent(problem_json(error, request_id), event="problem")
