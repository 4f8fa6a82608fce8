"""What the test suite reads from the environment, and what it hides from the code under test."""

import os
from pathlib import Path

from server.settings import KOBOLD_PASSWORD_VARIABLE, PREFIX

# Names of the suite's own. They do not begin as settings do, so that no server takes them for one.
FULL = os.environ.get("NKATTEST_FULL") == "1"
"""Whether the long versions of tests run."""
WIKITEXT = os.environ.get("NKATTEST_WIKITEXT")
"""The file wiki.test.raw of WikiText-2 raw."""
MODELS = os.environ.get("NKATTEST_MODELS")
"""A folder that is looked into for models before they are downloaded."""


def clean_environment() -> None:
    """Remove all settings of NKAT, and KoboldCpp's password, from this process's environment."""
    for name in list(os.environ):
        if name.startswith(PREFIX) or name == KOBOLD_PASSWORD_VARIABLE:
            del os.environ[name]


def wikitext_path() -> Path:
    """Where WikiText-2 raw is expected; there need be no file."""
    return Path(WIKITEXT) if WIKITEXT else Path(__file__).parents[3] / "shared" / "data" / "wiki.test.raw"
