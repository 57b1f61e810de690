//! What we use of Python's own modules, imported once.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::ffi::builtin::Builtin;

/// Objects of the standard library that the loop calls.
pub struct Imports {
    /// `asyncio.Future`.
    pub future: Py<PyAny>,
    /// `asyncio.Task`.
    pub task: Py<PyAny>,
    /// `asyncio.CancelledError`.
    pub cancelled_error: Py<PyAny>,
    /// `asyncio.InvalidStateError`.
    pub invalid_state_error: Py<PyAny>,
    /// asyncio's function for the loop of a future that is given none.
    pub get_event_loop: Py<PyAny>,
    /// asyncio's function for the loop that runs on this thread, or None.
    pub get_running_loop: Builtin,
    /// `asyncio.iscoroutine`.
    pub iscoroutine: Py<PyAny>,
    /// `asyncio.base_futures._future_repr`.
    pub future_repr: Py<PyAny>,
    /// `asyncio.base_tasks._task_repr`.
    pub task_repr: Py<PyAny>,
    /// `asyncio.base_tasks._task_get_stack`.
    pub task_get_stack: Py<PyAny>,
    /// `asyncio.base_tasks._task_print_stack`.
    pub task_print_stack: Py<PyAny>,
    /// `asyncio.Handle`, whose instances our handles claim to be.
    pub handle: Py<PyAny>,
    /// The class of what `call_soon_threadsafe` returns: from Python 3.14 on one of its own.
    pub threadsafe_handle: Py<PyAny>,
    /// `threading.RLock`.
    pub reentrant_lock: Py<PyAny>,
    /// `asyncio.TimerHandle`.
    pub timer_handle: Py<PyAny>,
    /// `asyncio.transports._FlowControlMixin`, a subclass of `asyncio.Transport` that asyncio looks for.
    pub flow_control_mixin: Py<PyAny>,
    /// A class that is `asyncio.DatagramTransport` and `asyncio.Transport`, as are CPython's own.
    pub datagram_transport: Py<PyAny>,
    /// `asyncio.ReadTransport`.
    pub read_transport: Py<PyAny>,
    /// `asyncio.BaseTransport.get_extra_info`.
    pub get_extra_info: Py<PyAny>,
    /// `asyncio.BufferedProtocol`.
    pub buffered_protocol: Py<PyAny>,
    /// asyncio's stream classes, if they are made as those we know.
    pub streams: Option<Streams>,
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
    /// `("context",)`, the keyword names of `call_soon(…, context=…)`.
    pub context_keyword: Py<PyTuple>,
    /// `("msg",)`, the keyword names of `Future.cancel(msg=…)`.
    pub message_keyword: Py<PyTuple>,
    /// Whether a task that is uncancelled before it heard of it is not cancelled (Python 3.13 and later).
    pub uncancel_takes_back: bool,
    /// Whether `asyncio.Server._attach` takes the transport (Python 3.13 and later).
    pub server_knows_transports: bool,
    /// Whether `DatagramTransport.sendto` sends empty datagrams, or ignores them (before Python 3.13).
    pub sends_empty_datagrams: bool,
    /// How many bytes a datagram that waits counts beyond its own (Python 3.13 and later, that empty ones count).
    pub datagram_header: usize,
}

/// What is looked for before asyncio's streams are fed without calling them.
pub struct Streams {
    /// `asyncio.StreamReaderProtocol`.
    pub protocol: Py<PyType>,
    /// `asyncio.StreamReader`.
    pub reader: Py<PyType>,
    /// `StreamReaderProtocol.data_received`.
    pub data_received: Py<PyAny>,
    /// `StreamReader.feed_data`.
    pub feed_data: Py<PyAny>,
}

impl Streams {
    /// `None` where this Python's streams do something else than `transports/streams.rs` does for them.
    fn of(asyncio: &Bound<'_, PyModule>) -> PyResult<Option<Self>> {
        let protocol = asyncio.getattr("StreamReaderProtocol")?.cast_into::<PyType>()?;
        let reader = asyncio.getattr("StreamReader")?.cast_into::<PyType>()?;
        let Some(data_received) = known(&protocol, "data_received", &["_stream_reader", "feed_data"])? else {
            return Ok(None);
        };
        let feeds = ["_eof", "_buffer", "extend", "_wakeup_waiter", "_transport", "_paused", "len", "_limit"];
        let pauses = ["pause_reading", "NotImplementedError"];
        let Some(feed_data) = known(&reader, "feed_data", &[&feeds[..], &pauses[..]].concat())? else {
            return Ok(None);
        };
        if known(&reader, "_wakeup_waiter", &["_waiter", "cancelled", "set_result"])?.is_none() {
            return Ok(None);
        }
        Ok(Some(Self { protocol: protocol.unbind(), reader: reader.unbind(), data_received, feed_data }))
    }
}

/// A method of a class, if its code uses no other names than `names`.
fn known(class: &Bound<'_, PyType>, method: &str, names: &[&str]) -> PyResult<Option<Py<PyAny>>> {
    let Some(function) = class.getattr_opt(method)? else { return Ok(None) };
    let Some(code) = function.getattr_opt("__code__")? else { return Ok(None) };
    let used = code.getattr("co_names")?.extract::<Vec<String>>()?;
    Ok(used.iter().all(|name| names.contains(&name.as_str())).then(|| function.unbind()))
}

/// Make the class that datagram transports claim to be.
fn datagram_transport(asyncio: &Bound<'_, PyModule>) -> PyResult<Py<PyAny>> {
    let py = asyncio.py();
    let bases = PyTuple::new(
        py,
        [
            py.import("asyncio.transports")?.getattr("_FlowControlMixin")?,
            asyncio.getattr("DatagramTransport")?,
        ],
    )?;
    let body = PyDict::new(py);
    body.set_item("__module__", "aioxide")?;
    body.set_item("__slots__", PyTuple::empty(py))?;
    let class = py.get_type::<PyType>().call1(("DatagramTransport", bases, body))?;
    Ok(class.unbind())
}

static IMPORTS: PyOnceLock<Imports> = PyOnceLock::new();

/// Return the imports, importing them at the first call.
pub fn imports(py: Python<'_>) -> PyResult<&'static Imports> {
    IMPORTS.get_or_try_init(py, || {
        let asyncio = py.import("asyncio")?;
        let name = |name: &str| asyncio.getattr(name).map(Bound::unbind);
        let (events, base_tasks) = (py.import("asyncio.events")?, py.import("asyncio.base_tasks")?);
        Ok(Imports {
            future: name("Future")?,
            task: name("Task")?,
            cancelled_error: name("CancelledError")?,
            invalid_state_error: name("InvalidStateError")?,
            get_event_loop: match events.getattr_opt("_get_event_loop")? {
                Some(get_event_loop) => get_event_loop.unbind(),
                None => name("get_event_loop")?,
            },
            get_running_loop: Builtin::new(asyncio.getattr("_get_running_loop")?),
            iscoroutine: name("iscoroutine")?,
            future_repr: py.import("asyncio.base_futures")?.getattr("_future_repr")?.unbind(),
            task_repr: base_tasks.getattr("_task_repr")?.unbind(),
            task_get_stack: base_tasks.getattr("_task_get_stack")?.unbind(),
            task_print_stack: base_tasks.getattr("_task_print_stack")?.unbind(),
            handle: name("Handle")?,
            threadsafe_handle: match events.getattr_opt("_ThreadSafeHandle")? {
                Some(threadsafe_handle) => threadsafe_handle.unbind(),
                None => name("Handle")?,
            },
            reentrant_lock: py.import("threading")?.getattr("RLock")?.unbind(),
            timer_handle: name("TimerHandle")?,
            flow_control_mixin: py.import("asyncio.transports")?.getattr("_FlowControlMixin")?.unbind(),
            datagram_transport: datagram_transport(&asyncio)?,
            read_transport: name("ReadTransport")?,
            get_extra_info: asyncio.getattr("BaseTransport")?.getattr("get_extra_info")?.unbind(),
            buffered_protocol: name("BufferedProtocol")?,
            streams: Streams::of(&asyncio)?,
            transport_socket: py.import("asyncio.trsock")?.getattr("TransportSocket")?.unbind(),
            extract_stack: py.import("asyncio.format_helpers")?.getattr("extract_stack")?.unbind(),
            socket: py.import("socket")?.getattr("socket")?.unbind(),
            strerror: py.import("os")?.getattr("strerror")?.unbind(),
            warn: py.import("warnings")?.getattr("warn")?.unbind(),
            logger: py.import("asyncio.log")?.getattr("logger")?.unbind(),
            loop_keyword: PyTuple::new(py, ["loop"])?.unbind(),
            context_keyword: PyTuple::new(py, ["context"])?.unbind(),
            message_keyword: PyTuple::new(py, ["msg"])?.unbind(),
            uncancel_takes_back: py.version_info() >= (3, 13),
            server_knows_transports: py.version_info() >= (3, 13),
            sends_empty_datagrams: py.version_info() >= (3, 13),
            datagram_header: if py.version_info() >= (3, 13) { 8 } else { 0 },
        })
    })
}
