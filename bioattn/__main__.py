"""`python -m bioattn VERB`."""

from bioattn.cli.app import main

if __name__ == "__main__":
    main()
