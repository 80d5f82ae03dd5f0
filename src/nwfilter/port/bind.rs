//! Putting a filter on a port, and taking it away.

use super::change::Wanted;
use super::meaning::meaning;
use super::ports::Statuses;
use super::{BindingError, Bindings, Created, Status, known, status};
use crate::firewall::Backend;
use crate::firewall::port_limits::link_local;
use crate::nwfilter::{Binding, Compiler, Evasion, Warning, evasions};
use crate::process::Interfaces;
use crate::rules::port::PortRules;
use crate::types::InterfaceName;

impl Bindings {
    /// Puts a filter on a port. Needs a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// [`BindingError`]; then the port is as it was before, or [`BindingError::TurnedOff`].
    pub async fn create(&self, binding: &Binding) -> Result<Created, BindingError> {
        let port = &binding.port;
        let index = self.number(port)?;
        let (tools, statuses) = self.lock().await?;
        let Statuses { live, stale, .. } = self.settle(&tools, statuses).await?;
        tools.check(port)?;
        if live.iter().any(|status| status.port == *port) {
            return Err(BindingError::Bound(port.clone()));
        }
        let filters = self.store.tree(&binding.filter)?;
        let mut status = Status {
            version: status::VERSION,
            port: port.clone(),
            index,
            xml: binding.to_xml(),
            complete: false,
            learns: true,
            address: None,
            failed: None,
            turned_off: false,
            refused: None,
            backend: self.settings.firewall_backend.unwrap_or(Backend::Nftables),
            trace: self.settings.enable_trace,
            counters: self.settings.enable_counters,
            definitions: Some(self.store.dir().to_owned()),
            recorded: Vec::new(),
        };
        // From an earlier binding of the same guest to the same port.
        self.check_named(&status, binding, &live).await?;
        let kept = self.inherited(&status, binding, &live).await?;
        let known = known(kept.as_ref());
        let made = meaning(binding, &mut Compiler::new(&filters), known)?;
        status.learns = made.method.is_some();
        // It listens before the rules let anything through that teaches.
        let learning = match made.method {
            None => None,
            Some(method) => Some(self.listen(&status, binding, method, kept).await?),
        };
        let rules = made.rules.clone();
        let wanted = Wanted::new(status, made.rules, made.to_come.clone(), known);
        let fresh = wanted.status.clone();
        if let Err(error) = self.change(&tools, vec![wanted], &stale, &live).await {
            // What the backend has no words for was refused before anything was begun.
            return Err(match learning.is_some() && error.was_tried() {
                true => self.turn_off_unlearnt(fresh, error).await,
                false => error,
            });
        }
        let mut notes: Vec<String> = made.warnings.iter().map(Warning::to_string).collect();
        notes.extend(self.evasions_of(binding, made.to_come.as_ref().unwrap_or(&rules)));
        Ok(Created { notes, learning })
    }

    /// The ways around a port's filter that its user may not expect. What libvirt's filters are known
    /// to leave open is for `netlaunch nwfilter check`.
    fn evasions_of(&self, binding: &Binding, rules: &PortRules) -> Vec<String> {
        let variables = binding.variables();
        let address = "IP".parse().ok().and_then(|name| variables.get(&name)?.first());
        let address = address.and_then(|address| address.as_str().parse().ok());
        let found = evasions(rules, binding.mac, address);
        let encapsulated = found.iter().filter(|e| matches!(e, Evasion::Encapsulated { .. }));
        let note = |text: String| format!("the filter {}: {text}", binding.filter);
        let mut notes: Vec<String> = encapsulated.map(|e| note(e.to_string())).collect();
        if let Ok(status) = self.get(&binding.port) {
            notes.extend(link_local(&binding.port, rules, status.backend).map(note));
        }
        notes
    }

    /// The number of a port.
    fn number(&self, port: &InterfaceName) -> Result<u32, BindingError> {
        let failed = |source| BindingError::State { dir: self.dir(), source };
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

    /// Turns a port off that was to learn and got no rules. It is bound all the same, so that a
    /// reload tries again and turns it on.
    async fn turn_off_unlearnt(&self, fresh: Status, error: BindingError) -> BindingError {
        let error = self.turn_off(&fresh.port, fresh.index, error).await;
        if matches!(error, BindingError::TurnedOff { .. }) {
            // What could not be undone is written there.
            let half_done = self.status(&fresh.port).ok().flatten();
            let status = half_done.unwrap_or(fresh);
            let failed = Some(error.to_string());
            let status = Status { complete: true, turned_off: true, failed, ..status };
            if let Err(unwritten) = status.write(&self.dir()) {
                tracing::error!("{unwritten}; the port {} stays off", status.port);
            }
        }
        error
    }

    /// Takes a port's filter away, as [`delete`](Self::delete) does, and turns it on again where it
    /// was off for want of rules.
    ///
    /// # Errors
    /// [`BindingError`]; then it still has it.
    pub async fn release(&self, port: &InterfaceName) -> Result<(), BindingError> {
        let status = self.status(port)?;
        self.delete(port).await?;
        if let Some(status) = status {
            self.turn_on(&status).await;
        }
        Ok(())
    }

    /// Takes a port's filter away. Whoever learns its address has ended before its rules go.
    ///
    /// # Errors
    /// [`BindingError`]; then it still has it.
    pub async fn delete(&self, port: &InterfaceName) -> Result<(), BindingError> {
        let dismissed = self.dismiss(port).await?;
        let (lock, statuses) = loop {
            let (lock, statuses) = self.lock().await?;
            let mut all = statuses.live.iter().chain(&statuses.stale);
            let status = all.find(|status| status.port == *port);
            if !status.is_some_and(|status| self.seats.is_held(status.index)) {
                break (lock, statuses);
            }
            // It may just wait for the lock.
            drop(lock);
            self.dismiss(port).await?;
        };
        lock.check(port)?;
        let Statuses { mut live, mut stale, .. } = self.settle(&lock, statuses).await?;
        let known = live.iter().chain(&stale).any(|status| status.port == *port);
        if !known {
            return Err(BindingError::Unbound(port.clone()));
        }
        if let Some(at) = live.iter().position(|status| status.port == *port) {
            stale.push(live.remove(at));
        }
        self.change(&lock, Vec::new(), &stale, &live).await?;
        drop(lock);
        // Another command may have missed who learnt, and started another meanwhile.
        match dismissed {
            Some(index) => self.leave(port, index).await,
            None => Ok(()),
        }
    }

    /// Ends who learns the address of a port, where it is learnt. Returns its number.
    pub(super) async fn dismiss(&self, port: &InterfaceName) -> Result<Option<u32>, BindingError> {
        match self.status(port)? {
            Some(status) if status.learns => {
                self.leave(port, status.index).await?;
                Ok(Some(status.index))
            }
            _ => Ok(None),
        }
    }

    pub(super) async fn leave(&self, port: &InterfaceName, index: u32) -> Result<(), BindingError> {
        let dismissed = self.seats.dismiss(index).await;
        let left = dismissed.map_err(|source| self.seat_error(port, source))?;
        if !left {
            // It changes nothing of a port that has no filter.
            tracing::warn!("who learns the address of the port {port} does not answer");
        }
        Ok(())
    }
}
