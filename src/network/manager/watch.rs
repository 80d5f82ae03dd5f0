//! Waits for the events of running networks.
//!
//! The kernel reports every change: inotify those of the status files and of the lease files, and
//! netlink those of the interfaces. A report only says where to look. The watch then reads that
//! state again and compares it with the state before, so a lost report costs nothing but time.
//!
//! dnsmasq empties its lease file and writes it again. So the watch waits until the file has not
//! changed for a moment ([`QUIET`]) before it reads it; an earlier read could miss leases.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::{Manager, NetworkStatus, status};
use crate::network::dnsmasq::lease_file::LeaseFile;
use crate::network::dnsmasq::{DhcpLease, Files};
use crate::network::event::{AttachedPort, NetworkChange, NetworkEvent, lease_changes, runs_here};
use crate::sys::file_events::{FileEvent, FileEvents, WatchedDir};
use crate::sys::netlink::{GuestTap, Link, LinkError, LinkEvents, Netlink};
use crate::sys::state_file::StateFileError;
use crate::types::{NetworkName, error_text};

/// The time without a change after which a lease file is read, and the longest wait for it.
const QUIET: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Events cannot be received any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// A directory cannot be watched.
    #[error("cannot watch {}; check the directory's permissions, and fs.inotify.max_user_instances and max_user_watches", .path.display())]
    Dir {
        /// The directory.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The status files cannot be read.
    #[error(transparent)]
    Status(#[from] StateFileError),
    /// The interfaces cannot be listed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The connection to the kernel has ended.
    #[error("the kernel's messages about interfaces have ended; start the command again")]
    Ended,
}

/// A running network, as the watch saw it last.
#[derive(Debug)]
struct SeenNetwork {
    status: NetworkStatus,
    leases: Vec<DhcpLease>,
    lease_file: PathBuf,
}

/// The events of running networks, in a queue.
#[derive(Debug)]
pub struct NetworkWatch {
    dir: PathBuf,
    only: Option<NetworkName>,
    files: FileEvents,
    links: LinkEvents,
    netlink: Netlink,
    networks: BTreeMap<NetworkName, SeenNetwork>,
    /// The ports on the bridges of the networks, by number.
    ports: BTreeMap<u32, (NetworkName, AttachedPort)>,
    /// The watched directories of lease files.
    lease_dirs: BTreeMap<WatchedDir, NetworkName>,
    /// The networks whose lease files have changed.
    unread: BTreeSet<NetworkName>,
    /// The time of the first change of these files, and the time to read them.
    reads: Option<(Instant, Instant)>,
    events: VecDeque<NetworkEvent>,
}

impl Manager {
    /// Starts to watch one network or all networks of this network namespace. The first event is
    /// the first change after this call.
    ///
    /// # Errors
    /// [`WatchError`].
    pub async fn watch(&self, only: Option<&NetworkName>) -> Result<NetworkWatch, WatchError> {
        let dir = self.dir();
        let files =
            FileEvents::open().map_err(|source| WatchError::Dir { path: dir.clone(), source })?;
        let mut watch = NetworkWatch {
            dir,
            only: only.cloned(),
            files,
            links: LinkEvents::open()?,
            netlink: Netlink::open()?,
            networks: BTreeMap::new(),
            ports: BTreeMap::new(),
            lease_dirs: BTreeMap::new(),
            unread: BTreeSet::new(),
            reads: None,
            events: VecDeque::new(),
        };
        watch.read_networks()?;
        watch.read_ports().await?;
        watch.read_leases();
        watch.events.clear();
        Ok(watch)
    }
}

impl NetworkWatch {
    /// Waits for the next event.
    ///
    /// # Errors
    /// [`WatchError`]; no later event comes.
    pub async fn next(&mut self) -> Result<NetworkEvent, WatchError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let read_at = self.reads.map(|(_, at)| at);
            let quiet = async {
                match read_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.files.next() => {
                    let changed = changed.map_err(|source| WatchError::Dir {
                        path: self.dir.clone(),
                        source,
                    })?;
                    self.files_changed(&changed)?;
                    self.read_ports().await?;
                }
                alive = self.links.changed() => {
                    if !alive {
                        return Err(WatchError::Ended);
                    }
                    self.read_ports().await?;
                }
                () = quiet => self.read_leases(),
            }
        }
    }

    /// Reads the status files again, or notes the lease files to read.
    fn files_changed(&mut self, events: &[FileEvent]) -> Result<(), WatchError> {
        let mut statuses = false;
        for event in events {
            match event {
                FileEvent::Changed(dir, _) if self.lease_dirs.contains_key(dir) => {
                    let now = Instant::now();
                    let first = self.reads.map_or(now, |(first, _)| first);
                    self.reads = Some((first, (now + QUIET).min(first + LONGEST_WAIT)));
                    self.unread.extend(self.lease_dirs.get(dir).cloned());
                }
                FileEvent::Changed(..) => statuses = true,
                FileEvent::Overflow => {
                    statuses = true;
                    self.unread.extend(self.networks.keys().cloned());
                    self.reads = Some((Instant::now(), Instant::now() + QUIET));
                }
            }
        }
        if statuses { self.read_networks() } else { Ok(()) }
    }

    /// Watches the directory of all networks. While it is missing, watches the nearest directory
    /// above it, in which it will appear.
    fn watch_above(&self) -> Result<(), WatchError> {
        let mut dir: &Path = &self.dir;
        loop {
            match self.files.watch_names(dir) {
                Ok(_) if dir == self.dir => return Ok(()),
                // It could have been made in the meantime.
                Ok(_) if !self.dir.exists() => return Ok(()),
                Ok(_) => dir = &self.dir,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    dir = dir.parent().unwrap_or(Path::new("/"));
                }
                Err(source) => return Err(WatchError::Dir { path: dir.to_owned(), source }),
            }
        }
    }

    /// Reads the status files, and watches the directories of the networks before that.
    fn read_networks(&mut self) -> Result<(), WatchError> {
        self.watch_above()?;
        let names = crate::sys::state_file::names(&self.dir)?;
        for name in names.iter().filter_map(|name| name.to_str()) {
            let wanted = self.only.as_ref().is_none_or(|only| only.as_str() == name);
            if wanted && !name.starts_with('.') {
                // The directory of a network can be removed at any moment.
                let _ = self.files.watch_names(&self.dir.join(name));
            }
        }
        let is_wanted = |status: &NetworkStatus| {
            runs_here(status) && self.only.as_ref().is_none_or(|only| status.name == *only)
        };
        let running: Vec<NetworkStatus> =
            status::all(&self.dir)?.into_iter().flatten().filter(is_wanted).collect();
        let ended: Vec<NetworkName> = (self.networks.keys())
            .filter(|name| !running.iter().any(|status| status.name == **name))
            .cloned()
            .collect();
        ended.iter().for_each(|name| self.ended(name));
        running.iter().for_each(|status| self.runs(status));
        Ok(())
    }

    fn ended(&mut self, name: &NetworkName) {
        self.networks.remove(name);
        self.lease_dirs.retain(|_, of| of != name);
        let of_network = self.ports.iter().filter(|(_, (of, _))| of == name);
        let ports: Vec<(u32, AttachedPort)> =
            of_network.map(|(index, (_, port))| (*index, port.clone())).collect();
        for (index, port) in ports {
            self.ports.remove(&index);
            self.push(name, NetworkChange::PortDetached(port));
        }
        self.push(name, NetworkChange::Stopped);
    }

    fn runs(&mut self, status: &NetworkStatus) {
        let (name, lease_file) = (&status.name, Files::in_dir(&status.dir).leases);
        if let Some(dir) = lease_file.parent()
            && let Ok(watched) = self.files.watch_content(dir)
            && self.lease_dirs.insert(watched, name.clone()).is_none()
        {
            self.unread.insert(name.clone());
            self.reads.get_or_insert((Instant::now(), Instant::now()));
        }
        match self.networks.get_mut(name) {
            Some(seen) => seen.status = status.clone(),
            None => {
                let (status, leases) = (status.clone(), Vec::new());
                self.push(name, NetworkChange::Started { bridge: status.bridge.clone() });
                self.networks.insert(name.clone(), SeenNetwork { status, leases, lease_file });
            }
        }
    }

    /// Lists the interfaces, and compares the ports of the bridges. A port counts as attached once
    /// it is turned on: a launch turns its tap on last, when its alias and its rules are there.
    async fn read_ports(&mut self) -> Result<(), WatchError> {
        let links = self.netlink.links().await?;
        let bridges: BTreeMap<u32, &NetworkName> = (self.networks.iter())
            .filter_map(|(name, seen)| Some((seen.status.bridge_index(&links)?, name)))
            .collect();
        let network_of = |link: &Link| {
            link.master.and_then(|master| bridges.get(&master)).map(|&name| name.clone())
        };
        let mut now: BTreeMap<u32, (NetworkName, AttachedPort)> = BTreeMap::new();
        for link in &links {
            let Some(network) = network_of(link) else { continue };
            let known = self.ports.get(&link.index).is_some_and(|(of, _)| *of == network);
            if link.up || known {
                now.insert(link.index, (network, attached_port(link)));
            }
        }
        let before = std::mem::replace(&mut self.ports, now);
        let is_in = |ports: &BTreeMap<u32, (NetworkName, AttachedPort)>, index, network| {
            ports.get(index).is_some_and(|(of, _)| of == network)
        };
        for (index, (network, port)) in &before {
            if !is_in(&self.ports, index, network) {
                self.push(network, NetworkChange::PortDetached(port.clone()));
            }
        }
        let new: Vec<_> = (self.ports.iter())
            .filter(|(index, (network, _))| !is_in(&before, index, network))
            .map(|(_, port)| port.clone())
            .collect();
        for (network, port) in new {
            self.push(&network, NetworkChange::PortAttached(port));
        }
        Ok(())
    }

    /// Reads the lease files that have changed.
    fn read_leases(&mut self) {
        self.reads = None;
        for name in std::mem::take(&mut self.unread) {
            let Some(seen) = self.networks.get_mut(&name) else { continue };
            match LeaseFile::read(&seen.lease_file) {
                Ok(file) => {
                    let before = std::mem::replace(&mut seen.leases, file.leases);
                    for change in lease_changes(&before, &seen.leases) {
                        self.events.push_back(NetworkEvent { network: name.clone(), what: change });
                    }
                }
                Err(error) => tracing::warn!("{}", error_text(&error)),
            }
        }
    }

    fn push(&mut self, network: &NetworkName, what: NetworkChange) {
        self.events.push_back(NetworkEvent { network: network.clone(), what });
    }
}

fn attached_port(link: &Link) -> AttachedPort {
    let home = GuestTap::of(link).map(|tap| tap.home).filter(|home| !home.once);
    AttachedPort {
        port: link.name.clone(),
        mac: home.as_ref().and_then(|home| home.mac),
        launch: home.and_then(|home| home.launch),
    }
}
