//! What of that which was learnt about a port before is believed now: by another binding, or by
//! another process, and on a host that may have other addresses.

use ipnet::{IpNet, Ipv4Net};

use super::meaning::method;
use super::{BindingError, Bindings, Status, now};
use crate::learn::{Kept, Learner, Lease, Method};
use crate::link::Netlink;
use crate::nwfilter::Binding;

impl Bindings {
    /// What was learnt about a port's guest, still holds, and would be believed by this binding.
    pub(super) fn kept(
        &self,
        status: &Status,
        binding: &Binding,
    ) -> Result<Option<Kept>, BindingError> {
        let kept = self.leases.read(&status.port, now())?;
        let kept = kept.filter(|kept| kept.is_of(status.index, binding.mac));
        // What a mistake in its parameters is, who makes the rules says.
        let method = method(&binding.variables()).ok().flatten();
        let believes = |lease: Lease| method.as_ref().is_some_and(|method| method.believes(&lease));
        Ok(kept.filter(|kept| kept.lease.is_none_or(believes)))
    }

    /// What was learnt for an earlier binding of the same guest to the same port. An address that is
    /// the host's by now is kept no more.
    pub(super) async fn inherited(
        &self,
        status: &Status,
        binding: &Binding,
    ) -> Result<Option<Kept>, BindingError> {
        let Some(kept) = self.kept(status, binding)? else { return Ok(None) };
        let learner = Learner::new(Method::any(Vec::new()), binding.mac, own_addresses().await?);
        if learner.resumed(kept.lease, now()).lease() == kept.lease {
            return Ok(Some(kept));
        }
        self.leases.remove(&status.port)?;
        Ok(None)
    }
}

/// A learner for the guest of a binding.
pub(super) async fn learner(
    binding: &Binding,
    method: Method,
    kept: Option<Kept>,
) -> Result<Learner, BindingError> {
    let learner = Learner::new(method, binding.mac, own_addresses().await?);
    Ok(match kept {
        Some(kept) => learner.resumed(kept.lease, now()),
        None => learner,
    })
}

/// The host's own IPv4 addresses, with their subnets.
pub(super) async fn own_addresses() -> Result<Vec<Ipv4Net>, BindingError> {
    let host = Netlink::open()?.host().await?;
    let own = |net: IpNet| match net {
        IpNet::V4(net) => Some(net),
        IpNet::V6(_) => None,
    };
    Ok(host.addresses.into_iter().filter_map(|address| own(address.address)).collect())
}
