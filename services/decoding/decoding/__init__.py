"""Decodes what strangers send as audio: judges whether it is whole, and bounds what it may cost."""
