"""`nkat doctor`: what is well with this machine, what is not, and what to do about it."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from backend_selector.diagnosis import Finding, Verdict, diagnose_machine, diagnose_model, diagnose_port
from backend_selector.facts import Wishes
from backend_selector.plain_text import plain
from backend_selector.probe import probe_file, probe_machine
from engine.errors import ConfigError, NkatError
from server.commands.serve import bound_socket

_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.PROBLEM: "bold red"}


def doctor(model: Path | None, wishes: Wishes, *, host: str, port: int, as_json: bool) -> int:
    """Look at everything and print the findings; 1 if there is a problem, else 0. Raises nothing."""
    findings = list(_findings(model, wishes, host, port))
    healthy = all(finding.verdict is not Verdict.PROBLEM for finding in findings)
    if as_json:
        json.dump(
            {"ok": healthy, "findings": [asdict(finding) for finding in findings]}, sys.stdout, indent=2
        )
        print()
    else:
        console = Console(soft_wrap=True)
        for finding in findings:
            console.print(_line(finding))
    return 0 if healthy else 1


def _findings(model: Path | None, wishes: Wishes, host: str, port: int) -> Iterator[Finding]:
    machine = probe_machine()
    yield from diagnose_machine(machine)
    yield diagnose_port(port, _port_fault(host, port))
    if model is not None:
        try:
            facts = probe_file(model, wishes.theta_path if wishes.theta else None)
        except NkatError as error:
            yield from diagnose_model(error, machine, wishes)
        else:
            yield from diagnose_model(facts, machine, wishes)


def _port_fault(host: str, port: int) -> str | None:
    try:
        bound_socket(host, port).close()
    except ConfigError as error:
        return str(error)
    return None


def _line(finding: Finding) -> Text:
    text = f"{finding.text}; {finding.advice}" if finding.advice else finding.text
    return Text.assemble(
        (f"{finding.verdict:8}", _STYLES[finding.verdict]), f"{finding.subject:8}", plain(text)
    )
