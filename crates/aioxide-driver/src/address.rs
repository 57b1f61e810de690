//! Socket addresses in Rust's own types.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::net::{SocketAddrAny, SocketAddrUnix};

/// The name of a Unix socket (unix(7)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnixName {
    /// Not bound.
    Unnamed,
    /// A path of the file system.
    Path(PathBuf),
    /// A name outside the file system, without its leading NUL.
    Abstract(Vec<u8>),
}

/// The address as an internet address, if it is one.
pub fn internet_address(address: &SocketAddrAny) -> Option<SocketAddr> {
    SocketAddr::try_from(address.clone()).ok()
}

/// The address as the name of a Unix socket, if it is one.
pub fn unix_name(address: &SocketAddrAny) -> Option<UnixName> {
    let address = SocketAddrUnix::try_from(address.clone()).ok()?;
    if let Some(name) = address.abstract_name() {
        return Some(UnixName::Abstract(name.to_vec()));
    }
    Some(match address.path_bytes() {
        Some(path) if !path.is_empty() => UnixName::Path(PathBuf::from(std::ffi::OsStr::from_bytes(path))),
        _ => UnixName::Unnamed,
    })
}
