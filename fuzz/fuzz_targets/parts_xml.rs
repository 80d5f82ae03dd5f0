//! Parses any bytes as the binding of a port, and as one element of a network's lists.
//!
//! A written binding parses to the same binding. A network with the element is a valid network, and
//! a written one parses to the same network.

#![no_main]
#![allow(clippy::unwrap_used, reason = "a finding is a panic")]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use netlaunch::network::update::{NetworkUpdate, UpdateSection, UpdateVerb};
use netlaunch::network::{Network, check, parse, to_xml};
use netlaunch::nwfilter::Binding;
use netlaunch::xml::read;
use netlaunch_fuzz::in_one_line;

const NETWORK: &[u8] = include_bytes!("../../tests/fixtures/network/everything.xml");
const VERBS: [UpdateVerb; 4] =
    [UpdateVerb::AddFirst, UpdateVerb::AddLast, UpdateVerb::Modify, UpdateVerb::Delete];

fuzz_target!(|bytes: &[u8]| {
    match Binding::parse(bytes) {
        Ok(binding) => {
            let written = binding.to_xml();
            let again = Binding::parse(written.as_bytes()).unwrap();
            assert_eq!(again, binding, "{written}");
            assert_eq!(again.to_xml(), written);
            binding.variables();
        }
        Err(error) => in_one_line(&error),
    }
    if read(bytes).is_err() {
        return;
    }
    for section in UpdateSection::ALL {
        for verb in VERBS {
            for parent in [None, Some(1)] {
                let update = NetworkUpdate { verb, section, xml: bytes.to_vec(), parent };
                match update.apply(network()) {
                    Ok(network) => comes_back(&network),
                    Err(error) => in_one_line(&error),
                }
            }
        }
    }
});

fn comes_back(network: &Network) {
    let written = to_xml(network);
    assert_eq!(&parse(written.as_bytes(), None).unwrap().network, network, "{written}");
    assert_eq!(check(network), Ok(()));
}

fn network() -> &'static Network {
    static NETWORK_WITH_ALL: OnceLock<Network> = OnceLock::new();
    NETWORK_WITH_ALL.get_or_init(|| parse(NETWORK, None).unwrap().network)
}
