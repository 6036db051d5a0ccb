"""Write the tables of README.md anew, from the reports in docs/results.

    python benchmarks/readme_tables.py

Behind a line `<!-- docs/results/NAME.json -->` stands the ladder of that report, and the line below
it says what its last stage is against its first, and what leaving early comes to if it has exits.
"""

import json
import re
from pathlib import Path

from tfedge.report import ladder, leaving

REPO = Path(__file__).parent.parent
README = REPO / "README.md"
LEFT_OUT = ("parameters", "zeros", "arena here", "seconds")
_PLACE = re.compile(r"<!-- (docs/results/\S+\.json) -->\n(?:.+\n)*\n.+\n(?:\n\w+ on test: .+\n)?")


def table(report):
    """Return the ladder of a report, without the columns that a README can spare, in lines."""
    head, *rows = ladder.cells(report)
    kept = [place for place, word in enumerate(head) if word not in LEFT_OUT]
    texts = 3  # stage, use and accuracy stand left
    marks = ["---" if place < texts else "---:" for place in range(len(kept))]
    lines = [[row[place] for place in kept] for row in (head, *rows)]
    lines.insert(1, marks)
    return ["| " + " | ".join(line) + " |" for line in lines]


def renewed(text):
    """Return a README's text with every table as its report has it."""

    def one(found):
        report = json.loads((REPO / found[1]).read_text("utf-8"))
        lines = [found[0].splitlines()[0], *table(report), "", f"{ladder.gained(report)}."]
        if stage := leaving.of(report):
            words, cost = next(leaving.costs(stage))
            said = f"{cost['mean']:,.0f} {words} on average, {100 * cost['saved']:.1f} % fewer"
            lines += ["", f"{leaving.summary(stage)} {said}."]
        return "\n".join(lines) + "\n"

    return _PLACE.sub(one, text)


def main():
    README.write_text(renewed(README.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
