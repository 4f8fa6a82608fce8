"""`python -m tests.fuzz_files`: what `make fuzz` runs."""

from tests.fuzz_files.command import main

if __name__ == "__main__":
    main()
