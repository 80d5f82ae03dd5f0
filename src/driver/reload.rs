//! Putting back what others took from networks that run: a firewall that was flushed or exchanged, a
//! dnsmasq that ended, zones that firewalld forgot.

use super::place::Whereabouts;
use super::start::serve;
use super::zone::Zones;
use super::{Driver, DriverError, config, entry, status};
use crate::dnsmasq::{Dnsmasq, Files};
use crate::firewall::Transaction;
use crate::network::NetworkName;

impl Driver {
    /// Puts back the rules of all running networks in one transaction, by the backend that the
    /// settings name now, a dnsmasq that is gone, and firewalld's zones. Returns what was put back, a
    /// sentence each.
    ///
    /// # Errors
    /// [`DriverError`]; the rules are as they were before, or they are there and what it names is
    /// not.
    pub async fn reload(&self) -> Result<Vec<String>, DriverError> {
        let tools = self.lock().await?;
        let mut left = self.collect(&tools).await?;
        left.retain(|left| !left.failed.is_empty());
        let mut notes = Vec::new();
        // A network whose definition cannot be read keeps what it has.
        let out_of_reach = self.out_of_reach()?;
        let (mut running, unreadable): (Vec<_>, Vec<_>) = (self.here()?.into_iter())
            .filter(|status| !out_of_reach.contains(&status.name))
            .partition(|status| status.network().is_some());
        for status in &unreadable {
            tracing::warn!("{}", status::broken(&status.dir));
        }
        self.elsewhere(running.is_empty() && unreadable.is_empty(), out_of_reach)?;
        // First: a firewalld that is not done with its start or reload may remove rules yet.
        let zones = match running.is_empty() {
            true => Ok(None),
            false => Zones::ready(&self.settings.system_bus).await,
        };
        let (mut ruled, mut rulesets) = (Vec::new(), Vec::new());
        for status in &mut running {
            let network = status.network().ok_or_else(|| status::broken(&status.dir))?;
            let own = self.rulesets(&network)?;
            // An open network has none.
            if !own.is_empty() {
                ruled.push(status);
                rulesets.push(own);
            }
        }
        if !ruled.is_empty() {
            // What works is found out anew, the first first.
            let backends = self.backends(&[]);
            let before: Vec<_> = ruled.iter().map(|status| status.rules()).collect();
            let remove = before.concat();
            let others = self.in_nft(None, &unreadable);
            let transaction = Transaction { remove: &remove, add: &rulesets, others };
            let record = |backend, added: Vec<_>| {
                for ((status, added), before) in ruled.iter_mut().zip(added).zip(&before) {
                    status.replaced = before.iter().filter(|b| **b != added).cloned().collect();
                    (status.backend, status.firewall) = (Some(backend), Some(added));
                    status.write()?;
                }
                Ok(())
            };
            let backend = match self.set_rules(&tools, &backends, &transaction, record).await {
                Ok(backend) => backend,
                Err(error) if error.left_as_before() => {
                    for (status, before) in ruled.into_iter().zip(before) {
                        status.restore(before)?;
                    }
                    return Err(error);
                }
                Err(error) => return Err(error),
            };
            for status in ruled {
                status.replaced.clear();
                // An earlier netlaunch reserved no space.
                if let Err(error) = status.write().and_then(|()| status.reserve()) {
                    // The status on disk removes the earlier rules as well, which are gone.
                    tracing::warn!("{error}");
                }
                notes.push(format!(
                    "the rules of the network {} are there ({backend})",
                    status.name
                ));
            }
        }
        let zoned = match zones {
            Ok(Some(mut zones)) => zones.put_back(&mut running).await,
            Ok(None) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        };
        for status in running.iter_mut().filter(|status| status.dnsmasq) {
            let files = Files::in_dir(&status.dir);
            // A start that was killed has recorded no process: any that is found may be a fork.
            let recorded = status.served.as_ref().is_none_or(|record| record.process.is_some());
            if recorded && Dnsmasq::find(status.served.as_ref(), &files).is_some() {
                continue;
            }
            let network = status.network().ok_or_else(|| status::broken(&status.dir))?;
            if let Some(config) = config::served(&network, files)? {
                serve(&self.dnsmasq()?, &config, status).await?;
                notes.push(format!(
                    "dnsmasq of the network {} was gone and runs again",
                    status.name
                ));
            }
        }
        notes.extend(zoned?);
        let last = left.pop();
        for other in left {
            other.sentences().iter().for_each(|what| tracing::warn!("{what}"));
        }
        last.map_or(Ok(notes), |left| Err(left.into()))
    }

    /// Reports networks that this command cannot reload; that is an error if there is no other one.
    fn elsewhere(&self, alone: bool, out_of_reach: Vec<NetworkName>) -> Result<(), DriverError> {
        for name in out_of_reach {
            let error = DriverError::OutOfReach(name);
            if alone {
                return Err(error);
            }
            tracing::warn!("{error}");
        }
        for status in self.active()? {
            if let Whereabouts::Elsewhere(file) = status.whereabouts() {
                let (name, entry) = (status.name, entry(file.as_deref()));
                let error = DriverError::Elsewhere { name, entry };
                if alone {
                    return Err(error);
                }
                tracing::warn!("{error}");
            }
        }
        Ok(())
    }
}
