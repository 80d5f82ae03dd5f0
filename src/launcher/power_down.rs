//! Asks a guest to power down, as the power button of a computer does.
//!
//! [`power_down`] connects to QEMU's QMP socket and sends `system_powerdown` (docs/interop/qmp-spec
//! and qapi/machine.json in QEMU). QEMU hands the press to the guest by ACPI, and ends with status
//! 0 when the guest has powered down. A guest may ignore the press, so the answer of QEMU says only
//! that the button was pressed.
//!
//! The function has no time limit: a stopped QEMU never answers, and QEMU serves one client of its
//! socket at a time. The caller drops the future when the time is over. The client of
//! [`super::qmp`] blocks its thread, and the supervisor must serve its NICs meanwhile, so this is a
//! client of its own. A guest that has taken over its QEMU may answer anything, so an answer has a
//! maximum length.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// The command that leaves negotiation mode.
const NEGOTIATION: &str = "{\"execute\": \"qmp_capabilities\", \"id\": 1}\n";
/// The command that presses the power button.
const BUTTON: &str = "{\"execute\": \"system_powerdown\", \"id\": 2}\n";
/// The command that asks whether the guest runs.
#[cfg(feature = "cli")]
const STATUS: &str = "{\"execute\": \"query-status\", \"id\": 2}\n";
/// The id of the command after [`NEGOTIATION`].
const COMMAND: u64 = 2;
/// The length of the longest message, in bytes.
const LONGEST: u64 = 1 << 16;
/// The pause before another attempt to connect, while other clients wait.
const PAUSE: Duration = Duration::from_millis(20);

/// Why a guest was not asked to power down.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PowerDownError {
    /// The socket cannot be used.
    #[error("cannot connect to the QMP socket {}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    /// QEMU refused a command.
    #[error("QEMU refused to press the power button: {0}")]
    Refused(String),
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

/// One line from QEMU.
#[derive(Debug, Deserialize)]
struct Message {
    id: Option<u64>,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    desc: String,
}

/// Waits until QEMU answers a command on its QMP socket at `path`. QEMU has made its machine then,
/// and found each mistake in its arguments: the main loop answers. The greeting comes from another
/// thread, before QEMU has made the devices.
///
/// # Errors
/// [`PowerDownError`].
#[cfg(feature = "cli")]
pub(crate) async fn main_loop_runs(path: &Path) -> Result<(), PowerDownError> {
    execute(path, STATUS).await
}

/// Presses the power button of the guest whose QEMU has its QMP socket at `path`. Returns when QEMU
/// has confirmed it.
///
/// # Errors
/// [`PowerDownError`]; the guest may have been asked all the same.
pub(crate) async fn power_down(path: PathBuf) -> Result<(), PowerDownError> {
    execute(&path, BUTTON).await
}

/// Executes one command, and returns when QEMU has confirmed it.
async fn execute(path: &Path, command: &str) -> Result<(), PowerDownError> {
    let (reading, mut writing) = connect(path).await?.into_split();
    let mut reading = BufReader::new(reading);
    // The first message is the greeting.
    let greeting: Value = parse(&message(&mut reading).await?)?;
    if greeting.get("QMP").is_none() {
        return Err(PowerDownError::Answer("it begins without a greeting".to_owned()));
    }
    writing.write_all([NEGOTIATION, command].concat().as_bytes()).await?;
    loop {
        // An event has no id.
        let Message { id, error } = parse(&message(&mut reading).await?)?;
        match error {
            Some(Refusal { desc }) => return Err(PowerDownError::Refused(desc)),
            None if id == Some(COMMAND) => return Ok(()),
            None => {}
        }
    }
}

/// Connects. EAGAIN means that the queue of the listener is full of other clients.
async fn connect(path: &Path) -> Result<UnixStream, PowerDownError> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(source) => return Err(PowerDownError::Connect { path: path.to_owned(), source }),
            Ok(stream) => return Ok(stream),
        }
    }
}

/// Reads one line.
async fn message(
    reading: &mut BufReader<impl tokio::io::AsyncRead + Unpin>,
) -> Result<Vec<u8>, PowerDownError> {
    let mut line = Vec::new();
    reading.take(LONGEST).read_until(b'\n', &mut line).await?;
    match line.last() {
        Some(b'\n') => Ok(line),
        _ if line.len() as u64 == LONGEST => {
            Err(PowerDownError::Answer(format!("it is longer than {LONGEST} bytes")))
        }
        _ => Err(PowerDownError::Closed),
    }
}

fn parse<T: for<'de> Deserialize<'de>>(line: &[u8]) -> Result<T, PowerDownError> {
    serde_json::from_slice(line).map_err(|error| PowerDownError::Answer(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";

    /// Serves one client with `greeting`, then with `answer` after both commands. Returns the
    /// result of the client, and the commands that it sent.
    async fn asked(
        greeting: &'static str,
        answer: &'static str,
    ) -> (Result<(), PowerDownError>, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            client.write_all(greeting.as_bytes()).unwrap();
            let lines = std::io::BufReader::new(client.try_clone().unwrap()).lines();
            let sent: Vec<String> = lines.take(2).map_while(Result::ok).collect();
            let _ = client.write_all(answer.as_bytes());
            sent.join("\n")
        });
        let result = power_down(path).await;
        (result, server.join().unwrap())
    }

    #[tokio::test]
    async fn the_button_is_pressed_when_qemu_confirms_its_command() {
        let event = "{\"event\": \"POWERDOWN\", \"data\": {}}\r\n";
        let answer = "{\"return\": {}, \"id\": 1}\r\n{\"return\": {}, \"id\": 2}\r\n";
        let both: &'static str = Box::leak(format!("{event}{answer}").into_boxed_str());
        let (result, sent) = asked(GREETING, both).await;
        result.unwrap();
        assert_eq!(format!("{sent}\n"), [NEGOTIATION, BUTTON].concat());
    }

    #[tokio::test]
    async fn a_refusal_an_early_end_and_other_words_are_errors() {
        for (greeting, answer, expected) in [
            (
                GREETING,
                "{\"return\": {}, \"id\": 1}\n{\"error\": {\"class\": \"G\", \"desc\": \"no\"}, \"id\": 2}\n",
                "QEMU refused to press the power button: no",
            ),
            (GREETING, "{\"return\": {}, \"id\": 1}\n", "QEMU has closed the connection"),
            (GREETING, "no JSON\n", "QEMU's answer on its QMP socket cannot be read"),
            ("{}\n", "", "QEMU's answer on its QMP socket cannot be read: it begins without"),
        ] {
            let (result, _) = asked(greeting, answer).await;
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let missing = power_down(PathBuf::from("/nonexistent/q")).await.unwrap_err();
        assert!(matches!(missing, PowerDownError::Connect { .. }), "{missing}");
    }
}
