"""Starts the gateway: `python -m gateway`."""

from chassis import process
from gateway import SERVICE
from gateway.app import create_app
from gateway.settings import Settings

if __name__ == "__main__":
    process.run(SERVICE, Settings, create_app)
