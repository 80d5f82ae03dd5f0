//! Gives a port that has a filter another filter, other parameters or another MAC address.
//!
//! The rules of the new binding replace those of the old one in one transaction, so the port is
//! open at no moment. The status file keeps the old binding until the new rules are set. So if the
//! command is interrupted, the next command sets the rules of the old binding again, or completes
//! the change ([`super::unfinished`]).
//!
//! # Learned addresses
//!
//! The learner of the port goes on if both bindings learn the address of the same guest by the same
//! method. Otherwise it ends before the rules change, and a new one starts if the new binding needs
//! the address. The new rules have the address that is known if the new binding accepts it
//! ([`Bindings::saved_lease`]), and let the guest get an address otherwise. A learner that ends
//! late cannot change the port, because it no longer holds the learner lock of the port.

use super::bridge::{check_linkdev, check_mac};
use super::compile_port::{CompiledPort, LearnedAddresses, compile_port, method, method6};
use super::desired_port::DesiredPort;
use super::dhcp_only::with_method;
use super::index::{Overview, OwnPort};
use super::lock::Lock;
use super::summary::PortSummary;
use super::{BindingError, Bindings, Created, PortStatus, bridge, log};
use crate::nwfilter::learn::SavedLease;
use crate::nwfilter::{Binding, Compiler};

/// The compiled rules of the new binding.
struct Prepared {
    /// The status of the port with the old binding.
    old: PortStatus,
    /// The status of the port with the new binding.
    new: PortStatus,
    /// The saved lease that the new rules use.
    saved: Option<SavedLease>,
    addresses: LearnedAddresses,
    compiled: CompiledPort,
    /// A note for the user.
    note: Option<String>,
    /// Whether the learner of the old binding goes on.
    keeps_learner: bool,
}

/// The lock, with the new binding and the other ports as read under it.
struct Swap {
    lock: Lock,
    binding: Binding,
    prepared: Prepared,
    others: Vec<PortSummary>,
    stale: Vec<PortStatus>,
}

impl Bindings {
    /// Gives a port that has a filter another binding, in one transaction. A binding without an
    /// owner keeps the owner of the old one. The result has no learner if the learner of the old
    /// binding goes on. Needs a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// [`BindingError`]; the port then keeps its old rules, but its learner may have ended. See
    /// [`unattended`](Self::unattended).
    pub async fn replace(&self, binding: &Binding) -> Result<Created, BindingError> {
        let Swap { lock, binding, prepared, others, stale } = self.start_swap(binding).await?;
        let Prepared { old, new, saved, addresses, compiled, note, keeps_learner } = prepared;
        let learning = match compiled.method.clone().filter(|_| !keeps_learner) {
            // The capture opens before the rules let frames through that teach the address.
            Some(method) => Some(self.listen(&new, &binding, method, saved.clone()).await?),
            None => None,
        };
        let desired = DesiredPort::new(
            old.clone(),
            compiled.rules.clone(),
            compiled.pending_rules.clone(),
            addresses.clone(),
        );
        let desired = DesiredPort { target: new.clone(), ..desired };
        let change = self.change(&lock, vec![desired], &stale, &others);
        let changed = self.with_marker(change).await?;
        self.write_index(&lock, others, &changed);
        if saved.is_none() && !keeps_learner {
            log(self.forget_lease(&old).err());
        }
        drop(lock);
        // Race: another command may have started a learner of the old binding in the meantime.
        if old.learns && !new.learns {
            log(self.dismiss_learner(&new.port, new.index).await.err());
        }
        log(learning.as_ref().and_then(|learning| learning.count_tests().err()));
        // The learner compares its address with that of the rules.
        let learning = learning.map(|learning| learning.with_rules(&addresses));
        let mut notes = self.notes(&binding, &compiled);
        notes.extend(note);
        Ok(Created { notes, learning })
    }

    /// Takes the lock and compiles the rules. If the learner of the old binding must end, it has
    /// ended when this returns. An error in the new binding is found before that.
    async fn start_swap(&self, binding: &Binding) -> Result<Swap, BindingError> {
        let port = &binding.port;
        let index = self.index_of(port)?;
        loop {
            let (lock, overview) = self.lock_for(OwnPort::Numbered(index)).await?;
            let Overview { own, others, stale } = overview;
            lock.check(port)?;
            let Some(old) = own else {
                return Err(BindingError::Unbound(port.clone()));
            };
            let mut binding = binding.clone();
            let prepared = self.prepare(old, &mut binding, &others).await?;
            if prepared.keeps_learner || !self.locks.is_held(index) {
                return Ok(Swap { lock, binding, prepared, others, stale });
            }
            // The learner may be waiting for this lock, so release it and ask the learner to leave.
            drop(lock);
            self.dismiss_learner(port, index).await?;
        }
    }

    /// Compiles the rules of the new binding with the address that is known.
    async fn prepare(
        &self,
        old: PortStatus,
        binding: &mut Binding,
        others: &[PortSummary],
    ) -> Result<Prepared, BindingError> {
        let old_binding = self.binding(&old)?;
        if binding.owner.is_none() {
            binding.owner = old_binding.owner.clone();
        }
        let neighborhood = bridge::of_port(&binding.port, old.index).await?;
        check_linkdev(binding, &neighborhood)?;
        check_mac(binding)?;
        let filters = self.store.tree(&binding.filter)?;
        let (with_method, note) = with_method(binding, neighborhood.hooks, &filters)?;
        *binding = with_method;
        let mut new = PortStatus {
            bridge: neighborhood.bridge,
            hooks: neighborhood.hooks,
            lower: neighborhood.lower,
            xml: binding.to_xml(),
            ..old.clone()
        };
        self.check_binding_address(&new, binding, others).await?;
        let mut compiler = Compiler::new(&filters);
        let unknown = LearnedAddresses::of(None, true, true);
        let pending = compile_port(binding, &mut compiler, &unknown)?;
        pending.set_learning(&mut new);
        let keeps_learner = new.learns && learns_the_same((&old, &old_binding), (&new, binding))?;
        let saved = match &pending.method {
            None => None,
            // The rules of the old binding may have the address, so it is not checked again.
            Some(_) if keeps_learner => self.saved_lease(&old, binding)?,
            Some(_) => match self.saved_lease(&new, binding)? {
                Some(saved) => self.free_lease(saved, &new, others).await?,
                None => None,
            },
        };
        if !keeps_learner {
            (new.refused, new.refused6) = (None, None);
        }
        let (addresses, compiled) = match pending.method {
            None => (LearnedAddresses::NONE, pending),
            Some(_) => {
                let addresses =
                    LearnedAddresses::of(saved.as_ref(), pending.learns4, pending.learns6);
                let compiled = compile_port(binding, &mut compiler, &addresses)?;
                (addresses, compiled)
            }
        };
        Ok(Prepared { old, new, saved, addresses, compiled, note, keeps_learner })
    }
}

/// Returns whether two bindings of a port learn the addresses of the same guest in the same way.
fn learns_the_same(
    (old, old_binding): (&PortStatus, &Binding),
    (new, new_binding): (&PortStatus, &Binding),
) -> Result<bool, BindingError> {
    let versions = |status: &PortStatus| (status.learns, status.learns4(), status.learns6);
    if versions(old) != versions(new) || old_binding.mac != new_binding.mac {
        return Ok(false);
    }
    let (old, new) = (old_binding.variables(), new_binding.variables());
    Ok(method(&old)? == method(&new)? && method6(&old)? == method6(&new)?)
}
