"""What clients see of the model, with the key and without."""

from dataclasses import replace

from fastapi import Request

from engine.types import ModelInfo
from server.auth import KeyGuard

PROTECTED_NAME = "protected-model"
"""The name that clients without the key are given, KoboldCpp's."""


def shown_info(info: ModelInfo, guard: KeyGuard, request: Request) -> ModelInfo:
    """The model as the request may see it: every open endpoint tells of it through this alone.

    Without the key the name is another one, and there is no chat template, which is a part of the file.
    """
    if guard.admits_any(request):
        return info
    return replace(info, name=PROTECTED_NAME, chat_template=None)
