"""Uploads: taking recordings in, making jobs of them, and publishing the jobs' first events."""
