//! Undoes changes of links, addresses and routes.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Link, LinkError, Netlink, Route};
use crate::types::InterfaceName;

/// The instruction that undoes one change. It can be written to a file and carried out by a later
/// process, also of a newer version, so the names of its variants and fields must not change.
///
/// `name` and `index` identify the interface, and both must still match: in another network
/// namespace or after a restart a number belongs to another interface, and a name may have been
/// used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "kebab-case")]
pub enum Undo {
    /// An interface with this mark is about to be made ([`Netlink::create_marked_bridge`]): removes
    /// the interface if it has the mark. Another interface of that name belongs to another program.
    Marked {
        /// The interface's name.
        name: InterfaceName,
        /// The interface's mark.
        mark: u32,
    },
    /// The interface was made: removes it.
    Link {
        /// The interface's name.
        name: InterfaceName,
        /// The interface's number.
        index: u32,
    },
    /// The interface was turned on: turns it off.
    Up {
        /// The interface's name.
        name: InterfaceName,
        /// The interface's number.
        index: u32,
    },
    /// The interface got an address: removes the address.
    Address {
        /// The interface's name.
        name: InterfaceName,
        /// The interface's number.
        index: u32,
        /// The address.
        address: IpNet,
    },
    /// A route was added: removes the route.
    Route {
        /// The interface's name.
        name: InterfaceName,
        /// The interface's number.
        index: u32,
        /// The route.
        route: Route,
    },
    /// The interface became a port: detaches it, unless it belongs to another bridge now.
    Port {
        /// The port's name.
        name: InterfaceName,
        /// The port's number.
        index: u32,
        /// The bridge's number.
        bridge: u32,
    },
}

impl Undo {
    /// Returns the interface's name.
    fn name(&self) -> &InterfaceName {
        match self {
            Undo::Marked { name, .. }
            | Undo::Link { name, .. }
            | Undo::Up { name, .. }
            | Undo::Address { name, .. }
            | Undo::Route { name, .. }
            | Undo::Port { name, .. } => name,
        }
    }

    /// Returns whether this change disappears with the interface that `made` removes.
    pub(crate) fn goes_with(&self, made: &Undo) -> bool {
        match (self, made) {
            (
                Undo::Up { index, .. }
                | Undo::Address { index, .. }
                | Undo::Route { index, .. }
                | Undo::Port { index, .. },
                Undo::Link { index: of, .. },
            ) => index == of && self.name() == made.name(),
            _ => false,
        }
    }

    /// Returns whether the instruction applies to this interface.
    fn is_about(&self, link: &Link) -> bool {
        match self {
            Undo::Marked { mark, .. } => link.group == *mark,
            Undo::Link { index, .. }
            | Undo::Up { index, .. }
            | Undo::Address { index, .. }
            | Undo::Route { index, .. }
            | Undo::Port { index, .. } => link.index == *index,
        }
    }
}

impl Netlink {
    /// Undoes one change. Does not fail if the change is undone already.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub async fn undo(&self, undo: &Undo) -> Result<(), LinkError> {
        let name = undo.name();
        let link = match self.link(name).await {
            Ok(link) if undo.is_about(&link) => link,
            Ok(_) => return Ok(()), // the name is another interface's by now
            Err(error) if error.is_gone() => return Ok(()),
            Err(error) => return Err(error),
        };
        let done = match undo {
            Undo::Marked { .. } | Undo::Link { .. } => self.delete_link(name, link.index).await,
            Undo::Up { .. } => self.down(name).await,
            Undo::Address { address, .. } => self.delete_address(name, *address).await,
            Undo::Route { route, .. } => self.delete_route(name, route).await,
            Undo::Port { bridge, .. } if link.master == Some(*bridge) => self.detach(name).await,
            Undo::Port { .. } => Ok(()),
        };
        match done {
            Err(error) if error.is_gone() => Ok(()),
            done => done,
        }
    }

    /// Undoes changes in reverse order, and continues after a failure. Returns the errors.
    pub async fn undo_all(&self, undos: &[Undo]) -> Vec<LinkError> {
        let mut failed = Vec::new();
        for undo in undos.iter().rev() {
            failed.extend(self.undo(undo).await.err());
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_of_the_same_interface_go_with_it() {
        let name: InterfaceName = "virbr0".parse().unwrap();
        let made = Undo::Link { name: name.clone(), index: 4 };
        let up = |name: &str, index| Undo::Up { name: name.parse().unwrap(), index };
        let address = "192.168.122.1/24".parse().unwrap();
        assert!(up("virbr0", 4).goes_with(&made));
        assert!(Undo::Address { name: name.clone(), index: 4, address }.goes_with(&made));
        for other in [up("virbr0", 5), up("virbr1", 4), made.clone()] {
            assert!(!other.goes_with(&made), "{other:?}");
        }
        assert!(!up("virbr0", 4).goes_with(&Undo::Marked { name, mark: 4 }));
    }

    /// A newer version must still be able to read this written form.
    #[test]
    fn the_written_form_stays() {
        let name: InterfaceName = "virbr0".parse().unwrap();
        let route = Route { to: "10.9.0.0/16".parse().unwrap(), via: None, metric: None };
        let address = "192.168.122.1/24".parse().unwrap();
        let undos = [
            Undo::Marked { name: name.clone(), mark: 77 },
            Undo::Link { name: name.clone(), index: 4 },
            Undo::Up { name: name.clone(), index: 4 },
            Undo::Address { name: name.clone(), index: 4, address },
            Undo::Route { name: name.clone(), index: 4, route },
            Undo::Port { name, index: 5, bridge: 4 },
        ];
        let written = [
            r#"{"undo":"marked","name":"virbr0","mark":77}"#,
            r#"{"undo":"link","name":"virbr0","index":4}"#,
            r#"{"undo":"up","name":"virbr0","index":4}"#,
            r#"{"undo":"address","name":"virbr0","index":4,"address":"192.168.122.1/24"}"#,
            r#"{"undo":"route","name":"virbr0","index":4,"route":{"to":"10.9.0.0/16"}}"#,
            r#"{"undo":"port","name":"virbr0","index":5,"bridge":4}"#,
        ];
        for (undo, written) in undos.iter().zip(written) {
            assert_eq!(serde_json::to_string(undo).unwrap(), written);
            assert_eq!(serde_json::from_str::<Undo>(written).unwrap(), *undo);
        }
    }
}
