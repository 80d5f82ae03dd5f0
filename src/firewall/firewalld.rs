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
//! Asking must not start firewalld, which D-Bus would do for a message to its name: messages go to
//! the process that owns the name, by that one's own. firewalld owns the name before it is done
//! with its start and answers afterwards, so an answer says that its rules are there.
//!
//! The interface is described in firewalld.dbus(5).

use std::fmt::Display;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream as Plain};
use std::time::Duration;

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::time::timeout;
use zbus::address::transport::{Transport, UnixSocket};
use zbus::connection::Builder;
use zbus::message::Type;
use zbus::zvariant::DynamicType;
use zbus::{Address, Connection, MatchRule, Message, MessageStream};

use crate::types::InterfaceName;

/// The name that firewalld owns while it runs, and its interface for everything but zones.
const NAME: &str = "org.fedoraproject.FirewallD1";
/// The interface for zones.
const ZONE: &str = "org.fedoraproject.FirewallD1.zone";
/// Its object.
const PATH: &str = "/org/fedoraproject/FirewallD1";
/// The bus itself: name and interface.
const BUS: &str = "org.freedesktop.DBus";
/// Its object.
const BUS_PATH: &str = "/org/freedesktop/DBus";
/// How long the bus may take to let us in.
const ENTRY: Duration = Duration::from_secs(10);
/// How long an answer may take: firewalld gives none while it starts or reloads, which takes
/// seconds, and longer with many rules.
const PATIENCE: Duration = Duration::from_secs(60);

/// A firewalld that runs.
#[derive(Debug)]
pub struct Firewalld {
    bus: Connection,
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
    /// The bus's address is none of a socket.
    #[error(
        "{0:?} is no address of a system bus; set DBUS_SYSTEM_BUS_ADDRESS to one such as unix:path=/run/dbus/system_bus_socket, or unset it"
    )]
    Address(String),
    /// There is no bus.
    #[error("there is no system bus at {address}: {source}; start D-Bus")]
    NoBus {
        /// Its address.
        address: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The bus cannot be used.
    #[error("the system bus cannot be used: {source}; see the log of D-Bus")]
    Bus {
        /// What is wrong.
        source: Box<zbus::Error>,
    },
    /// The bus went away.
    #[error("the system bus closed the connection; start D-Bus again")]
    Closed,
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

impl FirewalldError {
    fn bus(source: zbus::Error) -> Self {
        FirewalldError::Bus { source: Box::new(source) }
    }
}

impl Firewalld {
    /// The firewalld on the bus at this address; `None` where none runs, or there is no bus that
    /// one could be on. Never starts it.
    ///
    /// # Errors
    /// The bus is there and cannot be used.
    pub async fn find(address: &str) -> Result<Option<Self>, FirewalldError> {
        let bus = match enter(address).await {
            Ok(bus) => bus,
            Err(FirewalldError::NoBus { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let reply = bus.call_method(Some(BUS), BUS_PATH, Some(BUS), "GetNameOwner", &NAME).await;
        match reply.and_then(|reply| reply.body().deserialize()) {
            Ok(owner) => Ok(Some(Firewalld { bus, owner })),
            Err(error) if said_by_the_bus(&error, &["NameHasNoOwner"]) => Ok(None),
            Err(error) => Err(FirewalldError::bus(error)),
        }
    }

    /// The zones it has. Once this is answered, its rules are there.
    ///
    /// # Errors
    /// It did not answer as it should.
    pub async fn zones(&self) -> Result<Vec<String>, FirewalldError> {
        let what = || "list its zones".to_owned();
        let reply = self.ask("getZones", &(), what).await?;
        reply.body().deserialize().map_err(FirewalldError::bus)
    }

    /// The zone that this interface was put into; `None` for none, which means the default zone.
    /// The interface need not exist.
    ///
    /// # Errors
    /// It did not answer as it should.
    pub async fn zone_of(&self, link: &InterfaceName) -> Result<Option<String>, FirewalldError> {
        let what = || format!("tell the zone of {link}");
        let reply = self.ask("getZoneOfInterface", &link.as_str(), what).await?;
        let zone: String = reply.body().deserialize().map_err(FirewalldError::bus)?;
        Ok(Some(zone).filter(|zone| !zone.is_empty()))
    }

    /// Puts an interface into a zone, out of the one it is in, until firewalld reloads or ends.
    ///
    /// # Errors
    /// It refused; the interface is where it was.
    pub async fn put(&self, link: &InterfaceName, zone: &str) -> Result<(), FirewalldError> {
        let what = || format!("put {link} into the zone {zone}");
        // Like addInterface, but content with one that is in this zone or another.
        self.ask("changeZoneOfInterface", &(zone, link.as_str()), what).await.map(drop)
    }

    /// Takes a change back; nothing to do where the interface has left that zone meanwhile, or
    /// firewalld has ended.
    ///
    /// # Errors
    /// It refused.
    pub async fn undo(
        &self,
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
                    let both = (change.zone.as_str(), link.as_str());
                    self.ask("removeInterface", &both, what).await.map(drop)
                }
            }
        };
        match undone.await {
            // What it had was at run time only, and went with it.
            Err(FirewalldError::Gone { .. }) => Ok(()),
            other => other,
        }
    }

    async fn ask<B: Serialize + DynamicType>(
        &self,
        method: &str,
        body: &B,
        what: impl FnOnce() -> String,
    ) -> Result<Message, FirewalldError> {
        let owner = self.owner.as_str();
        let reply = self.bus.call_method(Some(owner), PATH, Some(ZONE), method, body).await;
        reply.map_err(|error| match error {
            // NoReply is the bus's word for a process that left before it answered.
            error if said_by_the_bus(&error, &["ServiceUnknown", "NameHasNoOwner", "NoReply"]) => {
                FirewalldError::Gone { what: what() }
            }
            zbus::Error::MethodError(name, said, _) => FirewalldError::Refused {
                what: what(),
                said: said.as_deref().and_then(last_line).unwrap_or(name.as_str()).to_owned(),
            },
            zbus::Error::InputOutput(error) if error.kind() == io::ErrorKind::TimedOut => {
                FirewalldError::Slow { what: what() }
            }
            error => FirewalldError::bus(error),
        })
    }
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

impl Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
    reloads: MessageStream,
    owners: MessageStream,
}

impl Watch {
    /// Begins to listen; firewalld need not run.
    ///
    /// # Errors
    /// There is no bus, or it cannot be used.
    pub async fn open(address: &str) -> Result<Self, FirewalldError> {
        let bus = enter(address).await?;
        // The bus looks at the sender: no other process can speak for firewalld.
        let signal = || MatchRule::builder().msg_type(Type::Signal);
        let streams = async {
            let reloads = signal().sender(NAME)?.path(PATH)?.interface(NAME)?.member("Reloaded")?;
            let owners = signal().sender(BUS)?.path(BUS_PATH)?.interface(BUS)?;
            let owners = owners.member("NameOwnerChanged")?.arg(0, NAME)?;
            Ok(Watch {
                reloads: MessageStream::for_match_rule(reloads.build(), &bus, None).await?,
                owners: MessageStream::for_match_rule(owners.build(), &bus, None).await?,
            })
        };
        streams.await.map_err(FirewalldError::bus)
    }

    /// Waits for the next event. Events that come in the meantime are kept.
    ///
    /// # Errors
    /// The bus is gone.
    pub async fn next(&mut self) -> Result<Event, FirewalldError> {
        let (message, reload) = tokio::select! {
            message = self.reloads.next() => (message, true),
            message = self.owners.next() => (message, false),
        };
        let message = message.ok_or(FirewalldError::Closed)?.map_err(|error| match error {
            zbus::Error::InputOutput(_) => FirewalldError::Closed,
            error => FirewalldError::bus(error),
        })?;
        if reload {
            return Ok(Event::Reloaded);
        }
        let body = message.body();
        let (_, _, new): (&str, &str, &str) = body.deserialize().map_err(FirewalldError::bus)?;
        Ok(if new.is_empty() { Event::Ended } else { Event::Started })
    }
}

/// A connection to the bus at this address.
async fn enter(address: &str) -> Result<Connection, FirewalldError> {
    let wrong = || FirewalldError::Address(address.to_owned());
    let parsed: Address = address.parse().map_err(|_| wrong())?;
    let Transport::Unix(unix) = parsed.transport() else { return Err(wrong()) };
    // We connect ourselves: zbus would make a thread for it.
    let connected = match unix.path() {
        UnixSocket::File(path) => UnixStream::connect(path).await,
        UnixSocket::Abstract(name) => SocketAddr::from_abstract_name(name.as_encoded_bytes())
            .and_then(|address| Plain::connect_addr(&address))
            .and_then(|socket| {
                socket.set_nonblocking(true)?;
                UnixStream::from_std(socket)
            }),
        _ => return Err(wrong()),
    };
    let socket = connected.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            FirewalldError::NoBus { address: address.to_owned(), source }
        }
        _ => FirewalldError::bus(source.into()),
    })?;
    let builder = Builder::unix_stream(socket).method_timeout(PATIENCE);
    match timeout(ENTRY, builder.build()).await {
        Ok(entered) => entered.map_err(FirewalldError::bus),
        Err(_) => Err(FirewalldError::bus(io::Error::from(io::ErrorKind::TimedOut).into())),
    }
}

/// Whether this is an answer of the bus instead of firewalld, one of these of its errors.
fn said_by_the_bus(error: &zbus::Error, names: &[&str]) -> bool {
    let zbus::Error::MethodError(name, ..) = error else { return false };
    let name = name.as_str().strip_prefix("org.freedesktop.DBus.Error.");
    name.is_some_and(|name| names.contains(&name))
}

/// The last line that says something: a trace of Python's ends with what went wrong.
fn last_line(said: &str) -> Option<&str> {
    said.lines().map(str::trim).rfind(|line| !line.is_empty())
}
