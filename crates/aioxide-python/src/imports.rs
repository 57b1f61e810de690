//! What we use of Python's own modules, imported once.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

use crate::ffi::weak_set;

/// Objects of the standard library that the loop calls.
pub struct Imports {
    /// `asyncio.Future`.
    pub future: Py<PyAny>,
    /// `asyncio.Task`.
    pub task: Py<PyAny>,
    /// `asyncio.Handle`, whose instances our handles claim to be.
    pub handle: Py<PyAny>,
    /// `asyncio.TimerHandle`.
    pub timer_handle: Py<PyAny>,
    /// `asyncio.transports._FlowControlMixin`, a subclass of `asyncio.Transport` that asyncio looks for.
    pub flow_control_mixin: Py<PyAny>,
    /// `asyncio.ReadTransport`.
    pub read_transport: Py<PyAny>,
    /// `asyncio.BufferedProtocol`.
    pub buffered_protocol: Py<PyAny>,
    /// `asyncio.trsock.TransportSocket`.
    pub transport_socket: Py<PyAny>,
    /// `asyncio.format_helpers.extract_stack`.
    pub extract_stack: Py<PyAny>,
    /// `socket.socket`.
    pub socket: Py<PyAny>,
    /// `os.strerror`.
    pub strerror: Py<PyAny>,
    /// `warnings.warn`.
    pub warn: Py<PyAny>,
    /// The logger "asyncio".
    pub logger: Py<PyAny>,
    /// `("loop",)`, the keyword names of `Future(loop=…)`.
    pub loop_keyword: Py<PyTuple>,
    /// Whether `asyncio.Server._attach` takes the transport (Python 3.13 and later).
    pub server_knows_transports: bool,
}

/// Register tasks natively where asyncio does it in Python: up to 3.13, in a `WeakSet`.
pub fn accelerate_task_registry(py: Python<'_>) -> PyResult<()> {
    let tasks = py.import("asyncio.tasks")?;
    let name = if py.version_info() >= (3, 12) { "_scheduled_tasks" } else { "_all_tasks" };
    let weak_set = py.import("weakref")?.getattr("WeakSet")?;
    match tasks.getattr_opt(name)? {
        Some(registry) if py.version_info() < (3, 14) && registry.get_type().is(&weak_set) => {
            weak_set::accelerate(&registry)
        }
        _ => Ok(()),
    }
}

static IMPORTS: PyOnceLock<Imports> = PyOnceLock::new();

/// Return the imports, importing them at the first call.
pub fn imports(py: Python<'_>) -> PyResult<&'static Imports> {
    IMPORTS.get_or_try_init(py, || {
        let asyncio = py.import("asyncio")?;
        let name = |name: &str| asyncio.getattr(name).map(Bound::unbind);
        Ok(Imports {
            future: name("Future")?,
            task: name("Task")?,
            handle: name("Handle")?,
            timer_handle: name("TimerHandle")?,
            flow_control_mixin: py.import("asyncio.transports")?.getattr("_FlowControlMixin")?.unbind(),
            read_transport: name("ReadTransport")?,
            buffered_protocol: name("BufferedProtocol")?,
            transport_socket: py.import("asyncio.trsock")?.getattr("TransportSocket")?.unbind(),
            extract_stack: py.import("asyncio.format_helpers")?.getattr("extract_stack")?.unbind(),
            socket: py.import("socket")?.getattr("socket")?.unbind(),
            strerror: py.import("os")?.getattr("strerror")?.unbind(),
            warn: py.import("warnings")?.getattr("warn")?.unbind(),
            logger: py.import("asyncio.log")?.getattr("logger")?.unbind(),
            loop_keyword: PyTuple::new(py, ["loop"])?.unbind(),
            server_knows_transports: py.version_info() >= (3, 13),
        })
    })
}
