//! The examples end by themselves, and well.

#[path = "../../../../examples/rust/echo.rs"]
mod echo;
#[path = "../../../../examples/rust/fetch.rs"]
mod fetch;

#[test]
fn the_echo_example_runs() {
    echo::main().unwrap();
}

#[test]
fn the_fetch_example_runs() {
    fetch::main().unwrap();
}
