"""What a reproduction leaves: claims.json, claims.md and a page, beside the records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from trilemma_bench.config import read_toml
from trilemma_bench.files import save_text
from trilemma_bench.report import format as fmt
from trilemma_bench.reproduce.claims import Verdict

TEMPLATES = Path(__file__).parent / "templates"
REASONS = "reasons.toml"


@dataclass(frozen=True)
class Outcome:
    """All that a reproduction found. times: seconds of 100 samples, their interval, NFE and parameters by system.
    machine: on what, in words. seeds: with which all was trained and timed.
    """

    title: str
    scale: str
    machine: str
    seeds: Sequence[int]
    verdicts: Sequence[Verdict]
    times: dict[str, dict[str, Any]]
    figures: dict[str, str]

    def facts(self) -> dict[str, Any]:
        claims = [
            {
                "claim": each.claim.number,
                "statement": each.claim.statement,
                "published": each.claim.published,
                "rule": each.claim.rule,
                "measured": each.measured,
                "verdict": each.outcome,
            }
            for each in self.verdicts
        ]
        return {
            "title": self.title,
            "scale": self.scale,
            "machine": self.machine,
            "seeds": list(self.seeds),
            "claims": claims,
            "times": self.times,
            "figures": self.figures,
        }


def write(outcome: Outcome, out: Path) -> Path:
    """Writes claims.json, claims.md and claims.html into `out`; returns the page."""
    facts = outcome.facts()
    save_text(out / "claims.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return render(facts, out)


def render(facts: dict[str, Any], out: Path) -> Path:
    """claims.md and claims.html from what claims.json holds.

    Where `out` has a file reasons.toml, such as `C1 = "…"`, written by whoever looked into the verdicts, it is shown.
    """
    reasons = read_toml(out / REASONS) if (out / REASONS).is_file() else {}
    for suffix in ("md", "html"):
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=suffix == "html", undefined=StrictUndefined, trim_blocks=True
        )
        shown = {
            **facts,
            "machine": fmt.device(facts["machine"]),
            "reasons": reasons,
            "with_interval": fmt.with_interval,
        }
        text = environment.get_template(f"claims.{suffix}").render(shown)
        save_text(out / f"claims.{suffix}", text)
    return out / "claims.html"
