"""Containers, pods, the monitor, the supervisor and the command line."""

VERSION = "0.1.0"
