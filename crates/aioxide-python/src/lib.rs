//! The asyncio face of aioxide: the extension module `aioxide._rust`. This file is its table of contents.

mod awaitable;
mod callback;
mod clients;
mod convert;
mod error;
mod event_loop;
mod ffi;
mod handle;
mod imports;
mod loop_cell;
mod streams;
mod tasks;
mod transports;

use pyo3::prelude::*;

/// aioxide's native half.
#[pymodule(gil_used = true)]
mod _rust {
    use pyo3::prelude::*;
    use pyo3::types::PyDict;

    use crate::ffi::{extension, free_list, reuse};

    #[pymodule_export]
    use crate::awaitable::Awaitable;
    #[pymodule_export]
    use crate::awaitable::trial::{_trial_future, _trial_panic};
    #[pymodule_export]
    use crate::awaitable::waiter::Waiter;
    #[pymodule_export]
    use crate::clients::redis::connection::RedisConnection;
    #[pymodule_export]
    use crate::clients::redis::route::_redis_route;
    #[pymodule_export]
    use crate::clients::redis::settings::RedisTls;
    #[pymodule_export]
    use crate::event_loop::EventLoop;
    #[pymodule_export]
    use crate::handle::{Handle, ThreadsafeHandle, TimerHandle};
    #[pymodule_export]
    use crate::streams::reader::StreamReader;
    #[pymodule_export]
    use crate::streams::writer::StreamWriter;
    #[pymodule_export]
    use crate::tasks::{Future, FutureIterator, Task};
    #[pymodule_export]
    use crate::transports::datagram::DatagramTransport;
    #[pymodule_export]
    use crate::transports::stream::StreamTransport;
    #[pymodule_export]
    use crate::transports::tls::transport::TlsTransport;

    #[pymodule_export]
    use crate::event_loop::build_info;
    #[pymodule_export]
    use crate::event_loop::servers::{remove_socket_file, socket_inode};
    #[pymodule_export]
    use crate::tasks::native_task_factory;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::ffi::snapshot::prepare(module.py())?;
        crate::tasks::prepare(module)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("_awaitable_capsule", extension::capsule(module.py())?)?;
        reuse::install::<Awaitable>(module.py());
        reuse::install::<Handle>(module.py());
        reuse::install::<TimerHandle>(module.py());
        reuse::install::<ThreadsafeHandle>(module.py());
        free_list::install::<Waiter>(module.py());
        let hooks = PyDict::new(module.py());
        hooks.set_item("after_in_child", wrap_pyfunction!(crate::loop_cell::count_fork, module)?)?;
        module.py().import("os")?.call_method("register_at_fork", (), Some(&hooks))?;
        Awaitable::add_slots(&module.py().get_type::<Awaitable>())?;
        Waiter::add_fast_methods(&module.py().get_type::<Waiter>())?;
        crate::handle::add_fast_methods(module.py())?;
        crate::transports::methods::add_fast_methods(module.py())?;
        crate::streams::methods::add_to_readers(&module.py().get_type::<StreamReader>())?;
        crate::streams::methods::add_to_writers(&module.py().get_type::<StreamWriter>())?;
        RedisConnection::add_fast_methods(&module.py().get_type::<RedisConnection>())?;
        EventLoop::add_fast_methods(&module.py().get_type::<EventLoop>())
    }
}
