"""Every endpoint against the API's own description, with requests that schemathesis makes of it.

It makes some that the description admits and some that it does not. Whether those are refused is not asked:
this server takes numbers as text and ignores what it does not know, as KoboldCpp does.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import given, settings
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.server.fuzz.conftest import EXAMPLES
from tests.server.fuzz.exchange import PATIENCE, Heard
from tests.server.fuzz.operations import Operation, document
from tests.server.fuzz.rules import check
from tests.server.live import LiveServer

Described = APIOperation[Any, Any, Any, Any]
CHECKS = [content_type_conformance, response_schema_conformance, status_code_conformance]


def operations() -> Iterator[Described]:
    """All operations as schemathesis reads them; one that it cannot read fails."""
    for found in schemathesis.openapi.from_dict(document()).get_all_operations():
        assert isinstance(found, Ok), found
        yield found.ok()


@pytest.mark.parametrize("described", list(operations()), ids=lambda operation: operation.label)
def test_answers_are_as_described(fuzzed: LiveServer, described: Described) -> None:
    tag = described.definition.raw["tags"][-1]
    operation = Operation(described.method.upper(), described.path, tag, {}, frozenset())

    @settings(settings.get_profile("fuzz"), max_examples=EXAMPLES // 4)
    @given(
        described.as_strategy(GenerationMode.POSITIVE) | described.as_strategy(GenerationMode.NEGATIVE)
        if described.body
        else described.as_strategy(GenerationMode.POSITIVE)
    )
    def send(case: Case[Described]) -> None:
        answer = case.call(base_url=fuzzed.url, timeout=PATIENCE)
        case.validate_response(answer, checks=CHECKS)
        headers = {name: values[0] for name, values in answer.headers.items()}
        check(operation, Heard(answer.status_code, headers, answer.content))

    send()
