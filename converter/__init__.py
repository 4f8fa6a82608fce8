"""Makes theta: reads a GGUF file, learns or derives theta for its linear layers, writes an `.nkat` file.

The package sits beside the server and above the engine, whose GGUF reader and forward pass it uses;
`converter.tuning` searches rank and gamma with it.
"""
