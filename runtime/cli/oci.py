"""`rawpod oci`: the command line of `rawpod-oci`, under the program that people have at hand."""

import click


@click.command(
    name="oci",
    add_help_option=False,
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def oci(arguments: tuple[str, ...]) -> None:
    """Everything after `oci` is rawpod-oci's; `rawpod oci --help` lists it."""
    from runtime.oci.main import main

    main(arguments)
