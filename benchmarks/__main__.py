"""``python -m benchmarks instructions|int8|lowbit|sparse|host [TARGET ...]``, ``fit [TARGET or ROW ...]``, ``web``,
``compile [MODEL ...]``, ``compression [STEPS ...]``, ``memory [FOLDER ...]``."""

from __future__ import annotations

import sys

from benchmarks import compiling, compression, fit, host, instructions, int8, lowbit, memory, sparse, web


def main() -> None:
    command, *names = sys.argv[1:] or ["instructions"]
    if command in ("host", "web"):  # times against peers, measured in the same run
        module = host if command == "host" else web
        found = module.run(*[names] if names else [])
        if not names:
            module.RESULTS.write_text(found + "\n", encoding="utf-8")
        print(found, module.run_numbers(*[names] if names else []), sep="\n\n")
        return
    if command == "lowbit":
        figures = lowbit.run(names or lowbit.TARGETS)
        lowbit.RESULTS.write(figures)
        print(lowbit.table(figures))
        return
    if command == "sparse":
        sparse.RESULTS.write(gains := sparse.run(names))
        print(sparse.table(gains), sparse.layers_table(gains), sep="\n\n")
        return
    if command == "compression":
        print(compression.table(compression.run(names)))
        return
    if command == "fit":
        fit.fit(names)
        return
    if command == "compile":
        compiling.write(times := compiling.run(names))
        print(compiling.table(times))
        return
    if command == "memory":
        memory.RESULTS.write(planned := memory.run(names))
        print(memory.table(planned))
        return
    if command == "int8":
        int8.RESULTS.write(found := int8.run(names))
        print(int8.table(found))
        return
    if command != "instructions":  # a slip must not measure for an hour and replace the results
        raise SystemExit(f"no benchmark is called {command!r}; usage: {__doc__}")
    results = instructions.run(names or instructions.TARGETS)
    instructions.RESULTS.write(results)
    wide = [n for n in results if instructions.has_vectors(n)]
    for per, group in ((32, [n for n in results if n not in wide]), (128, wide)):
        if group:
            print(instructions.macs_table(results, group, per), end="\n\n")
    for name in results:
        print(instructions.code_table(results, name), end="\n\n")
    print(instructions.error_table(results))


if __name__ == "__main__":
    main()
