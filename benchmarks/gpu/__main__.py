"""`python -m benchmarks.gpu`; `command` says what it does."""

from benchmarks.gpu.command import main

main()
