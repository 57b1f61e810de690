"""Which classes of CPython's asyncio tests are run, and why the others are not.

Everything the running interpreter has is in scope unless a line here says otherwise, so a class that a new
Python adds is run from its first day. Patterns are `module.Class` globs.
"""

from __future__ import annotations

import fnmatch

INTERNALS = "drives the inside of CPython's own loop or transports, with mocked selectors, sockets or clocks"
NO_LOOP = "runs no loop that can be replaced: plain objects, mocks, or a loop with a played clock"
OTHER_PLATFORM = "Windows only"
REPEATED = (
    "the same tests as EPollEventLoopTests or its like with another selector of CPython's: one run is enough"
)
CHILD_WATCHERS = "CPython's child watchers, which aioxide's subprocesses do not ask"

EXCLUDED: dict[str, str] = {
    "test_base_events.BaseEventTests": NO_LOOP,
    "test_base_events.BaseLoopSockSendfileTests": NO_LOOP,
    "test_base_events.TestSelectorUtils": NO_LOOP,
    "test_proactor_events.*": OTHER_PLATFORM,
    "test_windows_*": OTHER_PLATFORM,
    "test_selector_events.*": INTERNALS,
    "test_protocols.*": NO_LOOP,
    "test_transports.*": NO_LOOP,
    "test_*.PollEventLoopTests": REPEATED,
    "test_*.SelectEventLoopTests": REPEATED,
    "test_unix_events.SelectorEventLoopSignalTests": INTERNALS,
    "test_unix_events.SelectorEventLoopUnixSockSendfileTests": INTERNALS,
    "test_unix_events.UnixReadPipeTransportTests": INTERNALS,
    "test_unix_events.UnixWritePipeTransportTests": INTERNALS,
    "test_subprocess.MultiLoopChildWatcherTests": NO_LOOP,
    "test_unix_events.AbstractChildWatcherTests": NO_LOOP,
    "test_unix_events.BaseChildWatcherTests": NO_LOOP,
    "test_*.*Proactor*": OTHER_PLATFORM,
    "test_events.TimerTests": NO_LOOP,
    "test_tasks.?*IntrospectionTests": NO_LOOP,
    "test_tasks.GenericTaskTests": NO_LOOP,
    "test_tools.*": NO_LOOP,
}

# Single tests of classes in scope, by their full names.
EXCLUDED_TESTS: dict[str, str] = {
    "test_base_events.BaseEventLoopWithSelectorTests.test_accept_connection_exception": INTERNALS,
    "test_base_events.BaseEventLoopWithSelectorTests.test_accept_connection_retry": INTERNALS,
    "test_base_events.BaseEventLoopWithSelectorTests.test_create_connection_bluetooth": INTERNALS,
    "test_base_events.BaseEventLoopWithSelectorTests.test_create_datagram_endpoint_no_addrinfo": INTERNALS,
    "test_base_events.BaseEventLoopWithSelectorTests.test_create_datagram_endpoint_sock_unix": INTERNALS,
    "test_base_events.BaseEventLoopWithSelectorTests.test_create_server_soreuseport_only_defined": INTERNALS,
    "test_base_events.BaseEventLoopWithSelectorTests.test_log_slow_callbacks": INTERNALS,
    "test_sslproto.SslProtoHandshakeTests.test_connection_lost_when_busy": INTERNALS,
    "test_events.EPollEventLoopTests.test_internal_fds": INTERNALS,
    "test_events.EPollEventLoopTests.test_timeout_rounding": INTERNALS,
    "test_unix_events.SelectorEventLoopUnixSocketTests.test_create_unix_server_bind_error": INTERNALS,
    "test_subprocess.GenericWatcherTests.test_create_subprocess_fails_with_inactive_watcher": CHILD_WATCHERS,
    "test_subprocess.SubprocessThreadedWatcherTests.test_watcher_implementation": CHILD_WATCHERS,
    "test_subprocess.SubprocessThreadedWatcherTests."
    "test_pid_not_reaped_before_exit_published": CHILD_WATCHERS,
    "test_subprocess.SubprocessPidfdWatcherTests.test_watcher_implementation": CHILD_WATCHERS,
    # Connect mocked sockets, which a loop with a mocked `_add_reader` never reads.
    "test_base_events.BaseEventLoopTests.test_create_connection_happy_eyeballs": INTERNALS,
    "test_base_events.BaseEventLoopTests.test_create_connection_happy_eyeballs_ipv4_only": INTERNALS,
    # Looks at a private field of asyncio's TLS protocol.
    "test_server_context.AsyncioEventLoopSSLTests.test_gh140947": INTERNALS,
    # Replaces a method of asyncio's TLS protocol.
    "test_sslproto.SelectorStartTLSTests.test_create_connection_ssl_failed_certificate_no_cycles": INTERNALS,
    # Replaces the socket inside asyncio's transport.
    "test_ssl.TestSSL.test_remote_shutdown_receives_trailing_data_on_slow_socket": INTERNALS,
}

# Tests of asyncio's streams that aioxide's own streams are not asked, by their names.
EXCLUDED_OF_OWN_STREAMS: dict[str, str] = {
    "test___repr__waiter": "sets a private field of the reader",
}

# Classes that native tasks are not asked from Python 3.14 on: tasks ask the interpreter there what loop runs.
EXCLUDED_OF_NATIVE_TASKS: dict[str, str] = {
    "test_events.TestPyGetEventLoop": "replaces the functions that know the running loop by Python ones",
}


def reason_excluded(module: str, name: str) -> str | None:
    """Return why a class is not run, or None when it is in scope."""
    for pattern, reason in EXCLUDED.items():
        if fnmatch.fnmatchcase(f"{module}.{name}", pattern):
            return reason
    return None
