"""When somebody should be woken, or look in the morning: one table, for Prometheus and for the docs.

The limits are those of deploy.yaml. In an expression `{job}` stands for the deployment's series and `{job,...}` for
those with a label besides; a series that is compared with another one has the same labels, so each host is judged by
itself. Source of the names: "Alerting", in Prometheus' best practices.
"""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from generator.config.schema import Deploy

PREFIX = "Wsbundle"
NEARLY = 0.8


class Alert(NamedTuple):
    """One alert as it is rendered. `lasts` is how long it must hold, as Prometheus writes it; `look` where to look."""

    name: str
    expr: str
    lasts: str
    severity: Literal["warning", "critical"]
    summary: str
    advice: str
    look: str


class Rule(NamedTuple):
    """One alert as it is declared: what it means, and what to do. `applies` says whether a deployment has it."""

    name: str
    expr: Callable[[Deploy], str]
    lasts: str
    severity: Literal["warning", "critical"]
    meaning: str
    advice: str
    look: str
    applies: Callable[[Deploy], bool] = lambda _: True


def _always(expr: str) -> Callable[[Deploy], str]:
    return lambda _: expr


def _doctor(check: str) -> str:
    return f"wsbundle doctor --only {check}"


RULES = (
    Rule(
        "Down",
        _always("up{job} == 0"),
        *("1m", "critical", "the service does not answer"),
        advice="Is it down, or its event loop stuck? status says which; restart it, and read its log",
        look="wsbundle status",
    ),
    Rule(
        "Full",
        # Where clients come and go, a scrape rarely sees the very number: those that were refused say it.
        lambda deploy: (
            f"wsbundle_connections{{job}} >= {deploy.limits.connections} or "
            f"(wsbundle_connections{{job}} >= {deploy.limits.connections * NEARLY:g} and ignoring(status) "
            'rate(wsbundle_handshakes_refused_total{job,status="503"}[2m]) > 0)'
        ),
        *("1m", "critical", "it is full: new clients are refused with 503"),
        advice="Raise limits.connections if the host has the memory; see `wsbundle clients` for who has them",
        look=_doctor("limits.connections"),
    ),
    Rule(
        "NearlyFull",
        lambda deploy: f"wsbundle_connections{{job}} > {deploy.limits.connections * NEARLY:g}",
        *("5m", "warning", f"more than {NEARLY:.0%} of limits.connections are taken"),
        advice="Raise limits.connections before new clients are refused with 503",
        look=_doctor("limits.connections"),
    ),
    Rule(
        "WorkerMissing",
        lambda deploy: f"wsbundle_workers{{job}} < {deploy.workers}",
        *("1m", "critical", "a worker has ended and none has taken its place"),
        advice="The log says why the next one cannot start; fix that, and restart the service",
        look=_doctor("workers"),
        applies=lambda deploy: deploy.workers not in (1, "auto"),
    ),
    Rule(
        "WorkerStuck",
        _always("wsbundle_workers_counted{job} < wsbundle_workers{job}"),
        *("1m", "critical", "a worker does not answer and was not replaced"),
        advice="Restart the service; if the disk or the CPU of the host is the cause, that comes first",
        look=_doctor("workers"),
    ),
    Rule(
        "EngineAway",
        _always("wsbundle_engine_up{job} == 0"),
        *("1m", "critical", "the engine does not answer: clients of other hosts cannot be reached"),
        advice="Start the engine, or repair the network to it; the service reconnects by itself",
        look=_doctor("engine"),
        applies=lambda deploy: deploy.engine.url is not None,
    ),
    Rule(
        "Restarts",
        # Each worker that was seen is counted, for replacing all of them now and then is nothing to be woken by.
        _always(
            "count without (worker) (count_over_time(wsbundle_worker_start_time_seconds{job}[1h])) "
            "> 4 * max_over_time(wsbundle_workers{job}[1h])"
        ),
        *("0s", "warning", "workers keep ending, and others take their place"),
        advice="The log says with which exit code or signal; -9 without a word is often too little memory",
        look=_doctor("journal"),
    ),
    Rule(
        "LoopLate",
        _always("wsbundle_loop_lag_seconds{job} > 0.5"),
        *("5m", "warning", "the event loop is held up for more than half a second"),
        advice="Look for what else takes the CPU of the host, and for a disk that hangs; give it more cores",
        look="wsbundle status",
    ),
    Rule(
        "Busy",
        _always("rate(process_cpu_seconds_total{job}[5m]) > 0.8 * wsbundle_workers{job}"),
        *("10m", "warning", "each worker uses nearly a whole core"),
        advice="Add workers if there are cores; otherwise add a core, or a host",
        look="docs/workers.md",
    ),
    Rule(
        "DeliverySlow",
        _always("histogram_quantile(0.99, rate(wsbundle_delivery_seconds_bucket{job}[5m])) > 1"),
        *("10m", "warning", "one delivery in a hundred takes longer than a second"),
        advice="If the loop is late too, it is the host; otherwise clients read slowly: top shows what waits",
        look="wsbundle top",
    ),
    Rule(
        "SlowClients",
        _always('rate(wsbundle_connections_closed_total{job,code="4101"}[5m]) > 0.1'),
        *("5m", "warning", "clients are closed because they read too slowly"),
        advice="The log names them. Slow down a sender that floods them; limits.queue is what each may leave unread",
        look=_doctor("slow-clients"),
    ),
    Rule(
        "RefusesAddresses",
        _always('rate(wsbundle_handshakes_refused_total{job,status="429"}[5m]) > 1'),
        *("5m", "warning", "addresses have more connections than limits.connections_per_address"),
        advice="Raise the limit if it is an office; leave it if it is abuse",
        look=_doctor("refusals"),
    ),
    Rule(
        "RefusesPages",
        _always('rate(wsbundle_handshakes_refused_total{job,status="403"}[5m]) > 1'),
        *("5m", "warning", "pages that are not in `origins` try to connect"),
        advice="Add the page to `origins` if it is yours; the log names it",
        look=_doctor("refusals"),
        applies=lambda deploy: bool(deploy.origins),
    ),
    Rule(
        "RefusesTokens",
        _always('rate(wsbundle_handshakes_refused_total{job,status="401"}[5m]) > 1'),
        *("5m", "warning", "clients come without a valid token"),
        advice="See whether clients renew theirs in time, and whether a key that they use was dropped",
        look=_doctor("refusals"),
        applies=lambda deploy: deploy.auth == "token",
    ),
    Rule(
        "MessagesMiss",
        _always(
            'rate(wsbundle_messages_dropped_total{job,reason="nobody"}[5m]) '
            "> ignoring(reason) rate(wsbundle_messages_routed_total{job}[5m]) + 0.1"
        ),
        *("15m", "warning", "most messages are for addresses that nobody has"),
        advice="See whether the recipients are connected, and whether senders write their addresses right",
        look="wsbundle clients",
    ),
    Rule(
        "MailboxFull",
        _always('rate(wsbundle_messages_dropped_total{job,reason="mailbox_full"}[5m]) > 0'),
        *("5m", "warning", "mailboxes are full, or what holds them: messages for clients that are away are refused"),
        advice="Make room on the disk or in the engine, or raise a limit below `mailbox`: `wsbundle mailbox` shows "
        "what each holds",
        look="docs/mailbox.md",
        applies=lambda deploy: deploy.mailbox.keep != "none",
    ),
    Rule(
        "MailboxFailing",
        _always("wsbundle_mailbox_failing{job} > 0"),
        *("1m", "critical", "mailboxes cannot be written: what is sent to them is refused"),
        advice="Make room on the disk or in the engine; if there is room, the log says what is wrong",
        look="docs/mailbox.md",
        applies=lambda deploy: deploy.mailbox.keep != "none",
    ),
    Rule(
        "FilesRunOut",
        _always("process_open_fds{job} > 0.9 * process_max_fds{job}"),
        *("5m", "critical", "nine in ten open files are used, and not by connections alone"),
        advice="Restart the service before it can accept nobody, and please report what holds the files",
        look=_doctor("open-files"),
    ),
)


def alerts(deploy: Deploy) -> list[Alert]:
    """Those of one deployment."""
    return list(_alerts(deploy))


def _alerts(deploy: Deploy) -> Iterator[Alert]:
    for rule in RULES:
        if rule.applies(deploy):
            yield Alert(
                PREFIX + rule.name,
                selected(rule.expr(deploy), deploy.name),
                rule.lasts,
                rule.severity,
                f"{deploy.name} on {{{{ $labels.instance }}}}: {rule.meaning}",
                rule.advice,
                rule.look,
            )


def selected(expr: str, job: str) -> str:
    """An expression about the series of one deployment."""
    return expr.replace("{job", f'{{job="{job}"')
