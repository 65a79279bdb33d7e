"""What a search has tried, in a file, so that one that was stopped goes on where it was."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from bitc.compression.mix import Change, Mix, Needs, Trial


class Journal:
    """The trials of one problem by mix; lines of other problems, and one cut short by the end of a search, are left
    alone."""

    def __init__(self, path: Path | None, key: str) -> None:
        self._path, self._key = path, key
        self.known: dict[Mix, Trial] = {}
        if path is None or not path.exists():
            return
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
                if line["key"] == key:
                    mix = tuple(Change(c["steps"], tuple(c["layers"])) for c in line["mix"])
                    self.known[mix] = Trial(**line["trial"] | {"needs": Needs(**line["trial"]["needs"])})
            except (ValueError, TypeError, KeyError):
                continue

    def add(self, mix: Mix, trial: Trial) -> None:
        """Keep a trial."""
        self.known[mix] = trial
        if self._path is not None:
            line = {"key": self._key, "mix": [asdict(c) for c in mix], "trial": asdict(trial)}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
