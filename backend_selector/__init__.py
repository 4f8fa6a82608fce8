"""Chooses how to run a model: from a file's metadata and facts about the machine to engine and device.

`probe` finds the facts out, `select` turns them into a choice with reasons and touches nothing, `report`
tells it, and `diagnosis` says what is wrong with a machine. Importing any of them does not import torch.
"""
