//! firewalld, asked and told over D-Bus.
//!
//! # Why
//!
//! A packet must be let through by every table, so what ours lets through firewalld's may still
//! refuse: an interface that is in none of its zones belongs to the default one, usually `public`,
//! which lets guests neither ask the host for an address or a name nor send anything beyond it. So
//! a network's bridge is put into a zone that does. Measured with firewalld 1.3.3:
//!
//! - The zone of an interface that was put there at run time is forgotten when firewalld reloads
//!   (`FlushAllOnReload=yes`, its default) or starts again.
//! - Of nftables it changes no table but its own. Of iptables it removes everyone's chains when it
//!   reloads and when it ends, whichever of the two is its own backend.
//!
//! Hence [`Watch`], which tells when zone and rules are to be put back. Zones are never made
//! permanent: firewalld would keep that of a bridge that is gone.
//!
//! # How
//!
//! Asking does not start firewalld, which the bus would do for a message to its name: messages go to
//! the process that owns the name, by that one's own. firewalld owns the name before it is done
//! with its start and answers afterwards, so an answer says that its rules are there.
//!
//! The interface is described in firewalld.dbus(5).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dbus::message::{Call, Malformed};
use crate::dbus::{BUS, BUS_PATH, Bus, BusError};
use crate::types::InterfaceName;

/// The name that firewalld owns while it runs, and its interface for everything but zones.
const NAME: &str = "org.fedoraproject.FirewallD1";
/// The interface for zones.
const ZONE: &str = "org.fedoraproject.FirewallD1.zone";
/// Its object.
const PATH: &str = "/org/fedoraproject/FirewallD1";
/// How long an answer may take: firewalld gives none while it starts or reloads, which takes
/// seconds, and longer with many rules.
const PATIENCE: Duration = Duration::from_secs(60);

/// A firewalld that runs.
#[derive(Debug)]
pub struct Firewalld {
    bus: Bus,
    /// The unique name of its process on the bus.
    owner: String,
}

/// The zone that an interface was put into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneChange {
    /// The zone.
    pub zone: String,
    /// The one it was in before; `None` for none, which means the default zone.
    pub before: Option<String>,
}

/// Why firewalld was not asked, or did not do it.
#[derive(Debug, thiserror::Error)]
pub enum FirewalldError {
    /// The bus cannot be used.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// firewalld refused.
    #[error("firewalld cannot {what}: {said}; see its log, /var/log/firewalld")]
    Refused {
        /// What it was to do.
        what: String,
        /// Its words.
        said: String,
    },
    /// It did not answer.
    #[error("firewalld gave no answer within {} s when it was to {what}; see its log, /var/log/firewalld", PATIENCE.as_secs())]
    Slow {
        /// What it was to do.
        what: String,
    },
    /// It ended meanwhile.
    #[error("firewalld ended when it was to {what}; try again")]
    Gone {
        /// What it was to do.
        what: String,
    },
}

impl Firewalld {
    /// The firewalld on the bus at this address; `None` where none runs, or there is no bus that
    /// one could be on. Does not start it.
    ///
    /// # Errors
    /// The bus is there and cannot be used.
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

    /// The zones it has. Once this is answered, its rules are there.
    ///
    /// # Errors
    /// It did not answer as it should.
    pub async fn zones(&mut self) -> Result<Vec<String>, FirewalldError> {
        self.ask("getZones", &[], || "list its zones".to_owned()).await
    }

    /// The zone that this interface was put into; `None` for none, which means the default zone.
    /// The interface need not exist.
    ///
    /// # Errors
    /// It did not answer as it should.
    pub async fn zone_of(
        &mut self,
        link: &InterfaceName,
    ) -> Result<Option<String>, FirewalldError> {
        let what = || format!("tell the zone of {link}");
        let zone = single(self.ask("getZoneOfInterface", &[link.as_str()], what).await?)?;
        Ok(Some(zone).filter(|zone| !zone.is_empty()))
    }

    /// Puts an interface into a zone, out of the one it is in, until firewalld reloads or ends.
    ///
    /// # Errors
    /// It refused; the interface is where it was.
    pub async fn put(&mut self, link: &InterfaceName, zone: &str) -> Result<(), FirewalldError> {
        let what = || format!("put {link} into the zone {zone}");
        // Like addInterface, but content with one that is in this zone or another.
        self.ask("changeZoneOfInterface", &[zone, link.as_str()], what).await.map(drop)
    }

    /// Takes a change back; nothing to do where the interface has left that zone meanwhile, or
    /// firewalld has ended.
    ///
    /// # Errors
    /// It refused.
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
                    let what = || format!("take {link} out of the zone {}", change.zone);
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

    /// Confirms that firewalld has ended: then the zones that it had at run time went with it. The
    /// bus sends NoReply also for an answer that it gave up on.
    async fn has_ended(
        &mut self,
        link: &InterfaceName,
        change: &ZoneChange,
    ) -> Result<(), FirewalldError> {
        match self.bus.call_bus("GetNameOwner", &[&self.owner]).await {
            Err(error) if error.is(&["NameHasNoOwner"]) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Err(FirewalldError::Refused {
                what: format!("take {link} out of the zone {}", change.zone),
                said: "it runs and gave no answer".to_owned(),
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
        self.bus.call(&call, PATIENCE).await.map_err(|error| match error {
            // NoReply is the bus's word for a process that left before it answered.
            error if error.is(&["ServiceUnknown", "NameHasNoOwner", "NoReply"]) => {
                FirewalldError::Gone { what: what() }
            }
            BusError::Refused { said, .. } => FirewalldError::Refused { what: what(), said },
            BusError::Slow(_) => FirewalldError::Slow { what: what() },
            error => error.into(),
        })
    }
}

/// The one text of an answer.
fn single(answer: Vec<String>) -> Result<String, BusError> {
    answer.into_iter().next().ok_or(BusError::Malformed(Malformed))
}

/// What happened to firewalld.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It has reloaded.
    Reloaded,
    /// It was started and may not be done with that.
    Started,
    /// It has ended.
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

/// Tells what happens to firewalld, from the moment it was opened.
#[derive(Debug)]
pub struct Watch {
    bus: Bus,
}

impl Watch {
    /// Begins to listen; firewalld need not run.
    ///
    /// # Errors
    /// There is no bus, or it cannot be used.
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

    /// Waits for the next event. Events that come in the meantime are kept.
    ///
    /// # Errors
    /// The bus is gone.
    pub async fn next(&mut self) -> Result<Event, FirewalldError> {
        loop {
            let signal = self.bus.signal().await?;
            let member = signal.member.as_deref().unwrap_or_default();
            match (signal.interface.as_deref().unwrap_or_default(), member) {
                (NAME, "Reloaded") => return Ok(Event::Reloaded),
                (BUS, "NameOwnerChanged") => {
                    // The name, its owner of before, its owner now.
                    let texts = signal.texts().map_err(BusError::from)?;
                    let ended = texts.get(2).is_none_or(String::is_empty);
                    return Ok(if ended { Event::Ended } else { Event::Started });
                }
                // The bus also tells us our own name.
                _ => {}
            }
        }
    }
}
