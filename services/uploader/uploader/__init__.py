"""The uploader: decodes, verifies and stores recordings."""

SERVICE = "uploader"
