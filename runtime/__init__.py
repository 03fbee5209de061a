"""Containers, pods, the monitor, the supervisor and the command line."""
