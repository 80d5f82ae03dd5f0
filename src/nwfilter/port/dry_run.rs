//! Compiles and renders the filter of a binding, and changes nothing.

use super::compile_port::{AddressState, compile_port};
use super::{BindingError, Bindings, FailedPorts};
use crate::firewall::{FirewallBackend, NoUsableBackend, PortFilter, PortPlan, Script, Unwritable};
use crate::nwfilter::{Binding, Compiler};

impl Bindings {
    /// Checks that the filter of a binding compiles to rules. The port need not exist.
    ///
    /// # Errors
    /// The filter does not compile to rules.
    pub fn check(&self, binding: &Binding) -> Result<(), BindingError> {
        let filters = self.store.tree(&binding.filter)?;
        compile_port(binding, &mut Compiler::new(&filters), AddressState::Pending).map(drop)
    }

    /// Returns the scripts that bind a filter on a host without any netlaunch rules. Runs no
    /// command; the interface index in the scripts is 0, since there is no port.
    ///
    /// # Errors
    /// The filter does not compile to rules.
    pub fn scripts(&self, binding: &Binding) -> Result<Vec<Script>, BindingError> {
        let filters = self.store.tree(&binding.filter)?;
        let rules =
            compile_port(binding, &mut Compiler::new(&filters), AddressState::Pending)?.rules;
        let extras = self.extras();
        let mut tried = Vec::new();
        let port = binding.port.clone();
        for backend in
            self.settings.firewall_backend.map_or(FirewallBackend::ORDER.to_vec(), |b| vec![b])
        {
            let filter = PortFilter { index: 0, port: port.clone(), rules: rules.clone(), backend };
            match PortPlan::new(&[filter], extras) {
                Ok(plan) => return Ok(plan.scripts()),
                Err(Unwritable { port, error }) => {
                    tried.push((backend, FailedPorts { ports: vec![port], error }));
                }
            }
        }
        Err(NoUsableBackend(tried).into())
    }
}
