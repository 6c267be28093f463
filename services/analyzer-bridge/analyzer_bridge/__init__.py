"""The analyzer-bridge: has recordings analysed by the analysis server, and turns its answers into events."""

SERVICE = "analyzer-bridge"
