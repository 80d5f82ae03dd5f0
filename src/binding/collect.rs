//! Taking away what has no port any more and what was cut short, with what was learnt about it; and
//! making the rules of all ports anew.

use nix::net::if_::if_nametoindex;

use super::lock::Lock;
use super::ports::Statuses;
use super::{BindingError, Bindings, Status};
use crate::learn::{Clock, Kept, Lease};
use crate::types::InterfaceName;

impl Bindings {
    /// Takes away what was cut short and what has no port any more.
    ///
    /// # Errors
    /// [`BindingError`].
    pub async fn collect(&self) -> Result<(), BindingError> {
        if !self.dir().exists() {
            return Ok(());
        }
        let (tools, statuses) = self.lock().await?;
        let Statuses { live, stale, .. } = self.settle(&tools, statuses).await?;
        self.collect_learnt()?;
        if stale.is_empty() { Ok(()) } else { self.change(&tools, Vec::new(), &stale, &live).await }
    }

    /// Takes away what was cut short and what has no port any more, for a command that has nothing
    /// else to do with ports. What cannot be taken away is told, and is in no other command's way.
    pub(super) async fn sweep(&self, tools: &Lock, stale: &[Status], live: &[Status]) {
        if !stale.is_empty()
            && let Err(error) = self.change(tools, Vec::new(), stale, live).await
        {
            tracing::warn!("filters of ports that are gone could not be taken away: {error}");
        }
    }

    /// Takes away what was learnt about ports that are gone, and the seats that nobody holds.
    pub(super) fn collect_learnt(&self) -> Result<(), BindingError> {
        let gone = |kept: &Kept| if_nametoindex(kept.port.as_str()) != Ok(kept.index);
        for kept in self.leases.all(&Clock::now())?.iter().filter(|kept| gone(kept)) {
            self.leases.remove(&kept.port)?;
        }
        if let Err(error) = self.seats.collect() {
            tracing::warn!("what was left by who learnt addresses cannot be removed: {error}");
        }
        Ok(())
    }

    /// Forgets what was learnt about a port whose rules are gone. What a DHCP server gave is the
    /// guest's with another filter, too, while the port is there.
    pub(super) fn forget(&self, status: &Status) -> Result<(), BindingError> {
        let given = |lease: Lease| lease.teacher.is_dhcp();
        let stays = |kept: &Kept| kept.index != status.index || kept.lease.is_some_and(given);
        if !self.leases.read(&status.port, &Clock::now())?.is_some_and(|kept| stays(&kept)) {
            self.leases.remove(&status.port)?;
        }
        Ok(())
    }

    /// Puts every port's rules back, by the backend that the settings name now. Returns what was put
    /// back, a sentence each.
    ///
    /// # Errors
    /// [`BindingError`]; then the rules are as they were before.
    pub async fn reload(&self) -> Result<Vec<String>, BindingError> {
        if !self.dir().exists() {
            return Ok(Vec::new());
        }
        let (tools, statuses) = self.lock().await?;
        self.rebuild(&tools, statuses).await
    }

    /// What [`reload`](Self::reload) does under the lock.
    pub(super) async fn rebuild(
        &self,
        tools: &Lock,
        statuses: Statuses,
    ) -> Result<Vec<String>, BindingError> {
        tools.warn_of_damaged();
        self.collect_learnt()?;
        let ports = self.settled_if_possible(self.make_all_anew(tools, statuses)).await?;
        Ok(ports.iter().map(|port| format!("the filter of the port {port} is there")).collect())
    }

    /// Makes the rules of all ports of the definitions and addresses that there are. Returns the
    /// ports.
    pub(super) async fn make_all_anew(
        &self,
        tools: &Lock,
        statuses: Statuses,
    ) -> Result<Vec<InterfaceName>, BindingError> {
        let (bound, others) = self.bound(statuses.live);
        let wanted = self.wanted(&bound, &self.filters()?)?;
        self.change(tools, wanted, &statuses.stale, &others).await?;
        Ok(bound.into_iter().map(|(status, _)| status.port).collect())
    }
}
