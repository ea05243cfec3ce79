"""Write the factual pool and its tests, which ``data/facts`` ships, as JSON lines."""

import argparse
import json
from pathlib import Path

from pipeline.facts.questions import make_questions
from pipeline.paths import PROJECT_ROOT

SHIPPED = PROJECT_ROOT / "data" / "facts"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.facts", description=__doc__)
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of wording, options and split (%(default)s)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, questions in make_questions(options.seed).items():
        lines = [json.dumps(question._asdict(), ensure_ascii=False) for question in questions]
        (options.out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
