//! Who is trusted, and who is not.

use std::io::{self, Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use aioxide_runtime::net::TcpStream;
use aioxide_runtime::net::tls::{TlsBuilder, TlsConnector};
use rustls::{AlertDescription, CertificateError, Error};

use crate::server::{Server, TLS12, TLS13, Terms, echo};
use crate::support::on_every_driver;
use crate::{AUTHORITY, CLIENT, OWN, SERVER, STRANGER, connect, trusting};

/// Connects and echoes a few bytes.
async fn greet(builder: TlsBuilder, server: &Server, name: &str) -> io::Result<()> {
    let stream = connect(builder, server, name).await?;
    stream.write_all(b"hello").await?;
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting).await?;
    assert_eq!(&greeting, b"hello");
    stream.shutdown().await?;
    assert_eq!(stream.read(&mut greeting).await?, 0);
    Ok(())
}

#[track_caller]
fn assert_welcome(builder: impl Fn() -> TlsBuilder, terms: impl Fn() -> Terms, name: &str) {
    on_every_driver(|runtime| {
        let server = Server::start(terms(), echo);
        runtime.block_on(greet(builder(), &server, name)).expect("the driver waits").expect("they agree");
        server.end(runtime).expect("the server is content");
    });
}

/// What the handshake, or the first answer, fails with.
#[track_caller]
fn assert_refused(
    builder: impl Fn() -> TlsBuilder,
    terms: impl Fn() -> Terms,
    name: &str,
    is_expected: impl Fn(&Error) -> bool,
) {
    on_every_driver(|runtime| {
        let server = Server::start(terms(), echo);
        let error = runtime
            .block_on(greet(builder(), &server, name))
            .expect("the driver waits")
            .expect_err("it is refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()).expect("it is rustls'");
        assert!(is_expected(cause), "{cause:?}");
        server.end(runtime).expect_err("the server is told");
    });
}

#[test]
fn a_server_is_known_by_its_name_or_its_address() {
    assert_welcome(trusting, Terms::default, "localhost");
    assert_welcome(trusting, Terms::default, "127.0.0.1");
}

#[test]
fn both_versions_are_spoken() {
    for version in [TLS12, TLS13] {
        let terms = || Terms { versions: Some(version), ..Terms::default() };
        assert_welcome(trusting, terms, "localhost");
    }
}

#[test]
fn the_older_version_can_be_refused() {
    let terms = || Terms { versions: Some(TLS12), ..Terms::default() };
    let is_refusal = |error: &Error| *error == Error::AlertReceived(AlertDescription::ProtocolVersion);
    assert_refused(|| trusting().only_tls13(), terms, "localhost", is_refusal);
}

#[test]
fn a_stranger_is_not_trusted() {
    let builder = || TlsConnector::builder().authorities(STRANGER).expect("it is PEM");
    let is_unknown = |error: &Error| *error == Error::InvalidCertificate(CertificateError::UnknownIssuer);
    assert_refused(builder, Terms::default, "localhost", is_unknown);
}

#[test]
fn the_systems_authorities_do_not_vouch_for_the_test_server() {
    let is_unknown = |error: &Error| *error == Error::InvalidCertificate(CertificateError::UnknownIssuer);
    let builder =
        || TlsConnector::builder().authorities(STRANGER).expect("it is PEM").system_authorities_too();
    assert_refused(builder, Terms::default, "localhost", is_unknown);
}

#[test]
fn a_certificate_for_another_name_is_not_enough() {
    let is_name = |error: &Error| {
        matches!(error, Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }))
    };
    assert_refused(trusting, Terms::default, "example.com", is_name);
    assert_refused(trusting, Terms::default, "127.0.0.2", is_name);
}

#[test]
fn an_authority_may_be_a_server_itself_where_it_was_given() {
    let terms = || Terms { identity: Some(OWN), ..Terms::default() };
    let given = || TlsConnector::builder().authorities(OWN).expect("it is PEM");
    for version in [TLS12, TLS13] {
        assert_welcome(given, || Terms { versions: Some(version), ..terms() }, "localhost");
    }
    assert_welcome(|| given().authorities(STRANGER).expect("it is PEM"), terms, "127.0.0.1");
    assert_welcome(|| given().dangerously_accept_any_name(), terms, "example.com");
    let is_name = |error: &Error| {
        matches!(error, Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }))
    };
    assert_refused(given, terms, "example.com", is_name);
    let is_certificate = |error: &Error| matches!(error, Error::InvalidCertificate(_));
    assert_refused(trusting, terms, "localhost", is_certificate);
    assert_refused(
        || TlsConnector::builder().authorities(STRANGER).expect("it is PEM"),
        terms,
        "localhost",
        is_certificate,
    );
    // Who is trusted to be a server need not be one: what others show is judged as ever.
    assert_refused(given, Terms::default, "localhost", is_certificate);
}

#[test]
fn the_name_alone_can_be_ignored() {
    assert_welcome(|| trusting().dangerously_accept_any_name(), Terms::default, "example.com");
    let builder = || {
        let builder = TlsConnector::builder().authorities(STRANGER).expect("it is PEM");
        builder.dangerously_accept_any_name()
    };
    let is_unknown = |error: &Error| *error == Error::InvalidCertificate(CertificateError::UnknownIssuer);
    assert_refused(builder, Terms::default, "example.com", is_unknown);
}

#[test]
fn everything_can_be_ignored() {
    for version in [TLS12, TLS13] {
        let terms = || Terms { versions: Some(version), ..Terms::default() };
        let builder = || TlsConnector::builder().dangerously_accept_any_certificate();
        assert_welcome(builder, terms, "example.com");
    }
}

#[test]
fn a_client_shows_its_certificate_to_a_server_that_asks() {
    let terms = || Terms { asks_for_certificate: true, ..Terms::default() };
    assert_welcome(|| trusting().identity(CLIENT, CLIENT).expect("it is PEM"), terms, "localhost");
    let is_refusal = |error: &Error| *error == Error::AlertReceived(AlertDescription::CertificateRequired);
    assert_refused(trusting, terms, "localhost", is_refusal);
}

#[test]
fn the_best_protocol_of_both_is_chosen() {
    on_every_driver(|runtime| {
        let protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
        let server = Server::start(Terms { protocols, ..Terms::default() }, echo);
        let agreed = runtime.block_on(async {
            let builder = trusting().application_protocols(["h2", "other"]);
            let stream = connect(builder, &server, "localhost").await?;
            stream.shutdown().await?;
            assert_eq!(stream.read(&mut [0; 8]).await?, 0);
            io::Result::Ok(stream.application_protocol())
        });
        assert_eq!(agreed.unwrap().unwrap().as_deref(), Some(&b"h2"[..]));
        server.end(runtime).unwrap();
    });
}

#[test]
fn what_is_no_certificate_is_refused_when_it_is_given() {
    for text in [&b""[..], b"no PEM", b"-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n"] {
        let error = TlsConnector::builder().authorities(text).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
    // A certificate without its key.
    let error = trusting().identity(CLIENT, AUTHORITY).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    // The key of another.
    let error = trusting().identity(CLIENT, SERVER).expect("it is PEM").build().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    let error = TlsConnector::builder().authorities_file("/nonexistent").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn certificates_are_read_from_files() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/certificates");
    let builder = || {
        TlsConnector::builder()
            .authorities_file(folder.join("authority.pem"))
            .and_then(|builder| builder.identity_files(folder.join("client.pem"), folder.join("client.pem")))
            .expect("the files are there")
    };
    let terms = || Terms { asks_for_certificate: true, ..Terms::default() };
    assert_welcome(builder, terms, "localhost");
}

#[test]
fn a_name_that_is_none_is_refused() {
    on_every_driver(|runtime| {
        let server = Server::start_plain(|mut socket| {
            assert_eq!(socket.read(&mut [0; 1])?, 0);
            Ok(())
        });
        let result = runtime.block_on(connect(trusting(), &server, "no name"));
        assert_eq!(result.unwrap().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        server.end(runtime).unwrap();
    });
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    on_every_driver(|runtime| {
        let server = Server::start_plain(|mut socket| {
            // The client's first message, and the end.
            socket.read_to_end(&mut Vec::new()).map(drop)
        });
        let builder = trusting().handshake_timeout(Some(Duration::from_millis(20)));
        let result = runtime.block_on(connect(builder, &server, "localhost"));
        assert_eq!(result.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        server.end(runtime).unwrap();
    });
}

#[test]
fn a_server_that_hangs_up_or_speaks_something_else_is_an_error() {
    on_every_driver(|runtime| {
        let server = Server::start_plain(|mut socket| {
            assert!(socket.read(&mut [0; 4096])? > 0);
            Ok(())
        });
        let error = runtime.block_on(connect(trusting(), &server, "localhost")).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
        server.end(runtime).unwrap();

        let (is_done, done) = mpsc::channel::<()>();
        let server = Server::start_plain(move |mut socket| {
            socket.write_all(b"-ERR unknown command\r\n-ERR unknown command\r\n")?;
            // Were it closed with something unread, its reset could overtake the answer.
            done.recv().expect_err("nothing is sent");
            Ok(())
        });
        let error = runtime.block_on(connect(trusting(), &server, "localhost")).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        drop(is_done);
        server.end(runtime).unwrap();
    });
}

#[test]
fn a_dropped_handshake_closes_the_connection() {
    on_every_driver(|runtime| {
        let server = Server::start_plain(|mut socket| socket.read_to_end(&mut Vec::new()).map(drop));
        let handshake = async {
            let stream = TcpStream::connect(server.address).await?;
            let connector = trusting().handshake_timeout(None).build()?;
            let limit = Duration::from_millis(20);
            let elapsed = aioxide_runtime::timeout(limit, connector.connect("localhost", stream)).await;
            io::Result::Ok(elapsed.is_err())
        };
        assert!(runtime.block_on(handshake).unwrap().unwrap());
        server.end(runtime).unwrap();
    });
}
