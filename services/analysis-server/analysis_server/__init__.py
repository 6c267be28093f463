"""The analysis server: measures a voice with Praat, aligns a script with it, and calls back with the result."""

SERVICE = "analysis-server"
