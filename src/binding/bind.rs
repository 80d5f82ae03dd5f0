//! Putting a filter on a port, and taking it away.

use nix::net::if_::if_nametoindex;

use super::change::Wanted;
use super::meaning::meaning;
use super::{BindingError, Bindings, Created, Status, known};
use crate::firewall::Backend;
use crate::nwfilter::{Binding, Compiler, Warning};
use crate::types::InterfaceName;

impl Bindings {
    /// Puts a filter on a port. Needs a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// [`BindingError`]; then the port is as it was before, or [`BindingError::TurnedOff`].
    pub async fn create(&self, binding: &Binding) -> Result<Created, BindingError> {
        let port = &binding.port;
        let index =
            if_nametoindex(port.as_str()).map_err(|_| BindingError::NoPort(port.clone()))?;
        let tools = self.lock().await?;
        self.settle(&tools).await;
        let (live, stale) = self.statuses()?;
        if live.iter().any(|status| status.port == *port) {
            return Err(BindingError::Bound(port.clone()));
        }
        let filters = self.store.tree(&binding.filter)?;
        let mut status = Status {
            version: 1,
            port: port.clone(),
            index,
            xml: binding.to_xml(),
            complete: false,
            learns: true,
            address: None,
            failed: None,
            turned_off: false,
            backend: self.settings.firewall_backend.unwrap_or(Backend::Nftables),
            trace: self.settings.enable_trace,
            counters: self.settings.enable_counters,
            recorded: Vec::new(),
        };
        // From an earlier binding of the same guest to the same port.
        let kept = self.inherited(&status, binding).await?;
        let known = known(kept.as_ref());
        let made = meaning(binding, &mut Compiler::new(&filters), known)?;
        status.learns = made.method.is_some();
        // It listens before the rules let anything through that teaches.
        let learning = match made.method {
            None => None,
            Some(method) => Some(self.listen(&status, binding, method, kept).await?),
        };
        let wanted = Wanted::new(status, made.rules, made.to_come, known);
        if let Err(error) = self.change(&tools, vec![wanted], &stale, &live).await {
            let never_open = learning.is_some() && error.is_firewalls();
            return Err(if never_open { self.turn_off(port, index, error).await } else { error });
        }
        Ok(Created { notes: made.warnings.iter().map(Warning::to_string).collect(), learning })
    }

    /// Takes a port's filter away. Whoever learns its address has ended before its rules go.
    ///
    /// # Errors
    /// [`BindingError`]; then it still has it.
    pub async fn delete(&self, port: &InterfaceName) -> Result<(), BindingError> {
        let dismissed = self.dismiss(port).await?;
        let lock = loop {
            let lock = self.lock().await?;
            let is_back = |status: &Status| self.seats.is_held(status.index);
            if !self.status(port)?.as_ref().is_some_and(is_back) {
                break lock;
            }
            // It may just wait for the lock.
            drop(lock);
            self.dismiss(port).await?;
        };
        self.settle(&lock).await;
        let (mut live, mut stale) = self.statuses()?;
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
