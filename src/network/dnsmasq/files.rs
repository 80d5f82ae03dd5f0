//! The files of one dnsmasq: their permissions, and the reuse of existing files.
//!
//! All files are in a directory that only root can write. dnsmasq itself writes only its leases, in
//! a directory of its own below that one. A compromised dnsmasq can put any file there, such as a
//! link to a file of root. So [`Files::prepare`] uses descriptors that never follow a link, keeps
//! one regular file with one name, and removes everything else before it gives the directory to the
//! next user.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};

use super::config::Rendered;
use super::error::DnsmasqError;
use super::process::Leases;
use crate::sys::state_file::{self, Readers};
use crate::types::TransientUser;

/// The maximum size of a lease file that is reused: more than a hundred thousand leases. A
/// compromised dnsmasq could leave a file that the next dnsmasq reads for hours.
pub(super) const LARGEST_LEASES: u64 = 16 << 20;

/// The paths of the files, all below a directory that the caller makes. dnsmasq reads all files
/// except the pid file as an ordinary user, so every user must be able to pass through the
/// directories above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The configuration.
    pub conf: PathBuf,
    /// The pid file, in a directory that only root can enter. dnsmasq writes it if it is started as
    /// root, under its own account; a transient user cannot write it.
    pub pid: PathBuf,
    /// The lease file, in a directory that belongs to dnsmasq's user.
    pub leases: PathBuf,
    /// [`DhcpDns::hosts`](super::DhcpDns::hosts).
    pub dhcp_hosts: PathBuf,
    /// [`Dns::hosts`](super::Dns::hosts).
    pub dns_hosts: PathBuf,
}

impl Files {
    /// Returns the usual paths in `dir`.
    pub fn in_dir(dir: &Path) -> Self {
        Files {
            conf: dir.join("dnsmasq.conf"),
            pid: dir.join("private/dnsmasq.pid"),
            leases: dir.join("leases/dnsmasq.leases"),
            dhcp_hosts: dir.join("dnsmasq.dhcp-hosts"),
            dns_hosts: dir.join("dnsmasq.dns-hosts"),
        }
    }

    /// Writes the files that dnsmasq reads, and makes the directories of the files that it writes.
    pub(super) fn prepare(
        &self,
        text: &Rendered,
        user: Option<TransientUser>,
    ) -> Result<(), DnsmasqError> {
        write(&self.conf, &text.conf)?;
        self.write_hosts(text)?;
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| DnsmasqError::File { what: "prepare", path, source }
        };
        let private = dir_of(&self.pid);
        make(private, 0o700).map_err(failed(private))?;
        let leases = dir_of(&self.leases);
        self.hand_over(user).map_err(failed(leases))
    }

    /// Writes the lists of hosts.
    pub(super) fn write_hosts(&self, text: &Rendered) -> Result<(), DnsmasqError> {
        write(&self.dhcp_hosts, &text.dhcp_hosts)?;
        write(&self.dns_hosts, &text.dns_hosts)
    }

    /// Returns whether the configuration is this one.
    pub fn have_conf(&self, text: &Rendered) -> bool {
        has(&self.conf, &text.conf)
    }

    /// Returns whether the lists of hosts are these.
    pub fn have_hosts(&self, text: &Rendered) -> bool {
        has(&self.dhcp_hosts, &text.dhcp_hosts) && has(&self.dns_hosts, &text.dns_hosts)
    }

    /// Gives the directory of leases to the user, and removes everything in it except the lease
    /// file.
    fn hand_over(&self, user: Option<TransientUser>) -> io::Result<()> {
        let path = dir_of(&self.leases);
        make(path, 0o755)?;
        self.adopt_earlier();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut dir = Dir::openat(AT_FDCWD, path, flags, Mode::empty())?;
        // Only root can change the directory during the inspection.
        own(&dir, None, 0o755)?;
        let name = self.leases.file_name().unwrap_or_default();
        let entries: nix::Result<Vec<_>> = dir.iter().collect();
        for entry in entries? {
            let found = entry.file_name().to_bytes();
            if found == b"." || found == b".." {
                continue;
            }
            let kept = (found == name.as_encoded_bytes())
                .then(|| lease_file(&dir, entry.file_name()).ok());
            match kept.flatten() {
                Some(file) => own(&file, user, 0o644)?,
                None => {
                    let shown = String::from_utf8_lossy(found).into_owned();
                    tracing::warn!(
                        "{shown:?} in {} is no file of leases; removing it",
                        path.display()
                    );
                    match unlinkat(&dir, entry.file_name(), UnlinkatFlags::NoRemoveDir) {
                        // Removes a directory without following links.
                        Err(nix::errno::Errno::EISDIR) => fs::remove_dir_all(path.join(os(found)))?,
                        done => done?,
                    }
                }
            }
        }
        own(&dir, user, 0o755)
    }

    /// Moves the lease file of an earlier netlaunch version to its new path.
    fn adopt_earlier(&self) {
        let earlier = self.conf.with_file_name("dnsmasq.leases");
        if !self.leases.exists() && fs::symlink_metadata(&earlier).is_ok_and(|is| is.is_file()) {
            // If the move fails, guests get other addresses, without further effects.
            let _ = fs::rename(&earlier, &self.leases);
        }
    }

    /// Removes the files. Continues after a failure, and returns the errors.
    pub(super) fn remove(&self, leases: Leases) -> Vec<DnsmasqError> {
        let mut failed = Vec::new();
        let mut done = |path: &Path, result: io::Result<()>| match result {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                failed.push(DnsmasqError::File { what: "remove", path: path.to_owned(), source });
            }
            _ => {}
        };
        for path in [&self.dhcp_hosts, &self.dns_hosts, &self.conf] {
            done(path, fs::remove_file(path));
        }
        let private = dir_of(&self.pid);
        done(private, fs::remove_dir_all(private));
        if leases == Leases::Remove {
            let leases = dir_of(&self.leases);
            done(leases, fs::remove_dir_all(leases));
        }
        failed
    }

    /// Returns whether every user can reach the files and execute the program.
    pub(super) fn are_reachable(&self, program: &Path) -> bool {
        let open = |path: &Path| fs::metadata(path).is_ok_and(|is| is.mode() & 0o001 != 0);
        let reach =
            |path: &Path| fs::canonicalize(path).is_ok_and(|path| path.ancestors().all(open));
        reach(dir_of(&self.conf)) && reach(program)
    }
}

/// Opens the lease file, if it is a regular file with a single name and not too large.
pub(super) fn lease_file(dir: impl AsFd, name: &std::ffi::CStr) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = File::from(openat(dir, name, flags, Mode::empty())?);
    let is = file.metadata()?;
    if is.is_file() && is.nlink() == 1 && is.len() <= LARGEST_LEASES {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a regular file of that size with one name"))
    }
}

/// Gives an open file to the user, or to root.
fn own(file: impl AsFd, user: Option<TransientUser>, mode: u32) -> io::Result<()> {
    let (uid, gid) = user.map_or((0, 0), |user| (user.uid, user.gid));
    // A change of the owner clears bits of the mode, so the mode is set afterwards.
    fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    Ok(nix::sys::stat::fchmod(&file, Mode::from_bits_truncate(mode))?)
}

fn os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

pub(super) fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Makes a directory if it does not exist.
fn make(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        // This makes the mode independent of the umask.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        failed => failed,
    }
}

/// Returns whether a file has this content.
fn has(path: &Path, text: &str) -> bool {
    fs::read(path).is_ok_and(|there| there == text.as_bytes())
}

/// Writes a file that every user may read, completely or not at all. A file that has this content
/// already is not written, so that dnsmasq can start on a full file system.
fn write(path: &Path, text: &str) -> Result<(), DnsmasqError> {
    if has(path, text) {
        return Ok(());
    }
    tracing::debug!("writes {}", path.display());
    let failed = |source| DnsmasqError::File { what: "write", path: path.to_owned(), source };
    state_file::replace(path, text.as_bytes(), Readers::Everyone).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test leaves objects that dnsmasq's user could have put in place of the lease file.
    #[test]
    fn a_lease_file_that_was_replaced_is_never_followed() {
        if !Uid::effective().is_root() {
            eprintln!("skipped a_lease_file_that_was_replaced_is_never_followed: it needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let files = Files::in_dir(dir.path());
        let secret = dir.path().join("secret");
        fs::write(&secret, "root's").unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        let user = |id| Some(TransientUser { uid: id, gid: id });
        let leases = dir_of(&files.leases);
        let giant = || {
            let file = fs::File::create(&files.leases).unwrap();
            file.set_len(LARGEST_LEASES + 1).unwrap();
        };
        let kinds: [(&str, &dyn Fn()); 6] = [
            ("giant", &giant),
            ("nothing", &|| {}),
            ("link", &|| std::os::unix::fs::symlink(&secret, &files.leases).unwrap()),
            ("second name", &|| fs::hard_link(&secret, &files.leases).unwrap()),
            ("directory", &|| fs::create_dir_all(files.leases.join("below")).unwrap()),
            ("pipe", &|| nix::unistd::mkfifo(&files.leases, Mode::S_IRWXU).unwrap()),
        ];
        for (index, (what, put)) in kinds.iter().enumerate() {
            fs::create_dir_all(leases).unwrap();
            put();
            fs::write(leases.join("other"), "").unwrap();
            let id = 1_900_000_000 + index as u32;
            files.hand_over(user(id)).unwrap();
            let is = fs::metadata(&secret).unwrap();
            assert_eq!((is.uid(), is.mode() & 0o7777), (0, 0o600), "{what}");
            assert_eq!(fs::read_dir(leases).unwrap().count(), 0, "{what}");
            assert_eq!(fs::metadata(leases).unwrap().uid(), id, "{what}");
        }
        // A real lease file goes to the next user, whatever its mode is.
        fs::write(&files.leases, "leases").unwrap();
        fs::set_permissions(&files.leases, Permissions::from_mode(0o6777)).unwrap();
        files.hand_over(user(1_900_000_009)).unwrap();
        let is = fs::metadata(&files.leases).unwrap();
        assert_eq!((is.uid(), is.gid(), is.mode() & 0o7777), (1_900_000_009, 1_900_000_009, 0o644));
        // The directory itself is never reached through a link.
        fs::remove_dir_all(leases).unwrap();
        let other = dir.path().join("elsewhere");
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&other, leases).unwrap();
        files.hand_over(user(1_900_000_010)).unwrap_err();
        assert_eq!(fs::metadata(&other).unwrap().uid(), 0);
    }
}
