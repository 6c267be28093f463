"""Runs the baseline: `python -m tests.bench.baseline`, set up by the environment."""

import uvicorn

from tests.bench.baseline.app import create_app
from tests.bench.baseline.settings import Settings


def main() -> None:
    """Serve until a signal ends the process."""
    settings = Settings.from_environment()
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port)


if __name__ == "__main__":
    main()
