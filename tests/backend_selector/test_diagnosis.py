"""Findings from facts; no machine is asked."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from backend_selector.diagnosis import Finding, Verdict, diagnose_machine, diagnose_model, diagnose_port
from backend_selector.facts import CpuFacts, MachineFacts, Wishes
from engine.errors import ModelFileError
from tests.backend_selector.machines import (
    GIB,
    LAPTOP,
    LARGE,
    MIB,
    NATIVE,
    OTHER_SHA,
    SHA,
    THETA,
    TINY,
    WORKSTATION,
    machine,
    with_cards,
)


def worst(findings: Iterable[Finding], subject: str) -> Finding:
    order = list(Verdict)
    return max((one for one in findings if one.subject == subject), key=lambda one: order.index(one.verdict))


@pytest.mark.parametrize("facts", [LAPTOP, WORKSTATION])
def test_healthy_machines(facts: MachineFacts) -> None:
    findings = list(diagnose_machine(replace(facts, kernels=NATIVE)))
    assert {finding.verdict for finding in findings} == {Verdict.OK}
    assert {finding.subject for finding in findings} == {
        "python",
        "torch",
        "cuda",
        "kernels",
        "cpu",
        "memory",
    }
    assert all(finding.text for finding in findings)


@pytest.mark.parametrize(
    ("facts", "subject", "verdict", "words"),
    [
        (replace(LAPTOP, python="3.10.4"), "python", "problem", "3.11 to 3.13"),
        (replace(LAPTOP, python="3.14.0"), "python", "problem", "3.11 to 3.13"),
        (replace(LAPTOP, torch=None), "torch", "problem", "pip install"),
        (replace(LAPTOP, torch="2.9.1+cpu"), "torch", "problem", "pip install"),
        (replace(LAPTOP, torch="strange"), "torch", "problem", "pip install"),
        (replace(LAPTOP, cuda_driver=True), "cuda", "warning", "CUDA_VISIBLE_DEVICES"),
        (replace(LAPTOP, cuda_driver=True, cuda_fault="driver too old"), "cuda", "warning", "too old"),
        (replace(LAPTOP, cuda_driver=True, torch=None), "cuda", "warning", "no torch"),
        (replace(LAPTOP, cpu=CpuFacts("Old", 2, ())), "cpu", "warning", "AVX2"),
        (LAPTOP, "kernels", "warning", "C++ compiler"),
        (machine(GIB // 2), "memory", "warning", "close"),
        (machine(100 * MIB), "memory", "problem", "close"),
    ],
)
def test_ills_and_advice(facts: MachineFacts, subject: str, verdict: str, words: str) -> None:
    finding = worst(diagnose_machine(facts), subject)
    assert finding.verdict == verdict
    assert words in f"{finding.text} {finding.advice}"


def test_torch_two_ten_is_new_enough() -> None:
    assert worst(diagnose_machine(replace(LAPTOP, torch="2.10.0")), "torch").verdict is Verdict.OK


def test_ports() -> None:
    assert diagnose_port(5001, None).verdict is Verdict.OK
    assert diagnose_port(0, None).verdict is Verdict.OK
    assert diagnose_port(5001, "cannot listen").verdict is Verdict.PROBLEM


def test_a_model_that_fits() -> None:
    findings = list(diagnose_model(TINY, LAPTOP, Wishes()))
    assert [finding.subject for finding in findings] == ["model", "theta", "fit", "fit"]
    assert "weights" in findings[-1].text
    assert {finding.verdict for finding in findings} == {Verdict.OK}


def test_each_device_of_a_split_model_is_told() -> None:
    texts = [finding.text for finding in diagnose_model(LARGE, with_cards(3 * GIB), Wishes(gpulayers=9))]
    assert any("24 layers on cpu: weights" in text and "workspace" not in text for text in texts)
    assert any("8 layers on cuda:0: weights" in text and "workspace" in text for text in texts)


def test_a_model_that_does_not() -> None:
    finding = worst(diagnose_model(TINY, machine(20 * MIB), Wishes()), "fit")
    assert finding.verdict is Verdict.PROBLEM


def test_theta_of_another_model() -> None:
    wrong = replace(TINY, theta=replace(THETA, base_sha256=SHA), sha256=OTHER_SHA)
    finding = worst(diagnose_model(wrong, LAPTOP, Wishes(theta_path=Path("t.bin"))), "fit")
    assert finding.verdict is Verdict.PROBLEM
    assert "another model" in finding.text


def test_a_model_that_cannot_be_read() -> None:
    (finding,) = diagnose_model(ModelFileError("x.gguf: is empty"), LAPTOP, Wishes())
    assert finding.verdict is Verdict.PROBLEM
    assert finding.advice
