//! Compiles and renders the filter of a binding, and changes nothing.

use super::compile_port::{LearnedAddresses, compile_port};
use super::{BindingError, Bindings, FailedPorts};
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
        let filters = self.store.tree(&binding.filter)?;
        let unknown = LearnedAddresses::of(None, true, true);
        compile_port(binding, &mut Compiler::new(&filters), &unknown).map(drop)
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
        let order = FirewallBackend::ORDER.to_vec();
        for backend in self.settings.firewall_backend.map_or(order, |b| vec![b]) {
            let one =
                PortFilter { index, port: port.clone(), rules: rules.clone(), backend, hooks };
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
