"""Starts the notifier: `python -m notifier`."""

from chassis import process
from notifier import SERVICE
from notifier.app import create_app
from notifier.settings import Settings

if __name__ == "__main__":
    process.run(SERVICE, Settings, create_app)
