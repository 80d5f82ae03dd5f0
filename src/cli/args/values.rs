//! Parses the values that have no type of their own outside the command line.
//!
//! netlaunch.conf uses the same parsers, so that both give the same messages.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::launcher::plan::MAX_MTU;
use crate::nwfilter::Parameter;
use crate::types::PasstOption;

/// Why a value is not valid for its option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not an IPv4 address.
    #[error("{0:?} is not an IPv4 address: write one such as 10.0.2.2")]
    Ipv4(String),
    /// Not an IP address.
    #[error("{0:?} is not an IP address: write one such as 9.9.9.9 or 2620:fe::fe")]
    Ip(String),
    /// Not an MTU.
    #[error("{0:?} is not an MTU: use 68 to {MAX_MTU} bytes")]
    Mtu(String),
    /// Not a descriptor that netlaunch can inherit.
    #[error(
        "{0:?} is not a file descriptor to report to: use 3 or a higher number that is open for writing"
    )]
    ReadyFd(String),
    /// Not a descriptor of a socket.
    #[error("{0:?} is not a file descriptor of a socket: use 3 or a higher number")]
    ListenFd(String),
    /// Not the number of an `<ip>` element.
    #[error(
        "{0:?} is not the number of an <ip> element: use 0 for the first one, 1 for the second"
    )]
    ParentIndex(String),
    /// Not a number of seconds.
    #[error("{0:?} is not a number of seconds: use 0 to {max}", max = u32::MAX)]
    Seconds(String),
    /// Not a number of frames.
    #[error("{0:?} is not a number of frames: write 1 or more")]
    Count(String),
    /// Not the bytes of a frame.
    #[error(
        "this is not a frame: write its bytes as pairs of hexadecimal digits, such as ffffffffffff525400112233..."
    )]
    HexFrame,
    /// Not a variable with a value.
    #[error("{0:?} gives no variable a value: write NAME=VALUE, such as IP=192.0.2.5")]
    Parameter(String),
    /// The name of the variable or its value is not valid.
    #[error(transparent)]
    Variable(#[from] crate::types::NameError),
    /// The name of a program is empty.
    #[error("the program's name is empty: write its path, or its name to look it up in PATH")]
    NoProgram,
}

/// Reads a number of frames.
pub(super) fn count(text: &str) -> Result<NonZeroUsize, ValueError> {
    text.parse().map_err(|_| ValueError::Count(text.to_owned()))
}

/// Reads an IPv4 address.
///
/// # Errors
/// [`ValueError::Ipv4`].
pub fn ipv4(text: &str) -> Result<Ipv4Addr, ValueError> {
    text.parse().map_err(|_| ValueError::Ipv4(text.to_owned()))
}

/// Reads the number of an `<ip>` element. virsh's default -1 means that the addresses decide.
///
/// # Errors
/// [`ValueError::ParentIndex`].
pub(super) fn parent_index(text: &str) -> Result<i64, ValueError> {
    let read = if text == "-1" { Some(-1) } else { number::<u32>(text).map(i64::from) };
    read.ok_or_else(|| ValueError::ParentIndex(text.to_owned()))
}

/// Reads an IPv4 or IPv6 address.
///
/// # Errors
/// [`ValueError::Ip`].
pub fn ip(text: &str) -> Result<IpAddr, ValueError> {
    text.parse().map_err(|_| ValueError::Ip(text.to_owned()))
}

/// Reads an MTU in bytes. The check of the request has a higher minimum for IPv6.
///
/// # Errors
/// [`ValueError::Mtu`] for anything but 68 to [`MAX_MTU`].
pub fn mtu(text: &str) -> Result<u16, ValueError> {
    number(text)
        .filter(|mtu| (68..=MAX_MTU).contains(mtu))
        .ok_or_else(|| ValueError::Mtu(text.to_owned()))
}

/// Reads the number of a file descriptor above 2, because QEMU has the standard descriptors.
pub(super) fn ready_fd(text: &str) -> Result<RawFd, ValueError> {
    number(text).filter(|fd| *fd >= 3).ok_or_else(|| ValueError::ReadyFd(text.to_owned()))
}

/// Reads the number of a socket's file descriptor above 2.
pub(super) fn listen_fd(text: &str) -> Result<RawFd, ValueError> {
    number(text).filter(|fd| *fd >= 3).ok_or_else(|| ValueError::ListenFd(text.to_owned()))
}

/// Returns the parser of an option for passt, whose value may be any bytes.
pub(super) fn passt_option() -> impl TypedValueParser<Value = PasstOption> {
    OsStringValueParser::new().try_map(|text: OsString| PasstOption::parse(&text))
}

/// Reads a number of seconds.
pub fn seconds(text: &str) -> Result<u32, ValueError> {
    number(text).ok_or_else(|| ValueError::Seconds(text.to_owned()))
}

/// Reads a program: a path, or a name to look up in PATH.
///
/// # Errors
/// [`ValueError::NoProgram`] for an empty text.
pub fn program(text: &str) -> Result<PathBuf, ValueError> {
    if text.is_empty() { Err(ValueError::NoProgram) } else { Ok(PathBuf::from(text)) }
}

/// Reads a decimal number without a sign.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Reads a variable and its value.
///
/// # Errors
/// [`ValueError::Parameter`] if the text is not `NAME=VALUE`, [`ValueError::Variable`] if the name
/// or the value is not valid.
pub fn parameter(text: &str) -> Result<Parameter, ValueError> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| ValueError::Parameter(text.to_owned()))?;
    Ok((name.parse()?, value.parse()?))
}

/// The bytes of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HexFrame(pub Vec<u8>);

impl std::str::FromStr for HexFrame {
    type Err = ValueError;

    /// Reads pairs of hexadecimal digits. Spaces and colons may stand between them.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let digits: Option<Vec<u8>> = text
            .chars()
            .filter(|c| *c != ':' && !c.is_ascii_whitespace())
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        match digits {
            Some(digits) if !digits.is_empty() && digits.len() % 2 == 0 => {
                Ok(HexFrame(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()))
            }
            _ => Err(ValueError::HexFrame),
        }
    }
}
