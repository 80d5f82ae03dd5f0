//! The guest memory that vhost-user needs: a file that passt can map.
//!
//! QEMU wants the backend's size to equal the machine's memory, so the caller's `-m` is read here.

use std::ffi::OsString;

use super::Command;
use crate::types::Id;

/// QEMU's memory size where `-m` is absent, in MiB.
const DEFAULT_MIB: u64 = 128;

/// Why the guest's memory cannot be shared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// `-m` cannot be read.
    #[error(
        "--transport vhost-user needs the guest's memory size, and -m {0:?} is none QEMU takes: write one such as -m 512 or -m 2G"
    )]
    Size(String),
    /// The caller has a memory backend of their own that passt cannot map.
    #[error(
        "--transport vhost-user needs shared guest memory, and the QEMU arguments have a memory backend of their own: add share=on to it, or drop it"
    )]
    NotShared,
}

/// The arguments that make the guest's memory shareable, none where the caller's already do.
///
/// In serve mode the size is unknown; a note then says what to add.
pub(super) fn shared(
    command: Option<&Command>,
    id: &Id,
    notes: &mut Vec<String>,
) -> Result<Vec<OsString>, MemoryError> {
    let Some(command) = command else {
        notes.push(format!(
            "vhost-user needs shared guest memory: add -object memory-backend-memfd,id={id}-mem,size=SIZE,share=on -machine memory-backend={id}-mem to QEMU, SIZE being that of -m"
        ));
        return Ok(Vec::new());
    };
    let args: Vec<_> = command.args.iter().map(|a| a.to_string_lossy()).collect();
    let own = args.iter().any(|a| a.contains("memory-backend") || a.starts_with("-mem-path"));
    if own {
        let shared = args.iter().any(|a| a.contains("share=on"));
        return if shared { Ok(Vec::new()) } else { Err(MemoryError::NotShared) };
    }
    let written = args
        .windows(2)
        .rev()
        .find(|pair| pair[0] == "-m" || pair[0] == "--m")
        .map(|pair| pair[1].to_string());
    let bytes = match written {
        None => DEFAULT_MIB << 20,
        Some(text) => size(&text).ok_or(MemoryError::Size(text))?,
    };
    Ok(vec![
        "-object".into(),
        format!("memory-backend-memfd,id={id}-mem,size={bytes},share=on").into(),
        "-machine".into(),
        format!("memory-backend={id}-mem").into(),
    ])
}

/// The bytes of `-m [size=]N[K|M|G|T][,...]`; a bare number is MiB (QEMU's manual).
fn size(text: &str) -> Option<u64> {
    let first = text.split(',').find(|part| !part.contains('=') || part.starts_with("size="))?;
    let number = first.strip_prefix("size=").unwrap_or(first);
    let digits = number.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &number[digits.len()..] {
        "" | "M" | "m" => 20,
        "K" | "k" => 10,
        "G" | "g" => 30,
        "T" | "t" => 40,
        "B" | "b" => 0,
        _ => return None,
    };
    let value: u64 = digits.parse().ok().filter(|n| *n > 0)?;
    value.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(args: &[&str]) -> Command {
        Command { program: "qemu".into(), args: args.iter().map(|a| a.into()).collect() }
    }

    fn ask(args: &[&str]) -> Result<Vec<OsString>, MemoryError> {
        shared(Some(&command(args)), &Id::default(), &mut Vec::new())
    }

    #[test]
    fn the_size_is_that_of_m() {
        for (args, bytes) in [
            (&[][..], 128u64 << 20),
            (&["-m", "256"], 256 << 20),
            (&["-m", "2G"], 2 << 30),
            (&["-m", "size=512M,slots=2,maxmem=4G"], 512 << 20),
            (&["-m", "slots=2,size=1g"], 1 << 30),
            (&["-m", "64", "-m", "128"], 128 << 20),
        ] {
            let got = ask(args).unwrap();
            let wanted = format!("memory-backend-memfd,id=net0-mem,size={bytes},share=on");
            assert_eq!(got[1], OsString::from(wanted), "{args:?}");
        }
    }

    #[test]
    fn sizes_that_are_none() {
        for text in ["", "x", "0", "12Q", "-5", "99999999999999T"] {
            assert_eq!(ask(&["-m", text]), Err(MemoryError::Size(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_backend_of_the_callers_is_kept_when_it_is_shared() {
        let object = "memory-backend-file,id=m,size=1G,mem-path=/dev/shm/x";
        assert_eq!(ask(&["-object", object]), Err(MemoryError::NotShared));
        assert_eq!(ask(&["-object", &format!("{object},share=on")]), Ok(Vec::new()));
    }
}
