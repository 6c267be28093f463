"""Starts the analysis server: `python -m analysis_server`."""

from analysis_server import SERVICE
from analysis_server.app import create_app
from analysis_server.settings import Settings
from chassis import process

if __name__ == "__main__":
    process.run(SERVICE, Settings, create_app)
