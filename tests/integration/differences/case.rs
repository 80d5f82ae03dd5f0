//! A filter with the filters that it refers to, which the search binds to a port.

use netlaunch::firewall::port_limits::limits;
use netlaunch::firewall::port_nft::{self, Extras};
use netlaunch::firewall::rules::port::PortRules;
use netlaunch::firewall::{FirewallBackend, port_iptables};
use netlaunch::nwfilter::{Filter, Filters, Variables, compile, flatten, parse, to_xml};
use netlaunch::types::error_text;

/// The settings of the rules: neither traces nor counters, and a reject where a backend has one.
pub const EXTRAS: Extras = Extras { trace: false, counters: false, reject: true };

/// The filters; the search binds the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case(pub Vec<Filter>);

impl Case {
    /// Reads the documents of a case, one after another; `None` if one is not valid.
    pub fn read(text: &str) -> Option<Self> {
        const END: &str = "</filter>";
        let documents = text.split_inclusive(END).filter(|part| part.contains(END));
        let uuid = "3e3fce45-4f53-4fa7-bb32-11f34168b82b".parse().ok();
        let filters = documents.map(|text| parse(text.trim().as_bytes(), uuid).ok());
        filters.collect::<Option<_>>().map(Case)
    }

    /// Returns the documents.
    pub fn text(&self) -> String {
        self.0.iter().map(to_xml).collect()
    }

    /// Compiles the rules. Returns the reason if they are not valid.
    pub fn rules(&self) -> Result<PortRules, String> {
        let filters: Filters =
            self.0.iter().map(|filter| (filter.name.clone(), filter.clone())).collect();
        let parts = flatten(&self.0[0], &filters, &Variables::default())
            .map_err(|error| error_text(&error))?;
        compile(&parts).map(|(rules, _)| rules).map_err(|error| error_text(&error))
    }
}

/// Returns the reason why a backend need not agree with `explain` about these rules: it refuses
/// them, or `nwfilter check` prints that it carries a rule out in another way.
pub fn refusal(rules: &PortRules, backend: FirewallBackend) -> Option<String> {
    let port = "vnet0".parse().unwrap();
    match backend {
        FirewallBackend::Nftables => {
            port_nft::port(1, &port, rules, EXTRAS).err().map(|error| error_text(&error))
        }
        FirewallBackend::Iptables => {
            if let Err(error) = port_iptables::port(1, &port, rules) {
                return Some(error_text(&error));
            }
            const PRINTED: [&str; 2] =
                ["with iptables it may apply to other", "with iptables it never applies"];
            let printed = |text: &String| PRINTED.iter().any(|words| text.contains(words));
            limits(&port, rules).into_iter().map(|limit| limit.text).find(printed)
        }
    }
}
