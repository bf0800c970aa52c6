"""The `taximeter` command: a group whose verbs are imported only when one is called.

Nothing heavier than click is imported here, so `taximeter --version` and every verb start fast.
A verb is one line in VERBS: its name and where its click command stands.
"""

from __future__ import annotations

from importlib import import_module

import click

from taximeter import __version__

VERBS: dict[str, str] = {
    "serve": "taximeter.cli.run:serve",
    "check": "taximeter.cli.run:check",
    "status": "taximeter.cli.run:status",
    "reload": "taximeter.cli.reload:reload_",
    "demo": "taximeter.cli.demo:demo",
    "stats": "taximeter.cli.query:stats",
    "by-workspace": "taximeter.cli.query:by_workspace",
    "by-provider": "taximeter.cli.query:by_provider",
    "by-model": "taximeter.cli.query:by_model",
    "by-task": "taximeter.cli.query:by_task",
    "by-key": "taximeter.cli.query:by_key",
    "by-user": "taximeter.cli.query:by_user",
    "range": "taximeter.cli.query:range_",
    "quantities": "taximeter.cli.quantities:quantities",
    "costs": "taximeter.cli.query:costs",
    "trends": "taximeter.cli.insights:trends",
    "peaks": "taximeter.cli.insights:peaks",
    "forecast": "taximeter.cli.insights:forecast",
    "alternatives": "taximeter.cli.insights:alternatives",
    "track": "taximeter.cli.track:track",
    "export": "taximeter.cli.export:export",
    "top": "taximeter.cli.live:top",
    "tail": "taximeter.cli.live:tail",
    "keys": "taximeter.cli.keys:keys",
    "prices": "taximeter.cli.prices:prices",
    "reprice": "taximeter.cli.reprice:reprice",
    "reconcile": "taximeter.cli.reconcile:reconcile",
    "statement": "taximeter.cli.statement:statement",
    "rebuild": "taximeter.cli.rebuild:rebuild",
    "adopt": "taximeter.cli.adopt:adopt",
    "quote": "taximeter.cli.quote:quote",
    "alerts": "taximeter.cli.alerts:alerts",
    "breaker": "taximeter.cli.breaker:breaker",
    "budgets": "taximeter.cli.budgets:budgets",
    "owed": "taximeter.cli.owed:owed",
    "webhook": "taximeter.cli.webhook:webhook",
    "deadletters": "taximeter.cli.deadletters:deadletters",
    "audit": "taximeter.cli.audit:audit",
    "verify": "taximeter.cli.verify:verify",
    "receipt": "taximeter.cli.verify:receipt",
    "evidence": "taximeter.cli.evidence:evidence",
    "backup": "taximeter.cli.backup:backup",
    "restore": "taximeter.cli.backup:restore",
    "database": "taximeter.cli.storage:database",
    "completion": "taximeter.cli.completion:completion",
}
"""Verb -> "module:attribute" of its click command; the order is that of `taximeter --help`."""


class LazyGroup(click.Group):
    """A group that imports a verb's module when the verb is called or its help is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        where = VERBS.get(cmd_name)
        if where is None:
            return None
        module, _, attribute = where.partition(":")
        command = getattr(import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{where} is not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Click's own, with the nearest verbs named: it looks for them among loaded ones only."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = " or ".join(map(repr, get_close_matches(args[0], VERBS)))
            ctx.fail(f"No such command {args[0]!r}.{f' Did you mean {near}?' if near else ''}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="taximeter", message="%(prog)s %(version)s")
def main() -> None:
    """Taximeter: a metering reverse proxy for LLM, embedding and rerank calls.

    Exit codes: 0 done, 1 failed, 2 wrong usage or bad settings, 3 no running proxy (and no history) to ask,
    4 nothing is recorded of a workspace or track that was named, 130 interrupted.
    """
