//! What a fresh connection says before anything else: who we are, in which version of the protocol, which database.

use std::time::Duration;

use aioxide_runtime::timeout;

use super::receiver::Role;
use crate::Error;
use crate::config::{Config, Protocol};
use crate::proto::{Command, Decoded, Decoder, Limits, ServerError, Value, ValueBuilder};
use crate::stream::Stream;

/// Gives an attempt as long as it may take, if there is a limit.
pub(crate) async fn within<T>(
    limit: Option<Duration>,
    what: &'static str,
    attempt: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match limit {
        Some(limit) => {
            timeout(limit, attempt).await.unwrap_or(Err(Error::Timeout { what, may_have_run: false }))
        }
        None => attempt.await,
    }
}

/// Whether a server does not know HELLO, or not version 3.
fn is_unknown(error: &ServerError) -> bool {
    error.code() == "NOPROTO" || error.text().to_ascii_lowercase().contains("unknown command")
}

/// Questions and answers on a connection that nobody else uses yet.
pub(crate) struct Dialogue<'a> {
    stream: &'a Stream,
    decoder: Decoder<Value>,
    received: Vec<u8>,
}

impl<'a> Dialogue<'a> {
    pub(crate) fn new(stream: &'a Stream) -> Self {
        let limits = Limits { bulk_bytes: 1 << 20, items: 1 << 12, ..Limits::default() };
        Self { stream, decoder: Decoder::new(limits), received: Vec::new() }
    }

    /// Logs in, and sets up what the settings want.
    pub(crate) async fn greet(&mut self, config: &Config) -> Result<(), Error> {
        let credentials = config.credentials.credentials()?;
        let user = credentials.username.as_deref();
        let password = credentials.password.as_deref().or(user.map(|_| ""));
        let mut is_authenticated = password.is_none();
        if config.protocol != Protocol::Resp2 {
            let mut hello = Command::new("HELLO").arg(3);
            if let Some(password) = password {
                hello = hello.arg("AUTH").arg(user.unwrap_or("default")).arg(password);
            }
            match self.ask(&hello).await? {
                Value::Error(error) if is_unknown(&error) && config.protocol == Protocol::Newest => {}
                Value::Error(error) => return Err(Error::Refused(error)),
                _ => is_authenticated = true,
            }
        }
        let mut commands = Vec::new();
        if let (false, Some(password)) = (is_authenticated, password) {
            let auth = Command::new("AUTH");
            let auth = if let Some(user) = user { auth.arg(user) } else { auth };
            commands.push((auth.arg(password), true));
        }
        if let Some(name) = &config.client_name {
            commands.push((Command::new("CLIENT").arg("SETNAME").arg(name.as_str()), true));
        }
        if let Some((name, library_version)) = &config.library {
            // Servers before 7.2 do not know it.
            commands.push((Command::new("CLIENT").arg("SETINFO").arg("LIB-NAME").arg(name.as_str()), false));
            let set_version = Command::new("CLIENT").arg("SETINFO").arg("LIB-VER");
            commands.push((set_version.arg(library_version.as_str()), false));
        }
        if config.database != 0 {
            commands.push((Command::new("SELECT").arg(i64::from(config.database)), true));
        }
        if config.tracking {
            commands.push((Command::new("CLIENT").arg("TRACKING").arg("ON"), true));
        }
        if config.read_only {
            commands.push((Command::new("READONLY"), true));
        }
        self.ask_all(&commands).await
    }

    /// Makes sure that the server is what it was taken for.
    pub(crate) async fn verify(&mut self, expected: Role) -> Result<(), Error> {
        let answer = match self.ask(&Command::new("ROLE")).await? {
            // Users that may not ask have to do without.
            Value::Error(error) if error.code() == "NOPERM" => return Ok(()),
            Value::Error(error) => return Err(Error::Refused(error)),
            answer => answer,
        };
        let name = match &answer {
            Value::Array(parts) => parts.first().and_then(Value::as_bytes),
            _ => None,
        };
        let role = match name {
            Some(b"master") => Role::Master,
            _ => Role::Replica,
        };
        if role == expected { Ok(()) } else { Err(Error::NotFound { role: expected }) }
    }

    pub(crate) async fn ask(&mut self, command: &Command) -> Result<Value, Error> {
        let mut bytes = Vec::new();
        command.encode_into(&mut bytes);
        self.stream.write_all(&bytes).await?;
        self.answer().await
    }

    /// Asks everything at once; an error counts where it is marked so.
    async fn ask_all(&mut self, commands: &[(Command, bool)]) -> Result<(), Error> {
        let mut bytes = Vec::new();
        for (command, _) in commands {
            command.encode_into(&mut bytes);
        }
        self.stream.write_all(&bytes).await?;
        let mut refused = None;
        for (_, counts) in commands {
            match self.answer().await? {
                Value::Error(error) if *counts => refused = refused.or(Some(error)),
                _ => {}
            }
        }
        refused.map_or(Ok(()), |error| Err(Error::Refused(error)))
    }

    async fn answer(&mut self) -> Result<Value, Error> {
        loop {
            let mut rest = &self.received[..];
            let before = rest.len();
            let decoded = self.decoder.decode(&mut rest, &mut ValueBuilder::default())?;
            let consumed = before - rest.len();
            self.received.drain(..consumed);
            match decoded {
                Some(Decoded::Reply(value)) => return Ok(value),
                Some(Decoded::Push(_)) => continue,
                None => {}
            }
            let mut piece = [0; 1024];
            match self.stream.read(&mut piece).await? {
                0 => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
                count => self.received.extend_from_slice(&piece[..count]),
            }
        }
    }
}
