"""Connections: who gets one, how long it may keep it, and the server that holds them all."""
