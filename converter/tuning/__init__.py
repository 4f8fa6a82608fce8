"""Searches for the rank, the strength and the layers of theta with the best TPE, with Optuna.

Theta is made once, at the highest rank. Its columns are ordered by energy, so that a trial cuts it, sets
gamma and measures: it trains nothing.
"""
