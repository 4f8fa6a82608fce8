"""What the dialects have in common on the wire: lenient types, sampler fields, bodies and replies."""
