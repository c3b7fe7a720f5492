"""``python -m yolomish``."""

from yolomish.commands import main

if __name__ == "__main__":
    main()
