//! Keeps the guest's DNS working while the host's DNS servers change.
//!
//! The watch looks at resolv.conf through symbolic links. It reads the file only if its identity
//! has changed, and reports servers only after it has read the same ones twice, a second apart,
//! since another program may be writing the file.
//!
//! When the servers are known, inotify(7) tells of changes of the file and of each link that leads
//! to it, so that an idle launch does not wake up. The file itself is watched beside its directory:
//! in a container it is often mounted there, and its changes are none of the directory. A rare look
//! finds what inotify does not see: a change on the server of a network file system, and another
//! link among the directories. Without inotify, such as at the user's limit of instances, the watch
//! looks once a second.
//!
//! passt reads the servers once, at its start. Other servers need another passt on the same socket,
//! and the guest's connections end with the first passt. So passt is replaced only if
//! [`PasstPlan::with_resolvers`](crate::launcher::plan::PasstPlan::with_resolvers) says that other
//! servers would answer the guest's queries.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::passt;
use super::recovery::{PasstRestart, RestartResult};
use super::running::{PASST_END_LIMIT, RunningNic};
use crate::sys::file_events::{FileEvent, FileEvents, WatchedDir};
use crate::types::{error_text, name_servers};

/// The pause between two looks until the servers are known, and without events.
const INTERVAL: Duration = Duration::from_secs(1);
/// The pause between two looks with events.
const RARE: Duration = Duration::from_secs(600);
/// The most symbolic links that lead to a file (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// The identity of a file's content: device, inode, size, and time of modification and of change.
type Identity = (u64, u64, u64, (i64, i64), (i64, i64));

/// Watches a resolv.conf file.
#[derive(Debug)]
pub(super) struct Watch {
    file: PathBuf,
    seen: Option<Identity>,
    /// The servers of the last read, until they are read a second time.
    new: Option<Vec<IpAddr>>,
    /// The time of the next look.
    at: Instant,
    /// The changes in the directories of the file and of its links. Opened when the servers are
    /// known: the kernel can need 10 ms to close the queue, which a short launch does not pay.
    changes: Option<Changes>,
}

/// Changes of a file and of the symbolic links that lead to it.
#[derive(Debug)]
struct Changes {
    events: FileEvents,
    /// The paths of the links and of the file.
    paths: Vec<PathBuf>,
    /// The same as names in watched directories.
    watched: Vec<(WatchedDir, OsString)>,
}

impl Changes {
    /// Watches the directories of these paths.
    fn open(paths: Vec<PathBuf>) -> io::Result<Self> {
        let no_name = || io::Error::from(io::ErrorKind::InvalidInput);
        let split =
            |path: &PathBuf| Some((path.parent()?.to_owned(), path.file_name()?.to_owned()));
        let names: Option<Vec<(PathBuf, OsString)>> = paths.iter().map(split).collect();
        let names = names.ok_or_else(no_name)?;
        // A queue is opened only if it can be used, because closing it takes long.
        names.iter().try_for_each(|(dir, _)| fs::metadata(dir).map(drop))?;
        let events = FileEvents::open()?;
        let watch = |(dir, name)| Ok((events.watch_content(dir)?, name));
        let watched = names.iter().map(|(dir, name)| watch((dir, name.clone())));
        let watched = watched.collect::<io::Result<_>>()?;
        match paths.last().map(|file| events.watch_file(file)) {
            // The directory tells when the file is made.
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Changes { events, paths, watched }),
        }
    }

    /// Waits for a change of a link or of the file. Another file may have its name then, whose
    /// changes these watches do not see.
    async fn next(&self) {
        loop {
            let Ok(events) = self.events.next().await else { return };
            let is_relevant = |event: FileEvent| match event {
                FileEvent::Changed(dir, Some(name)) => self.watched.contains(&(dir, name)),
                // The kernel has lost events, or the file or a directory has changed itself.
                FileEvent::Changed(_, None) | FileEvent::Overflow => true,
            };
            if events.into_iter().any(is_relevant) {
                return;
            }
        }
    }
}

/// Returns the path of a file and those of the symbolic links that lead to it, the first link
/// first.
fn paths_to(file: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = vec![file.to_owned()];
    while let Some(path) = paths.last().filter(|_| paths.len() <= MAX_LINKS) {
        match fs::read_link(path) {
            Ok(target) => {
                let next = path.parent().unwrap_or(Path::new("/")).join(target);
                paths.push(next);
            }
            // The file is there and no link, or is not there yet.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::NotFound
                ) =>
            {
                return Ok(paths);
            }
            Err(error) => return Err(error),
        }
    }
    Err(Errno::ELOOP.into())
}

impl Watch {
    /// Returns a watch that reports the file's present content first.
    pub(super) fn new(file: &Path) -> Self {
        let at = Instant::now() + INTERVAL;
        Watch { file: file.to_owned(), seen: None, new: None, at, changes: None }
    }

    /// Waits for servers that may differ from passt's. The future can be dropped at any time.
    pub(super) async fn next(&mut self) -> Vec<IpAddr> {
        loop {
            let changed = async {
                match &self.changes {
                    // The second read of new servers waits its time.
                    Some(changes) if self.new.is_none() => changes.next().await,
                    _ => std::future::pending().await,
                }
            };
            let has_changed = tokio::select! {
                () = changed => true,
                () = tokio::time::sleep_until(self.at) => false,
            };
            if has_changed {
                self.changes = None;
            }
            let servers = self.look();
            let is_known = self.new.is_none();
            self.at = Instant::now() + if self.follows_changes(is_known) { RARE } else { INTERVAL };
            if let Some(servers) = servers {
                return servers;
            }
        }
    }

    /// Returns whether the watch follows the changes of the file since before the last look. If
    /// not, begins to follow them once the servers are known.
    fn follows_changes(&mut self, is_known: bool) -> bool {
        let Ok(paths) = paths_to(&self.file) else {
            self.changes = None;
            return false;
        };
        if self.changes.as_ref().is_some_and(|changes| changes.paths == paths) {
            return is_known;
        }
        self.changes = if is_known { Changes::open(paths).ok() } else { None };
        false
    }

    fn look(&mut self) -> Option<Vec<IpAddr>> {
        let identity = fs::metadata(&self.file).ok().map(|is| identity(&is));
        if identity == self.seen && self.new.is_none() {
            return None;
        }
        self.seen = identity;
        let read = fs::read(&self.file).unwrap_or_default();
        let servers = name_servers(&String::from_utf8_lossy(&read));
        match self.new.take() {
            Some(before) if before == servers => Some(servers),
            _ => {
                self.new = Some(servers);
                None
            }
        }
    }
}

fn identity(is: &Metadata) -> Identity {
    let modified = (is.mtime(), is.mtime_nsec());
    (is.dev(), is.ino(), is.size(), modified, (is.ctime(), is.ctime_nsec()))
}

impl RunningNic {
    /// Returns the watch for this NIC; `None` without passt.
    pub(super) fn watch_resolvers(&self) -> Option<Watch> {
        let passt_spawn = self.passt_spawn.as_ref()?;
        Some(Watch::new(&passt_spawn.plan.dns.resolv_conf))
    }

    /// Replaces passt by one for these servers of the host, if the guest's DNS needs that and QEMU
    /// can connect again. Returns `None` if passt stays.
    pub(super) fn use_resolvers(&mut self, servers: &[IpAddr]) -> Option<PasstRestart> {
        let passt_spawn = self.passt_spawn.as_mut()?;
        let plan = passt_spawn.plan.with_resolvers(servers)?;
        let reconnects = self.reconnects && plan.socket.is_some();
        // Also if passt stays: the next change is compared with these servers, so that each change
        // is one message.
        passt_spawn.plan = plan;
        if !reconnects {
            tracing::warn!(
                "the host's DNS servers have changed, and passt stays with the former ones, because QEMU cannot connect to another passt: the guest may not resolve names; use the unix transport with QEMU 8.0 or later"
            );
            return None;
        }
        tracing::warn!(
            "the host's DNS servers have changed, so passt is started again with the new ones; the guest's open connections end"
        );
        let (passt_spawn, before) = (passt_spawn.clone(), self.passt.take());
        Some(Box::pin(async move {
            if let Some(mut before) = before {
                before.stop(Signal::SIGTERM, PASST_END_LIMIT).await;
            }
            match passt::start(&passt_spawn, None).await {
                Ok(child) => RestartResult::Serves(child),
                Err(error) => RestartResult::Failed(error_text(&error)),
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what the watch reports after a change, in at most three looks.
    fn reported(watch: &mut Watch) -> Option<Vec<IpAddr>> {
        (0..3).find_map(|_| watch.look())
    }

    #[test]
    fn a_change_is_seen_however_the_file_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let servers = |last: u8| Some(vec![IpAddr::from([192, 0, 2, last])]);
        let text = |last: u8| format!("nameserver 192.0.2.{last}\n");
        fs::create_dir(at("run")).unwrap();
        fs::write(at("run/a"), text(1)).unwrap();
        std::os::unix::fs::symlink("run/a", at("resolv.conf")).unwrap();
        let mut watch = Watch::new(&at("resolv.conf"));
        assert_eq!(reported(&mut watch), servers(1), "the servers at the start");
        assert_eq!(reported(&mut watch), None, "no change");

        fs::write(at("run/a"), text(2)).unwrap();
        assert_eq!(reported(&mut watch), servers(2), "written");
        fs::write(at("run/new"), text(3)).unwrap();
        fs::rename(at("run/new"), at("run/a")).unwrap();
        assert_eq!(reported(&mut watch), servers(3), "exchanged behind the link");
        fs::write(at("run/b"), text(4)).unwrap();
        std::os::unix::fs::symlink("run/b", at("link")).unwrap();
        fs::rename(at("link"), at("resolv.conf")).unwrap();
        assert_eq!(reported(&mut watch), servers(4), "another link");
        fs::remove_file(at("run/b")).unwrap();
        assert_eq!(reported(&mut watch), Some(Vec::new()), "a dangling link");
        fs::write(at("run/b"), text(5)).unwrap();
        assert_eq!(reported(&mut watch), servers(5), "there again");
    }

    #[test]
    fn a_file_that_is_being_written_is_not_reported() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        let mut watch = Watch::new(&file);
        fs::write(&file, "").unwrap();
        assert_eq!(watch.look(), None);
        fs::write(&file, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!((watch.look(), watch.look()), (None, Some(vec![[192, 0, 2, 1].into()])));
    }

    #[tokio::test]
    async fn events_tell_of_changes_when_the_servers_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let text = |last: u8| format!("nameserver 192.0.2.{last}\n");
        fs::create_dir(at("run")).unwrap();
        fs::write(at("run/a"), text(1)).unwrap();
        std::os::unix::fs::symlink("run/a", at("resolv.conf")).unwrap();
        let mut watch = Watch::new(&at("resolv.conf"));
        let limit = Duration::from_secs(60);
        let changes: [&dyn Fn(); 5] = [
            &|| {},
            &|| fs::write(at("run/a"), text(2)).unwrap(),
            &|| {
                fs::write(at("run/b"), text(3)).unwrap();
                std::os::unix::fs::symlink("run/b", at("link")).unwrap();
                fs::rename(at("link"), at("resolv.conf")).unwrap();
            },
            &|| {
                fs::write(at("new"), text(4)).unwrap();
                fs::rename(at("new"), at("run/b")).unwrap();
            },
            // The directory of the file sees nothing, as of a file that is mounted there.
            &|| {
                fs::hard_link(at("run/b"), at("elsewhere")).unwrap();
                fs::write(at("elsewhere"), text(5)).unwrap();
            },
        ];
        for (change, last) in changes.into_iter().zip(1..) {
            change();
            let servers = tokio::time::timeout(limit, watch.next()).await.unwrap();
            assert_eq!(servers, [IpAddr::from([192, 0, 2, last])]);
            // The next look is rare, so that only an event can tell of the next change.
            while watch.at < Instant::now() + limit {
                let pause = tokio::time::timeout(INTERVAL / 4, watch.next());
                assert!(pause.await.is_err(), "a report without a change");
            }
        }
    }
}
