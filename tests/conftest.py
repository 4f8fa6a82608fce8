import os
import signal
from pathlib import Path

import pytest

from engine.native import native_kernels
from server.demo import DemoModelError
from tests.gate import SkipGate, read_rules
from tests.support.environment import clean_environment
from tests.support.models import smollm2_path

NATIVE_WANTED = os.environ.get("NKAT_NATIVE") != "0"

# Tests and the servers that they start see no setting of the user's.
clean_environment()

# Children of `trap '' INT` and of some supervisors ignore or block SIGINT, and so do theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    is_worker = hasattr(config, "workerinput")
    if NATIVE_WANTED and not is_worker and not native_kernels():
        pytest.exit(
            "the C++ kernels are missing, so that hundreds of tests would be skipped: `make -B install` builds "
            "them or says why it cannot; NKAT_NATIVE=0 tests without them",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )
    gate = SkipGate(config, read_rules(), ci="CI" in os.environ, kernels=NATIVE_WANTED)
    config.pluginmanager.register(gate, "skip-gate")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct in Q4_1."""
    try:
        return smollm2_path()
    except DemoModelError as error:
        pytest.skip(f"the demo model cannot be fetched: {error}")
