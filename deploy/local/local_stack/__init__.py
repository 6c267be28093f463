"""Runs the whole of Sori on one machine, without containers: its back ends, the edge and the services."""
