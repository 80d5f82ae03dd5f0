//! The byte format of D-Bus messages (D-Bus specification, "Message Protocol" and "Type System").
//!
//! A message is a fixed head of 16 bytes, the header fields, padding to a multiple of 8 bytes, and
//! a body. Each value begins at a multiple of its alignment, counted from the first byte of the
//! message. A call is written in little-endian order; a received message is read in the order that
//! its first byte names.
//!
//! A body is a sequence of texts or one array of texts. netlaunch calls no method that needs
//! another type.

/// The longest body, and the longest header fields, that are read, in bytes.
///
/// The specification allows 128 MiB, but the answers to netlaunch's calls are a few names.
const MAX: usize = 1 << 20;
/// The length of the fixed head, in bytes.
const HEAD: usize = 16;
/// The flag that forbids the bus to start a program for the call.
const NO_AUTO_START: u8 = 2;

/// Bytes that are not a D-Bus message, or a message of a form that this module does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a D-Bus message of the form that was expected")]
pub struct Malformed;

/// The type of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageType {
    /// A method call from another program.
    Call,
    /// The answer to a method call.
    Return,
    /// The error that a method call caused.
    Error,
    /// A signal.
    Signal,
    /// A type that the specification does not define; receivers must ignore it.
    Unknown,
}

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its type.
    pub kind: MessageType,
    /// The serial number of the call that this message answers.
    pub answers: Option<u32>,
    /// The name of the error, if the message is one.
    pub error: Option<String>,
    /// The interface of a signal or method.
    pub interface: Option<String>,
    /// The name of a signal or method.
    pub member: Option<String>,
    signature: String,
    body: Vec<u8>,
    big: bool,
}

/// A method call for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// The name on the bus of the program that gets the call.
    pub destination: &'a str,
    /// The path of the object.
    pub path: &'a str,
    /// The name of the interface.
    pub interface: &'a str,
    /// The name of the method.
    pub member: &'a str,
    /// The arguments, which are all texts.
    pub args: &'a [&'a str],
}

impl Call<'_> {
    /// Returns the bytes of the call with this serial number, which must not be 0.
    ///
    /// The call has the flag that forbids the bus to start a program for it.
    pub fn to_bytes(&self, serial: u32) -> Vec<u8> {
        let mut body = Vec::new();
        self.args.iter().for_each(|arg| text(&mut body, arg));
        let mut out = vec![b'l', 1, NO_AUTO_START, 1];
        number(&mut out, body.len());
        out.extend(serial.to_le_bytes());
        let fields_at = out.len();
        number(&mut out, 0);
        for (code, kind, value) in [
            (1, "o", self.path),
            (2, "s", self.interface),
            (3, "s", self.member),
            (6, "s", self.destination),
        ] {
            pad(&mut out, 8);
            out.push(code);
            signature(&mut out, kind);
            text(&mut out, value);
        }
        if !self.args.is_empty() {
            pad(&mut out, 8);
            out.push(8);
            signature(&mut out, "g");
            signature(&mut out, &"s".repeat(self.args.len()));
        }
        let length = (out.len() - HEAD) as u32;
        out[fields_at..HEAD].copy_from_slice(&length.to_le_bytes());
        pad(&mut out, 8);
        out.extend(body);
        out
    }
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn number(out: &mut Vec<u8>, number: usize) {
    pad(out, 4);
    out.extend((number as u32).to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    number(out, text.len());
    out.extend(text.as_bytes());
    out.push(0);
}

fn signature(out: &mut Vec<u8>, signature: &str) {
    out.push(signature.len() as u8);
    out.extend(signature.as_bytes());
    out.push(0);
}

impl Message {
    /// Removes the first message from the received bytes; `None` while the message is incomplete.
    ///
    /// # Errors
    /// [`Malformed`] if the bytes are not a message. Later bytes cannot be read either, because the
    /// start of the next message is unknown.
    pub fn take(received: &mut Vec<u8>) -> Result<Option<Self>, Malformed> {
        let Some(length) = length(received)? else { return Ok(None) };
        if received.len() < length {
            return Ok(None);
        }
        let bytes: Vec<u8> = received.drain(..length).collect();
        Message::parse(&bytes).map(Some)
    }

    fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut read = Reader::new(bytes)?;
        read.at = 1;
        let kind = match read.byte()? {
            1 => MessageType::Call,
            2 => MessageType::Return,
            3 => MessageType::Error,
            4 => MessageType::Signal,
            _ => MessageType::Unknown,
        };
        let mut message = Message {
            kind,
            answers: None,
            error: None,
            interface: None,
            member: None,
            signature: String::new(),
            body: Vec::new(),
            big: read.big,
        };
        read.at = 12;
        let fields = read.number()? as usize;
        let end = HEAD + fields;
        while read.at < end {
            read.align(8)?;
            let code = read.byte()?;
            match (code, read.signature()?.as_str()) {
                (5, "u") => message.answers = Some(read.number()?),
                (8, "g") => message.signature = read.signature()?,
                (2, "s") => message.interface = Some(read.text()?),
                (3, "s") => message.member = Some(read.text()?),
                (4, "s") => message.error = Some(read.text()?),
                (_, "s" | "o") => drop(read.text()?),
                (_, "g") => drop(read.signature()?),
                (_, "u") => drop(read.number()?),
                // All header fields of the specification have one of these types.
                _ => return Err(Malformed),
            }
        }
        read.align(8)?;
        message.body = bytes.get(read.at..).ok_or(Malformed)?.to_owned();
        Ok(message)
    }

    /// Returns the texts in the body, which is a sequence of texts or one array of texts.
    ///
    /// # Errors
    /// [`Malformed`] if the body has another type.
    pub fn texts(&self) -> Result<Vec<String>, Malformed> {
        let mut read = Reader { bytes: &self.body, at: 0, big: self.big };
        let mut texts = Vec::new();
        if self.signature == "as" {
            let length = read.number()? as usize;
            let end = read.at + length;
            while read.at < end {
                texts.push(read.text()?);
            }
            return Ok(texts);
        }
        for kind in self.signature.chars() {
            match kind {
                's' => texts.push(read.text()?),
                _ => return Err(Malformed),
            }
        }
        Ok(texts)
    }
}

/// Returns the length of the message at the start of `bytes`, in bytes; `None` while its head is
/// incomplete.
fn length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    if bytes.len() < HEAD {
        return Ok(None);
    }
    let mut read = Reader::new(bytes)?;
    read.at = 4;
    let body = read.number()? as usize;
    read.at = 12;
    let fields = read.number()? as usize;
    if body > MAX || fields > MAX {
        return Err(Malformed);
    }
    Ok(Some((HEAD + fields).next_multiple_of(8) + body))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let big = match bytes.first() {
            Some(b'l') => false,
            Some(b'B') => true,
            _ => return Err(Malformed),
        };
        Ok(Reader { bytes, at: 0, big })
    }

    fn align(&mut self, to: usize) -> Result<(), Malformed> {
        self.at = self.at.next_multiple_of(to);
        if self.at > self.bytes.len() { Err(Malformed) } else { Ok(()) }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(n).ok_or(Malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.take(1)?.first().copied().ok_or(Malformed)
    }

    fn number(&mut self) -> Result<u32, Malformed> {
        self.align(4)?;
        let bytes = self.take(4)?.try_into().map_err(|_| Malformed)?;
        Ok(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// Reads `n` bytes as a text, and the NUL after it.
    fn closed(&mut self, n: usize) -> Result<String, Malformed> {
        let text = String::from_utf8(self.take(n)?.to_owned()).map_err(|_| Malformed)?;
        if self.byte()? == 0 { Ok(text) } else { Err(Malformed) }
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let n = self.number()? as usize;
        self.closed(n)
    }

    fn signature(&mut self) -> Result<String, Malformed> {
        let n = self.byte()?;
        self.closed(n.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CALL: Call<'static> = Call {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member: "GetNameOwner",
        args: &["a.b", "c"],
    };

    /// An answer to GetNameOwner, in the layout of the specification.
    const REPLY: &[u8] = b"l\x02\x01\x01\x09\0\0\0\x03\0\0\0\x3d\0\0\0\
        \x06\x01s\0\x04\0\0\0:1.0\0\0\0\0\x05\x01u\0\x02\0\0\0\x08\x01g\0\x01s\0\0\
        \x07\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0\x04\0\0\0:1.7\0";

    #[test]
    fn a_call_has_the_layout_of_the_specification() {
        let bytes = CALL.to_bytes(7);
        assert_eq!(bytes[..12], *b"l\x01\x02\x01\x0e\0\0\0\x07\0\0\0");
        assert!(bytes.ends_with(b"\x03\0\0\0a.b\0\x01\0\0\0c\0"));
        let mut received = bytes.clone();
        let message = Message::take(&mut received).unwrap().unwrap();
        assert!(received.is_empty());
        assert_eq!(
            (message.kind, message.member.as_deref()),
            (MessageType::Call, Some("GetNameOwner"))
        );
        assert_eq!(message.texts().unwrap(), ["a.b", "c"]);
        let none = Call { args: &[], ..CALL }.to_bytes(7);
        assert_eq!(Message::parse(&none).unwrap().texts().unwrap(), [] as [String; 0]);
    }

    #[test]
    fn a_reply_is_read_after_its_last_byte_and_leaves_the_next_reply() {
        let mut received = Vec::new();
        for byte in REPLY {
            assert_eq!(Message::take(&mut received), Ok(None));
            received.push(*byte);
        }
        received.extend_from_slice(REPLY);
        for left in [REPLY.len(), 0] {
            let reply = Message::take(&mut received).unwrap().unwrap();
            assert_eq!((reply.kind, reply.answers), (MessageType::Return, Some(2)));
            assert_eq!(reply.texts().unwrap(), [":1.7"]);
            assert_eq!(received.len(), left);
        }
    }

    #[test]
    fn an_array_of_texts_is_read_in_big_endian_order_too() {
        let body = b"\x00\x00\x00\x0e\x00\x00\x00\x02ab\0\0\x00\x00\x00\x01c\0".to_vec();
        let mut message = Message::parse(REPLY).unwrap();
        (message.signature, message.body, message.big) = ("as".into(), body, true);
        assert_eq!(message.texts().unwrap(), ["ab", "c"]);
        message.signature = "u".into();
        assert_eq!(message.texts(), Err(Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            changes in prop::collection::vec((0..REPLY.len(), any::<u8>()), 0..4),
        ) {
            let mut changed = REPLY.to_vec();
            changes.iter().for_each(|(at, byte)| changed[*at] = *byte);
            for mut received in [bytes, changed] {
                if let Ok(Some(message)) = Message::take(&mut received) {
                    let _ = message.texts();
                }
            }
        }

        #[test]
        fn written_texts_are_read_back(args in prop::collection::vec("[^\0]{0,20}", 0..5)) {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let bytes = Call { args: &args, ..CALL }.to_bytes(1);
            prop_assert_eq!(Message::parse(&bytes).unwrap().texts().unwrap(), args);
        }
    }
}
