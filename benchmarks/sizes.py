"""How much is computed in each measurement, the same on both sides. Counts are tokens."""

NEW_TOKENS = 128
"""Of the decode measurements, one at a time from an almost empty context."""
PROMPT_TOKENS = 512
"""Of the prefill and memory measurements."""
RSS_NEW_TOKENS = 32
"""Made behind the prompt before memory is looked at."""
CONTEXT = 2048
"""That our engine has room for."""
STREAMS = 8
"""HTTP streams at once."""
STREAM_TOKENS = 96
"""Of each of them."""
STREAM_CONTEXT = 8192
"""That the servers have room for, over all streams."""
