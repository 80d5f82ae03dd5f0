//! Keeps the guest's DNS working while the host's DNS servers change.
//!
//! The watch looks at resolv.conf once a second, through symbolic links. So it sees on every file
//! system that the file was written, replaced, or is reached by another link. It reads the file
//! only if its identity has changed, and reports servers only after it has read the same ones
//! twice in a row, since another program may be writing the file.
//!
//! passt reads the servers once, at its start. Other servers need another passt on the same socket,
//! and the guest's connections end with the first passt. So passt is replaced only if
//! [`PasstPlan::with_resolvers`](crate::launcher::plan::PasstPlan::with_resolvers) says that other
//! servers would answer the guest's queries.

use std::fs::{self, Metadata};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::passt;
use super::recovery::{PasstRestart, RestartResult};
use super::running::{PASST_END_LIMIT, RunningNic};
use crate::types::{error_text, name_servers};

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

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
}

impl Watch {
    /// Returns a watch that reports the file's present content first.
    pub(super) fn new(file: &Path) -> Self {
        Watch { file: file.to_owned(), seen: None, new: None, at: Instant::now() + INTERVAL }
    }

    /// Waits for servers that may differ from passt's. The future can be dropped at any time.
    pub(super) async fn next(&mut self) -> Vec<IpAddr> {
        loop {
            tokio::time::sleep_until(self.at).await;
            self.at = Instant::now() + INTERVAL;
            if let Some(servers) = self.look() {
                return servers;
            }
        }
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
}
