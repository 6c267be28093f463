"""Starts the uploader: `python -m uploader`."""

from chassis import process
from uploader import SERVICE
from uploader.app import create_app
from uploader.memory import share_one_arena
from uploader.settings import Settings

if __name__ == "__main__":
    share_one_arena()
    process.run(SERVICE, Settings, create_app)
