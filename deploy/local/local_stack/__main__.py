"""`python -m local_stack`."""

from local_stack.cli import app

if __name__ == "__main__":
    app(prog_name="local_stack")
