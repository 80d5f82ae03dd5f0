//! A small client of D-Bus: calls with texts, and signals.
//!
//! Of D-Bus's crates the ones that are pure Rust bring a runtime's worth of code, which would be
//! resident in each supervisor of a launch that never uses it. What is needed here is little: to
//! enter a bus (SASL's EXTERNAL, which tells the user by the socket's credentials), to call a method
//! and wait for its answer, and to listen to signals.
//!
//! [`message`] has the bytes; this is the conversation. A call that was given up at its time limit
//! leaves the connection usable: the late answer has a number that nobody waits for.

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

use message::{Call, Kind, Malformed, Message};

/// The bus itself: its name and its interface.
pub const BUS: &str = "org.freedesktop.DBus";
/// The bus's object.
pub const BUS_PATH: &str = "/org/freedesktop/DBus";
/// How long the bus may take to let us in.
const ENTRY: Duration = Duration::from_secs(10);

/// Why a bus was not used.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The address is none of a socket.
    #[error(
        "{0:?} is no address of a system bus; set DBUS_SYSTEM_BUS_ADDRESS to one such as unix:path=/run/dbus/system_bus_socket, or unset it"
    )]
    Address(String),
    /// Nobody listens there.
    #[error("there is no system bus at {address}: {source}; start D-Bus")]
    Absent {
        /// Its address.
        address: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The connection failed.
    #[error("the connection to the system bus failed: {0}; see the log of D-Bus")]
    Io(#[from] io::Error),
    /// It did not let us in.
    #[error("the system bus does not let this user in; run netlaunch as root")]
    NotLetIn,
    /// It closed the connection.
    #[error("the system bus closed the connection; start D-Bus again")]
    Closed,
    /// It said what cannot be understood.
    #[error("the system bus cannot be understood: {0}; restart D-Bus")]
    Malformed(#[from] Malformed),
    /// No answer came in time.
    #[error("no answer within {} s", .0.as_secs())]
    Slow(Duration),
    /// The answer is an error.
    #[error("{said}")]
    Refused {
        /// Its name, such as org.freedesktop.DBus.Error.NameHasNoOwner.
        name: String,
        /// Its words, or its name where it has none.
        said: String,
    },
}

impl BusError {
    /// Whether this is one of the bus's own errors, by the last part of its name.
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
    /// Signals that came while an answer was awaited.
    signals: VecDeque<Message>,
    serial: u32,
}

impl Bus {
    /// Enters the bus at this address, as the user we are.
    ///
    /// # Errors
    /// [`BusError`], [`BusError::Absent`] when there is none.
    pub async fn enter(address: &str) -> Result<Self, BusError> {
        let place = Place::parse(address).ok_or_else(|| BusError::Address(address.to_owned()))?;
        let socket = place.connect().await.map_err(|source| match source.kind() {
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

    /// D-Bus specification, "Authentication Protocol". An empty identity is that of the socket.
    async fn authenticate(&mut self) -> Result<(), BusError> {
        self.socket.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\n").await?;
        loop {
            let line = self.line().await?;
            if line.starts_with(b"OK ") {
                return Ok(self.socket.write_all(b"BEGIN\r\n").await?);
            }
            if !line.starts_with(b"DATA") {
                return Err(BusError::NotLetIn);
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

    /// Calls a method and waits for its answer, at most `limit`; returns the texts in it.
    ///
    /// # Errors
    /// [`BusError`], [`BusError::Refused`] when it says what went wrong.
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
    /// As [`Bus::call`].
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
                Kind::Return | Kind::Error if message.answers == Some(serial) => {
                    return Ok(message);
                }
                Kind::Signal => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// Waits for a signal that a match rule was added for. Those that came before are kept.
    ///
    /// # Errors
    /// The bus is gone.
    pub async fn signal(&mut self) -> Result<Message, BusError> {
        if let Some(signal) = self.signals.pop_front() {
            return Ok(signal);
        }
        loop {
            let message = self.next().await?;
            if message.kind == Kind::Signal {
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

    /// More bytes. Whoever stops waiting loses none.
    async fn receive(&mut self) -> Result<(), BusError> {
        match self.socket.read_buf(&mut self.received).await {
            Ok(0) => Err(BusError::Closed),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(BusError::Closed),
            Err(error) => Err(error.into()),
        }
    }
}

/// The last line that says something: a trace of Python's ends with what went wrong.
fn last_line(said: &str) -> Option<String> {
    said.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
}

/// Where a bus listens (D-Bus specification, "Server Addresses").
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Path(PathBuf),
    Abstract(Vec<u8>),
}

impl Place {
    /// The first of the addresses in a list; only sockets of this host are known.
    fn parse(address: &str) -> Option<Self> {
        let options = address.split(';').next()?.strip_prefix("unix:")?;
        options.split(',').find_map(|option| {
            let (key, value) = option.split_once('=')?;
            let value = unescape(value).filter(|value| !value.is_empty())?;
            match key {
                "path" => Some(Place::Path(std::ffi::OsString::from_vec(value).into())),
                "abstract" => Some(Place::Abstract(value)),
                _ => None,
            }
        })
    }

    async fn connect(&self) -> io::Result<UnixStream> {
        match self {
            Place::Path(path) => UnixStream::connect(path).await,
            Place::Abstract(name) => {
                let socket = Plain::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
                socket.set_nonblocking(true)?;
                UnixStream::from_std(socket)
            }
        }
    }
}

/// The bytes of a value, in which `%XX` stands for one.
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
    fn addresses() {
        let path = |path: &str| Some(Place::Path(path.into()));
        for (address, place) in [
            ("unix:path=/run/dbus/system_bus_socket", path("/run/dbus/system_bus_socket")),
            ("unix:guid=1,path=/a%20b%2fc;tcp:host=x", path("/a b/c")),
            ("unix:abstract=x", Some(Place::Abstract(b"x".to_vec()))),
            ("unix:path=", None),
            ("unix:path=/%2", None),
            ("unix:path=/%zz", None),
            ("unix:path=/%\u{e9}", None),
            ("unix:tmpdir=/tmp", None),
            ("tcp:host=localhost,port=1", None),
            ("/run/dbus/system_bus_socket", None),
            ("", None),
        ] {
            assert_eq!(Place::parse(address), place, "{address}");
        }
    }

    #[test]
    fn of_a_trace_the_last_line_is_told() {
        let trace = "Traceback (most recent call last):\n  File \"x\"\nValueError: no\n";
        assert_eq!(last_line(trace).as_deref(), Some("ValueError: no"));
        assert_eq!(last_line("INVALID_ZONE: x").as_deref(), Some("INVALID_ZONE: x"));
        assert_eq!(last_line(" \n"), None);
    }
}
