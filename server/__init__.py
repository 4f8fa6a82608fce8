"""The HTTP side of NKAT: what clients say and hear. Importing this package starts nothing."""
