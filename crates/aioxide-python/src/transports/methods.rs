//! The methods of transports that are called once per message: without PyO3's way of calling, which costs as much as what
//! they do.

use std::ffi::CStr;

use pyo3::prelude::*;

use super::datagram::DatagramTransport;
use super::stream::StreamTransport;
use super::tls::transport::TlsTransport;
use crate::error::ThinResult;
use crate::event_loop::EventLoop;
use crate::event_loop::questions::answer;
use crate::ffi::method::{Arguments, FastMethod, PlainMethod, add_method, add_plain_method};

/// Add the methods to their classes. Called once, at import.
pub fn add_fast_methods(py: Python<'_>) -> PyResult<()> {
    let stream = py.get_type::<StreamTransport>();
    add_method::<Write>(&stream)?;
    add_plain_method::<IsClosing>(&stream)?;
    add_method::<WriteTls>(&py.get_type::<TlsTransport>())?;
    add_method::<SendTo>(&py.get_type::<DatagramTransport>())
}

/// Run a method of a transport, and tell PyO3 of it where that is not done by the running loop: it would put off what is
/// let go of until somebody else tells it that a thread is attached.
#[inline(always)]
fn told<R>(event_loop: &Py<EventLoop>, mut run: impl FnMut() -> R) -> R {
    let is_known = event_loop.get().is_running_here();
    // Refused where the interpreter is ending.
    let told = if is_known { None } else { Python::try_attach(|_| run()) };
    told.unwrap_or_else(run)
}

/// `StreamTransport.write(data)`.
struct Write;

impl FastMethod for Write {
    type Class = StreamTransport;
    const NAME: &'static CStr = c"write";
    const POSITIONAL: &'static [&'static str] = &["data"];
    const DOCUMENTATION: &'static CStr = c"write($self, data)\n--\n\nWrite bytes without blocking.";

    fn call(transport: &Bound<'_, StreamTransport>, arguments: &Arguments<'_, '_>) -> ThinResult<Py<PyAny>> {
        let data = arguments.only("write")?;
        told(&transport.get().event_loop, || StreamTransport::write_data(transport, data))?;
        Ok(transport.py().None())
    }
}

/// `StreamTransport.is_closing()`.
struct IsClosing;

impl PlainMethod for IsClosing {
    type Class = StreamTransport;
    const NAME: &'static CStr = c"is_closing";
    const DOCUMENTATION: &'static CStr =
        c"is_closing($self, /)\n--\n\nReturn whether the transport is closing or closed.";

    fn call(transport: &Bound<'_, StreamTransport>) -> ThinResult<Py<PyAny>> {
        Ok(answer(transport.py(), StreamTransport::is_closing(transport)))
    }
}

/// `TlsTransport.write(data)`.
struct WriteTls;

impl FastMethod for WriteTls {
    type Class = TlsTransport;
    const NAME: &'static CStr = c"write";
    const POSITIONAL: &'static [&'static str] = &["data"];
    const DOCUMENTATION: &'static CStr = c"write($self, data)\n--\n\nWrite bytes without blocking.";

    fn call(transport: &Bound<'_, TlsTransport>, arguments: &Arguments<'_, '_>) -> ThinResult<Py<PyAny>> {
        let data = arguments.only("write")?;
        let event_loop = transport.borrow().event_loop.clone_ref(transport.py());
        told(&event_loop, || TlsTransport::write_data(transport, data))?;
        Ok(transport.py().None())
    }
}

/// `DatagramTransport.sendto(data, addr=None)`.
struct SendTo;

impl FastMethod for SendTo {
    type Class = DatagramTransport;
    const NAME: &'static CStr = c"sendto";
    const POSITIONAL: &'static [&'static str] = &["data", "addr"];
    const DOCUMENTATION: &'static CStr = c"sendto($self, data, addr=None)\n--\n\nSend a datagram to an address, or to the remote address of the endpoint.";

    fn call(
        transport: &Bound<'_, DatagramTransport>,
        arguments: &Arguments<'_, '_>,
    ) -> ThinResult<Py<PyAny>> {
        arguments.no_keywords("sendto")?;
        let (data, address) = match arguments.at_least("sendto", 1)? {
            [data] => (data, None),
            _ => {
                let both = arguments.exactly("sendto", 2)?;
                (&both[0], Some(&both[1]))
            }
        };
        let address = address.filter(|address| !address.is_none());
        let event_loop = transport.borrow().event_loop.clone_ref(transport.py());
        let address = address.map(|address| &**address);
        told(&event_loop, || DatagramTransport::send_to(transport, data, address))?;
        Ok(transport.py().None())
    }
}
