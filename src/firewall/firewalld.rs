//! Asks firewalld over D-Bus to let a network's bridge through.
//!
//! # Why
//!
//! A packet passes only if every table lets it through, so a packet that netlaunch's table accepts
//! can still be refused by firewalld's. An interface without a zone belongs to the default zone,
//! usually `public`. That zone does not let guests ask the host for an address or a name, nor send
//! packets beyond the host. So netlaunch puts a network's bridge into a zone that allows this.
//! Measured with firewalld 1.3.3:
//!
//! - firewalld forgets the zone of an interface that was added at run time when it reloads
//!   (`FlushAllOnReload=yes`, its default) or restarts.
//! - With nftables, firewalld changes only its own table. With iptables, it removes the chains of
//!   all programs when it reloads and when it ends, whichever of the two is its own backend.
//!
//! So [`Watch`] reports when netlaunch must restore the zone and the rules. netlaunch never makes a
//! zone permanent: firewalld would keep the entry of a bridge that no longer exists.
//!
//! # How
//!
//! A message to a well-known name makes the bus start firewalld. So netlaunch sends its messages to
//! the unique name of the process that owns the well-known name. firewalld takes the name before
//! its start is complete and answers only afterwards, so an answer proves that its rules exist.
//!
//! The interface is described in firewalld.dbus(5).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::firewall::dbus::message::{Call, Malformed};
use crate::firewall::dbus::{BUS, BUS_PATH, Bus, BusError};
use crate::types::InterfaceName;

/// The bus name that firewalld owns while it runs, and its interface for signals.
const NAME: &str = "org.fedoraproject.FirewallD1";
/// The interface for zones.
const ZONE: &str = "org.fedoraproject.FirewallD1.zone";
/// The path of firewalld's object.
const PATH: &str = "/org/fedoraproject/FirewallD1";
/// The time limit for an answer. firewalld does not answer while it starts or reloads, which takes
/// seconds, and longer with many rules.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A connection to a running firewalld.
#[derive(Debug)]
pub struct Firewalld {
    bus: Bus,
    /// The unique bus name of firewalld's process.
    owner: String,
}

/// The zone that netlaunch put an interface into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneChange {
    /// The new zone.
    pub zone: String,
    /// The zone from before; `None` means that the interface was in the default zone.
    pub before: Option<String>,
}

/// The reason why a request to firewalld failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirewalldError {
    /// The bus cannot be used.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// firewalld refused the request.
    #[error("firewalld cannot {what}: {said}; see its log, /var/log/firewalld")]
    Refused {
        /// The request, as a verb phrase.
        what: String,
        /// The error text of firewalld.
        said: String,
    },
    /// firewalld did not answer in time.
    #[error("firewalld did not {what} within {} s; see its log, /var/log/firewalld", ANSWER_LIMIT.as_secs())]
    Slow {
        /// The request, as a verb phrase.
        what: String,
    },
    /// firewalld ended before it answered.
    #[error("firewalld ended before it could {what}; try again")]
    Gone {
        /// The request, as a verb phrase.
        what: String,
    },
}

impl From<Malformed> for FirewalldError {
    fn from(error: Malformed) -> Self {
        FirewalldError::Bus(error.into())
    }
}

impl Firewalld {
    /// Connects to the firewalld on the bus at this address. Returns `None` if firewalld does not
    /// run or the bus does not exist. Does not start firewalld.
    ///
    /// # Errors
    /// Returns an error if the bus exists but cannot be used.
    pub async fn find(address: &str) -> Result<Option<Self>, FirewalldError> {
        let mut bus = match Bus::enter(address).await {
            Ok(bus) => bus,
            Err(BusError::Absent { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match bus.call_bus("GetNameOwner", &[NAME]).await {
            Ok(answer) => Ok(Some(Firewalld { bus, owner: single(answer)? })),
            Err(error) if error.is(&["NameHasNoOwner"]) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the names of firewalld's zones. An answer proves that firewalld's rules exist.
    ///
    /// # Errors
    /// Returns an error if firewalld refuses or does not answer.
    pub async fn zones(&mut self) -> Result<Vec<String>, FirewalldError> {
        self.ask("getZones", &[], || "list its zones".to_owned()).await
    }

    /// Returns the zone of this interface; `None` means that the interface is in the default zone.
    /// The interface need not exist.
    ///
    /// # Errors
    /// Returns an error if firewalld refuses or does not answer.
    pub async fn zone_of(
        &mut self,
        link: &InterfaceName,
    ) -> Result<Option<String>, FirewalldError> {
        let what = || format!("name the zone of {link}");
        let zone = single(self.ask("getZoneOfInterface", &[link.as_str()], what).await?)?;
        Ok(Some(zone).filter(|zone| !zone.is_empty()))
    }

    /// Moves an interface to a zone until firewalld reloads or ends.
    ///
    /// # Errors
    /// Returns an error if the request failed. If firewalld refused, the interface keeps its zone.
    pub async fn put(&mut self, link: &InterfaceName, zone: &str) -> Result<(), FirewalldError> {
        let what = || format!("put {link} into the zone {zone}");
        // Unlike addInterface, this method accepts an interface that is in a zone already.
        self.ask("changeZoneOfInterface", &[zone, link.as_str()], what).await.map(drop)
    }

    /// Undoes a change of zone. Does not change the zone if the interface has left the zone of the
    /// change in the meantime, or if firewalld has ended.
    ///
    /// # Errors
    /// Returns an error if firewalld refuses or does not answer in time.
    pub async fn undo(
        &mut self,
        link: &InterfaceName,
        change: &ZoneChange,
    ) -> Result<(), FirewalldError> {
        let undone = async {
            if self.zone_of(link).await?.as_ref() != Some(&change.zone) {
                return Ok(());
            }
            match &change.before {
                Some(before) => self.put(link, before).await,
                None => {
                    let what = || format!("remove {link} from the zone {}", change.zone);
                    let args = [change.zone.as_str(), link.as_str()];
                    self.ask("removeInterface", &args, what).await.map(drop)
                }
            }
        };
        match undone.await {
            Err(FirewalldError::Gone { .. }) => self.has_ended(link, change).await,
            other => other,
        }
    }

    /// Checks that firewalld has really ended, which also ends its run-time zones. The bus also
    /// sends NoReply if it no longer waits for an answer, so NoReply alone is no proof.
    async fn has_ended(
        &mut self,
        link: &InterfaceName,
        change: &ZoneChange,
    ) -> Result<(), FirewalldError> {
        match self.bus.call_bus("GetNameOwner", &[&self.owner]).await {
            Err(error) if error.is(&["NameHasNoOwner"]) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Err(FirewalldError::Refused {
                what: format!("remove {link} from the zone {}", change.zone),
                said: "firewalld runs and did not answer".to_owned(),
            }),
        }
    }

    async fn ask(
        &mut self,
        member: &str,
        args: &[&str],
        what: impl FnOnce() -> String,
    ) -> Result<Vec<String>, FirewalldError> {
        let call = Call { destination: &self.owner, path: PATH, interface: ZONE, member, args };
        self.bus.call(&call, ANSWER_LIMIT).await.map_err(|error| match error {
            // The bus sends NoReply for a process that ended before it answered.
            error if error.is(&["ServiceUnknown", "NameHasNoOwner", "NoReply"]) => {
                FirewalldError::Gone { what: what() }
            }
            BusError::Refused { said, .. } => FirewalldError::Refused { what: what(), said },
            BusError::Slow(_) => FirewalldError::Slow { what: what() },
            error => error.into(),
        })
    }
}

/// Returns the first text of an answer.
fn single(answer: Vec<String>) -> Result<String, BusError> {
    answer.into_iter().next().ok_or(BusError::Malformed(Malformed))
}

/// A change in the state of firewalld.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// firewalld has reloaded its rules.
    Reloaded,
    /// firewalld was started; its start may not be complete yet.
    Started,
    /// firewalld has ended.
    Ended,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Event::Reloaded => "firewalld has reloaded",
            Event::Started => "firewalld was started",
            Event::Ended => "firewalld has ended",
        })
    }
}

/// Reports the events of firewalld that happen after `open`.
#[derive(Debug)]
pub struct Watch {
    bus: Bus,
}

impl Watch {
    /// Subscribes to the events. firewalld need not run.
    ///
    /// # Errors
    /// Returns an error if the bus does not exist or cannot be used.
    pub async fn open(address: &str) -> Result<Self, FirewalldError> {
        let mut bus = Bus::enter(address).await?;
        for rule in [
            format!(
                "type='signal',sender='{NAME}',path='{PATH}',interface='{NAME}',member='Reloaded'"
            ),
            format!(
                "type='signal',sender='{BUS}',path='{BUS_PATH}',interface='{BUS}',member='NameOwnerChanged',arg0='{NAME}'"
            ),
        ] {
            bus.call_bus("AddMatch", &[&rule]).await?;
        }
        Ok(Watch { bus })
    }

    /// Waits for the next event. Events that arrive between two calls are kept.
    ///
    /// # Errors
    /// Returns an error if the connection to the bus is lost.
    pub async fn next(&mut self) -> Result<Event, FirewalldError> {
        loop {
            let signal = self.bus.signal().await?;
            let member = signal.member.as_deref().unwrap_or_default();
            match (signal.interface.as_deref().unwrap_or_default(), member) {
                (NAME, "Reloaded") => return Ok(Event::Reloaded),
                (BUS, "NameOwnerChanged") => {
                    // The texts are the name, the old owner and the new owner.
                    let texts = signal.texts()?;
                    let ended = texts.get(2).is_none_or(String::is_empty);
                    return Ok(if ended { Event::Ended } else { Event::Started });
                }
                // The bus also announces the name of this connection.
                _ => {}
            }
        }
    }
}
