import gc
import os
import signal
import sys
from pathlib import Path

import hypothesis
import pytest

from engine.native import native_kernels
from server.demo import DemoModelError
from tests.gate import SkipGate, read_rules
from tests.support.environment import clean_environment
from tests.support.lazy_import import import_lazily
from tests.support.models import smollm2_path

TESTS = Path(__file__).parent
SLOW = (
    "benchmarks",
    "browser",
    "converter",
    "engine/kernels/cuda",
    "engine/templates",
    "engine/test_fuzz_files",
    "engine/test_lookahead",
    "engine/test_memory_ends",
    "fuzz_files",
    "mutants",
    "server/clients",
    "server/fuzz",
    "server/http",
    "server/test_aborts",
    "server/test_cli",
    "server/test_commands",
    "server/test_golden",
    "server/test_hostile",
    "server/test_savedata",
    "server/test_templates",
    "test_gate",
)
"""What `make quick` leaves out: whole commands, browsers, compilers, fuzzing, replayed sessions."""
SLOW_FIXTURES = {"smollm2", "smollm2_engine", "smollm2_tokenizer", "demo_server", "gemma"}
"""Real models, which take seconds to load."""

NATIVE_WANTED = os.environ.get("NKAT_NATIVE") != "0"

# Tests and the servers that they start see no setting of the user's.
clean_environment()

# Children of `trap '' INT` and of some supervisors ignore or block SIGINT, and so do theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


# Rewriting assertions takes half of the time of collection: keep the result for other processes and the
# next run. Servers that tests start keep their bytecode too.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Imports make a million objects that all stay: looking through them takes a third of the time of collection.
gc.disable()


# A slow machine is no fault of the code: no test may fail for the time that an example takes.
hypothesis.settings.register_profile(
    "nkat", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("nkat")

for client in ("anthropic", "openai"):
    import_lazily(client)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    is_worker = hasattr(config, "workerinput")
    if NATIVE_WANTED and not is_worker and not native_kernels():
        pytest.exit(
            "the C++ kernels are missing, and hundreds of tests need them: `make -B install` builds "
            "them or says why it cannot; NKAT_NATIVE=0 tests without them",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )
    gate = SkipGate(config, read_rules(), ci="CI" in os.environ, kernels=NATIVE_WANTED)
    config.pluginmanager.register(gate, "skip-gate")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = item.path.relative_to(TESTS).as_posix()
        if path.startswith(SLOW) or SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct in Q4_1."""
    try:
        return smollm2_path()
    except DemoModelError as error:
        pytest.skip(f"the demo model cannot be fetched: {error}")
