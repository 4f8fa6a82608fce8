"""Hours in minutes: mixed clients on one server, and what becomes of its memory, threads and descriptors."""
