"""The thinnest layer: one function a system call, one error tree, one event stream. Imports nothing of ours."""
