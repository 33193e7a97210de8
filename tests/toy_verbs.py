"""The command line, as tests call it."""

from bioattn.cli.app import main


def call(*words: object) -> None:
    """Run a verb; its success is an exit too."""
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        if end.code:
            raise
