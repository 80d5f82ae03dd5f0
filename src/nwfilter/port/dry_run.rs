//! Compiles and renders the filter of a binding, and changes nothing.

use super::bridge::check_mac;
use super::compile_port::{LearnedAddresses, compile_port};
use super::{BindingError, Bindings, FailedPorts};
use crate::firewall::port_nft::PortTables;
use crate::firewall::{
    FirewallBackend, NoUsableBackend, PortFilter, PortHooks, PortPlan, Script, Unwritable,
};
use crate::nwfilter::{Binding, Compiler};

impl Bindings {
    /// Checks that the filter of a binding compiles to rules. The port need not exist.
    ///
    /// # Errors
    /// The filter does not compile to rules.
    pub fn check(&self, binding: &Binding) -> Result<(), BindingError> {
        check_mac(binding)?;
        let filters = self.store.tree(&binding.filter)?;
        let unknown = LearnedAddresses::of(None, true, true);
        compile_port(binding, &mut Compiler::new(&filters), &unknown).map(drop)
    }

    /// Checks that the filter of a binding compiles to rules, and that the backend of the guard of
    /// ports can express them on a bridge. The port need not exist.
    ///
    /// # Errors
    /// The errors of [`check`](Self::check), or [`BindingError::Firewall`].
    pub fn check_beside_guard(&self, binding: &Binding) -> Result<(), BindingError> {
        check_mac(binding)?;
        let filters = self.store.tree(&binding.filter)?;
        let unknown = LearnedAddresses::of(None, true, true);
        let compiled = compile_port(binding, &mut Compiler::new(&filters), &unknown)?;
        let backend = self.settings.firewall_backend.unwrap_or(FirewallBackend::Nftables);
        let (port, index, hooks) = (&binding.port, 0, PortHooks::Bridge);
        let tables = PortTables::default();
        for rules in [compiled.rules].into_iter().chain(compiled.pending_rules) {
            let one = PortFilter { index, port: port.clone(), rules, backend, hooks, tables };
            PortPlan::new(&[one], self.extras())?;
        }
        Ok(())
    }

    /// Checks that this process can take the lock of the filters of ports.
    ///
    /// # Errors
    /// [`BindingError::StateDir`], [`BindingError::Locked`] or [`BindingError::OtherNamespace`].
    pub async fn check_lock(&self) -> Result<(), BindingError> {
        self.lock().await.map(drop)
    }

    /// Returns the scripts that bind a filter on a host without any netlaunch rules. Runs no
    /// command; the interface index in the scripts is 0, since there is no port.
    ///
    /// # Errors
    /// The filter does not compile to rules.
    pub fn scripts(&self, binding: &Binding) -> Result<Vec<Script>, BindingError> {
        let filters = self.store.tree(&binding.filter)?;
        let unknown = LearnedAddresses::of(None, true, true);
        let rules = compile_port(binding, &mut Compiler::new(&filters), &unknown)?.rules;
        let mut tried = Vec::new();
        let (port, index, hooks) = (binding.port.clone(), 0, PortHooks::Bridge);
        let tables = PortTables::default();
        let order = FirewallBackend::ORDER.to_vec();
        for backend in self.settings.firewall_backend.map_or(order, |b| vec![b]) {
            let one = PortFilter {
                index,
                port: port.clone(),
                rules: rules.clone(),
                backend,
                hooks,
                tables,
            };
            match PortPlan::new(&[one], self.extras()) {
                Ok(plan) => return Ok(plan.scripts()),
                Err(Unwritable { port, error }) => {
                    tried.push((backend, FailedPorts { ports: vec![port], error }));
                }
            }
        }
        Err(NoUsableBackend(tried).into())
    }
}
