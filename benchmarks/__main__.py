"""``python -m benchmarks instructions|lowbit|host [TARGET ...]``, ``fit [TARGET or ROW ...]``, ``web``."""

from __future__ import annotations

import sys

from benchmarks import fit, host, instructions, lowbit, web


def main() -> None:
    command, *names = sys.argv[1:] or ["instructions"]
    if command in ("host", "web"):  # times against peers, measured in the same run
        print(host.run(names or host.TARGETS) if command == "host" else web.run())
        return
    if command == "lowbit":
        found = lowbit.run(names or lowbit.TARGETS)
        lowbit.write(found)
        print(lowbit.table(found))
        return
    if command == "fit":
        fit.fit(names)
        return
    results = instructions.run(names or instructions.TARGETS)
    instructions.write(results)
    wide = [n for n in results if instructions.has_vectors(n)]
    for per, group in ((32, [n for n in results if n not in wide]), (128, wide)):
        if group:
            print(instructions.macs_table(results, group, per), end="\n\n")
    for name in results:
        print(instructions.code_table(results, name), end="\n\n")
    print(instructions.error_table(results))


if __name__ == "__main__":
    main()
