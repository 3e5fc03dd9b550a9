"""Every render is judged before it is written: do the files agree, and do their own programs accept them?"""

from pathlib import Path

from generator.config.load import Loaded
from generator.config.schema import Deploy
from generator.readers import READERS, Verdict, read_with
from generator.readers.kept import Judgement
from generator.rendering.bundle import Bundle
from generator.report import CommandError, Report, paint

_COLOURS = {"accepted": "green", "refused": "red", "not checked": "yellow"}

# What imports jinja2 is imported inside the functions: where nothing has changed nobody pays for it.


def unchanged(loaded: Loaded, directory: Path, report: Report) -> str | None:
    """The manifest of a directory that holds the bundle already, if all readers have accepted that and would again.

    Nothing is rendered for that. What they said is reported.
    """
    from generator.rendering.write import stands

    kept = Judgement(loaded.deploy).recall()
    if kept is None or kept.verdicts.keys() != READERS.keys() or not stands(kept.manifest, directory):
        return None
    _report(loaded, [verdict for name in READERS for verdict in kept.verdicts[name]], report)
    return kept.manifest


def judge(loaded: Loaded, bundle: Bundle, report: Report) -> None:
    """Report what the readers say of the bundle; what they have accepted before and would again is not read again.

    Raises:
        CommandError: a file disagrees with another, or its program refuses it.
    """
    judgement, manifest = Judgement(loaded.deploy), bundle.manifest()
    kept = judgement.recall()
    accepted = kept.verdicts if kept is not None and kept.manifest == manifest else {}
    if not accepted:
        _see_that_all_agree(bundle, report)
        judgement.look(bundle)
    with report.busy("let the programs that will read the files check them"):
        asked = [name for name in READERS if name not in accepted]
        said = accepted | read_with(asked, bundle, _environment(loaded.deploy))
    if not accepted:
        judgement.keep(manifest, said)
    _report(loaded, [verdict for name in READERS for verdict in said[name]], report)


def _report(loaded: Loaded, verdicts: list[Verdict], report: Report) -> None:
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


def _see_that_all_agree(bundle: Bundle, report: Report) -> None:
    from generator.rendering.agreement import disagreements

    if found := disagreements(bundle):
        for agreement, path, what in found:
            report.error(f"{path}: {what} ({agreement.name})")
        raise CommandError("The rendered files do not agree; nothing was written. This is a fault of the templates.")


def _environment(deploy: Deploy) -> dict[str, str]:
    from generator.rendering.render import settings_in_env

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
    from generator.rendering.render import keys_behind

    given = [key for key in keys_behind(loaded.deploy, path, line) if key in loaded.origins]
    return f"; from {', '.join(f'{loaded.origins[key]}: {key}' for key in given)}" if given else ""
