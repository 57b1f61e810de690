//! Whether a server's certificate is good, where rustls' own judgement is not what is wanted: it refuses a certificate
//! that calls itself an authority, also where the user gave this very one. OpenSSL lets it pass, and `openssl req -x509`
//! makes no others. And the two ways to look less closely, both dangerous.
//!
//! Signatures of the handshake are checked in all of them: the server has the key of what it shows.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

/// Accepts what a trusted authority vouches for, or what was given itself; or everything.
#[derive(Debug)]
pub(super) struct Verification {
    /// Who has to vouch; `None` where nobody has to.
    authorities: Option<Authorities>,
    /// Whether it has to be for the server's name.
    checks_name: bool,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct Authorities {
    /// Everybody who is trusted.
    roots: RootCertStore,
    /// Those of them that the user named, who are trusted to be servers, too.
    given: Vec<CertificateDer<'static>>,
}

impl Verification {
    pub(super) fn new(
        roots: RootCertStore,
        given: Vec<CertificateDer<'static>>,
        checks_name: bool,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self { authorities: Some(Authorities { roots, given }), checks_name, provider }
    }

    pub(super) fn any_certificate(provider: Arc<CryptoProvider>) -> Self {
        Self { authorities: None, checks_name: false, provider }
    }
}

impl Authorities {
    /// Whether one of them vouches for a certificate that is valid now.
    fn vouch(
        &self,
        certificate: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        provider: &CryptoProvider,
    ) -> Result<(), Error> {
        let algorithms = provider.signature_verification_algorithms.all;
        let vouched =
            verify_server_cert_signed_by_trust_anchor(parsed, &self.roots, intermediates, now, algorithms);
        match vouched {
            // That its time has come and is not over was looked at before (webpki, check_issuer_independent_properties).
            Err(error)
                if is_authoritys_own(&error) && self.given.iter().any(|given| given == certificate) =>
            {
                Ok(())
            }
            vouched => vouched,
        }
    }
}

/// Whether this is all that is wrong so far: the certificate may sign others.
fn is_authoritys_own(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) = error else { return false };
    matches!(cause.downcast_ref::<webpki::Error>(), Some(webpki::Error::CaUsedAsEndEntity))
}

impl ServerCertVerifier for Verification {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(authorities) = &self.authorities {
            let parsed = ParsedCertificate::try_from(certificate)?;
            authorities.vouch(certificate, &parsed, intermediates, now, &self.provider)?;
            if self.checks_name {
                verify_server_name(&parsed, server)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
