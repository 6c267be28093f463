"""Starts the analyzer-bridge: `python -m analyzer_bridge`."""

from analyzer_bridge import SERVICE
from analyzer_bridge.app import create_app
from analyzer_bridge.settings import Settings
from chassis import process

if __name__ == "__main__":
    process.run(SERVICE, Settings, create_app)
