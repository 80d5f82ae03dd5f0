//! A client of a running QEMU's QMP socket (docs/interop/qmp-spec in QEMU).
//!
//! [`Qmp::connect`] reads the greeting and leaves negotiation mode. Then [`Qmp::execute`] runs one
//! command after the other, [`Qmp::pass`] hands QEMU a descriptor, and [`Qmp::wait_for`] waits for
//! an event. Each message is one line of JSON.
//!
//! A stopped QEMU never answers, so every wait has a time limit. The calls block their thread. A
//! guest that has taken over its QEMU may answer anything, so an answer has a maximum length, and
//! only the latest events are kept.

use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// The length of the longest message, in bytes. The longest usual one lists the devices of a guest.
const LONGEST: usize = 1 << 20;
/// The number of events that are kept.
const EVENTS: usize = 16;
/// The pause before another attempt to connect, while other clients wait.
const PAUSE: Duration = Duration::from_millis(10);

/// The reason why QEMU did not carry out a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QmpError {
    /// The socket cannot be used.
    #[error("cannot connect to the QMP socket {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// QEMU did not answer in time.
    #[error(
        "QEMU did not answer on its QMP socket within {} s; see whether a signal has stopped it",
        limit.as_secs()
    )]
    Timeout {
        /// The time limit.
        limit: Duration,
    },
    /// QEMU did not greet a new client in time.
    #[error(
        "QEMU did not answer on its QMP socket within {} s: it serves one client of the socket at a time; end another program that is connected to the socket, or see whether a signal has stopped QEMU",
        limit.as_secs()
    )]
    NoGreeting {
        /// The time limit.
        limit: Duration,
    },
    /// QEMU refused a command.
    #[error("QEMU refused {command}: {why}")]
    Refused {
        /// The command.
        command: String,
        /// The class of QEMU's error.
        class: String,
        /// QEMU's words.
        why: String,
    },
    /// QEMU has closed the connection.
    #[error("QEMU has closed the connection to its QMP socket")]
    Closed,
    /// QEMU's answer is no QMP.
    #[error("QEMU's answer on its QMP socket cannot be read: {0}")]
    Answer(String),
    /// The connection failed.
    #[error("the connection to QEMU's QMP socket failed")]
    Connection(#[from] io::Error),
}

impl QmpError {
    /// Returns whether QEMU does not know the device or the netdev that a command names.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, QmpError::Refused { class, .. } if class == "DeviceNotFound")
    }

    /// Returns QEMU's words if QEMU refused the command.
    pub(crate) fn refusal(&self) -> Option<&str> {
        match self {
            QmpError::Refused { why, .. } => Some(why),
            _ => None,
        }
    }
}

/// One line from QEMU.
#[derive(Debug, Deserialize)]
pub(super) struct Message {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    id: Option<u64>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
    error: Option<Refusal>,
    #[serde(rename = "return", default)]
    returned: Value,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    class: String,
    desc: String,
}

/// An event of QEMU.
#[derive(Debug)]
pub(crate) struct QmpEvent {
    pub(crate) name: String,
    pub(crate) data: Value,
}

/// A connection to QEMU.
#[derive(Debug)]
pub(crate) struct Qmp {
    stream: UnixStream,
    received: Vec<u8>,
    /// The events that came before the answer to a command.
    events: Vec<QmpEvent>,
    number: u64,
    limit: Duration,
}

impl Qmp {
    /// Connects to the socket at `path`. QEMU may take `limit` for each answer.
    ///
    /// # Errors
    /// The errors of [`QmpError`]; nothing has changed.
    pub(crate) fn connect(path: &Path, limit: Duration) -> Result<Self, QmpError> {
        let deadline = Instant::now() + limit;
        let failed = |source| QmpError::Connect { path: path.to_owned(), source };
        let socket = loop {
            match try_connect(path) {
                Ok(socket) => break socket,
                // Earlier clients wait for QEMU, which takes one at a time.
                Err(Errno::EAGAIN) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                Err(Errno::EAGAIN) => return Err(QmpError::NoGreeting { limit }),
                Err(errno) => return Err(failed(errno.into())),
            }
        };
        let (received, events) = (Vec::new(), Vec::new());
        let mut qmp = Qmp { stream: socket.into(), received, events, number: 0, limit };
        let greeting = qmp.message(deadline).map_err(|error| match error {
            QmpError::Timeout { limit } => QmpError::NoGreeting { limit },
            other => other,
        })?;
        if greeting.greeting.is_none() {
            return Err(QmpError::Answer("it begins without a greeting".to_owned()));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its result.
    ///
    /// # Errors
    /// [`QmpError`]. After another error than a refusal, QEMU may still run the command.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.run(command, arguments, None)
    }

    /// Gives QEMU a copy of a descriptor under a name, for a later command.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub(crate) fn pass(&mut self, name: &str, fd: BorrowedFd<'_>) -> Result<(), QmpError> {
        self.run("getfd", json!({ "fdname": name }), Some(fd)).map(drop)
    }

    /// Asks QEMU to run a command, and does not wait for the answer: for a QEMU that has just
    /// failed to answer, and may run the commands before this one later.
    pub(crate) fn ask(&mut self, command: &str, arguments: Value) {
        let deadline = Instant::now();
        let _ = self.send(command, arguments, None, deadline);
    }

    /// Waits until `is_it` is true for an event, for at most `limit`. Returns that event.
    ///
    /// # Errors
    /// [`QmpError`]. No event in time is none.
    pub(crate) fn wait_for(
        &mut self,
        limit: Duration,
        is_it: impl Fn(&QmpEvent) -> bool,
    ) -> Result<Option<QmpEvent>, QmpError> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(place) = self.events.iter().position(&is_it) {
                return Ok(Some(self.events.remove(place)));
            }
            match self.message(deadline) {
                Ok(message) => self.keep(message),
                Err(QmpError::Timeout { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn run(
        &mut self,
        command: &str,
        arguments: Value,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Value, QmpError> {
        let deadline = Instant::now() + self.limit;
        let number = self.send(command, arguments, fd, deadline)?;
        loop {
            let message = self.message(deadline)?;
            if message.id != Some(number) {
                self.keep(message);
                continue;
            }
            return match message.error {
                None => Ok(message.returned),
                Some(Refusal { class, desc }) => {
                    Err(QmpError::Refused { command: command.to_owned(), class, why: desc })
                }
            };
        }
    }

    /// Keeps a message if it is an event.
    fn keep(&mut self, message: Message) {
        self.events.extend(message.into_event());
        let old = self.events.len().saturating_sub(EVENTS);
        self.events.drain(..old);
    }

    /// Sends a command and returns its number.
    fn send(
        &mut self,
        command: &str,
        arguments: Value,
        fd: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<u64, QmpError> {
        self.number += 1;
        let message = json!({ "execute": command, "arguments": arguments, "id": self.number });
        let text = format!("{message}\n");
        let mut rest = text.as_bytes();
        let fds = fd.map(|fd| [fd.as_raw_fd()]);
        let mut rights = fds.as_ref().map(|fds| ControlMessage::ScmRights(fds));
        while !rest.is_empty() {
            let flags = MsgFlags::MSG_NOSIGNAL;
            let socket = self.stream.as_raw_fd();
            match sendmsg::<()>(socket, &[IoSlice::new(rest)], rights.as_slice(), flags, None) {
                Ok(length) => {
                    // The descriptor goes with the first byte.
                    rights = None;
                    rest = rest.get(length..).unwrap_or_default();
                }
                Err(Errno::EAGAIN) => self.wait(PollFlags::POLLOUT, deadline)?,
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(QmpError::Closed),
                Err(errno) => return Err(QmpError::Connection(errno.into())),
            }
        }
        Ok(self.number)
    }

    /// Reads the next message.
    fn message(&mut self, deadline: Instant) -> Result<Message, QmpError> {
        let mut looked = 0;
        loop {
            let unseen = self.received.get(looked..).unwrap_or_default();
            if let Some(length) = unseen.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=looked + length).collect();
                return serde_json::from_slice(&line)
                    .map_err(|error| QmpError::Answer(error.to_string()));
            }
            looked = self.received.len();
            if looked > LONGEST {
                return Err(QmpError::Answer(format!("it is longer than {LONGEST} bytes")));
            }
            let mut bytes = [0u8; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(QmpError::Closed),
                Ok(length) => self.received.extend_from_slice(bytes.get(..length).unwrap_or(&[])),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.wait(PollFlags::POLLIN, deadline)?,
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::ConnectionReset => return Err(QmpError::Closed),
                    _ => return Err(error.into()),
                },
            }
        }
    }

    /// Waits until the connection can be read or written.
    fn wait(&self, events: PollFlags, deadline: Instant) -> Result<(), QmpError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.stream.as_fd(), events)], timeout) {
            Ok(0) if Instant::now() >= deadline => Err(QmpError::Timeout { limit: self.limit }),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(QmpError::Connection(errno.into())),
        }
    }
}

impl Message {
    fn into_event(self) -> Option<QmpEvent> {
        Some(QmpEvent { name: self.event?, data: self.data })
    }
}

/// Connects a socket that does not block. EAGAIN means that the queue of the listener is full.
fn try_connect(path: &Path) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);
    const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";

    /// Serves one client: the greeting, then a line of `answers` for each command.
    fn serve(answers: &'static [&'static str]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            client.write_all(GREETING.as_bytes()).unwrap();
            let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
            for answer in answers {
                if lines.next().is_none() {
                    return;
                }
                client.write_all(answer.as_bytes()).unwrap();
            }
        });
        (dir, path)
    }

    #[test]
    fn an_event_before_an_answer_is_kept() {
        let (_dir, path) = serve(&[
            "{\"return\": {}, \"id\": 1}\r\n",
            "{\"event\": \"A\", \"data\": {\"device\": \"x\"}}\r\n{\"return\": 7, \"id\": 2}\n",
        ]);
        let mut qmp = Qmp::connect(&path, LIMIT).unwrap();
        assert_eq!(qmp.execute("count", json!({})).unwrap(), 7);
        let event = qmp.wait_for(LIMIT, |event| event.name == "A").unwrap().unwrap();
        assert_eq!(event.data["device"], "x");
    }

    #[test]
    fn a_refusal_has_the_words_of_qemu() {
        let (_dir, path) = serve(&[
            "{\"return\": {}, \"id\": 1}\n",
            "{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"Device 'x' not found\"}, \"id\": 2}\n",
        ]);
        let mut qmp = Qmp::connect(&path, LIMIT).unwrap();
        let error = qmp.execute("device_del", json!({ "id": "x" })).unwrap_err();
        assert!(error.is_not_found());
        assert_eq!(error.to_string(), "QEMU refused device_del: Device 'x' not found");
    }

    #[test]
    fn a_silent_qemu_and_one_that_ends_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let error = Qmp::connect(&path, LIMIT).unwrap_err();
        assert!(matches!(error, QmpError::Connect { .. }), "{error}");
        let listener = UnixListener::bind(&path).unwrap();
        let short = Duration::from_millis(50);
        let error = Qmp::connect(&path, short).unwrap_err();
        assert!(error.to_string().contains("serves one client of the socket at a time"), "{error}");
        drop(listener);
        let (_dir, path) = serve(&["{\"return\": {}, \"id\": 1}\n", "no JSON\n"]);
        let mut qmp = Qmp::connect(&path, LIMIT).unwrap();
        let error = qmp.execute("stop", json!({})).unwrap_err();
        assert!(matches!(error, QmpError::Answer(_)), "{error}");
        let error = qmp.execute("stop", json!({})).unwrap_err();
        assert!(matches!(error, QmpError::Closed), "{error}");
    }
}
