//! Binds a filter to a port, and removes it.

use super::bridge::{check_linkdev, check_mac};
use super::compile_port::{CompiledPort, LearnedAddresses, compile_port};
use super::desired_port::DesiredPort;
use super::dhcp_only::with_method;
use super::index::{Overview, OwnPort};
use super::{BindingError, Bindings, Created, PortState, PortStatus, bridge, log, status};
use crate::firewall::FirewallBackend;
use crate::firewall::port_limits::open_ways;
use crate::firewall::rules::port::PortRules;
use crate::nwfilter::{Binding, Compiler, Evasion, Warning, evasions};
use crate::sys::interfaces::Interfaces;
use crate::types::{InterfaceName, error_text};

impl Bindings {
    /// Binds a filter to a port. Needs a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// [`BindingError`]; the port is then unchanged, or turned off after
    /// [`BindingError::TurnedOff`].
    pub async fn create(&self, binding: &Binding) -> Result<Created, BindingError> {
        let port = &binding.port;
        let index = self.index_of(port)?;
        let (lock, overview) = self.lock_for(OwnPort::Named(port)).await?;
        let Overview { own, others, stale } = overview;
        lock.check(port)?;
        if own.is_some() {
            return Err(BindingError::Bound(port.clone()));
        }
        let neighborhood = bridge::of_port(port, index).await?;
        check_linkdev(binding, &neighborhood)?;
        check_mac(binding)?;
        let filters = self.store.tree(&binding.filter)?;
        let (binding, note) = with_method(binding, neighborhood.hooks, &filters)?;
        let binding = &binding;
        let mut status = PortStatus {
            version: status::VERSION,
            port: port.clone(),
            index,
            bridge: neighborhood.bridge,
            hooks: neighborhood.hooks,
            lower: neighborhood.lower,
            xml: binding.to_xml(),
            state: PortState::Changing { off: false },
            learns: true,
            learns6: true,
            only6: false,
            address: None,
            addresses6: Vec::new(),
            refused: None,
            refused6: None,
            backend: self.settings.firewall_backend.unwrap_or(FirewallBackend::Nftables),
            trace: self.settings.enable_trace,
            counters: self.settings.enable_counters,
            definitions: Some(self.store.dir().to_owned()),
            recorded: Vec::new(),
            renamed_from: None,
        };
        // The saved lease may come from an earlier binding of the same guest to the same port.
        self.check_binding_address(&status, binding, &others).await?;
        let saved = self.lease_of_earlier_binding(&status, binding, &others).await?;
        let addresses = LearnedAddresses::of(saved.as_ref(), true, true);
        let compiled = compile_port(binding, &mut Compiler::new(&filters), &addresses)?;
        compiled.set_learning(&mut status);
        // The capture opens before the rules let frames through that teach the address.
        let learning = match compiled.method.clone() {
            None => None,
            Some(method) => Some(self.listen(&status, binding, method, saved).await?),
        };
        let wanted = DesiredPort::new(
            status,
            compiled.rules.clone(),
            compiled.pending_rules.clone(),
            addresses,
        );
        let fresh = wanted.status.clone();
        match self.change(&lock, vec![wanted], &stale, &others).await {
            Ok(changed) => self.write_index(&lock, others, &changed),
            // An error that was found before a firewall tool ran changed no rule, so the port stays
            // on.
            Err(error) if learning.is_some() && error.was_tried() => {
                return Err(self.turn_off_new(fresh, error).await);
            }
            Err(error) => return Err(error),
        }
        log(learning.as_ref().and_then(|learning| learning.count_tests().err()));
        let mut notes = self.notes(binding, &compiled);
        notes.extend(note);
        Ok(Created { notes, learning })
    }

    /// Returns the notes of a bind: the parameters that no rule uses, the warnings of the
    /// compiler, and the evasions.
    pub(super) fn notes(&self, binding: &Binding, compiled: &CompiledPort) -> Vec<String> {
        let rules = compiled.pending_rules.as_ref().unwrap_or(&compiled.rules);
        let mut notes: Vec<String> = compiled.unused.iter().cloned().collect();
        notes.extend(compiled.warnings.iter().map(Warning::to_string));
        notes.extend(self.evasions_of(binding, rules));
        notes
    }

    /// Returns notes on frames that pass a port's filter unexpectedly. Known gaps in libvirt's own
    /// filters are left to `netlaunch nwfilter check`.
    fn evasions_of(&self, binding: &Binding, rules: &PortRules) -> Vec<String> {
        let variables = binding.variables();
        let address = "IP".parse().ok().and_then(|name| variables.get(&name)?.first());
        let address = address.and_then(|address| address.as_str().parse().ok());
        let found = evasions(rules, binding.mac, address);
        let encapsulated = found.iter().filter(|e| matches!(e, Evasion::Encapsulated { .. }));
        let note = |text: String| format!("the filter {}: {text}", binding.filter);
        let mut notes: Vec<String> = encapsulated.map(|e| note(e.to_string())).collect();
        if let Ok(Some(status)) = status::read(&self.dir(), &binding.port) {
            notes.extend(self.trace_note(&status));
            notes.extend(open_ways(&binding.port, rules, status.backend).into_iter().map(note));
        }
        notes
    }

    /// Returns the interface index of a port.
    pub(super) fn index_of(&self, port: &InterfaceName) -> Result<u32, BindingError> {
        let failed = |source| BindingError::StateDir { dir: self.dir(), source };
        let interfaces = Interfaces::open().map_err(failed)?;
        let Some(index) = interfaces.number(port).map_err(failed)? else {
            return Err(BindingError::NoPort(port.clone()));
        };
        match interfaces.name(index).map_err(failed)? {
            Some(name) if name != *port => {
                Err(BindingError::AnotherName { port: port.clone(), name })
            }
            _ => Ok(index),
        }
    }

    /// Turns off a port that learns and whose first rules could not be set. The port stays bound,
    /// so that a reload tries again and turns it on.
    async fn turn_off_new(&self, fresh: PortStatus, error: BindingError) -> BindingError {
        let error = self.turn_off(&fresh.port, fresh.index, error).await;
        if matches!(error, BindingError::TurnedOff { .. }) {
            // The status file has the records of rules that the rollback did not remove.
            let half_done = self.status(&fresh.port).ok().flatten();
            let status = half_done.unwrap_or(fresh);
            let status = PortStatus { state: PortState::Off(error_text(&error)), ..status };
            if let Err(unwritten) = status.write(&self.dir()) {
                tracing::error!("{}; the port {} stays off", error_text(&unwritten), status.port);
            }
        }
        error
    }

    /// Removes a port's filter like [`delete`](Self::delete), and turns the port on if netlaunch
    /// had turned it off because its rules could not be set.
    ///
    /// # Errors
    /// [`BindingError`]; the port then keeps its filter.
    pub async fn release(&self, port: &InterfaceName) -> Result<(), BindingError> {
        let status = self.status(port)?;
        self.delete(port).await?;
        if let Some(status) = status {
            self.turn_on(&status).await;
        }
        Ok(())
    }

    /// Removes a port's filter. The learner of its address ends before the rules are removed.
    ///
    /// # Errors
    /// [`BindingError`]; the port then keeps its filter.
    pub async fn delete(&self, port: &InterfaceName) -> Result<(), BindingError> {
        let dismissed = self.dismiss(port).await?;
        let (lock, Overview { own, others, mut stale }) = loop {
            let (lock, overview) = self.lock_for(OwnPort::Named(port)).await?;
            let mut all = overview.own.iter().chain(&overview.stale);
            let index = all.find(|status| status.port == *port).map(|status| status.index);
            let Some(index) = index.filter(|index| self.locks.is_held(*index)) else {
                break (lock, overview);
            };
            // The learner may be waiting for this lock, so release it and ask again. A learner that
            // starts late may be there although the port does not learn any more.
            drop(lock);
            self.dismiss_learner(port, index).await?;
        };
        lock.check(port)?;
        if !own.iter().chain(&stale).any(|status| status.port == *port) {
            return Err(BindingError::Unbound(port.clone()));
        }
        stale.extend(own);
        self.change(&lock, Vec::new(), &stale, &others).await?;
        self.write_index(&lock, others, &[]);
        drop(lock);
        // Race: another command may have found no learner and started one in the meantime.
        match dismissed {
            Some(index) => self.dismiss_learner(port, index).await,
            None => Ok(()),
        }
    }

    /// Ends the learner of a port. Returns the interface index if the port learns.
    pub(super) async fn dismiss(&self, port: &InterfaceName) -> Result<Option<u32>, BindingError> {
        match self.status(port)? {
            Some(status) if status.learns => {
                self.dismiss_learner(port, status.index).await?;
                Ok(Some(status.index))
            }
            _ => Ok(None),
        }
    }

    pub(super) async fn dismiss_learner(
        &self,
        port: &InterfaceName,
        index: u32,
    ) -> Result<(), BindingError> {
        let dismissed = self.locks.dismiss(index).await;
        let left = dismissed.map_err(|source| self.lock_error(port, source))?;
        if !left {
            // A learner that does not answer cannot change a port without a filter.
            tracing::warn!(
                "the process that learns the address of the port {port} does not answer"
            );
        }
        Ok(())
    }
}
