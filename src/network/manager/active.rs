//! Finds a running network for the commands that only look at it, which every user may do.

use super::namespace::NetworkLocation;
use super::{Manager, ManagerError, NetworkStatus, entry, status};
use crate::network::dnsmasq::{Dnsmasq, Files};
use crate::network::{Forward, NetworkName};
use crate::sys::netlink::{Link, Undo};

impl Manager {
    /// Returns a network that runs in this network namespace.
    ///
    /// # Errors
    /// [`ManagerError`]: there is no such network, it does not run or runs in another namespace, or
    /// its status cannot be read.
    pub fn running(&self, name: &NetworkName) -> Result<NetworkStatus, ManagerError> {
        let (mut found, mut damaged) = (None, None);
        for one in status::all(&self.dir())? {
            match one {
                Ok(one) if one.complete && one.name == *name => found = Some(one),
                Err(one) if one.name.as_ref() == Some(name) => damaged = Some(one.error),
                _ => {}
            }
        }
        let location = found.as_ref().map(NetworkStatus::location);
        match (found, location, damaged) {
            (Some(status), Some(NetworkLocation::Here), _) => Ok(status),
            (_, Some(NetworkLocation::OtherNamespace(file)), _) => {
                let entry = entry(file.as_deref());
                Err(ManagerError::OtherNamespace { name: name.clone(), entry })
            }
            (_, _, Some(error)) => Err(error.into()),
            _ => {
                self.store.get(name)?;
                Err(ManagerError::Inactive(name.clone()))
            }
        }
    }
}

impl NetworkStatus {
    /// Returns the number of its bridge among these interfaces: the bridge that the start made, or
    /// the existing one of a network that joins its guests to it.
    pub(super) fn bridge_index(&self, links: &[Link]) -> Option<u32> {
        let made = self.links.iter().find_map(|undo| match undo {
            Undo::Link { index, .. } => Some(*index),
            _ => None,
        });
        let existing = || {
            let joins = self.network().is_some_and(|network| network.forward == Forward::Bridge);
            let bridge = links.iter().find(|link| link.name == self.bridge.as_str());
            bridge.filter(|_| joins).map(|link| link.index)
        };
        made.or_else(existing)
    }

    /// Returns its dnsmasq, if it runs and this process can see it.
    pub fn server(&self) -> Option<Dnsmasq> {
        let files = Files::in_dir(&self.dir);
        self.dnsmasq.then(|| Dnsmasq::find(self.served.as_ref(), &files)).flatten()
    }
}
