"""Copies into and out of containers, by descriptor: which name goes where, how it is written, what is walked."""
