"""The console command `app-jobs`, which is `python -m app_jobs`, too."""

import gc


def main() -> None:
    """Load the command line and run it."""
    gc.disable()  # all of this stays; to look through it again and again takes a 20th of the time
    from app_jobs import cli

    gc.freeze()
    gc.enable()
    cli.main()


if __name__ == "__main__":
    main()
