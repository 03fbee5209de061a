"""Where runtimes are known to differ from the specification, or from what this suite asks of a command line.

A test named here must fail: one that has come to pass is reported, so that its row is taken out.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.oci.runtime import Runtime

_ANY = (1_000_000,)


@dataclass(frozen=True)
class Known:
    """One row: a runtime older than `before` fails `tests` (a function, or one of its cases), for `reason`."""

    runtime: str
    before: tuple[int, ...]
    reason: str
    tests: tuple[str, ...]


def _row(runtime: str, before: tuple[int, ...], reason: str, tests: str) -> Known:
    return Known(runtime, before, reason, tuple(line.strip() for line in tests.strip().splitlines()))


CRUN_1_8, RUNC_1_1 = (1, 9), (1, 2)
"""The first versions that these rows were not seen with: Debian 12 has crun 1.8.1 and runc 1.1.5."""

KNOWN: tuple[Known, ...] = (
    _row("crun", _ANY, "deletes a created container", "test_a_created_container_cannot_be_deleted"),
    _row(
        "crun",
        CRUN_1_8,
        "has no command `features`",
        """
        test_the_versions_are_there_and_in_order
        test_the_versions_are_accepted
        test_nothing_is_there_that_the_specification_does_not_define
        test_every_hook_is_supported
        test_every_mount_option_that_must_be_implemented_is_recognized
        test_every_mount_option_that_is_listed_is_recognized
        test_every_namespace_is_recognized
        test_time_is_a_recognized_namespace
        test_every_capability_is_recognized
        test_what_seccomp_knows_is_recognized
        test_flags_that_are_supported_are_known
        test_cgroup_v2_is_supported
        test_what_is_said_of_security_modules_is_boolean
        test_idmapped_mounts_are_told
        test_annotations_are_strings
    """,
    ),
    _row(
        "crun",
        CRUN_1_8,
        "says which file it could not open where a container does not exist",
        """
        test_errors_go_to_the_log_as_json
        test_errors_go_to_the_log_as_text
        test_errors_go_to_standard_error_whatever_the_log
    """,
    ),
    _row("crun", CRUN_1_8, "ignores a console socket without a terminal", "test_a_console_socket_needs_a_terminal"),
    _row(
        "crun",
        CRUN_1_8,
        "has no --keep",
        """
        test_run_can_keep_the_container
        test_run_detached_can_keep_and_pass_descriptors
    """,
    ),
    _row("crun", CRUN_1_8, "passes LISTEN_FDS without LISTEN_PID", "test_listen_fds_is_passed_on"),
    _row(
        "crun",
        CRUN_1_8,
        "exec takes neither directory, environment nor noNewPrivileges of the container",
        """
        test_exec_has_the_containers_environment_directory_and_user
        test_options_of_exec_change_them
        test_exec_has_the_capabilities_and_restrictions_of_the_container
    """,
    ),
    _row(
        "crun", CRUN_1_8, "state has the rootfs as it was written", "test_the_state_tells_more_than_the_specification"
    ),
    _row(
        "crun",
        CRUN_1_8,
        "checks the first characters of a version alone",
        """
        test_a_version_that_is_not_semver_is_refused[1.0.2 ]
        test_a_version_that_is_not_semver_is_refused[v1.0.2]
    """,
    ),
    _row(
        "crun",
        CRUN_1_8,
        "takes values of a wrong type as absent or 0",
        """
        test_a_value_of_the_wrong_type_is_refused[args]
        test_a_value_of_the_wrong_type_is_refused[user]
        test_a_value_of_the_wrong_type_is_refused[maskedPaths]
        test_a_user_id_that_is_none_is_refused[0-uid]
        test_a_user_id_that_is_none_is_refused[0-gid]
    """,
    ),
    _row(
        "crun",
        CRUN_1_8,
        "takes a file that does not match as the device",
        """
        test_another_file_at_the_path_of_a_device_is_an_error
        test_an_unknown_type_of_device_is_an_error
    """,
    ),
    _row(
        "crun",
        CRUN_1_8,
        "start does not wait for startContainer hooks",
        """
        test_every_hook_is_called_in_the_order_of_the_lifecycle
        test_a_failing_start_container_hook_keeps_the_program_from_running
    """,
    ),
    _row(
        "crun",
        CRUN_1_8,
        "gives startContainer hooks the bundle / and the status starting",
        """
        test_hooks_get_the_state_on_stdin[startContainer]
        test_the_status_that_hooks_get_is_that_of_the_moment[startContainer]
    """,
    ),
    _row(
        "crun",
        CRUN_1_8,
        "calls no poststop hook after another hook has failed",
        """
        test_poststop_hooks_are_called_after_another_hook_has_failed
    """,
    ),
    _row(
        "crun",
        CRUN_1_8,
        "says nothing of a hook that has failed",
        """
        test_a_failing_poststart_hook_is_a_warning
        test_a_failing_poststop_hook_is_a_warning
    """,
    ),
    _row(
        "crun",
        CRUN_1_8,
        "takes relative paths",
        """
        test_the_path_of_a_hook_must_be_absolute
        test_a_relative_working_directory_is_refused[tmp]
        test_a_relative_working_directory_is_refused[./]
        test_a_relative_masked_path_is_an_error
        test_a_relative_readonly_path_is_an_error
    """,
    ),
    _row("crun", CRUN_1_8, "takes a timeout of 0 as none", "test_a_timeout_must_be_greater_than_zero[0]"),
    _row("crun", CRUN_1_8, "ignores intelRdt", "test_intel_rdt_without_resctrl_is_an_error"),
    _row("crun", CRUN_1_8, "takes every id that is a file's name", "test_an_invalid_id_is_refused[newline]"),
    _row(
        "crun",
        CRUN_1_8,
        "takes an unknown signal as 0",
        """
        test_a_signal_that_does_not_exist_is_refused[NOSUCH]
        test_a_signal_that_does_not_exist_is_refused[SIGNOSUCH]
        test_a_signal_that_does_not_exist_is_refused[0x9]
    """,
    ),
    _row(
        "crun",
        CRUN_1_8,
        "does not let a later option take back an earlier one",
        """
        test_each_option_of_a_filesystem_is_implemented[async]
        test_each_option_of_a_filesystem_is_implemented[atime]
        test_each_option_of_a_filesystem_is_implemented[dev]
        test_each_option_of_a_filesystem_is_implemented[diratime]
        test_each_option_of_a_filesystem_is_implemented[exec]
        test_each_option_of_a_filesystem_is_implemented[nostrictatime]
        test_each_option_of_a_filesystem_is_implemented[rw]
        test_each_option_of_a_filesystem_is_implemented[suid]
    """,
    ),
    _row(
        "crun",
        CRUN_1_8,
        "hands flags of mount(2) to the filesystem as its options",
        """
        test_each_option_of_a_filesystem_is_implemented[iversion]
        test_each_option_of_a_filesystem_is_implemented[loud]
        test_each_option_of_a_filesystem_is_implemented[noiversion]
        test_each_option_of_a_filesystem_is_implemented[silent]
    """,
    ),
    _row(
        "crun",
        CRUN_1_8,
        "makes a bind mount private whatever the options",
        """
        test_each_propagation_is_implemented[shared]
        test_each_propagation_is_implemented[rshared]
        test_each_propagation_is_implemented[unbindable]
        test_each_propagation_is_implemented[runbindable]
    """,
    ),
    _row(
        "crun",
        CRUN_1_8,
        "mount_setattr(2) wants the kind of access times cleared with the new one",
        """
        test_each_recursive_option_reaches_the_mounts_below[rnodiratime]
        test_each_recursive_option_reaches_the_mounts_below[rdiratime]
        test_each_recursive_option_reaches_the_mounts_below[rnoatime]
        test_each_recursive_option_reaches_the_mounts_below[ratime]
        test_each_recursive_option_reaches_the_mounts_below[rstrictatime]
        test_each_recursive_option_reaches_the_mounts_below[rnostrictatime]
    """,
    ),
    _row("crun", CRUN_1_8, "ignores it", "test_each_recursive_option_reaches_the_mounts_below[rnosymfollow]"),
    _row(
        "crun", CRUN_1_8, "takes a namespace that is listed twice once", "test_a_type_that_is_listed_twice_is_an_error"
    ),
    _row("crun", CRUN_1_8, "maps root alone", "test_a_user_namespace_without_mappings_is_an_error"),
    _row(
        "crun",
        CRUN_1_8,
        "fails to make time namespaces here",
        """
        test_the_clocks_of_a_time_namespace_are_offset
        test_a_time_namespace_is_a_new_one
    """,
    ),
    _row(
        "crun",
        CRUN_1_8,
        "does not name the program",
        """
        test_a_program_that_cannot_be_executed_is_an_error[/tmp]
        test_a_program_that_cannot_be_executed_is_an_error[/etc/text]
    """,
    ),
    _row("crun", CRUN_1_8, "takes the last of two limits", "test_a_resource_limited_twice_is_an_error"),
    _row(
        "crun",
        CRUN_1_8,
        "implements runtime-spec 1.0",
        """
        test_the_scheduling_policy_is_the_configured_one
        test_an_unknown_scheduling_policy_is_an_error
        test_the_io_priority_is_the_configured_one
        test_an_unknown_io_priority_class_is_an_error
    """,
    ),
    _row(
        "crun",
        CRUN_1_8,
        "drops nosuid, nodev and noexec",
        """
        test_a_path_keeps_its_restrictions_when_it_is_made_read_only
    """,
    ),
    _row("crun", CRUN_1_8, "ignores it", "test_a_propagation_that_does_not_exist_is_an_error"),
    _row(
        "crun",
        CRUN_1_8,
        "does not check all of a seccomp profile",
        """
        test_an_unknown_value_is_an_error[flag]
        test_an_entry_without_names_is_an_error
        test_metadata_without_a_path_is_an_error
    """,
    ),
    _row("crun", CRUN_1_8, "connects all the same", "test_the_path_of_the_agent_is_ignored_without_notify"),
    _row(
        "crun",
        CRUN_1_8,
        "implements runtime-spec 1.0",
        "test_exec_is_bound_to_the_configured_processors\ntest_a_network_device_is_moved_into_the_container",
    ),
    _row("crun", _ANY, "sets 022", "test_the_umask_of_the_caller_is_kept"),
    _row("runc", _ANY, "sets 022", "test_the_umask_of_the_caller_is_kept"),
    _row(
        "runc",
        RUNC_1_1,
        "implements runtime-spec 1.0",
        "test_exec_is_bound_to_the_configured_processors\ntest_a_network_device_is_moved_into_the_container",
    ),
    _row("runc", _ANY, "ignores what cgroup v2 has no form of", "test_what_cgroup_v2_has_no_form_of_is_an_error"),
    _row(
        "crun",
        CRUN_1_8,
        "fails to make time namespaces here",
        "test_an_offset_that_cannot_be_set_is_an_error[no such clock]",
    ),
    _row("crun", CRUN_1_8, "ignores it", "test_an_offset_that_cannot_be_set_is_an_error[no namespace]"),
    _row("crun", CRUN_1_8, "binds the uppermost mount alone", "test_ridmap_maps_the_mounts_below_as_well"),
    _row(
        "crun",
        CRUN_1_8,
        "takes every annotation",
        "test_annotations_that_are_none_are_refused[no key]\ntest_annotations_that_are_none_are_refused[list]",
    ),
    _row(
        "runc",
        RUNC_1_1,
        "implements runtime-spec 1.0",
        "test_mappings_of_users_and_groups_go_together\ntest_ridmap_maps_the_mounts_below_as_well\ntest_an_offset_that_cannot_be_set_is_an_error[no namespace]",
    ),
    _row("runc", _ANY, "takes every key", "test_annotations_that_are_none_are_refused[no key]"),
    _row("crun", CRUN_1_8, "fails of itself", "test_a_configuration_without_process_can_be_created"),
    _row("crun", CRUN_1_8, "closes them at start", "test_a_created_container_holds_nothing_more_of_its_callers"),
    _row("runc", _ANY, "wants a process to create", "test_a_configuration_without_process_can_be_created"),
    _row("runc", _ANY, "deletes a created container", "test_a_created_container_cannot_be_deleted"),
    _row("runc", RUNC_1_1, "warns of it", "test_a_cgroup_with_processes_of_others_is_refused"),
    _row(
        "runc",
        RUNC_1_1,
        "delegates by the systemd driver alone",
        """
        test_the_cgroup_is_delegated_if_it_is_mounted_for_writing[rw]
    """,
    ),
    _row("runc", RUNC_1_1, "does not look at the version", "test_a_version_that_is_not_semver_is_refused"),
    _row(
        "runc",
        RUNC_1_1,
        "implements runtime-spec 1.0",
        """
        test_the_domainname_is_the_configured_one
        test_time_is_a_recognized_namespace
        test_the_clocks_of_a_time_namespace_are_offset
        test_a_time_namespace_is_a_new_one
        test_flags_that_are_supported_are_known
        test_idmapped_mounts_are_told
        test_an_idmapped_mount_maps_owners_by_its_own_mappings
        test_idmap_without_mappings_and_user_namespace_is_an_error
        test_the_scheduling_policy_is_the_configured_one
        test_an_unknown_scheduling_policy_is_an_error
        test_the_io_priority_is_the_configured_one
        test_an_unknown_io_priority_class_is_an_error
        test_the_personality_is_the_configured_one
        test_an_unknown_personality_is_an_error
    """,
    ),
    _row(
        "runc",
        RUNC_1_1,
        "takes a file that does not match as the device",
        """
        test_another_file_at_the_path_of_a_device_is_an_error
    """,
    ),
    _row(
        "runc",
        _ANY,
        "lets every container make every device",
        """
        test_making_a_device_is_an_access_of_its_own[rw-refused]
    """,
    ),
    _row(
        "runc",
        RUNC_1_1,
        "mount_setattr(2) wants the kind of access times cleared with the new one",
        """
        test_every_mount_option_that_is_listed_is_recognized
        test_each_recursive_option_reaches_the_mounts_below[ratime]
        test_each_recursive_option_reaches_the_mounts_below[rnostrictatime]
    """,
    ),
    _row(
        "runc",
        RUNC_1_1,
        "calls poststart hooks at the end of create",
        """
        test_every_hook_is_called_in_the_order_of_the_lifecycle
        test_the_status_that_hooks_get_is_that_of_the_moment[poststart]
        test_poststart_hooks_are_called_before_start_returns
        test_a_failing_poststart_hook_is_a_warning
    """,
    ),
    _row(
        "runc",
        RUNC_1_1,
        "start does not wait for startContainer hooks",
        """
        test_a_failing_start_container_hook_keeps_the_program_from_running
        test_poststop_hooks_are_called_after_another_hook_has_failed[startContainer]
    """,
    ),
    _row("runc", RUNC_1_1, "skips the hooks after one that has failed", "test_a_failing_poststop_hook_is_a_warning"),
    _row("runc", RUNC_1_1, "hands it to the filesystem", "test_each_option_of_a_filesystem_is_implemented[defaults]"),
    _row("runc", RUNC_1_1, "takes ids up to 2147483647", "test_user_and_group_are_the_configured_ones[greatest]"),
    _row("runc", RUNC_1_1, "takes the last of two limits", "test_a_resource_limited_twice_is_an_error"),
    _row(
        "runc",
        RUNC_1_1,
        "takes relative paths",
        """
        test_a_relative_masked_path_is_an_error
        test_a_relative_readonly_path_is_an_error
    """,
    ),
    _row(
        "runc",
        RUNC_1_1,
        "makes the root private again, and cannot bind an unbindable one",
        """
        test_each_propagation_of_the_root[shared]
        test_each_propagation_of_the_root[unbindable]
    """,
    ),
    _row(
        "runc",
        RUNC_1_1,
        "does not check all of a seccomp profile",
        """
        test_an_entry_without_names_is_an_error
        test_an_errno_of_an_action_that_has_none_is_an_error
        test_a_default_errno_of_an_action_that_has_none_is_an_error
        test_metadata_without_a_path_is_an_error
    """,
    ),
    _row("runc", RUNC_1_1, "makes /dev/fd and its kin by path", "test_a_link_at_dev_does_not_reach_the_host"),
)

KNOWN += (
    _row(
        "rawpod-oci",
        _ANY,
        "lets every container make every device: callers of runc and crun count on it, and opening one is another access",
        "test_making_a_device_is_an_access_of_its_own[rw-refused]",
    ),
)

LEAVES_CGROUPS = {"runc": "a create that fails may leave its cgroup", "crun": "the same"}
"""Runtimes whose cgroups are taken away after a test without a word."""


def reason_for(runtime: Runtime, version: tuple[int, ...], case: str, function: str) -> str | None:
    """Why this runtime is known to fail a test, or None."""
    for row in KNOWN:
        if row.runtime == runtime.name and version < row.before and {case, function} & set(row.tests):
            return row.reason
    return None
