"""`python -m tests.mutants`, or `make mutants`."""

import signal
import sys

from tests.mutants.command import main

# Whoever is ended in another way than by Ctrl-C leaves nothing either.
signal.signal(signal.SIGTERM, signal.default_int_handler)
sys.exit(main())
