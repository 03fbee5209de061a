"""A profile's rules as one architecture sees them: what becomes of each call number.

Where the specification leaves something open it goes as with runc and libseccomp:

- names that the architecture has no call for are passed over, a profile is written for many kernels
- a rule without conditions stands before those with conditions for the same call, the first one before later ones,
  and one that says the same as the default says nothing
- two conditions on one argument are not one rule but two
- calls newer than any that the profile names answer ENOSYS where the default is to refuse, for a C library to fall
  back on what it used before

libseccomp leaves open which of several conditional rules holds that match alike and differ: here it is the most
restrictive one, as between filters (seccomp(2)).
"""

from __future__ import annotations

from runtime.seccomp.conditions import EQ, MASKED_EQ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime import spec
    from runtime.seccomp.architectures import Architecture
    from runtime.seccomp.conditions import Condition, Rule

# linux/seccomp.h, SECCOMP_RET_*
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
KILL_THREAD = 0
ERRNO_ENOSYS = 0x00050000 | 38
_ERRNO, _TRACE = 0x00050000, 0x7FF00000
_EPERM = 1

# Calls that i386 makes through socketcall(2) and ipc(2) as well as by numbers of their own (linux/net.h, linux/ipc.h).
_SOCKETCALL, _IPC = 102, 117
_MULTIPLEXED = {
    name: (_SOCKETCALL, number)
    for number, name in enumerate(
        (
            *("socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send"),
            *("recv", "sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4"),
            *("recvmmsg", "sendmmsg"),
        ),
        1,
    )
} | {
    name: (_IPC, number)
    for name, number in (
        *(("semop", 1), ("semget", 2), ("semctl", 3), ("semtimedop", 4)),
        *(("msgsnd", 11), ("msgrcv", 12), ("msgget", 13), ("msgctl", 14)),
        *(("shmat", 21), ("shmdt", 22), ("shmget", 23), ("shmctl", 24)),
    )
}


def verdict(action: str, errno: int | None) -> int:
    """What the filter answers for an action (SECCOMP_RET_* with its data)."""
    value = ACTIONS[action]
    if action in WITH_ERRNO:
        value |= _EPERM if errno is None else errno & 0xFFFF
    return value


def severity(answer: int) -> int:
    """The kernel's order of actions: the lower, the more restrictive."""
    action = answer & 0xFFFF0000
    return action - 2**32 if action >= 2**31 else action


def refuses(answer: int) -> bool:
    """Whether the call is not carried out. A tracer or listener is taken to know what it does."""
    return severity(answer) <= _ERRNO


def is_errno(answer: int) -> bool:
    """Whether the caller gets an errno."""
    return severity(answer) == _ERRNO


class Rules:
    """What becomes of the calls of one architecture.

    `plain` maps numbers to verdicts, `conditional` to rules in the order to try them, after which the default holds.
    `last` is the greatest number that the profile names, -1 for none.
    """

    def __init__(self, profile: spec.Seccomp, architecture: Architecture) -> None:
        self.default = verdict(profile.default_action, profile.default_errno_ret)
        self.plain: dict[int, int] = {}
        self.conditional: dict[int, list[Rule]] = {}
        self.last = -1
        table = architecture.numbers
        multiplexed: dict[str, list[Rule]] = {}
        for group in profile.syscalls:
            answer = verdict(group.action, group.errno_ret)
            several = alternatives(group.args)
            for name in group.names:
                if architecture.name == "x86" and name in _MULTIPLEXED:
                    multiplexed.setdefault(name, []).extend((answer, conditions) for conditions in several)
                number = table.get(name)
                if number is None:
                    continue
                # Those of ARM's own (0xf0000 and up) are not newer than others.
                if self.last < number and number & 0xF0000 == 0:
                    self.last = number
                if group.args:
                    self.conditional.setdefault(number, []).extend((answer, conditions) for conditions in several)
                elif answer != self.default:
                    self.plain.setdefault(number, answer)
        for name, rules in multiplexed.items():
            self._multiplex(name, rules)
        for number in self.conditional.keys() & self.plain.keys():
            del self.conditional[number]
        for rules in self.conditional.values():
            rules.sort(key=lambda rule: severity(rule[0]))

    def _multiplex(self, name: str, rules: list[Rule]) -> None:
        """The rules for `name` as rules for the call that takes the arguments in memory, where no filter can look.

        A conditional rule that allows more than the default is left out, one that allows less holds always: whether
        its conditions are met cannot be known. libseccomp takes both for met, and with that lets socketcall(2) make
        what a rule for socket(2) has excluded.
        """
        outer, inner = _MULTIPLEXED[name]
        # By naming what it does the profile knows of it: the call is no newer one.
        self.last = max(self.last, outer)
        unconditional = [answer for answer, conditions in rules if not conditions and answer != self.default]
        if unconditional:
            answers = unconditional[:1]
        else:
            answers = [answer for answer, _ in rules if severity(answer) < severity(self.default)]
        # ipc(2) has a version in the upper half of its first argument.
        condition: Condition = (0, MASKED_EQ, 0xFFFF, inner) if outer == _IPC else (0, EQ, inner, 0)
        for answer in answers:
            self.conditional.setdefault(outer, []).append((answer, (condition,)))


def alternatives(args: list[spec.SeccompArg]) -> list[tuple[Condition, ...]]:
    """Sets of conditions of which one must hold in full."""
    conditions = [(arg.index, arg.op, arg.value, arg.value_two) for arg in args]
    if len({arg.index for arg in args}) < len(args):
        return [(condition,) for condition in conditions]
    return [tuple(conditions)]
