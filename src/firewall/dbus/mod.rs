//! A small client of D-Bus that calls methods with texts as arguments and receives signals.
//!
//! The D-Bus crates in pure Rust bring as much code as an asynchronous runtime. That code would
//! stay resident in the supervisor of each launch, even if the launch never uses D-Bus. This client
//! does only three things: it authenticates on a bus (SASL's EXTERNAL mechanism, by the credentials
//! of the socket), it calls a method and waits for the answer, and it receives signals. [`message`]
//! reads and writes the bytes.
//!
//! A call that reaches its time limit leaves the connection usable. Its late answer is ignored,
//! because its serial number belongs to no waiting call.

pub mod message;

use std::collections::VecDeque;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{SocketAddr, UnixStream as Plain};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use message::{Call, Malformed, Message, MessageType};

/// The name of the bus itself, which is also the name of its interface.
pub const BUS: &str = "org.freedesktop.DBus";
/// The path of the bus's own object.
pub const BUS_PATH: &str = "/org/freedesktop/DBus";
/// The time limit for the authentication, and for each call to the bus itself.
const ENTRY: Duration = Duration::from_secs(10);

/// The reason why a bus cannot be used, or why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The address is not the address of a Unix socket.
    #[error(
        "{0:?} is no address of a system bus; use one such as unix:path=/run/dbus/system_bus_socket"
    )]
    Address(String),
    /// No program listens on the address.
    #[error("there is no system bus at {address}; start D-Bus")]
    Absent {
        /// The address of the bus.
        address: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The connection to the bus failed.
    #[error("the connection to the system bus failed; see the log of D-Bus")]
    Io(#[from] io::Error),
    /// The bus refused the authentication.
    #[error("the system bus refused the authentication of this user; run as root")]
    NotAuthenticated,
    /// The bus closed the connection.
    #[error("the system bus closed the connection; start D-Bus again")]
    Closed,
    /// The bus sent bytes that cannot be read.
    #[error("the message of the system bus cannot be read; restart D-Bus")]
    Malformed(#[from] Malformed),
    /// No answer came within this time limit.
    #[error("no answer within {} s", .0.as_secs())]
    Slow(Duration),
    /// The answer is an error.
    #[error("{said}")]
    Refused {
        /// The error's name, such as org.freedesktop.DBus.Error.NameHasNoOwner.
        name: String,
        /// The last line of the error's text, or its name if it has no text.
        said: String,
    },
}

impl BusError {
    /// Returns whether the error is one of the bus's own errors, given by the last part of its
    /// name.
    pub fn is(&self, names: &[&str]) -> bool {
        let BusError::Refused { name, .. } = self else { return false };
        let name = name.strip_prefix("org.freedesktop.DBus.Error.");
        name.is_some_and(|name| names.contains(&name))
    }
}

/// A connection to a bus.
#[derive(Debug)]
pub struct Bus {
    socket: UnixStream,
    received: Vec<u8>,
    /// The signals that came while a call waited for its answer.
    signals: VecDeque<Message>,
    serial: u32,
}

impl Bus {
    /// Connects to the bus at this address and authenticates as the user of this process.
    ///
    /// # Errors
    /// [`BusError::Absent`] if no bus listens there, or another [`BusError`].
    pub async fn enter(address: &str) -> Result<Self, BusError> {
        let at = BusSocket::parse(address).ok_or_else(|| BusError::Address(address.to_owned()))?;
        let socket = at.connect().await.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                BusError::Absent { address: address.to_owned(), source }
            }
            _ => BusError::Io(source),
        })?;
        let mut bus = Bus { socket, received: Vec::new(), signals: VecDeque::new(), serial: 0 };
        let entered = timeout(ENTRY, bus.authenticate()).await;
        entered.map_err(|_| BusError::Slow(ENTRY))??;
        bus.call_bus("Hello", &[]).await?;
        Ok(bus)
    }

    /// Authenticates with the identity of the socket, which an empty identity means (D-Bus
    /// specification, "Authentication Protocol").
    async fn authenticate(&mut self) -> Result<(), BusError> {
        self.socket.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\n").await?;
        loop {
            let line = self.line().await?;
            if line.starts_with(b"OK ") {
                return Ok(self.socket.write_all(b"BEGIN\r\n").await?);
            }
            if !line.starts_with(b"DATA") {
                return Err(BusError::NotAuthenticated);
            }
        }
    }

    async fn line(&mut self) -> Result<Vec<u8>, BusError> {
        loop {
            if let Some(end) = self.received.windows(2).position(|end| end == b"\r\n") {
                return Ok(self.received.drain(..end + 2).collect());
            }
            self.receive().await?;
        }
    }

    /// Calls a method, waits for the answer at most `limit`, and returns the texts of the answer.
    ///
    /// # Errors
    /// [`BusError::Refused`] if the answer is an error, or another [`BusError`].
    pub async fn call(
        &mut self,
        call: &Call<'_>,
        limit: Duration,
    ) -> Result<Vec<String>, BusError> {
        let answer = timeout(limit, self.answer(call)).await;
        let message = answer.map_err(|_| BusError::Slow(limit))??;
        let texts = message.texts();
        match message.error {
            Some(name) => {
                let said = texts.ok().and_then(|texts| last_line(texts.first()?));
                Err(BusError::Refused { said: said.unwrap_or_else(|| name.clone()), name })
            }
            None => Ok(texts?),
        }
    }

    /// Calls a method of the bus itself.
    ///
    /// # Errors
    /// The errors of [`Bus::call`].
    pub async fn call_bus(&mut self, member: &str, args: &[&str]) -> Result<Vec<String>, BusError> {
        let call = Call { destination: BUS, path: BUS_PATH, interface: BUS, member, args };
        self.call(&call, ENTRY).await
    }

    async fn answer(&mut self, call: &Call<'_>) -> Result<Message, BusError> {
        self.serial = self.serial.wrapping_add(1).max(1);
        let serial = self.serial;
        self.socket.write_all(&call.to_bytes(serial)).await?;
        loop {
            let message = self.next().await?;
            match message.kind {
                MessageType::Return | MessageType::Error if message.answers == Some(serial) => {
                    return Ok(message);
                }
                MessageType::Signal => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// Waits for a signal that an added match rule selects. Signals that came earlier are returned
    /// first.
    ///
    /// # Errors
    /// [`BusError`] if the connection fails.
    pub async fn signal(&mut self) -> Result<Message, BusError> {
        if let Some(signal) = self.signals.pop_front() {
            return Ok(signal);
        }
        loop {
            let message = self.next().await?;
            if message.kind == MessageType::Signal {
                return Ok(message);
            }
        }
    }

    async fn next(&mut self) -> Result<Message, BusError> {
        loop {
            if let Some(message) = Message::take(&mut self.received)? {
                return Ok(message);
            }
            self.receive().await?;
        }
    }

    /// Receives more bytes. Dropping the future loses no bytes.
    async fn receive(&mut self) -> Result<(), BusError> {
        match self.socket.read_buf(&mut self.received).await {
            Ok(0) => Err(BusError::Closed),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(BusError::Closed),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns the last line that is not empty; a traceback of Python ends with the error itself.
fn last_line(text: &str) -> Option<String> {
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
}

/// The socket of a bus (D-Bus specification, "Server Addresses").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BusSocket {
    Path(PathBuf),
    Abstract(Vec<u8>),
}

impl BusSocket {
    /// Parses the first address of a list; only Unix sockets of this host are supported.
    pub(super) fn parse(address: &str) -> Option<Self> {
        let options = address.split(';').next()?.strip_prefix("unix:")?;
        options.split(',').find_map(|option| {
            let (key, value) = option.split_once('=')?;
            let value = unescape(value).filter(|value| !value.is_empty())?;
            match key {
                "path" => Some(BusSocket::Path(std::ffi::OsString::from_vec(value).into())),
                "abstract" => Some(BusSocket::Abstract(value)),
                _ => None,
            }
        })
    }

    async fn connect(&self) -> io::Result<UnixStream> {
        match self {
            BusSocket::Path(path) => UnixStream::connect(path).await,
            BusSocket::Abstract(name) => {
                let socket = Plain::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
                socket.set_nonblocking(true)?;
                UnixStream::from_std(socket)
            }
        }
    }
}

/// Returns the bytes of a value, in which `%XX` stands for one byte.
fn unescape(value: &str) -> Option<Vec<u8>> {
    let (first, escaped) = value.split_once('%').map_or((value, None), |(a, b)| (a, Some(b)));
    let mut bytes = first.as_bytes().to_owned();
    for part in escaped.into_iter().flat_map(|rest| rest.split('%')) {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend(part.get(2..)?.as_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_address_is_read_and_it_must_be_a_unix_socket() {
        let path = |path: &str| Some(BusSocket::Path(path.into()));
        for (address, place) in [
            ("unix:path=/run/dbus/system_bus_socket", path("/run/dbus/system_bus_socket")),
            ("unix:guid=1,path=/a%20b%2fc;tcp:host=x", path("/a b/c")),
            ("unix:abstract=x", Some(BusSocket::Abstract(b"x".to_vec()))),
            ("unix:path=", None),
            ("unix:path=/%2", None),
            ("unix:path=/%zz", None),
            ("unix:path=/%\u{e9}", None),
            ("unix:tmpdir=/tmp", None),
            ("tcp:host=localhost,port=1", None),
            ("/run/dbus/system_bus_socket", None),
            ("", None),
        ] {
            assert_eq!(BusSocket::parse(address), place, "{address}");
        }
    }

    #[test]
    fn the_error_text_is_the_last_line_that_is_not_empty() {
        let trace = "Traceback (most recent call last):\n  File \"x\"\nValueError: no\n";
        assert_eq!(last_line(trace).as_deref(), Some("ValueError: no"));
        assert_eq!(last_line("INVALID_ZONE: x").as_deref(), Some("INVALID_ZONE: x"));
        assert_eq!(last_line(" \n"), None);
    }
}
