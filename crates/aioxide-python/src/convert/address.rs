//! Socket addresses in the form of Python's `socket` module.

use std::net::SocketAddr;

use aioxide_driver::SocketAddrAny;
use aioxide_driver::address::{UnixName, internet_address, unix_name};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

/// Convert an address; `None` for a family (or an IPv6 scope) that the `socket` module must write itself.
pub fn to_python(py: Python<'_>, address: &SocketAddrAny) -> PyResult<Option<Py<PyAny>>> {
    if let Some(internet) = internet_address(address) {
        return match internet {
            SocketAddr::V4(address) => {
                let tuple = (address.ip().to_string(), address.port()).into_pyobject(py)?;
                Ok(Some(tuple.into_any().unbind()))
            }
            SocketAddr::V6(address) if address.scope_id() == 0 => {
                let tuple = PyTuple::new(
                    py,
                    [
                        address.ip().to_string().into_pyobject(py)?.into_any(),
                        address.port().into_pyobject(py)?.into_any(),
                        address.flowinfo().into_pyobject(py)?.into_any(),
                        address.scope_id().into_pyobject(py)?.into_any(),
                    ],
                )?;
                Ok(Some(tuple.into_any().unbind()))
            }
            SocketAddr::V6(_) => Ok(None),
        };
    }
    Ok(match unix_name(address) {
        Some(UnixName::Unnamed) => Some(PyString::new(py, "").into_any().unbind()),
        Some(UnixName::Path(path)) => Some(path.into_os_string().into_pyobject(py)?.into_any().unbind()),
        Some(UnixName::Abstract(mut name)) => {
            name.insert(0, 0);
            Some(PyBytes::new(py, &name).into_any().unbind())
        }
        None => None,
    })
}
