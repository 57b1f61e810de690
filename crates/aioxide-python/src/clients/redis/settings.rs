//! A client's options, as the Python half names them, for the client crate.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use aioxide_redis::config::{Address, CredentialSource, Credentials, KeepAlive, Protocol, TlsConnector};
use aioxide_redis::connection::receiver::Locator;
use aioxide_redis::{Backoff, Config, Error, Role, Sentinel};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments::Encoding;
use crate::error::os_error;

/// What `RedisConnection` is made with.
pub struct Settings {
    /// For the client crate.
    pub config: Config,
    /// Where the server is found, if not at the address.
    pub locator: Option<Locator>,
    /// For texts.
    pub encoding: Encoding,
    /// Whether replies are decoded.
    pub decodes: bool,
}

impl Settings {
    /// Read the options; ValueError for one that makes no sense.
    pub fn read(options: &Bound<'_, PyDict>) -> PyResult<Self> {
        let options = Options(options);
        let default = Config::default();
        let address = match options.get::<Option<String>>("path")?.flatten() {
            Some(path) => Address::Unix(path.into()),
            None => Address::Tcp {
                host: options.get("host")?.unwrap_or_else(|| "localhost".into()),
                port: options.get("port")?.unwrap_or(6379),
            },
        };
        let credentials = match options.get::<Option<Py<PyAny>>>("credentials")?.flatten() {
            Some(ask) => CredentialSource::Ask(Rc::new(move || credentials(&ask))),
            None => CredentialSource::Fixed(Credentials {
                username: options.get::<Option<String>>("username")?.flatten(),
                password: options.get::<Option<String>>("password")?.flatten(),
            }),
        };
        let protocol = match options.get::<Option<u8>>("protocol")?.flatten() {
            None => Protocol::Newest,
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(other) => {
                return Err(PyValueError::new_err(format!("protocol must be 2 or 3, not {other}")));
            }
        };
        let keep_alive = match options.get::<Option<(f64, f64, u32)>>("keep_alive")?.flatten() {
            Some((idle, interval, probes)) => {
                Some(KeepAlive { idle: seconds(idle)?, interval: seconds(interval)?, probes })
            }
            None => None,
        };
        let backoff = match options.get::<(f64, f64, u32)>("backoff")? {
            Some((base, cap, retries)) => Backoff { base: seconds(base)?, cap: seconds(cap)?, retries },
            None => default.backoff,
        };
        let config = Config {
            address,
            credentials,
            database: options.get("database")?.unwrap_or(0),
            client_name: options.get::<Option<String>>("client_name")?.flatten(),
            library: options.get::<Option<(String, String)>>("library")?.flatten(),
            protocol,
            tls: options.get::<Option<Py<RedisTls>>>("tls")?.flatten().map(|tls| tls.get().connector.clone()),
            connect_timeout: options.duration("connect_timeout")?,
            stall_timeout: options.duration("stall_timeout")?,
            health_check: options.duration("health_check")?,
            keep_alive,
            backoff,
            high_water: options.get("high_water")?.unwrap_or(default.high_water),
            outstanding: options.get("outstanding")?.unwrap_or(default.outstanding),
            tracking: options.get("tracking")?.unwrap_or(false),
            read_only: options.get("read_only")?.unwrap_or(false),
        };
        let locator = match options.get::<Option<Bound<'_, PyDict>>>("sentinel")?.flatten() {
            Some(sentinel) => Some(Rc::new(read_sentinel(&Options(&sentinel))?) as Locator),
            None => None,
        };
        Ok(Self {
            config,
            locator,
            encoding: Encoding::named(
                options.get("encoding")?.unwrap_or_else(|| "utf-8".into()),
                options.get("encoding_errors")?.unwrap_or_else(|| "strict".into()),
            ),
            decodes: options.get("decode_responses")?.unwrap_or(false),
        })
    }
}

/// Read what is known about sentinels: "addresses", pairs of host and port; "service"; "is_master"; "settings", as those
/// of a connection; "min_other_sentinels"; "force_master_ip".
fn read_sentinel(options: &Options<'_, '_>) -> PyResult<Sentinel> {
    let missing = |name| move || PyValueError::new_err(format!("a sentinel needs {name}"));
    let addresses: Vec<(String, u16)> = options.get("addresses")?.ok_or_else(missing("addresses"))?;
    let service: String = options.get("service")?.ok_or_else(missing("a service"))?;
    let settings: Bound<'_, PyDict> = options.get("settings")?.ok_or_else(missing("settings"))?;
    let role = if options.get("is_master")?.unwrap_or(true) { Role::Master } else { Role::Replica };
    let addresses = addresses.into_iter().map(|(host, port)| Address::Tcp { host, port });
    Ok(Sentinel::new(addresses, service, role)
        .with_config(Settings::read(&settings)?.config)
        .with_fewest_others(options.get("min_other_sentinels")?.unwrap_or(0))
        .with_forced_host(options.get::<Option<String>>("force_master_ip")?.flatten()))
}

/// Whom a client trusts and who it says it is; made once, as reading the system's authorities takes a while.
#[pyclass(module = "aioxide._rust", frozen)]
pub struct RedisTls {
    connector: TlsConnector,
}

#[pymethods]
impl RedisTls {
    /// Trust the system's authorities, and those in a PEM file or in PEM text; with a certificate chain and its key, both
    /// PEM files, answer a server that asks for one. OSError or ValueError for what cannot be read.
    #[new]
    #[pyo3(signature = (*, authorities_file=None, authorities=None, chain_file=None, key_file=None, verify=true, check_name=true, only_tls13=false))]
    #[expect(clippy::too_many_arguments, reason = "keywords, as redis-py has them")]
    fn new(
        py: Python<'_>,
        authorities_file: Option<PathBuf>,
        authorities: Option<&str>,
        chain_file: Option<PathBuf>,
        key_file: Option<PathBuf>,
        verify: bool,
        check_name: bool,
        only_tls13: bool,
    ) -> PyResult<Self> {
        let build = || {
            let mut builder = TlsConnector::builder();
            if let Some(path) = authorities_file {
                builder = builder.authorities_file(path)?.system_authorities_too();
            }
            if let Some(text) = authorities {
                builder = builder.authorities(text.as_bytes())?.system_authorities_too();
            }
            if let Some(chain) = chain_file {
                let key = key_file.unwrap_or_else(|| chain.clone());
                builder = builder.identity_files(chain, key)?;
            }
            if only_tls13 {
                builder = builder.only_tls13();
            }
            builder = match (verify, check_name) {
                (false, _) => builder.dangerously_accept_any_certificate(),
                (true, false) => builder.dangerously_accept_any_name(),
                (true, true) => builder,
            };
            // The client's own limit covers the handshake.
            builder.handshake_timeout(None).build()
        };
        let connector = build().map_err(|error: std::io::Error| match error.kind() {
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput => {
                PyValueError::new_err(error.to_string())
            }
            _ => os_error(py, &error),
        })?;
        Ok(Self { connector })
    }
}

/// Ask a callable without arguments that returns user and password, either of them None.
fn credentials(ask: &Py<PyAny>) -> Result<Credentials, Error> {
    Python::attach(|py| {
        let answer = ask.call0(py).and_then(|answer| answer.extract::<(Option<String>, Option<String>)>(py));
        match answer {
            Ok((username, password)) => Ok(Credentials { username, password }),
            Err(error) => Err(Error::Misuse(format!("the credential provider failed: {error}"))),
        }
    })
}

struct Options<'a, 'py>(&'a Bound<'py, PyDict>);

impl<'py> Options<'_, 'py> {
    fn get<T>(&self, name: &str) -> PyResult<Option<T>>
    where
        T: for<'a> FromPyObject<'a, 'py>,
    {
        match self.0.get_item(name)? {
            Some(value) => value.extract().map(Some).map_err(Into::into),
            None => Ok(None),
        }
    }

    /// Seconds; None means without end.
    fn duration(&self, name: &str) -> PyResult<Option<Duration>> {
        self.get::<Option<f64>>(name)?.flatten().map(seconds).transpose()
    }
}

fn seconds(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err(format!("{seconds} is no duration in seconds")))
}
