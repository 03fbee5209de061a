"""`rawpod supervisor`."""

import click

from runtime.settings import Settings


@click.command()
@click.option("--stop-pods", is_flag=True, help="End the pods when the supervisor is ended; otherwise they run on.")
@click.pass_obj
def supervisor(settings: Settings, stop_pods: bool) -> None:
    """Run the daemon that keeps pods as they were asked for, in the foreground.

    It listens on the unix socket --socket, where get, apply and the other commands find it. SIGTERM and SIGINT end it;
    started again, it takes over the pods that run.
    """
    from runtime.supervisor.main import run

    run(settings, stop_pods=stop_pods)
