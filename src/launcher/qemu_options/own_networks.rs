//! Finds the user-mode networks and the cards of the caller's own command line.
//!
//! netlaunch adds one network to a command line. It warns if the guest gets a second user-mode
//! network, and it refuses a second card on its own netdev.

use super::{Setting, Settings, boolean};

/// A user-mode network that QEMU makes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserNetwork {
    /// The option or section in the caller's spelling, for messages.
    pub written: String,
    /// Whether `restrict=on` keeps the guest from the host and from all other networks.
    pub restricted: bool,
}

/// Returns the user-mode networks: of slirp, and of a passt that QEMU starts itself.
///
/// The network of QEMU's default card does not count: QEMU omits that card if there is any
/// `-netdev`, and netlaunch adds one (tests/integration/qemu_options.rs checks this with QEMU).
pub fn user_networks(settings: &Settings) -> Vec<UserNetwork> {
    let user = |setting: &&Setting| {
        let kind = setting.parameters.get("type");
        // -nic without a type is a user-mode network.
        let kind = kind.or((setting.group == "nic").then_some(b"user"));
        kind.is_some_and(|kind| matches!(kind, b"user" | b"passt"))
    };
    let of = |group| settings.of_group(group);
    of("netdev")
        .chain(of("nic"))
        .chain(of("net"))
        .filter(user)
        .map(|setting| UserNetwork {
            written: setting.written.clone(),
            restricted: setting.parameters.get("restrict").and_then(boolean) == Some(true),
        })
        .collect()
}

/// Returns the option that attaches a card to the netdev `id`.
pub fn card_on<'a>(settings: &'a Settings, id: &str) -> Option<&'a Setting> {
    let cards = settings.of_group("device").chain(settings.of_group("net"));
    cards.into_iter().find(|setting| setting.parameters.is("netdev", id))
}

#[cfg(test)]
mod tests {
    use super::super::{CommandLine, ConfigFile};
    use super::*;
    use std::ffi::OsString;

    fn networks(line: &str) -> Vec<String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let text = b"[netdev \"a\"]\ntype = \"user\"\n[nic]\ntype = \"none\"\n".to_vec();
        let file = ConfigFile { path: "f".into(), text };
        let settings = CommandLine::parse(&words).settings(&[file]);
        user_networks(&settings).into_iter().map(|network| network.written).collect()
    }

    #[test]
    fn a_user_mode_network_is_found_in_each_spelling() {
        for (line, expected) in [
            ("-netdev user,id=a", &["-netdev user,id=a"][..]),
            ("--netdev id=a,type=user", &["-netdev id=a,type=user"]),
            (r#"-netdev {"type":"user","id":"a"}"#, &[r#"-netdev {"type":"user","id":"a"}"#]),
            ("-nic user,model=e1000", &["-nic user,model=e1000"]),
            ("-nic model=e1000", &["-nic model=e1000"]),
            ("-net nic -net user", &["-net user"]),
            ("-readconfig f", &["[netdev \"a\"] of f"]),
            ("-netdev tap,id=a -set netdev.a.type=user", &["-netdev tap,id=a"]),
            ("-netdev passt,id=a", &["-netdev passt,id=a"]),
            ("-nic none", &[]),
            ("-net none -nodefaults", &[]),
            ("-nic tap -netdev stream,id=user", &[]),
            ("-append -nic -name user", &[]),
            ("-nic", &[]),
            ("disk.img", &[]),
        ] {
            assert_eq!(networks(line), expected, "{line}");
        }
    }
}
