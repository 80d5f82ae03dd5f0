//! A network's start: the order of its steps, and what stands in its way.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::status::Status;
use super::step::Begun;
use super::zone::{self, Zones};
use super::{Driver, DriverError, Place, config};
use crate::dnsmasq::{self, DhcpDns, Dnsmasq, Files};
use crate::firewall::Transaction;
use crate::link::{HostNet, Netlink};
use crate::network::{Network, NetworkName, check_against};
use crate::probe::program::find;

impl Driver {
    /// Starts a network. Returns the steps of other networks that could not be undone, a sentence
    /// each.
    ///
    /// # Errors
    /// [`DriverError`]; then the host is as it was before, but for steps that are reported by
    /// `tracing` and kept in the status.
    pub async fn start(&self, name: &NetworkName) -> Result<Vec<String>, DriverError> {
        let tools = self.lock().await?;
        let collected = self.collect(&tools).await?;
        self.check_status(name)?;
        self.check_reach(name)?;
        let mut notes = Vec::new();
        for left in collected.into_iter().filter(|left| !left.failed.is_empty()) {
            if left.name == *name {
                return Err(left.into());
            }
            notes.extend(left.sentences());
        }
        let network = self.store.get(name)?.network;
        let others = self.here()?;
        if others.iter().any(|status| status.name == *name) {
            return Err(DriverError::Active(name.clone()));
        }
        let netlink = Netlink::open()?;
        let host = netlink.host().await?;
        self.check(&network, &others, &host)?;
        let rulesets = self.rulesets(&network)?;
        let files = Files::in_dir(&self.dir().join(name.as_str()));
        let served = config::served(&network, files.clone())?;
        let dnsmasq = served.as_ref().map(|_| self.dnsmasq()).transpose()?;
        let mut zones = Zones::ready(&self.settings.system_bus).await?;
        let zone = match &mut zones {
            Some(zones) => zones.change(&network).await?,
            None => zone::without_firewalld(&network)?,
        };

        let place = Place::here().map_err(DriverError::Place)?;
        let mut status = Status::new(&network, &self.dir().join(name.as_str()), place);
        let begun = Begun { driver: self, netlink: &netlink, host: &host };
        let done = async {
            status.write()?;
            begun.link(&network, &mut status).await?;
            if let (Some(zones), Some(zone)) = (&mut zones, zone) {
                zones.put(zone, &mut status).await?;
            }
            begun.settings(&network, &mut status)?;
            if !rulesets.is_empty() {
                let add = [rulesets];
                let transaction = Transaction {
                    remove: &[],
                    add: &add,
                    others: self.in_nft(Some(name), &others),
                };
                let backends = self.backends(&others);
                let record = |backend, mut added: Vec<_>| {
                    (status.backend, status.firewall) = (Some(backend), added.pop());
                    status.write()
                };
                if let Err(error) = self.set_rules(&tools, &backends, &transaction, record).await {
                    if error.left_as_before() {
                        status.firewall = None;
                    }
                    return Err(error);
                }
            }
            if let (Some(program), Some(config)) = (dnsmasq, served) {
                serve(&program, &config, &mut status).await?;
            }
            status.complete = true;
            status.reserve()?;
            status.write()?;
            Ok(())
        };
        let Err(error) = done.await else { return Ok(notes) };
        for what in self.undo(&tools, &mut status, &others).await {
            tracing::warn!("the network {name} is not completely undone: {what}");
        }
        Err(error)
    }

    /// Whether there is room for the network: beside those that run, and on the host.
    fn check(
        &self,
        network: &Network,
        others: &[Status],
        host: &HostNet,
    ) -> Result<(), DriverError> {
        let name = &network.name;
        let running: Vec<Network> = others.iter().filter_map(Status::network).collect();
        check_against(network, &running)
            .map_err(|problem| DriverError::Beside { name: name.clone(), what: problem.what })?;
        let bridge = &network.bridge.name;
        if host.link(bridge).is_some() {
            return Err(DriverError::Bridge { name: name.clone(), bridge: bridge.clone() });
        }
        for subnet in network.subnets() {
            if subnet.addr().is_ipv6() && !self.has_ipv6()? {
                return Err(DriverError::NoIpv6 { name: name.clone(), subnet });
            }
            if let Some(conflict) = host.conflict(subnet, None) {
                return Err(DriverError::Subnet { name: name.clone(), subnet, conflict });
            }
        }
        Ok(())
    }

    /// Where the program is.
    pub(super) fn dnsmasq(&self) -> Result<PathBuf, DriverError> {
        let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let dirs: Vec<PathBuf> = self.settings.path.iter().cloned().chain(system).collect();
        let name = OsStr::new("dnsmasq");
        let lookup = find(name, &dirs);
        match lookup.problem(name, dnsmasq::INSTALL) {
            Some(problem) => Err(DriverError::NoDnsmasq(problem)),
            None => Ok(lookup.found().unwrap_or_else(|| name.into())),
        }
    }

    /// Starts every network that is marked for it and does not run.
    pub async fn autostart(&self) -> Vec<Result<NetworkName, DriverError>> {
        let (defined, broken) = match self.store.list() {
            Ok(list) => list,
            Err(error) => return vec![Err(error.into())],
        };
        let mut results: Vec<_> =
            broken.into_iter().map(|broken| Err(DriverError::Store(broken.error))).collect();
        for definition in defined.into_iter().filter(|definition| definition.autostart) {
            let name = definition.network.name;
            match self.start(&name).await {
                Ok(notes) => {
                    for note in notes {
                        tracing::warn!("{note}");
                    }
                    results.push(Ok(name));
                }
                Err(DriverError::Active(_)) => {}
                Err(error) => results.push(Err(error)),
            }
        }
        results
    }
}

/// Ends the processes that are left of a network's dnsmasq and starts it. The status has its record
/// before and afterwards.
pub(super) async fn serve(
    program: &Path,
    config: &DhcpDns,
    status: &mut Status,
) -> Result<(), DriverError> {
    if status.dnsmasq {
        // The new record replaces this one, by which those processes are found.
        Dnsmasq::end(status.served.as_ref(), &config.files).await?;
    }
    let mut record = Dnsmasq::plan(program, config)?;
    (status.dnsmasq, status.served) = (true, Some(record.clone()));
    status.write()?;
    Dnsmasq::start(program, config, &mut record).await?;
    status.served = Some(record);
    Ok(status.write()?)
}
