"""``python -m benchmarks instructions|fit [TARGET ...]``."""

from __future__ import annotations

import sys

from benchmarks import fit, instructions
from bitc.target import Target


def main() -> None:
    command, *names = sys.argv[1:] or ["instructions"]
    if command == "fit":
        fit.fit(names or fit.TARGETS)
    results = instructions.run(names or instructions.TARGETS)
    instructions.write(results)
    for per, group in ((32, [n for n in results if not _wide(n)]), (128, [n for n in results if _wide(n)])):
        if group:
            print(instructions.macs_table(results, group, per), end="\n\n")
    print(instructions.error_table(results))


def _wide(name: str) -> bool:
    return Target.load(name).vector_bytes >= 16


if __name__ == "__main__":
    main()
