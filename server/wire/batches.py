"""Answers that are made in batches of things to tell, one for each news of the engine."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

Told = TypeVar("Told")
Answer = TypeVar("Answer")


async def written(
    batches: AsyncGenerator[list[Told], None], write: Callable[[Told], bytes]
) -> AsyncGenerator[bytes, None]:
    """What to send of each batch; nothing for an empty one."""
    async with aclosing(batches):
        async for batch in batches:
            yield b"".join(write(told) for told in batch)


async def whole(batches: AsyncGenerator[list[Told], None], answer: Callable[[], Answer]) -> Answer:
    """The answer in one piece, once all batches have passed."""
    async with aclosing(batches):
        async for _ in batches:
            pass
    return answer()
