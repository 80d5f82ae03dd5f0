//! Makes a port without a bridge learn the address of its guest from DHCP.
//!
//! The kernel shows a packet socket the frames of such a guest only after the egress hook, where
//! the learning rules drop all frames that claim an address. DHCP passes these rules, and so is the
//! only method there. The method is written into the binding, so that every later command finds it.
//!
//! IPv6 addresses are not learned there. The learner asks a guest for its addresses before it
//! forgets them, and a frame that the host sends on such an interface goes to the network, not to
//! the guest.

use super::BindingError;
use super::compile_port::{LearnedAddresses, compile_port};
use crate::firewall::PortHooks;
use crate::nwfilter::{Binding, Compiler, Filters};

/// The parameter that selects how an address is learned.
const METHOD: &str = "CTRL_IP_LEARNING";

/// Sets the method by which the address of a port without a bridge is learned, if the filter needs
/// the address and the binding sets no method. Returns the binding, and a note for the user.
///
/// # Errors
/// [`BindingError::OnlyDhcp`] if the binding sets another method, [`BindingError::NoTest6`] if the
/// filter needs IPv6 addresses that the binding does not set.
pub(super) fn with_method(
    binding: &Binding,
    hooks: PortHooks,
    filters: &Filters,
) -> Result<(Binding, Option<String>), BindingError> {
    let mut binding = binding.clone();
    if hooks == PortHooks::Bridge {
        return Ok((binding, None));
    }
    let unknown = LearnedAddresses::of(None, true, true);
    let compiled = compile_port(&binding, &mut Compiler::new(filters), &unknown)?;
    if compiled.learns6 {
        return Err(BindingError::NoTest6(binding.port));
    }
    if !compiled.method.is_some_and(|method| method.by_traffic) {
        return Ok((binding, None));
    }
    if binding.parameters.iter().any(|(name, _)| name.as_str() == METHOD) {
        return Err(BindingError::OnlyDhcp(binding.port));
    }
    // Neither parse can fail: both texts are constants.
    if let (Ok(name), Ok(value)) = (METHOD.parse(), "dhcp".parse()) {
        binding.parameters.push((name, value));
    }
    let note = format!(
        "the port {} is on no bridge, so the guest's address is learned from DHCP alone",
        binding.port
    );
    Ok((binding, Some(note)))
}
