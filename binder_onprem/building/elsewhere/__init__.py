"""Builds on other machines: which one, and how the two speak."""
