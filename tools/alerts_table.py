"""The table of docs/monitoring.md that follows from the declarations of the alerts: `make docs`."""

import sys
from pathlib import Path

from generator.config.schema import Deploy
from generator.rendering.alerts import PREFIX, RULES
from tools.protocol_tables import with_tables

PAGE = Path(__file__).parent.parent / "docs" / "monitoring.md"


def alerts() -> str:
    """Every alert with its expression, as the sample deploy.yaml would have it."""
    sample = Deploy(domain="ws.example.com", workers=4)
    rows = ["| alert | when | for | what it means | what to do |", "|---|---|---|---|---|"]
    for rule in RULES:
        when = rule.expr(sample).replace("{job}", "").replace("{job,", "{")
        rows.append(
            f"| `{PREFIX}{rule.name}` ({rule.severity}) | `{when}` | {rule.lasts} | {rule.meaning} | {rule.advice} |"
        )
    return "\n".join(rows)


def with_alerts(page: str) -> str:
    """The page with the table as the code has it."""
    return with_tables(page, {"alerts": alerts})


if __name__ == "__main__":
    PAGE.write_text(with_alerts(PAGE.read_text()))
    sys.stdout.write(f"wrote {PAGE.relative_to(Path.cwd())}\n")
