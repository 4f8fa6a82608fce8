"""Renders the chat templates of model files, which strangers write, in processes with hard limits.

`pool` is for those who render. The processes run `child` and `sandbox`, which import Jinja and nothing of
the engine besides this package; hence this file imports nothing.
"""
