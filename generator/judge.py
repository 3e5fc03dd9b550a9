"""Every render is judged before it is written: do the files agree, and do their own programs accept them?"""

from collections.abc import Mapping

from generator.config.load import Loaded
from generator.config.schema import Deploy
from generator.readers import READERS, Verdict, read_with
from generator.readers.kept import Judgement
from generator.rendering.bundle import Bundle
from generator.rendering.render import keys_behind, settings_in_env
from generator.report import CommandError, Report, paint

_COLOURS = {"accepted": "green", "refused": "red", "not checked": "yellow"}


def judge(loaded: Loaded, bundle: Bundle, report: Report) -> None:
    """Report what the readers say of the bundle.

    Raises:
        CommandError: a file disagrees with another, or its program refuses it.
    """
    verdicts = [verdict for said in _read(bundle, _environment(loaded.deploy), report).values() for verdict in said]
    said = report.facts.get("verdicts", [])
    report.fact(verdicts=[_as_fact(verdict) for verdict in verdicts])
    news = [
        verdict for verdict in verdicts if _as_fact(verdict) not in said
    ]  # it may be asked again after packages came
    accepted = [] if report.verbose else [verdict for verdict in news if verdict.state == "accepted"]
    if accepted:
        report.line(f"  {_in_one_line(accepted, len(verdicts))}")
    for verdict in verdicts:
        if verdict in news and verdict not in accepted:
            report.line(f"  {_line(verdict)}")
        for fault in verdict.faults:
            report.error(f"{fault}{_cause(loaded, fault.path, fault.line)}")
    if refused := [verdict.title for verdict in verdicts if verdict.state == "refused"]:
        raise CommandError(f"Refused by {', '.join(refused)}; nothing was written.")


def _read(bundle: Bundle, environment: Mapping[str, str], report: Report) -> dict[str, list[Verdict]]:
    """What every reader says; what it has accepted before and would accept again is not read again.

    Raises:
        CommandError: the files do not agree.
    """
    judgement = Judgement(bundle, environment)
    accepted = judgement.accepted()
    if not accepted:
        _see_that_all_agree(bundle, report)
        judgement.look()
    asked = [name for name in READERS if name not in accepted]
    with report.busy("let the programs that will read the files check them"):
        fresh = read_with(asked, bundle, environment)
    verdicts = {name: fresh[name] if name in fresh else accepted[name] for name in READERS}
    if not accepted:
        judgement.keep(verdicts)
    return verdicts


def _see_that_all_agree(bundle: Bundle, report: Report) -> None:
    from generator.rendering.agreement import disagreements  # nobody pays for it who has accepted verdicts

    if found := disagreements(bundle):
        for agreement, path, what in found:
            report.error(f"{path}: {what} ({agreement.name})")
        raise CommandError("The rendered files do not agree; nothing was written. This is a fault of the templates.")


def _environment(deploy: Deploy) -> dict[str, str]:
    return {**settings_in_env(deploy), **deploy.env}


def _line(verdict: Verdict) -> str:
    state = paint(f"{verdict.state:11}", _COLOURS[verdict.state])
    exposure = "" if verdict.exposure is None else f" (exposure {verdict.exposure:g})"
    return f"{state} {verdict.title}{exposure}{f': {verdict.why}' if verdict.why else ''}"


def _in_one_line(accepted: list[Verdict], number: int) -> str:
    exposure = "".join(f" (exposure {verdict.exposure:g})" for verdict in accepted if verdict.exposure is not None)
    return f"{paint('accepted   ', _COLOURS['accepted'])} {len(accepted)} of {number} checks{exposure}; -v lists them"


def _as_fact(verdict: Verdict) -> dict[str, object]:
    faults = [{"path": fault.path, "line": fault.line, "message": fault.message} for fault in verdict.faults]
    return {
        "tool": verdict.tool,
        "title": verdict.title,
        "state": verdict.state,
        "why": verdict.why,
        "exposure": verdict.exposure,
        "faults": faults,
    }


def _cause(loaded: Loaded, path: str, line: int | None) -> str:
    """`; from deploy.yaml:4:9: domain` for a line that comes from settings that were given."""
    if line is None:
        return ""
    given = [key for key in keys_behind(loaded.deploy, path, line) if key in loaded.origins]
    return f"; from {', '.join(f'{loaded.origins[key]}: {key}' for key in given)}" if given else ""
