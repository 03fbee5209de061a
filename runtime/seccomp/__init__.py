"""linux.seccomp: from a profile in the words of the OCI specification to the kernel's filter program. Pure.

compiler        the profile's rules, an architecture at a time, to ranges of call numbers, to a program
conditions      what a rule asks of a call's arguments
assembler       classic BPF, written from its end to its beginning
architectures   their names, tokens and tables of numbers
default         the profile of what runs without one of its own
"""
