"""Chooses how to run a model: from a file's metadata and facts about the machine to engine, device and kernels.

The package is still empty. The choice will be a pure function that also gives its reasons; finding out
the facts will be a separate step, and importing the package will not import torch.
"""
