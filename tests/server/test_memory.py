"""Memory that large work took is given back."""

import asyncio
import subprocess
import sys
import threading

from server.memory import LARGE_WORK, MemoryTrim

CODE = """
import threading
from server.memory import give_back, limit_arenas

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

limit_arenas()
before = resident()
kept = []
def work():
    parts = [bytes(60_000) for _ in range(2_000)]
    kept.append(bytes(1_000))  # above them: the heap cannot shrink by itself
    del parts
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
give_back()
print(resident() - before)
"""


def test_freed_memory_returns_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40 << 20


def test_a_trim_follows_the_last_large_work() -> None:
    trimmed = threading.Event()
    count = 0

    def trim() -> None:
        nonlocal count
        count += 1
        trimmed.set()

    async def work() -> None:
        memory = MemoryTrim(trim, quiet=0.01)
        memory.note(LARGE_WORK - 1)
        assert not trimmed.is_set()
        for _ in range(3):
            memory.note(LARGE_WORK)
        assert await asyncio.to_thread(trimmed.wait, 10)

    asyncio.run(work())
    assert count == 1
