"""`python -m interp`, and the command `interp`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is loading stops it quietly too."""
    try:
        from interp.cli import main as command
    except KeyboardInterrupt:
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
