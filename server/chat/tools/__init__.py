"""How models call tools: what they are told, what they may write, and what they wrote."""
