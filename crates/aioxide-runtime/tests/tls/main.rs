//! TLS against a server of another kind: threads and blocking sockets. On every driver.
//!
//! The certificates beside this file hold until 2120: `authority` vouches for `server` (localhost, 127.0.0.1)
//! and for `client`, `stranger` for nobody; `own` for itself (localhost, 127.0.0.1).
#![expect(clippy::disallowed_methods, reason = "the server has threads of its own")]

mod server;
#[path = "../runtime/support.rs"]
#[expect(dead_code, reason = "no test here is simulated")]
mod support;
mod traffic;
mod trust;

use std::io;

use aioxide_runtime::net::TcpStream;
use aioxide_runtime::net::tls::{TlsBuilder, TlsConnector, TlsStream};

const AUTHORITY: &[u8] = include_bytes!("certificates/authority.pem");
const STRANGER: &[u8] = include_bytes!("certificates/stranger.pem");
const CLIENT: &[u8] = include_bytes!("certificates/client.pem");
const OWN: &[u8] = include_bytes!("certificates/own.pem");
const SERVER: &[u8] = include_bytes!("certificates/server.pem");

/// A client that trusts the authority.
fn trusting() -> TlsBuilder {
    TlsConnector::builder().authorities(AUTHORITY).expect("it is PEM")
}

/// Connects to a server on this machine, which is expected to be `name`.
async fn connect(
    builder: TlsBuilder,
    server: &server::Server,
    name: &str,
) -> io::Result<TlsStream<std::net::TcpStream>> {
    let stream = TcpStream::connect(server.address).await?;
    builder.build()?.connect(name, stream).await
}
