"""Launcher for a checkout: ``python cli.py train ...`` is ``yolomish train ...``."""

from yolomish.commands import main

if __name__ == "__main__":
    main()
