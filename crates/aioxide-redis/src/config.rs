//! Where the server is, who we are there, and how patient we are.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

pub use aioxide_runtime::net::tls::{TlsBuilder, TlsConnector};

use crate::Error;
use crate::backoff::Backoff;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP.
    Tcp {
        /// Name or literal address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl Default for Address {
    fn default() -> Self {
        Self::Tcp { host: "localhost".into(), port: 6379 }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(formatter, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(formatter, "{host}:{port}"),
            Self::Unix(path) => write!(formatter, "{}", path.display()),
        }
    }
}

/// Who we are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user of the server's access control; `None` for the default one.
    pub username: Option<String>,
    /// The password.
    pub password: Option<String>,
}

impl std::fmt::Debug for Credentials {
    /// Never the password.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let password = self.password.as_ref().map(|_| "…");
        formatter
            .debug_struct("Credentials")
            .field("username", &self.username)
            .field("password", &password)
            .finish()
    }
}

/// Asked before each attempt to connect.
#[derive(Clone)]
pub enum CredentialSource {
    /// Always the same.
    Fixed(Credentials),
    /// Whatever this answers now, as for tokens that expire.
    Ask(Rc<dyn Fn() -> Result<Credentials, Error>>),
}

impl CredentialSource {
    /// Who we are now.
    pub fn credentials(&self) -> Result<Credentials, Error> {
        match self {
            Self::Fixed(credentials) => Ok(credentials.clone()),
            Self::Ask(ask) => ask(),
        }
    }
}

impl std::fmt::Debug for CredentialSource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(credentials) => credentials.fmt(formatter),
            Self::Ask(_) => formatter.write_str("Ask(…)"),
        }
    }
}

impl Default for CredentialSource {
    fn default() -> Self {
        Self::Fixed(Credentials::default())
    }
}

/// The version of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// RESP3 where the server knows it, else RESP2.
    #[default]
    Newest,
    /// RESP2.
    Resp2,
    /// RESP3; a server that does not know it is refused.
    Resp3,
}

/// TCP keep-alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// How many probes stay without an answer before the connection is dead.
    pub probes: u32,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(30), interval: Duration::from_secs(5), probes: 3 }
    }
}

/// Everything about a connection.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the server is.
    pub address: Address,
    /// Who we are.
    pub credentials: CredentialSource,
    /// The database to select.
    pub database: u32,
    /// What CLIENT LIST shows.
    pub client_name: Option<String>,
    /// Name and version of the library, for CLIENT SETINFO.
    pub library: Option<(String, String)>,
    /// The version of the protocol.
    pub protocol: Protocol,
    /// TLS over TCP, or none.
    pub tls: Option<TlsConnector>,
    /// How long an attempt to connect and to log in may take; `None` for as long as it takes.
    pub connect_timeout: Option<Duration>,
    /// How long the server may say nothing at all while a reply is awaited; `None` for as long as it takes.
    pub stall_timeout: Option<Duration>,
    /// After so long without traffic the server is pinged; `None` for never.
    pub health_check: Option<Duration>,
    /// TCP keep-alive, or none.
    pub keep_alive: Option<KeepAlive>,
    /// How attempts to connect are repeated.
    pub backoff: Backoff,
    /// How many bytes may wait to be written before callers have to wait.
    pub high_water: usize,
    /// How many entries may wait for replies before callers have to wait.
    pub outstanding: usize,
    /// Have the server tell which keys changed that were read on this connection (`CLIENT TRACKING ON`); it takes RESP3.
    pub tracking: bool,
    /// Say READONLY, to read from a replica of a cluster.
    pub read_only: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: Address::default(),
            credentials: CredentialSource::default(),
            database: 0,
            client_name: None,
            library: Some(("aioxide".into(), env!("CARGO_PKG_VERSION").into())),
            protocol: Protocol::default(),
            tls: None,
            connect_timeout: Some(Duration::from_secs(5)),
            stall_timeout: Some(Duration::from_secs(5)),
            health_check: None,
            keep_alive: Some(KeepAlive::default()),
            backoff: Backoff::default(),
            high_water: 1024 * 1024,
            outstanding: 64 * 1024,
            tracking: false,
            read_only: false,
        }
    }
}
