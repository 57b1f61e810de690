//! Choosing a backend, and saying why.

use aioxide_driver::{Backend, Choice, Driver, Options};

use crate::harness::uring_is_allowed;

/// No ring has room for zero entries, so the kernel refuses this one everywhere.
fn without_uring(choice: Choice) -> Options {
    Options { submission_entries: 0, ..Options::new(choice) }
}

#[test]
fn what_the_kernel_refuses_falls_back_to_epoll_and_says_why() {
    let driver = Driver::open(&without_uring(Choice::Auto)).unwrap();
    assert_eq!(driver.backend(), Backend::Epoll);
    assert!(driver.reason().contains("io_uring"), "{}", driver.reason());
}

#[test]
fn io_uring_that_was_asked_for_is_not_replaced() {
    let error = Driver::open(&without_uring(Choice::Uring)).unwrap_err();
    assert!(error.to_string().contains("io_uring"), "{error}");
}

#[test]
fn io_uring_is_preferred_where_it_is_allowed() {
    let driver = Driver::open(&Options::default()).unwrap();
    let expected = if uring_is_allowed() { Backend::Uring } else { Backend::Epoll };
    assert_eq!(driver.backend(), expected);
    assert_eq!(Driver::open(&Options::new(Choice::Epoll)).unwrap().backend().to_string(), "epoll");
}
