"""The fuzzer's command line."""

import argparse
import json
import sys
import time

from tests.fuzz_files.fuzzer import CPU_SECONDS, fuzz


def main() -> None:
    """Fuzz, print failures as they are, and a line of JSON at last."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_files", description=__doc__)
    parser.add_argument("--count", type=int, default=5000, help="mutants")
    parser.add_argument("--seed", type=int, default=0, help="that of the first; the others follow it")
    parser.add_argument("--cpu", type=float, default=CPU_SECONDS, help="seconds of CPU time for one mutant")
    parser.add_argument(
        "--no-limit", action="store_true", help="leave the address space alone, for sanitizers"
    )
    arguments = parser.parse_args()
    start = time.monotonic()
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    findings = fuzz(seeds, cpu_seconds=arguments.cpu, limited=not arguments.no_limit)
    for failure in findings.failures:
        print(f"seed {failure['seed']}, {failure.get('changes', 'it died')}:\n{failure['failed']}")
        print(f"  again: python -m tests.fuzz_files --count 1 --seed {failure['seed']}")
    print(f"seeds {seeds.start} to {seeds.stop - 1}")
    report = {
        "mutants": findings.mutants,
        "failures": len(findings.failures),
        "failed_seeds": [failure["seed"] for failure in findings.failures],
        "outcomes": dict(findings.outcomes.most_common()),
        "seconds": round(time.monotonic() - start, 1),
    }
    print(json.dumps(report))
    sys.exit(1 if findings.failures else 0)
