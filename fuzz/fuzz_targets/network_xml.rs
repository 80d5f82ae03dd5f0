//! Parses any bytes as a network. A written network parses to the same network, and passes the
//! checks if and only if the original does.

#![no_main]
#![allow(clippy::unwrap_used, reason = "a finding is a panic")]

use libfuzzer_sys::fuzz_target;
use netlaunch::network::{Fill, Network, check, check_against, load, parse, to_xml};
use netlaunch_fuzz::{UUID, in_one_line};

fuzz_target!(|bytes: &[u8]| {
    let fill = Fill {
        uuid: UUID.parse().unwrap(),
        mac: "52:54:00:00:00:01".parse().unwrap(),
        bridge: Some("virbr9".parse().unwrap()),
    };
    let loaded = load(bytes, Some(&fill)).inspect_err(|error| in_one_line(error));
    let Ok(network) = parse(bytes, Some(&fill)).map(|parsed| parsed.network) else {
        assert!(loaded.is_err());
        return;
    };
    let written = to_xml(&network);
    let again = parse(written.as_bytes(), None).unwrap().network;
    assert_eq!(again, network, "{written}");
    assert_eq!(to_xml(&again), written);
    assert_eq!(load(written.as_bytes(), None).is_ok(), loaded.is_ok(), "{written}");
    if loaded.is_ok() {
        stands_alone(&network);
    }
});

/// Checks that a valid network does not conflict with itself, and conflicts with a copy under
/// another name.
fn stands_alone(network: &Network) {
    assert_eq!(check_against(network, [network]), Ok(()));
    let copy = Network {
        name: "copy".parse().unwrap(),
        uuid: "00000000-0000-4000-8000-000000000000".parse().unwrap(),
        ..network.clone()
    };
    assert_eq!(check(&copy), Ok(()));
    assert!(check_against(&copy, [network]).is_err());
}
