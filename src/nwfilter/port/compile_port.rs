//! Compiles the filter of a binding to the rules of its port. If only the guest's addresses are
//! missing, the rules are those that let netlaunch learn them.
//!
//! | `IP` or `IPV6` | `CTRL_IP_LEARNING` | Result |
//! |---|---|---|
//! | has a value, or no rule uses it | any value | the filter's rules |
//! | has no value; all others have one | `any`, or not set | learned from DHCP and traffic |
//! | has no value; all others have one | `dhcp` | learned from DHCP |
//! | has no value; all others have one | `none` | an error |
//!
//! If the IPv4 address is learned, `DHCPSERVER` may name the servers whose answers count. Otherwise
//! `DHCPSERVER` is a variable like any other, and may hold an IPv6 address. `DHCPV6SERVER` does the
//! same for IPv6 addresses. It is another variable, because one filter may need both.
//!
//! Each version of IP waits for its own address ([`Pending`]): while one is unknown, the rules for
//! the other version are those of the filter. A rule of the filter that uses the unknown address
//! then has a multicast address in its place. No host has such an address, so a rule that accepts
//! the guest's packets accepts none, and a rule that drops the packets of others drops all.
//!
//! While an address is unknown, the filter's rules are compiled as well, with sample addresses. So
//! a filter that fails with every address is refused at once, and not when the address is learned.
//! IPv6 addresses are compiled as a list of one and as the longest list, because a rule that uses
//! the list together with another one fails with some lengths.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::{BindingError, PortStatus};
use crate::firewall::rules::port::PortRules;
use crate::nwfilter::learn::{MOST_ADDRESSES, Method, Method6, Pending, SavedLease};
use crate::nwfilter::{
    Binding, Compiler, RulesError, StoreError, TreeError, VariableName, VariableValue, Variables,
    Warning,
};

/// The samples for addresses that are not known yet (RFC 5737, RFC 3849).
const SAMPLE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SAMPLE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// Addresses that no host can have, and that no group uses (RFC 5771, 4; RFC 4291, 2.7).
const NO_HOST: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 0);
const NO_HOST6: Ipv6Addr = Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0);

/// Whether the IPv4 address of a port's guest is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddressState {
    /// The address is unknown, and the port does not learn.
    NotLearned,
    /// The port learns, and the address is not known yet.
    Pending,
    /// The address was learned.
    Known(Ipv4Addr),
}

impl AddressState {
    /// Returns the learned address.
    pub(super) fn known(self) -> Option<Ipv4Addr> {
        match self {
            AddressState::Known(address) => Some(address),
            AddressState::NotLearned | AddressState::Pending => None,
        }
    }
}

/// The state of the addresses of a port's guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LearnedAddresses {
    /// The IPv4 address.
    pub(super) v4: AddressState,
    /// The IPv6 addresses, the oldest first; `None` if the port does not learn them.
    pub(super) v6: Option<Vec<Ipv6Addr>>,
}

impl LearnedAddresses {
    /// The port does not learn.
    pub(super) const NONE: Self = LearnedAddresses { v4: AddressState::NotLearned, v6: None };

    /// Returns the addresses of a saved lease, for a port that learns these versions of IP.
    pub(super) fn of(saved: Option<&SavedLease>, learns4: bool, learns6: bool) -> Self {
        let lease = saved.and_then(|saved| saved.lease);
        let v4 = lease.map_or(AddressState::Pending, |lease| AddressState::Known(lease.address));
        let v6 = saved.map(|saved| saved.leases6.iter().map(|lease| lease.address).collect());
        LearnedAddresses {
            v4: if learns4 { v4 } else { AddressState::NotLearned },
            v6: learns6.then(|| v6.unwrap_or_default()),
        }
    }
}

/// The rules for a port.
#[derive(Debug, Clone)]
pub(super) struct CompiledPort {
    /// The rules to set now.
    pub(super) rules: Arc<PortRules>,
    /// The rules that follow when the addresses are known, compiled with sample addresses.
    pub(super) pending_rules: Option<Arc<PortRules>>,
    /// Warnings of the compiler for the user.
    pub(super) warnings: Vec<Warning>,
    /// How addresses are learned, if the filter needs one that the binding does not set.
    pub(super) method: Option<Method>,
    /// Whether the IPv4 address is learned.
    pub(super) learns4: bool,
    /// Whether IPv6 addresses are learned.
    pub(super) learns6: bool,
    /// A note on parameters of the binding that no rule uses, if there are any.
    pub(super) unused: Option<String>,
}

impl CompiledPort {
    /// Records in the status which addresses the port learns.
    pub(super) fn set_learning(&self, status: &mut PortStatus) {
        status.learns = self.method.is_some();
        status.learns6 = self.learns6;
        status.only6 = self.learns6 && !self.learns4;
    }
}

/// Compiles the filter of `binding` with the filters that `compiler` has.
///
/// # Errors
/// The filter does not compile, or a learning parameter is not valid.
pub(super) fn compile_port(
    binding: &Binding,
    compiler: &mut Compiler<'_>,
    addresses: &LearnedAddresses,
) -> Result<CompiledPort, BindingError> {
    let port = || binding.port.clone();
    let Some(filter) = compiler.filter(&binding.filter) else {
        return Err(StoreError::Unknown(binding.filter.clone()).into());
    };
    let mut compile = |variables: &Variables| {
        compiler.rules(filter, variables).map_err(|error| match error {
            RulesError::Tree(error) => BindingError::Tree { port: port(), error },
            RulesError::Compile(error) => BindingError::Compile { port: port(), error },
        })
    };
    let variables = binding.variables();
    let mode = mode(&variables)?;
    let error = match compile(&variables) {
        Ok((rules, warnings)) => {
            let (pending_rules, method) = (None, None);
            let [learns4, learns6] = [false; 2];
            let unused = compiler.unused(filter, &binding.parameters, &LEARNING_PARAMETERS);
            return Ok(CompiledPort {
                rules,
                pending_rules,
                warnings,
                method,
                learns4,
                learns6,
                unused,
            });
        }
        Err(error) => error,
    };
    let (Some([learns4, learns6]), Some(mode)) = (lacks_only_addresses(&error), mode) else {
        return Err(error);
    };
    let known6 = addresses.v6.as_deref().unwrap_or_default();
    if (learns4 && addresses.v4 == AddressState::NotLearned) || (learns6 && addresses.v6.is_none())
    {
        return Err(error);
    }
    let method = mode.method(if learns4 { servers(&variables)? } else { Vec::new() });
    if learns6 {
        servers6(&variables)?;
        compile(&with(&variables, SAMPLE, &longest_sample()))?;
    }
    let v4 = addresses.v4.known();
    let or = |list: &[Ipv6Addr], other| if list.is_empty() { vec![other] } else { list.to_vec() };
    let (rules, warnings) = compile(&with(&variables, v4.unwrap_or(SAMPLE), &or(known6, SAMPLE6)))?;
    let pending = Pending {
        v4: Some(method.clone()).filter(|_| learns4 && v4.is_none()),
        v6: learns6 && known6.is_empty(),
    };
    let (rules, pending_rules) = if pending == Pending::default() {
        (rules, None)
    } else {
        // Without any address, only the frames that get one pass.
        let is_rest_known = if learns6 { pending.v4.is_none() || !pending.v6 } else { !learns4 };
        let clients = rules.from_guest.dhcp_clients();
        let mut learning = if is_rest_known {
            let unused = with(&variables, v4.unwrap_or(NO_HOST), &or(known6, NO_HOST6));
            pending.rules(binding.mac, Some(&compile(&unused)?.0))
        } else {
            pending.rules(binding.mac, None)
        };
        if pending.v4.is_some() {
            learning.from_guest.packets.extend(clients);
        }
        (Arc::new(learning), Some(rules))
    };
    let method = Some(method);
    let unused = compiler.unused(filter, &binding.parameters, &LEARNING_PARAMETERS);
    Ok(CompiledPort { rules, pending_rules, warnings, method, learns4, learns6, unused })
}

/// The variables that can be learned.
const ADDRESS: &str = "IP";
const ADDRESS6: &str = "IPV6";

/// The parameters that say how addresses are learned.
const LEARNING: &str = "CTRL_IP_LEARNING";
const SERVER: &str = "DHCPSERVER";
const SERVER6: &str = "DHCPV6SERVER";

/// The parameters that take part in learning, also where no rule uses them: neighbours of the port
/// learn none of these addresses.
const LEARNING_PARAMETERS: [&str; 5] = [ADDRESS, ADDRESS6, LEARNING, SERVER, SERVER6];

/// Returns the variables with these addresses, where the binding does not set them.
fn with(variables: &Variables, v4: Ipv4Addr, v6: &[Ipv6Addr]) -> Variables {
    let mut all = variables.clone();
    // No parse can fail: the text of an address is a valid value, and the names are valid.
    let values = |addresses: Vec<String>| addresses.iter().filter_map(|a| a.parse().ok()).collect();
    if let (Ok(name), Ok(name6)) = (ADDRESS.parse(), ADDRESS6.parse()) {
        all.set_default_list(name, values(vec![v4.to_string()]));
        all.set_default_list(name6, values(v6.iter().map(Ipv6Addr::to_string).collect()));
    }
    all
}

/// Returns as many sample addresses as a guest can have.
fn longest_sample() -> Vec<Ipv6Addr> {
    let sample = |number: u128| Ipv6Addr::from(u128::from(SAMPLE6) + number);
    (0..MOST_ADDRESSES as u128).map(sample).collect()
}

/// Returns whether IP and IPV6 have no value, if the error is that only these have none.
fn lacks_only_addresses(error: &BindingError) -> Option<[bool; 2]> {
    let BindingError::Tree { error, .. } = error else { return None };
    let TreeError::Variables { missing, .. } = error.as_ref() else { return None };
    let is = |name: &str| missing.iter().any(|used| used.name.as_str() == name);
    let all = missing.iter().all(|used| [ADDRESS, ADDRESS6].contains(&used.name.as_str()));
    all.then(|| [is(ADDRESS), is(ADDRESS6)])
}

/// Returns how the parameters say that the IPv4 address is learned; `None` if learning is off.
///
/// # Errors
/// `CTRL_IP_LEARNING` or `DHCPSERVER` has a value that is not valid.
pub(super) fn method(variables: &Variables) -> Result<Option<Method>, BindingError> {
    mode(variables)?.map(|mode| Ok(mode.method(servers(variables)?))).transpose()
}

/// Returns how the parameters say that IPv6 addresses are learned; `None` if learning is off.
///
/// # Errors
/// `CTRL_IP_LEARNING` or `DHCPV6SERVER` has a value that is not valid.
pub(super) fn method6(variables: &Variables) -> Result<Option<Method6>, BindingError> {
    let method = |mode| Ok(Method6 { by_test: mode == Mode::Any, servers: servers6(variables)? });
    mode(variables)?.map(method).transpose()
}

/// The values of `CTRL_IP_LEARNING` that turn learning on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Any,
    Dhcp,
}

impl Mode {
    fn method(self, servers: Vec<Ipv4Addr>) -> Method {
        Method { by_traffic: self == Mode::Any, servers }
    }
}

/// Returns how `CTRL_IP_LEARNING` says that addresses are learned; `None` if learning is off.
fn mode(variables: &Variables) -> Result<Option<Mode>, BindingError> {
    match values(variables, LEARNING) {
        [] => Ok(Some(Mode::Any)),
        [value] if value.as_str().eq_ignore_ascii_case("any") => Ok(Some(Mode::Any)),
        [value] if value.as_str().eq_ignore_ascii_case("dhcp") => Ok(Some(Mode::Dhcp)),
        [value] if value.as_str().eq_ignore_ascii_case("none") => Ok(None),
        values => {
            let values: Vec<&str> = values.iter().map(VariableValue::as_str).collect();
            Err(BindingError::LearningParameter(values.join(", ")))
        }
    }
}

fn servers(variables: &Variables) -> Result<Vec<Ipv4Addr>, BindingError> {
    let server = |value: &VariableValue| {
        let address: Result<Ipv4Addr, _> = value.as_str().parse();
        address.map_err(|_| BindingError::ServerParameter(value.to_string()))
    };
    values(variables, SERVER).iter().map(server).collect()
}

fn servers6(variables: &Variables) -> Result<Vec<Ipv6Addr>, BindingError> {
    let server = |value: &VariableValue| {
        let address: Result<Ipv6Addr, _> = value.as_str().parse();
        address.map_err(|_| BindingError::Server6Parameter(value.to_string()))
    };
    values(variables, SERVER6).iter().map(server).collect()
}

fn values<'a>(variables: &'a Variables, name: &str) -> &'a [VariableValue] {
    let name: Option<VariableName> = name.parse().ok();
    name.and_then(|name| variables.get(&name)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
