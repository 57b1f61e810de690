//! Socket addresses in the form of Python's `socket` module.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;

use aioxide_driver::SocketAddrAny;
use aioxide_driver::address::{UnixName, internet_address, unix_address, unix_name};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

/// How the addresses of a socket are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `(host, port)`.
    Internet4,
    /// `(host, port, flowinfo, scope_id)`, the last two optional.
    Internet6,
    /// A path, or an abstract name.
    Unix,
}

/// What `sin6_flowinfo` can hold, ip6(7).
const LARGEST_FLOW: u32 = 0xf_ffff;

impl Family {
    /// That of a socket with such an address; `None` where only the `socket` module can write it.
    pub fn of(address: &SocketAddrAny) -> Option<Self> {
        match internet_address(address) {
            Some(SocketAddr::V4(_)) => Some(Self::Internet4),
            Some(SocketAddr::V6(_)) => Some(Self::Internet6),
            None => unix_name(address).map(|_| Self::Unix),
        }
    }

    /// Whether it is one of the internet's.
    pub fn is_internet(self) -> bool {
        self != Self::Unix
    }
}

/// Convert an address that is written out; `None` for names to resolve, and for all that is unusual or wrong: the
/// `socket` module knows what to do with it.
pub fn from_python(address: &Bound<'_, PyAny>, family: Family) -> Option<SocketAddrAny> {
    match family {
        Family::Internet4 => {
            let (host, port, rest) = internet_parts(address)?;
            let host: Ipv4Addr = host.to_str().ok()?.parse().ok()?;
            rest.is_empty().then(|| SocketAddrAny::from(SocketAddr::from((host, port))))
        }
        Family::Internet6 => {
            let (host, port, rest) = internet_parts(address)?;
            let host: Ipv6Addr = host.to_str().ok()?.parse().ok()?;
            let (flow, scope) = match rest.as_slice() {
                [] => (0, 0),
                [flow] => (*flow, 0),
                [flow, scope] => (*flow, *scope),
                _ => return None,
            };
            let address = SocketAddr::V6(SocketAddrV6::new(host, port, flow, scope));
            (flow <= LARGEST_FLOW).then(|| SocketAddrAny::from(address))
        }
        Family::Unix => {
            let bytes = match address.cast::<PyBytes>() {
                Ok(bytes) => bytes.as_bytes(),
                Err(_) => {
                    address.cast::<PyString>().ok()?.to_str().ok().filter(|path| path.is_ascii())?.as_bytes()
                }
            };
            let name = match bytes {
                [] => return None,
                [0, name @ ..] => UnixName::Abstract(name.to_vec()),
                // Longer ones than have room for a NUL are refused by Python.
                path if path.len() < 108 => UnixName::Path(OsStr::from_bytes(path).into()),
                _ => return None,
            };
            unix_address(&name)
        }
    }
}

/// Host, port and further numbers of a tuple.
fn internet_parts<'py>(address: &Bound<'py, PyAny>) -> Option<(Bound<'py, PyString>, u16, Vec<u32>)> {
    let tuple = address.cast::<PyTuple>().ok()?;
    let host = tuple.get_item(0).ok()?.cast_into::<PyString>().ok()?;
    let port = tuple.get_item(1).ok()?.extract().ok()?;
    let rest = tuple.iter().skip(2).map(|number| number.extract().ok()).collect::<Option<Vec<u32>>>()?;
    Some((host, port, rest))
}

/// Convert an address; `None` for a family that the `socket` module must write itself.
pub fn to_python(py: Python<'_>, address: &SocketAddrAny) -> PyResult<Option<Py<PyAny>>> {
    if let Some(internet) = internet_address(address) {
        return match internet {
            SocketAddr::V4(address) => {
                let tuple = (address.ip().to_string(), address.port()).into_pyobject(py)?;
                Ok(Some(tuple.into_any().unbind()))
            }
            SocketAddr::V6(address) => {
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
