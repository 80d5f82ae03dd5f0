//! Decides whether a program is QEMU, without running it.
//!
//! The content of the file decides. An ELF file is QEMU if it contains the texts that every system
//! emulator prints for `-version` and `-help`. The name decides in two cases. If this user may run
//! a file but not read it, the file is not a script, because its interpreter could not read it
//! either. And NixOS has an ELF wrapper, which contains the name of the wrapped program.
//!
//! If the program is a script with a name of QEMU's (Debian's `kvm`, NixOS's wrappers), its
//! emulator is asked: the one to which the script passes all its arguments; or, if the script uses
//! its arguments but shows no emulator, the next program of the same name in PATH, or this
//! machine's emulator.
//!
//! A script is never run to learn what it is, because it may boot the user's real machine with its
//! disks. A script with another name (`run-vm.sh`) may start any program and ignore its arguments,
//! so the user must name the emulator.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::sys::program::{find, shortage};
use crate::types::Setting;
use crate::types::facts::Problem;

/// The texts of QEMU's `-version` and `-help`. Each is in two parts, so that netlaunch's own file
/// does not contain the texts.
const TEXTS: [[&[u8]; 2]; 2] =
    [[b"QEMU emul", b"ator version "], [b"usage: %s [opt", b"ions] [disk_image]"]];
/// The largest part of a script that is read, in bytes.
const MAX_SCRIPT: u64 = 64 << 10;
/// The size of the pieces in which an ELF file is read, in bytes.
const PIECE: usize = 1 << 20;
/// The fix for a program that is not QEMU.
pub(super) const NAME_AN_EMULATOR: &str = "name a QEMU system emulator, such as qemu-system-x86_64";

/// The kind of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// QEMU, which can be asked.
    Qemu,
    /// A script that runs the emulator at this path.
    Script(PathBuf),
}

/// Identifies the program at `path`. `dirs` are the directories of PATH, and `default` is the
/// name of this machine's emulator.
///
/// # Errors
/// The [`Problem`] of a program that must not be run, because it may not be QEMU.
pub(super) fn identify(
    path: &Path,
    dirs: &[PathBuf],
    default: &OsStr,
) -> Result<Identity, Problem> {
    let unlike = |why: &str| {
        let why = format!("{} does not look like QEMU: {why}", path.display());
        Err(Problem::new(why, NAME_AN_EMULATOR))
    };
    // A file that cannot be read may still be QEMU, so the message does not deny it.
    let unreadable = |error: io::Error| {
        let fix = shortage(error.raw_os_error()).unwrap_or(NAME_AN_EMULATOR);
        Err(Problem::new(format!("{} cannot be read: {error}", path.display()), fix))
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::PermissionDenied && is_qemus_name(path) => {
            return Ok(Identity::Qemu);
        }
        Err(error) => return unreadable(error),
    };
    let mut start = Vec::new();
    if let Err(error) = file.by_ref().take(4).read_to_end(&mut start) {
        return unreadable(error);
    }
    match start.as_slice() {
        b"\x7fELF" => {}
        [b'#', b'!', ..] => return script(path, file, dirs, default),
        _ => return unlike("it is neither an ELF file nor a script"),
    }
    let mut texts = TEXTS.map(|parts| Search::new(parts.concat()));
    match contains_all(file, &mut texts) {
        Ok(true) => return Ok(Identity::Qemu),
        Ok(false) => {}
        Err(error) => return unreadable(error),
    }
    if let Some(name) = path.file_name().filter(|_| is_qemus_name(path)) {
        let wrapped = [b".", name.as_bytes(), b"-wrapped"].concat();
        let file = File::open(path);
        if file.and_then(|file| contains_all(file, &mut [Search::new(wrapped)])).unwrap_or(false) {
            return Ok(Identity::Qemu);
        }
    }
    unlike("its file does not contain QEMU's texts")
}

/// Returns whether a file has a name that only QEMU uses.
fn is_qemus_name(path: &Path) -> bool {
    let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
    name.starts_with(b"qemu-system-") || matches!(name, b"qemu" | b"qemu-kvm" | b"kvm")
}

/// Returns the emulator to ask instead of a script.
fn script(path: &Path, file: File, dirs: &[PathBuf], default: &OsStr) -> Result<Identity, Problem> {
    let mut text = Vec::new();
    // If a part of the script cannot be read, it shows no emulator.
    let _ = file.take(MAX_SCRIPT).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    let named = emulator_in(&text, dirs);
    // A script that does not use its arguments would ignore those of netlaunch.
    if is_qemus_name(path) && lines(&text).any(|line| line.contains("$*") || passes_on(line)) {
        let own = path.file_name().unwrap_or(default);
        let next = || [own, default].into_iter().find_map(|name| find_elf_qemu(name, dirs));
        if let Some(emulator) = named.clone().or_else(next) {
            return Ok(Identity::Script(emulator));
        }
    }
    let emulator = named.map_or_else(|| "PATH".to_owned(), |path| path.display().to_string());
    Err(Problem::new(
        format!(
            "{} does not look like QEMU: it is a script, and netlaunch does not run a script to learn what it starts",
            path.display()
        ),
        format!(
            "name the QEMU {emulator} as the one to ask, and let the script hand all its arguments to QEMU (\"$@\")"
        ),
    )
    .about(&[Setting::Qemu]))
}

/// Returns the lines of a script that are not comments.
fn lines(script: &str) -> impl Iterator<Item = &str> {
    script.lines().map(str::trim_start).filter(|line| !line.starts_with('#'))
}

/// Returns whether a line of a script passes on all the script's arguments unchanged.
fn passes_on(line: &str) -> bool {
    line.contains("$@") || line.contains("${1+")
}

/// Returns the emulator that the script runs with all its arguments.
fn emulator_in(script: &str, dirs: &[PathBuf]) -> Option<PathBuf> {
    let words = lines(script).filter(|line| passes_on(line)).flat_map(str::split_whitespace);
    words.map(|word| word.trim_matches(['"', '\'', ';'])).find_map(|word| {
        let name = word.rsplit('/').next().unwrap_or(word).trim_start_matches('.');
        let is_emulator = name.starts_with("qemu-system-") || name == "qemu-kvm";
        let path = if word.contains('/') {
            find(OsStr::new(word), dirs).found()
        } else {
            find_elf_qemu(OsStr::new(word), dirs)
        };
        path.filter(|path| is_emulator && is_elf_qemu(path))
    })
}

/// Returns the first program `name` in PATH that is QEMU and not a script.
fn find_elf_qemu(name: &OsStr, dirs: &[PathBuf]) -> Option<PathBuf> {
    let mut programs = dirs.iter().filter_map(|dir| find(name, std::slice::from_ref(dir)).found());
    programs.find(|path| is_elf_qemu(path))
}

/// Returns whether a program is QEMU and not a script.
///
/// Scripts are excluded, so that two scripts that name each other cause no endless recursion.
fn is_elf_qemu(path: &Path) -> bool {
    let mut start = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    let elf = read.is_ok() && start == *b"\x7fELF";
    elf && matches!(identify(path, &[], OsStr::new("")), Ok(Identity::Qemu))
}

/// A search for a text, by the algorithm of Boyer, Moore and Horspool.
///
/// The algorithm is fast enough for a whole emulator, which has 30 MB.
struct Search {
    text: Vec<u8>,
    /// The distance by which the search may advance, for each last byte of the compared window.
    skip: [usize; 256],
    found: bool,
}

impl Search {
    fn new(text: Vec<u8>) -> Self {
        let mut skip = [text.len(); 256];
        for (at, byte) in text.iter().enumerate().take(text.len().saturating_sub(1)) {
            skip[usize::from(*byte)] = text.len() - 1 - at;
        }
        Search { text, skip, found: false }
    }

    fn scan(&mut self, piece: &[u8]) {
        let last = self.text.len() - 1;
        let mut at = 0;
        while let Some(byte) = piece.get(at + last).filter(|_| !self.found) {
            if *byte == self.text[last] && piece[at..].starts_with(&self.text) {
                self.found = true;
            }
            at += self.skip[usize::from(*byte)];
        }
    }
}

/// Returns whether a file contains all the texts.
///
/// Each piece starts with the end of the one before, so a text across the edge is found too.
fn contains_all(mut file: File, texts: &mut [Search]) -> io::Result<bool> {
    let overlap = texts.iter().map(|search| search.text.len()).max().unwrap_or(0);
    let mut piece = Vec::with_capacity(PIECE + overlap);
    loop {
        let more = file.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
        texts.iter_mut().for_each(|search| search.scan(&piece));
        if more == 0 || texts.iter().all(|search| search.found) {
            return Ok(texts.iter().all(|search| search.found));
        }
        piece.drain(..piece.len().saturating_sub(overlap));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Host;
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// Returns an ELF file with these texts. The texts cross the edge of a piece.
    fn elf(texts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = b"\x7fELF".to_vec();
        bytes.resize(PIECE - 5, 0);
        texts.iter().for_each(|text| bytes.extend_from_slice(text));
        bytes
    }

    fn emulator() -> Vec<u8> {
        let texts = TEXTS.map(|parts| parts.concat());
        elf(&[&texts[0], b"\0", &texts[1]])
    }

    fn put(host: &Host, name: &str, bytes: &[u8]) -> PathBuf {
        let path = host.bin().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn qemu_is_known_by_its_content_under_any_name() {
        let host = Host::new();
        let (dirs, none) = (&host.prober.path, OsStr::new("none"));
        let renamed = put(&host, "my-vm", &emulator());
        assert_eq!(identify(&renamed, dirs, none), Ok(Identity::Qemu));
        let link = host.bin().join("a-link");
        symlink(&renamed, &link).unwrap();
        assert_eq!(identify(&link, dirs, none), Ok(Identity::Qemu));
        let wrapper = put(&host, "qemu-system-x86_64", &elf(&[b"/x/.qemu-system-x86_64-wrapped"]));
        assert_eq!(identify(&wrapper, dirs, none), Ok(Identity::Qemu));
        let half = TEXTS[0].concat();
        for (name, bytes) in [
            ("qemu-system-arm", elf(&[b"/bin/other"])),
            ("kvm", elf(&[&half])),
            ("plain", elf(&[b"/x/.qemu-system-x86_64-wrapped"])),
            ("empty", Vec::new()),
            ("text", b"qemu-system-x86_64 \"$@\"".to_vec()),
        ] {
            let why = identify(&put(&host, name, &bytes), dirs, none).unwrap_err().why;
            assert!(why.contains("does not look like QEMU: "), "{name}: {why}");
        }
    }

    #[test]
    fn only_a_script_with_a_name_of_qemus_leads_to_its_emulator() {
        let host = Host::new();
        let dirs = &host.prober.path;
        let real = put(&host, "qemu-system-x86_64", &emulator());
        put(&host, "qemu-system-fake", b"#!/bin/sh\nexec qemu-system-x86_64 \"$@\"\n");
        let default = OsStr::new("qemu-system-none");
        let quoted = format!("#!/bin/bash -e\nexec \"{}\"  \"$@\"\n", real.display());
        let own = "#!/bin/sh\nexec qemu-system-x86_64 \"$@\"\n";
        for (name, text, runs) in [
            ("kvm", "#!/bin/sh\n# \"$@\"\nexec qemu-system-x86_64 -enable-kvm \"$@\"\n", true),
            ("qemu-kvm", quoted.as_str(), true),
            ("qemu", own, true),
            ("kvm", "#!/bin/sh\nexec qemu-system-x86_64 -enable-kvm disk.img\n", false),
            ("kvm", "#!/bin/sh\nexec qemu-system-none \"$@\"\n", false),
            ("kvm", "#!/bin/sh\nexec qemu-system-fake \"$@\"\n", false),
            ("run-vm.sh", own, false),
            ("run-vm.sh", "#!", false),
        ] {
            match identify(&put(&host, name, text.as_bytes()), dirs, default) {
                Ok(identity) => {
                    assert!(runs && identity == Identity::Script(real.clone()), "{text}")
                }
                Err(Problem { why, fix, .. }) => {
                    assert!(!runs && why.contains("it is a script"), "{text}: {why}");
                    let named = if text == own { real.to_str().unwrap() } else { "PATH" };
                    assert!(fix.contains(&format!("the QEMU {named} as")), "{fix}");
                }
            }
        }
        // This machine's emulator is asked instead of a script that shows no emulator.
        let silent = put(&host, "kvm", b"#!/bin/sh\necho $*\nexec sleep 600\n");
        let this = identify(&silent, dirs, OsStr::new("qemu-system-x86_64"));
        assert_eq!(this, Ok(Identity::Script(real)));
        let unused = put(&host, "kvm", b"#!/bin/sh\n# \"$@\"\nexec sleep 600\n");
        assert!(identify(&unused, dirs, OsStr::new("qemu-system-x86_64")).is_err());
    }
}
