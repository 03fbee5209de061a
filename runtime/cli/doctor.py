"""`rawpod doctor`: is this host fit for rawpod, and did rawpod leave anything behind on it."""

from __future__ import annotations

import click

from runtime.settings import Settings


@click.command()
@click.option("--leaks", "only_leaks", is_flag=True, help="List what no living pod accounts for; changes nothing.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="Form of the answer.")
@click.pass_obj
def doctor(settings: Settings, only_leaks: bool, output: str) -> int:
    """Check the host: a line for each check, with what to do about it where something is wrong.

    The exit status is 1 if a check fails, or, with --leaks, if anything was left behind.
    """
    return _show_leaks(settings, output) if only_leaks else _show_checks(settings, output)


def _show_checks(settings: Settings, output: str) -> int:
    from runtime.doctor import Level, examine, failed

    checks = examine(settings)
    if output == "json":
        import json
        from dataclasses import asdict

        click.echo(json.dumps({"checks": [asdict(check) for check in checks]}, indent=2))
    else:
        colors = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}
        width = max(len(check.name) for check in checks)
        for check in checks:
            level = click.style(f"{check.level:<4}", fg=colors[check.level])
            remedy = f" ({check.remedy})" if check.remedy else ""
            click.echo(f"{level}  {check.name:<{width}}  {check.detail}{remedy}")
    return int(failed(checks))


def _show_leaks(settings: Settings, output: str) -> int:
    from runtime.leaks import leaks

    lines = leaks(settings)
    if output == "json":
        import json

        click.echo(json.dumps({"leaks": lines}, indent=2))
    else:
        click.echo("\n".join(lines) or "clean: nothing is left behind")
    return int(bool(lines))
