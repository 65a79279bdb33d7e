"""Figures that were measured and are committed beside the benchmark that measures them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Committed:
    """A JSON object in a file of this folder, by target or by model."""

    name: str

    @property
    def path(self) -> Path:
        return Path(__file__).with_name(self.name)

    def load(self) -> Any:
        """The committed results."""
        return json.loads(self.path.read_text(encoding="utf-8"))

    def write(self, results: dict[str, Any]) -> None:
        """Add to, or replace in, the committed results."""
        old = self.load() if self.path.exists() else {}
        self.path.write_text(json.dumps(old | results, indent=1) + "\n", encoding="utf-8")
