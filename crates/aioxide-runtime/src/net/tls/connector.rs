//! Whom to trust, who we are, and how long a handshake may take.
//!
//! A configuration is checked when it is built, not when the first connection needs it.

use std::fmt::{self, Debug, Formatter};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::super::stream::Stream;
use super::stream::TlsStream;
use super::verification::Verification;
use crate::time::timeout;

/// Makes TLS streams. Cheap to clone; connections of clones resume each other's sessions.
#[derive(Clone)]
pub struct TlsConnector {
    config: Arc<ClientConfig>,
    handshake_timeout: Option<Duration>,
}

impl TlsConnector {
    /// Begins with the defaults: the server must show a certificate for its name that an authority
    /// vouches for which the system trusts, in TLS 1.2 or 1.3.
    pub fn builder() -> TlsBuilder {
        TlsBuilder::default()
    }

    /// Makes TLS of a connected stream: shakes hands with a server that must be `server`, a host name or
    /// an address in digits.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if `server` is no name,
    /// [`InvalidData`](io::ErrorKind::InvalidData) around rustls' error if the server is not trusted or
    /// there is no agreement, [`TimedOut`](io::ErrorKind::TimedOut), and whatever the stream fails with.
    pub async fn connect<S>(&self, server: &str, stream: Stream<S>) -> io::Result<TlsStream<S>>
    where
        S: AsFd,
        for<'socket> &'socket S: Read + Write,
    {
        let name = ServerName::try_from(server.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let connection = ClientConnection::new(Arc::clone(&self.config), name).map_err(invalid)?;
        let stream = TlsStream::new(stream, connection);
        match self.handshake_timeout {
            Some(limit) => timeout(limit, stream.handshake()).await.unwrap_or_else(|_| {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long"))
            })?,
            None => stream.handshake().await?,
        }
        Ok(stream)
    }
}

impl Debug for TlsConnector {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        // Not the configuration: it has the private key.
        formatter.debug_struct("TlsConnector").finish_non_exhaustive()
    }
}

/// Configures a [`TlsConnector`].
#[must_use = "nothing happens before `build`"]
pub struct TlsBuilder {
    /// None of our own: the system's.
    authorities: Vec<CertificateDer<'static>>,
    trusts_system: bool,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    application_protocols: Vec<Vec<u8>>,
    versions: &'static [&'static SupportedProtocolVersion],
    checks: Checks,
    handshake_timeout: Option<Duration>,
}

/// How much of a server's certificate is looked at.
#[derive(Clone, Copy, PartialEq)]
enum Checks {
    Everything,
    AllButName,
    Nothing,
}

impl Default for TlsBuilder {
    fn default() -> Self {
        Self {
            authorities: Vec::new(),
            trusts_system: true,
            identity: None,
            application_protocols: Vec::new(),
            versions: rustls::ALL_VERSIONS,
            checks: Checks::Everything,
            handshake_timeout: Some(HANDSHAKE_TIMEOUT),
        }
    }
}

impl TlsBuilder {
    /// Trusts the authorities in a file of PEM instead of the system's; may be called more than once. A server may also
    /// show one of these certificates as its own, if it is for the server's name.
    pub fn authorities_file(self, path: impl AsRef<Path>) -> io::Result<Self> {
        self.authorities(&std::fs::read(path)?)
    }

    /// Trusts the authorities in a text of PEM instead of the system's; may be called more than once.
    pub fn authorities(mut self, pem: &[u8]) -> io::Result<Self> {
        self.authorities.extend(certificates(pem)?);
        self.trusts_system = false;
        Ok(self)
    }

    /// Trusts the system's authorities besides those that were given.
    pub fn system_authorities_too(mut self) -> Self {
        self.trusts_system = true;
        self
    }

    /// Shows a certificate to servers that ask for one: files of PEM with the certificate, perhaps
    /// followed by those it depends on, and with its private key, which may be the same file. The key
    /// must not be encrypted.
    pub fn identity_files(self, chain: impl AsRef<Path>, key: impl AsRef<Path>) -> io::Result<Self> {
        self.identity(&std::fs::read(chain)?, &std::fs::read(key)?)
    }

    /// The same with texts of PEM.
    pub fn identity(mut self, chain: &[u8], key: &[u8]) -> io::Result<Self> {
        self.identity = Some((certificates(chain)?, PrivateKeyDer::from_pem_slice(key).map_err(not_pem)?));
        Ok(self)
    }

    /// Offers protocols to speak over TLS (ALPN), best first.
    pub fn application_protocols(mut self, names: impl IntoIterator<Item: AsRef<[u8]>>) -> Self {
        self.application_protocols = names.into_iter().map(|name| name.as_ref().to_vec()).collect();
        self
    }

    /// Refuses TLS 1.2.
    pub fn only_tls13(mut self) -> Self {
        self.versions = ONLY_TLS13;
        self
    }

    /// How long a handshake may take; without a limit, for ever. By default 60 seconds, as in asyncio.
    pub fn handshake_timeout(mut self, limit: Option<Duration>) -> Self {
        self.handshake_timeout = limit;
        self
    }

    /// DANGEROUS. Accepts the certificate of any server that a trusted authority vouches for, whatever
    /// its name: whoever has such a certificate for a name of his own and sits in between can read and
    /// change everything. Only right where the authority vouches for nobody but the servers meant.
    pub fn dangerously_accept_any_name(mut self) -> Self {
        self.checks = Checks::AllButName;
        self
    }

    /// DANGEROUS. Accepts any certificate of anybody: whoever sits in between can read and change
    /// everything. TLS then protects from nobody but listeners that cannot send. For tests.
    pub fn dangerously_accept_any_certificate(mut self) -> Self {
        self.checks = Checks::Nothing;
        self
    }

    /// Checks what was given. Reads the system's authorities, if they are trusted, from disk: some
    /// milliseconds, so build a connector once, and where others wait in
    /// [`spawn_blocking`](crate::spawn_blocking).
    pub fn build(self) -> io::Result<TlsConnector> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.versions)
            .map_err(invalid)?;
        let verification = match self.checks {
            Checks::Nothing => Verification::any_certificate(provider),
            checks => {
                Verification::new(self.roots()?, self.authorities, checks == Checks::Everything, provider)
            }
        };
        let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verification));
        let mut config = match self.identity {
            Some((chain, key)) => config.with_client_auth_cert(chain, key).map_err(invalid)?,
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = self.application_protocols;
        Ok(TlsConnector { config: Arc::new(config), handshake_timeout: self.handshake_timeout })
    }

    /// Those who are trusted.
    fn roots(&self) -> io::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        if self.trusts_system {
            let mut found = rustls_native_certs::load_native_certs();
            // A system has old ones among them that nobody can read any more.
            let (_usable, _ignored) = roots.add_parsable_certificates(found.certs);
            if roots.is_empty() && self.authorities.is_empty() {
                let error = found.errors.pop().map_or_else(
                    || io::Error::new(io::ErrorKind::NotFound, "the system has no certificate authorities"),
                    io::Error::other,
                );
                return Err(error);
            }
        }
        for authority in &self.authorities {
            roots.add(authority.clone()).map_err(invalid)?;
        }
        Ok(roots)
    }
}

impl Debug for TlsBuilder {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        // Not the private key.
        formatter.debug_struct("TlsBuilder").finish_non_exhaustive()
    }
}

/// The certificates in a text of PEM, at least one.
fn certificates(text: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(not_pem)?;
    if certificates.is_empty() {
        return Err(not_pem(pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

fn not_pem(error: pem::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// What TLS itself fails with, kept inside of an error of IO.
pub(super) fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

static ONLY_TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// asyncio's `ssl_handshake_timeout`.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
