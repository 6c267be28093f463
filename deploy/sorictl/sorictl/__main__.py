"""`sorictl`, also as `python -m sorictl`."""

from sorictl.cli import main

if __name__ == "__main__":
    main()
