//! Names to addresses, with the system's resolver on a thread of the pool.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, ToSocketAddrs};

use crate::blocking::spawn_blocking;

/// The addresses of a host, best first, as `getaddrinfo(3)` orders them. A literal address is taken as
/// it is, without a thread.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    // With a scope, RFC 4007: `fe80::1%2`. The name of an interface instead of its number needs the resolver.
    if let Ok(address) = format!("[{host}]:{port}").parse::<SocketAddrV6>() {
        return Ok(vec![address.into()]);
    }
    let host = host.to_owned();
    let lookup = move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
    spawn_blocking(lookup).await?
}
