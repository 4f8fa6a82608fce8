"""The PyTorch engine: from a GGUF file and token ids to token ids. Knows no HTTP and no asyncio.

Importing this package imports nothing heavy; the facade is `engine.engine`, `engine.worker`,
`engine.config`, `engine.types` and `engine.errors`.
"""
