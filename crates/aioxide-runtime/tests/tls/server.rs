//! A server for one connection, on a thread.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use aioxide_runtime::{Runtime, spawn_blocking};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

use crate::{AUTHORITY, SERVER};

pub type Connection = StreamOwned<ServerConnection, TcpStream>;

pub struct Server {
    pub address: SocketAddr,
    thread: JoinHandle<io::Result<()>>,
}

/// A single version.
pub static TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
pub static TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// What a server insists on.
#[derive(Default)]
pub struct Terms {
    pub versions: Option<&'static [&'static SupportedProtocolVersion]>,
    pub asks_for_certificate: bool,
    pub protocols: Vec<Vec<u8>>,
    /// The certificate and key it shows, in place of the ones that the authority vouches for.
    pub identity: Option<&'static [u8]>,
}

impl Server {
    /// Serves one connection by `serve`, which gets it before the handshake.
    pub fn start(terms: Terms, serve: impl FnOnce(Connection) -> io::Result<()> + Send + 'static) -> Self {
        let config = Arc::new(config(terms));
        Self::start_plain(move |socket| {
            let connection = ServerConnection::new(config).map_err(io::Error::other)?;
            serve(StreamOwned::new(connection, socket))
        })
    }

    /// The same without TLS.
    pub fn start_plain(serve: impl FnOnce(TcpStream) -> io::Result<()> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a bound socket has a name");
        let thread = std::thread::spawn(move || serve(listener.accept()?.0));
        Self { address, thread }
    }

    /// Waits for the end of the connection: how it went for the server. The runtime runs meanwhile: a socket
    /// is closed when its last operation has ended.
    pub fn end(self, runtime: &Runtime) -> io::Result<()> {
        let end = move || self.thread.join().expect("the server does not panic");
        runtime.block_on(async { spawn_blocking(end).await })?.expect("the wait does not panic")
    }
}

/// Sends everything back until the client ends its direction, and says that it ends its own.
pub fn echo(mut connection: Connection) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match connection.read(&mut buffer)? {
            0 => break,
            count => connection.write_all(&buffer[..count])?,
        }
    }
    goodbye(connection)
}

/// Says that nothing more comes, and waits until the client has said so.
pub fn goodbye(mut connection: Connection) -> io::Result<()> {
    connection.conn.send_close_notify();
    connection.flush()?;
    connection.sock.shutdown(Shutdown::Write)?;
    connection.read_to_end(&mut Vec::new()).map(drop)
}

pub fn config(terms: Terms) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = terms.versions.unwrap_or(rustls::ALL_VERSIONS);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("the versions are known");
    let builder = if terms.asks_for_certificate {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(AUTHORITY).expect("it is PEM")).expect("it is an authority");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().expect("there is an authority"))
    } else {
        builder.with_no_client_auth()
    };
    let identity = terms.identity.unwrap_or(SERVER);
    let chain = vec![CertificateDer::from_pem_slice(identity).expect("it is PEM")];
    let key = PrivateKeyDer::from_pem_slice(identity).expect("it is PEM");
    let mut config = builder.with_single_cert(chain, key).expect("the key fits");
    config.alpn_protocols = terms.protocols;
    config
}
