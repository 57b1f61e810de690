//! Socket addresses in Rust's own types.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix};

use crate::sys::address_bytes;

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
    if address.address_family() != AddressFamily::UNIX {
        return None;
    }
    // Not by rustix, which does not expect a path of 108 bytes: its NUL is the 109th (unix(7), "BUGS").
    let name = address_bytes(address).get(size_of::<u16>()..)?;
    Some(match name {
        [] => UnixName::Unnamed,
        [0, name @ ..] => UnixName::Abstract(name.to_vec()),
        path => {
            let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
            UnixName::Path(PathBuf::from(std::ffi::OsStr::from_bytes(&path[..end])))
        }
    })
}

/// The address of a Unix socket, unless its name is too long or has a NUL inside.
pub fn unix_address(name: &UnixName) -> Option<SocketAddrAny> {
    let address = match name {
        UnixName::Unnamed => return None,
        UnixName::Path(path) => SocketAddrUnix::new(path.as_path()),
        UnixName::Abstract(name) => SocketAddrUnix::new_abstract_name(name),
    };
    address.ok().map(SocketAddrAny::from)
}

/// A number that differs between most addresses, the same for equal ones.
pub fn digest(address: &SocketAddrAny) -> u64 {
    // Fowler, Noll and Vo's: short inputs, and nobody gains by making them collide.
    address_bytes(address).iter().fold(0xcbf2_9ce4_8422_2325, |digest, byte| {
        (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn unix_names_survive_the_way_through_an_address() {
        for name in [
            UnixName::Path(PathBuf::from("/tmp/a socket")),
            UnixName::Path(PathBuf::from("x".repeat(107))),
            UnixName::Path(PathBuf::from("x".repeat(108))),
            UnixName::Abstract(b"a\0b".to_vec()),
            UnixName::Abstract(Vec::new()),
        ] {
            let address = unix_address(&name).expect("a name that fits");
            assert_eq!(unix_name(&address), Some(name));
        }
        assert!(unix_address(&UnixName::Path(PathBuf::from("x".repeat(109)))).is_none());
    }
}
