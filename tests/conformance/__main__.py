"""Run the ONNX project's own backend tests on the host and write the table.

``python -m tests.conformance`` runs all cases and writes ``tests/conformance/table.json`` and ``README.md``; with
arguments it runs the cases whose names contain one of them, and prints what became of each.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from tests.conformance.cases import load_cases
from tests.conformance.sweep import PASSED, sweep
from tests.conformance.table import write


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names; none: all, and the table is written")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    parser.add_argument("-a", "--all", action="store_true", help="print the cases that passed too")
    given = parser.parse_args()
    cases = [c for c in load_cases() if not given.names or any(n in c.name for n in given.names)]
    results = dict(sweep(cases, given.jobs))
    if not given.names:
        write(results)
    for case in cases:
        r = results[case]
        if given.names and (given.all or r.status != PASSED):
            known = f" (constant: {', '.join(r.constants)})" if r.constants else ""
            print(f"{case.name}: {r.status}{': ' if r.reason else ''}{r.reason}{known}")
    for (kind, status), n in sorted(Counter((c.kind, r.status) for c, r in results.items()).items()):
        print(f"{kind:18} {status:20} {n}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
